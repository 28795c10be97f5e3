//! AppArmor: what the host has of it, and the engine's own profile, which is loaded once in a boot.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::plan::apparmor::{self, DEFAULT, Facts};
use crate::record::Record;

/// Where the kernel keeps profiles; loaded by [`COMPILERS`].
const POLICY: &str = "/sys/kernel/security/apparmor";
/// Debian's and Ubuntu's package apparmor.
const COMPILERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// What the compiler of 3.0 knew of.
const ABI: &str = "/etc/apparmor.d/abi/3.0";

impl Engine {
    /// What the host has.
    pub(crate) fn apparmor_facts(&self) -> Facts {
        let enabled = cata_runtime::has_apparmor();
        let loads = enabled && !self.host.rootless && Path::new(POLICY).is_dir() && compiler().is_some();
        Facts { enabled, loads }
    }

    /// The profile of a container as it would start now.
    pub(crate) fn apparmor(&self, record: &Record) -> Result<Option<String>> {
        Ok(apparmor::profile(&record.request, self.apparmor_facts())?.map(str::to_owned))
    }

    /// Sees to it that the profile is there: the engine's own is loaded unless it is.
    pub(crate) fn ready_apparmor(&self, profile: &str) -> Result<()> {
        if profile != DEFAULT {
            return Ok(());
        }
        let abi = Some(Path::new(ABI)).filter(|path| path.exists());
        let text = apparmor::text(abi);
        // Which text this engine has loaded. Somebody may have unloaded it since, or a new release has another one.
        let known = self.paths.state.join("apparmor");
        if fs::read_to_string(&known).is_ok_and(|known| known == text) && is_loaded(DEFAULT) {
            return Ok(());
        }
        load(&text)?;
        fs::write(&known, &text).map_err(Error::file("write", &known))
    }
}

fn compiler() -> Option<&'static str> {
    COMPILERS.into_iter().find(|path| Path::new(path).exists())
}

fn is_loaded(profile: &str) -> bool {
    let profiles = fs::read_to_string(Path::new(POLICY).join("profiles")).unwrap_or_default();
    profiles.lines().any(|line| line.strip_prefix(profile).is_some_and(|rest| rest.starts_with(" (")))
}

/// Replacing is done by the kernel in one step, so who comes at the same time does no harm.
fn load(text: &str) -> Result<()> {
    let failed = |why: String| Error::Unsupported {
        what: format!("the AppArmor profile `{DEFAULT}` could not be loaded: {why}"),
        hint: "use --security-opt apparmor=unconfined, or name a profile of the host's".to_owned(),
    };
    let compiler = compiler().ok_or_else(|| failed(format!("no {}", COMPILERS[0])))?;
    let mut command = Command::new(compiler);
    command.args(["--skip-cache", "--replace", "--quiet"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = { run }().map_err(|error| failed(format!("{compiler}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{compiler}: {} ({})", said.trim(), output.status)))
}
