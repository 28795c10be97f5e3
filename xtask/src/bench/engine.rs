//! The engines: how each is set up inside the world, and how it spells what all of them can do.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache::Recipe;
use cata_tests::command::cata_binary;
use cata_tests::world::World;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cata,
    Podman,
    Docker,
    Crun,
    Runc,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Cata, Self::Podman, Self::Docker, Self::Crun, Self::Runc];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cata => "cata",
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }

    /// Whether it only runs bundles: no images, no networks.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::Crun | Self::Runc)
    }
}

/// An engine that is ready.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    program: PathBuf,
    /// Before the verb.
    global: Vec<String>,
    bundle: PathBuf,
    daemon: Option<Child>,
}

impl Engine {
    /// Sets it up with the `busybox` image.
    pub(crate) fn prepare(kind: Kind, world: &World) -> Result<Self> {
        let home = world.scratch().join(kind.name());
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        let program = if kind == Kind::Cata { cata_binary() } else { PathBuf::from(kind.name()) };
        let mut engine = Self { kind, program, global: Vec::new(), bundle: home.clone(), daemon: None };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match kind {
            Kind::Cata => {}
            Kind::Podman => {
                let root = text(&home.join("root"));
                let flags = ["--root", &root, "--runroot", "/run/podman", "--cgroup-manager", "cgroupfs"];
                let more = ["--runtime", "crun", "--events-backend", "file", "--storage-driver", "overlay"];
                engine.global = flags.iter().chain(&more).map(|flag| (*flag).to_owned()).collect();
            }
            Kind::Docker => engine.daemon = Some(docker_daemon(&home)?),
            Kind::Crun | Kind::Runc => make_bundle(kind, &home)?,
        }
        engine.version()?;
        if !kind.is_raw() {
            engine.import("busybox")?;
        }
        Ok(engine)
    }

    /// `engine args…`, silent.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.global)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if self.kind == Kind::Docker {
            command.env("DOCKER_HOST", "unix:///run/bench-docker.sock");
        }
        command
    }

    /// Runs it and insists on success.
    pub(crate) fn call(&self, args: &[&str]) -> Result<()> {
        let output = self.command(args).output().with_context(|| format!("run `{}`", self.kind.name()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{} {}`: {}\n{said}",
            self.kind.name(),
            args.join(" "),
            output.status
        );
        Ok(())
    }

    /// Runs the bundle of a raw runtime once.
    pub(crate) fn run_bundle(&self, id: &str) -> Result<()> {
        let bundle = self.bundle.to_string_lossy();
        self.call(&["run", "--bundle", &bundle, id])
    }

    fn version(&self) -> Result<()> {
        let output =
            self.command(&["--version"]).stdout(Stdio::piped()).output().context("ask for its version")?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{}: {}", self.kind.name(), text.lines().next().unwrap_or_default());
        Ok(())
    }

    fn import(&self, image: &str) -> Result<()> {
        let args = Recipe::of(image).import_args()?;
        let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        self.call(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn docker_daemon(home: &Path) -> Result<Child> {
    let log = fs::File::create(home.join("log")).context("create the daemon's log")?;
    let mut command = Command::new("dockerd");
    command.args(["--host", "unix:///run/bench-docker.sock", "--exec-root", "/run/bench-docker"]);
    command.args(["--pidfile", "/run/bench-docker.pid", "--data-root"]).arg(home.join("root"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut daemon = command.spawn().context("run `dockerd`")?;
    let started = Instant::now();
    while UnixStream::connect("/run/bench-docker.sock").is_err() {
        if let Some(status) = daemon.try_wait()? {
            let log = fs::read_to_string(home.join("log")).unwrap_or_default();
            bail!("dockerd: {status}: {}", log.lines().last().unwrap_or_default());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "dockerd does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(daemon)
}

/// A bundle that runs `true` from busybox, as `spec` writes it, without a terminal.
fn make_bundle(kind: Kind, home: &Path) -> Result<()> {
    let rootfs = home.join("rootfs");
    fs::create_dir_all(&rootfs).context("create the bundle")?;
    let tar = Recipe::of("busybox").made()?;
    let unpacked =
        Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(&rootfs).status().context("run `tar`")?;
    ensure!(unpacked.success(), "tar: {unpacked}");
    let made = Command::new(kind.name()).arg("spec").current_dir(home).status();
    ensure!(made.with_context(|| format!("run `{} spec`", kind.name()))?.success(), "no spec");
    let config = home.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config)?).context("read the spec")?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["true"]);
    fs::write(&config, spec.to_string()).context("write the spec")?;
    Ok(())
}
