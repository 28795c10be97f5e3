//! A systemd of a world's own: process 1 of a pid namespace inside of it, with units of ours alone and a part of
//! the world's cgroups.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, Hierarchy};
use crate::command::{PATIENCE, Run, Running, eventually};

/// The name of its cgroups in the world.
const GROUP: &str = "systemd-of-the-test";

/// It runs until this is dropped.
#[derive(Debug)]
pub struct Systemd {
    running: Running,
    /// Its process as the world sees it.
    pid: u32,
    hierarchies: Vec<Hierarchy>,
}

impl Systemd {
    /// Starts it, and returns when it answers.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let units = Path::new("/run/units-of-the-test");
        fs::create_dir_all(units).expect("a directory");
        fs::write(units.join("default.target"), "[Unit]\nDefaultDependencies=no\n").expect("a file");
        let hierarchies = cgroup::hierarchies().expect("the world's cgroups");
        let unified = hierarchies.iter().all(|hierarchy| hierarchy.v1.is_none());
        // It joins its cgroups, and only then makes them the top of what it sees.
        let (mut join, mut mount) = (String::new(), String::from("umount -R /sys/fs/cgroup\n"));
        if !unified {
            mount.push_str("mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup\n");
        }
        for hierarchy in &hierarchies {
            let kind = match &hierarchy.v1 {
                Some(options) => format!("cgroup -o {options}"),
                None => "cgroup2".to_owned(),
            };
            let at = hierarchy.mount.display();
            mount.push_str(&format!("mkdir -p {at}\nmount -t {kind} cgroup {at}\n"));
            let group = hierarchy.mount.join(GROUP);
            fs::create_dir(&group).expect("a cgroup");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let (Some(_), Ok(value)) = (&hierarchy.v1, fs::read_to_string(hierarchy.mount.join(file)))
                {
                    fs::write(group.join(file), value).expect("a cpuset");
                }
            }
            join.push_str(&format!("echo 0 > {}/cgroup.procs\n", group.display()));
        }
        // Whoever waits for it outside is no process of its cgroups: in version 2 nothing could be limited there.
        let inner = format!(
            "{mount}exec env -i container=test SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy={} \
             SYSTEMD_UNIT_PATH=/run/systemd/system.control:/run/systemd/transient:{} \
             /lib/systemd/systemd --system --log-target=console --show-status=no",
            u8::from(unified),
            units.display(),
        );
        let outer = format!("{join}exec unshare --cgroup -- sh -ec '{inner}'");
        let mut running = Run::new("unshare")
            .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-ec", &outer])
            .start();
        let parent = running.pid();
        let socket = Path::new("/run/systemd/private");
        let pid = eventually("systemd", PATIENCE, || {
            assert!(running.poll().is_none(), "systemd has ended: {}", running.stderr());
            if std::os::unix::net::UnixStream::connect(socket).is_err() {
                return None;
            }
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        Self { running, pid, hierarchies }
    }

    /// A command that runs where systemd is: in its namespaces, and in a cgroup below its own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Run {
        let mut join = String::new();
        for hierarchy in &self.hierarchies {
            let group = hierarchy.mount.join(GROUP);
            // On version 1 systemd takes controllers away that none of its units uses any more.
            let group = group.display();
            join.push_str(&format!(
                "echo 0 2> /dev/null > {group}/init.scope/cgroup.procs || echo 0 > {group}/cgroup.procs\n"
            ));
        }
        let enter = format!("{join}exec nsenter -t {} -p -m -C -- \"$0\" \"$@\"", self.pid);
        Run::new("sh").args(["-ec", &enter]).arg(program)
    }

    /// The cgroup of a unit, in the hierarchy with this controller.
    #[must_use]
    pub fn group(&self, controller: &str, path: &str) -> PathBuf {
        let has = |h: &&Hierarchy| match &h.v1 {
            Some(options) => options.split(',').any(|option| option == controller),
            None => self.hierarchies.len() == 1,
        };
        let hierarchy = self.hierarchies.iter().find(has).expect("a hierarchy with this controller");
        hierarchy.mount.join(GROUP).join(path)
    }

    /// Ends it, and everything in its pid namespace.
    pub fn kill(&mut self) {
        self.running.kill();
    }
}
