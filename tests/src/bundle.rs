//! OCI bundles for `cata-runtime`: a root of busybox and a specification to change.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{Done, Run, runtime_binary};
use crate::world::World;

/// A bundle, and the runtime it is given to.
#[derive(Debug)]
pub struct Bundle {
    /// Where it is.
    pub dir: PathBuf,
    /// Its specification: changes are written by the next command.
    pub spec: Value,
    runtime: PathBuf,
    state: PathBuf,
}

impl Bundle {
    /// A new one below the world's scratch directory, for `cata-runtime`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(world: &World, name: &str) -> Self {
        let dir = world.scratch().join(name);
        let rootfs = dir.join("rootfs");
        for part in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(part)).expect("a directory");
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
            .expect("busybox (Debian package busybox-static)");
        let applets = Run::new("/bin/busybox").arg("--list").done().ok().text();
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("a link");
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
        let runtime = runtime_binary();
        let _ = Run::new(&runtime).args(["spec", "--bundle"]).arg(&dir).done().ok();
        let text = fs::read(dir.join("config.json")).expect("what was written");
        let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
        spec["process"]["terminal"] = false.into();
        spec["root"]["readonly"] = false.into();
        Self { dir, spec, runtime, state: world.scratch().join("containers") }
    }

    /// Another program than the `cata-runtime` under test.
    pub fn use_runtime(&mut self, program: &Path) {
        program.clone_into(&mut self.runtime);
    }

    /// The root's path.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// What is known of a container.
    #[must_use]
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.state.join(id)
    }

    /// A script as the container's program.
    pub fn script(&mut self, script: &str) {
        self.spec["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    }

    /// An executable file in the root.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn executable(&self, path: &str, text: &str) {
        executable(&self.rootfs().join(path), text);
    }

    /// A command of the runtime, not run yet.
    ///
    /// # Panics
    /// When the specification cannot be written.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Run {
        let text = serde_json::to_vec_pretty(&self.spec).expect("JSON");
        fs::write(self.dir.join("config.json"), text).expect("a file");
        Run::new(&self.runtime).arg("--root").arg(&self.state).args(words)
    }

    /// The same, run.
    #[must_use]
    pub fn runtime<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Done {
        self.command(words).done()
    }

    /// `run` of the bundle under this id.
    #[must_use]
    pub fn run(&self, id: &str) -> Done {
        self.command(["run", "--bundle"]).arg(&self.dir).arg(id).done()
    }

    /// `create` of the bundle under this id.
    #[must_use]
    pub fn create(&self, id: &str) -> Done {
        self.command(["create", "--bundle"]).arg(&self.dir).arg(id).done()
    }

    /// A container's state, or nothing where there is none.
    #[must_use]
    pub fn state(&self, id: &str) -> Value {
        let done = self.runtime(["state", id]);
        serde_json::from_str(&done.stdout).unwrap_or_default()
    }
}

/// An executable file.
///
/// # Panics
/// When it cannot be written.
pub fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}
