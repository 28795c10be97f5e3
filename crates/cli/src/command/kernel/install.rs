//! `kernel install`.

use cata_engine::kernel::InstallRequest;
use cata_engine::kernels::image::Arch;
use cata_engine::kernels::package;
use cata_spec::Platform;
use clap::Args;

use crate::render::error::Failure;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Call it so (its release by default)
    #[arg(long, value_name = "string")]
    name: Option<String>,
    /// Take a kernel for another platform (linux/arm64)
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Print only the kernel's name
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "PACKAGE")]
    package: Option<String>,
}

impl Verb for Install {
    fn call(self, session: &Session) -> Outcome {
        let arch = arch(self.platform.as_deref())?;
        let engine = session.engine()?;
        if !self.quiet {
            let package = self.package.as_deref().unwrap_or_else(|| package::default(arch));
            session::note(format!("downloading {package} (nothing is installed on this machine)"));
        }
        let made = engine.kernel_install(&InstallRequest { package: self.package, arch, name: self.name })?;
        super::tell(&made)?;
        Ok(Exit::OK)
    }
}

/// The processor of a platform.
fn arch(platform: Option<&str>) -> Result<Arch, Failure> {
    let Some(text) = platform.filter(|text| !text.is_empty()) else { return Ok(Arch::NATIVE) };
    let platform = Platform::parse(text).map_err(|error| Failure::flag(error.to_string()))?;
    let arch = (platform.os == "linux").then(|| Arch::parse(&platform.architecture)).flatten();
    arch.ok_or_else(|| {
        Failure::flag(format!("there is no kernel for {text}: linux/amd64 and linux/arm64 can be booted"))
    })
}
