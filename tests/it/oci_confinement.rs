//! What other runtimes were caught with, tried on `cata-runtime`: each published hole, with somebody who races
//! where it was a race.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cata_tests::bundle::Bundle;
use cata_tests::command::{PATIENCE, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(own_program_cannot_be_overwritten),
        test!(descriptors_are_no_working_directories),
        test!(entering_processes_cannot_be_looked_into),
        test!(mount_targets_exchanged),
        test!(proc_exchanged),
        test!(fake_proc_gets_no_writes).also_in_lab(),
        test!(masks_with_an_exchanged_null),
        test!(masked_directories_exchanged),
        test!(console_exchanged),
        test!(dev_leads_to_the_host),
        test!(user_of_a_number_alone),
        test!(longest_of_texts),
        test!(nothing_of_the_host_comes_in).also_in_lab(),
        test!(mount_namespace_of_the_runtime),
        test!(capabilities_are_not_inheritable).also_in_lab(),
        test!(default_filter_denies_each_call),
    ]
}

/// How often a race is run.
const ROUNDS: usize = 25;

/// Runs it at least [`ROUNDS`] times, and on until it says that what was to be tried has been tried.
pub(crate) fn rounds(mut run: impl FnMut() -> bool) {
    let started = Instant::now();
    for round in 1.. {
        let tried = run();
        if round >= ROUNDS && (tried || started.elapsed() > PATIENCE) {
            return;
        }
    }
}

/// Somebody who exchanges two names for each other for as long as this lives.
pub(crate) struct Adversary {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Adversary {
    pub(crate) fn exchange(a: &Path, b: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (a, b, told) = (a.to_owned(), b.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !told.load(Ordering::Relaxed) {
                times += usize::from(renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).is_ok());
                std::thread::sleep(Duration::from_micros(50));
            }
            times
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Adversary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.thread.take().map(|thread| thread.join().unwrap_or(0));
        if !std::thread::panicking() {
            assert!(times.unwrap_or(0) > ROUNDS, "the adversary did not race");
        }
    }
}

fn all_capabilities(b: &mut Bundle) {
    let features = b.runtime(["features"]).json();
    let all = features["linux"]["capabilities"].clone();
    b.spec["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    b.spec["process"]["noNewPrivileges"] = json!(false);
}

fn detached(b: &Bundle, id: &str) {
    let _ = b.command(["run", "--detach", "--bundle"]).arg(&b.dir).arg(id).done().ok();
}

/// CVE-2019-5736: a container with every capability waits for the runtime to come in, keeps its file open and
/// writes to it once it does not run any more; and lets it execute itself by `#!/proc/self/exe`.
fn own_program_cannot_be_overwritten(w: &World) {
    let mut b = Bundle::new(w, "b");
    let copy = w.scratch().join("runtime-copy");
    fs::copy(cata_tests::command::runtime_binary(), &copy).unwrap();
    b.use_runtime(&copy);
    let before = fs::read(&copy).unwrap();
    all_capabilities(&mut b);
    b.executable("evil", "#!/proc/self/exe\n");
    b.script(
        "while :; do for p in /proc/[0-9]*; do \
           case $(readlink $p/exe 2>/dev/null) in */runtime-copy|*memfd:*|/) \
             (exec 9<$p/exe && echo reached >> /reached; sleep 0.05; (echo pwned >&9); (echo pwned > /proc/self/fd/9); \
             (echo pwned > $p/exe)) 2>>/errors & \
             true;; \
         esac; done; done 2>/dev/null",
    );
    detached(&b, "c");
    // At least so often, and until they have met.
    let reached = b.rootfs().join("reached");
    rounds(|| {
        let _ = b.runtime(["exec", "c", "/evil"]);
        let _ = b.runtime(["exec", "c", "true"]).ok();
        reached.exists()
    });
    std::thread::sleep(Duration::from_millis(300));
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    assert!(fs::read(&copy).unwrap() == before, "the runtime's file was overwritten");
    assert!(reached.exists(), "the adversary never met the runtime: nothing was tried");
}

/// CVE-2024-21626: a leaked descriptor of a host directory as the working directory, by name and by link.
fn descriptors_are_no_working_directories(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("pwd; ls -di . / | cut -d' ' -f1; test -e ../../../../../../host-marker && echo ESCAPED");
    fs::write("/host-marker", "").ok();
    for number in 0..24 {
        for prefix in ["/proc/self/fd", "/proc/1/fd", "/proc/thread-self/fd", "/link"] {
            let link = b.rootfs().join("link");
            let _ = fs::remove_file(&link);
            symlink("/proc/self/fd", &link).unwrap();
            b.spec["process"]["cwd"] = json!(format!("{prefix}/{number}"));
            let done = b.run("c");
            assert!(done.code() != 0 || !done.stdout.contains("ESCAPED"), "{done}");
            assert_ne!(done.code(), 0, "a descriptor became a working directory: {done}");
        }
    }
    b.spec["process"]["cwd"] = json!("/");
    b.script("sleep 600");
    detached(&b, "c");
    for number in 0..24 {
        let cwd = format!("/proc/self/fd/{number}");
        assert_ne!(b.runtime(["exec", "--cwd", &cwd, "c", "true"]).code(), 0);
    }
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    let _ = fs::remove_file("/host-marker");
}

/// CVE-2016-9962: descriptors and memory of the runtime while it enters.
fn entering_processes_cannot_be_looked_into(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script(
        "while :; do for p in /proc/[0-9]*; do case $p in */1|*/$$) ;; *) \
           for f in $p/fd/*; do t=$(readlink $f 2>/dev/null) && echo $t >> /seen; done; \
           (dd if=$p/mem of=/dev/null bs=1 count=1 && echo memory >> /seen) 2>/dev/null; \
         esac; done; : > /ran; done 2>/dev/null",
    );
    detached(&b, "c");
    eventually("the adversary", PATIENCE, || b.rootfs().join("ran").exists().then_some(()));
    for _ in 0..ROUNDS {
        let _ = b.runtime(["exec", "c", "true"]).ok();
    }
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    let seen = fs::read_to_string(b.rootfs().join("seen")).unwrap_or_default();
    // What a program in the container opens itself, and standard streams.
    let harmless = |line: &&str| {
        [
            "/dev/null",
            "pipe:",
            "socket:",
            "/proc/",
            "/seen",
            "/ran",
            "/memfd:stdin",
            "/memfd:stdout",
            "/memfd:stderr",
            "/bin/",
            "/ (deleted)",
        ]
        .iter()
        .any(|known| line.starts_with(known))
    };
    let leaked: Vec<&str> = seen.lines().filter(|line| !harmless(line)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

/// CVE-2021-30465, CVE-2024-45310: a mount's target in a shared volume is exchanged for a link to the host.
fn mount_targets_exchanged(w: &World) {
    let mut b = Bundle::new(w, "b");
    let (volume, victim) = (w.scratch().join("volume"), w.scratch().join("victim"));
    for dir in [volume.join("dir"), victim.clone()] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(victim.join("secret"), "secret").unwrap();
    symlink(&victim, volume.join("link")).unwrap();
    b.spec["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}),
        json!({"destination": "/vol/dir", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/vol/dir/below/here", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/vol/dir/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"]}),
    ]);
    b.script(
        "find / -xdev -name secret 2>/dev/null; find /vol -name secret 2>/dev/null; \
         cut -d' ' -f5 /proc/self/mountinfo | grep -v -e ^/proc -e ^/dev -e ^/sys",
    );
    let adversary = Adversary::exchange(&volume.join("dir"), &volume.join("link"));
    let mut ran = 0;
    rounds(|| {
        let done = b.run("c");
        assert!(!done.stdout.contains("secret"), "the host's file came in: {done}");
        ran += usize::from(done.code() == 0);
        ran > 0
    });
    drop(adversary);
    assert!(ran > 0, "no container started");
    let names: Vec<_> = fs::read_dir(&victim).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"], "something was made on the host");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(victim.to_str().unwrap()), "{mounts}");
}

/// What a masked container must not be able to do, whatever its `/proc` was exchanged for.
const MASKED: &str = "test -s /proc/keys && echo UNMASKED; head -c 1 /proc/timer_list 2>/dev/null | grep -q . && \
     echo UNMASKED; (printf '' >> /proc/sys/kernel/core_pattern) && echo WROTE; (test -e /proc/sysrq-trigger && printf '' >> /proc/sysrq-trigger) && echo WROTE; true";

fn assert_masked(b: &Bundle) {
    let mut ran = 0;
    rounds(|| {
        let done = b.run("c");
        assert!(!done.stdout.contains("UNMASKED") && !done.stdout.contains("WROTE"), "{done}");
        ran += usize::from(done.code() == 0);
        ran > 0
    });
    assert!(ran > 0, "no container started");
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2019-18837: `/proc` is a link, or
/// becomes one.
fn proc_exchanged(w: &World) {
    let mut b = Bundle::new(w, "b");
    let (proc, link) = (b.rootfs().join("proc"), b.rootfs().join("link"));
    // Nothing can be made in it by the container, which may meet it in the place of its `/proc`.
    fs::create_dir_all(b.rootfs().join("elsewhere")).unwrap();
    fs::set_permissions(b.rootfs().join("elsewhere"), fs::Permissions::from_mode(0o555)).unwrap();
    symlink("/elsewhere", &link).unwrap();
    b.script(MASKED);
    let adversary = Adversary::exchange(&proc, &link);
    assert_masked(&b);
    drop(adversary);
    if fs::symlink_metadata(&proc).unwrap().is_dir() {
        renameat_with(CWD, &proc, CWD, &link, RenameFlags::EXCHANGE).unwrap();
    }
    b.run("c").fails(1, &["/proc", "must be mounted on ordinary directory"]);
}

/// CVE-2025-52881: what the runtime writes to its `/proc` must not be taken by a `/proc` of the container.
fn fake_proc_gets_no_writes(w: &World) {
    let mut b = Bundle::new(w, "b");
    let fake = w.scratch().join("fake");
    for dir in ["sys/net/ipv4", "self/attr/apparmor", "thread-self/attr/apparmor", "self/fd"] {
        fs::create_dir_all(fake.join(dir)).unwrap();
    }
    let files = ["sys/net/ipv4/ip_forward", "self/attr/exec", "self/oom_score_adj", "thread-self/attr/exec"];
    for file in files {
        fs::write(fake.join(file), "untouched").unwrap();
    }
    b.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    b.spec["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/proc", "type": "bind", "source": fake, "options": ["rbind"]}),
        json!({"destination": "/real", "type": "proc", "source": "proc"}),
    ]);
    b.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    b.spec["process"]["oomScoreAdj"] = json!(321);
    b.script("cat /real/sys/net/ipv4/ip_forward /real/self/oom_score_adj");
    assert_eq!(b.run("c").text(), "1\n321");
    for file in files {
        assert_eq!(fs::read_to_string(fake.join(file)).unwrap(), "untouched", "{file}");
    }
}

/// CVE-2025-31133, CVE-2025-62161: `/dev/null`, which masks files, is exchanged for a link.
fn masks_with_an_exchanged_null(w: &World) {
    let mut b = Bundle::new(w, "b");
    let dev = b.rootfs().join("dev");
    b.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let masked = b.spec["linux"]["maskedPaths"].as_array_mut().unwrap();
    masked.push(json!("/proc/version"));
    symlink("/proc/sys/kernel/core_pattern", dev.join("link")).unwrap();
    fs::write(dev.join("null"), "").unwrap();
    b.script(&format!(
        "test -s /proc/version && echo UNMASKED; test -c /proc/version || echo UNMASKED; {MASKED}"
    ));
    let adversary = Adversary::exchange(&dev.join("null"), &dev.join("link"));
    assert_masked(&b);
    drop(adversary);
}

/// GHSA-3q8j-pf29-vwv8: what is above a directory that becomes read-only, or is masked, is exchanged for a link
/// meanwhile. One of both is covered, by itself, and nothing else.
fn masked_directories_exchanged(w: &World) {
    let mut b = Bundle::new(w, "b");
    for dir in ["data", "elsewhere"] {
        for below in ["inner", "secret"] {
            fs::create_dir_all(b.rootfs().join(dir).join(below)).unwrap();
            fs::write(b.rootfs().join(dir).join(below).join("file"), dir).unwrap();
        }
    }
    let (data, link) = (b.rootfs().join("data"), b.rootfs().join("link"));
    symlink("/elsewhere", &link).unwrap();
    b.spec["linux"]["readonlyPaths"] = json!(["/data/inner"]);
    b.spec["linux"]["maskedPaths"] = json!(["/data/secret"]);
    b.script("grep -E ' /(data|link|elsewhere)/(inner|secret) ' /proc/self/mountinfo | cut -d' ' -f4-6");
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let adversary = Adversary::exchange(&data, &link);
    let mut ran = 0;
    rounds(|| {
        let done = b.run("c");
        if done.code() != 0 {
            return ran > 0;
        }
        ran += 1;
        let lines = done.lines();
        let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let of = |name: &str| {
            let found: Vec<_> = fields.iter().filter(|line| line[1].ends_with(name)).collect();
            let [only] = found.as_slice() else { panic!("{name}: {lines:?}") };
            assert!(only[2].starts_with("ro"), "{name} can be written: {lines:?}");
            (only[0].to_owned(), only[1].to_owned())
        };
        let ((from, at), (mask, _)) = (of("/inner"), of("/secret"));
        assert_eq!(from.ends_with("/elsewhere/inner"), at == "/elsewhere/inner", "{lines:?}");
        assert!(from.ends_with("/inner") && mask == "/", "{lines:?}");
        ran > 0
    });
    drop(adversary);
    assert!(ran > 0, "no container started");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// CVE-2025-52565: `/dev/console`, over which the terminal is mounted, is exchanged for a link into `/proc`.
fn console_exchanged(w: &World) {
    let mut b = Bundle::new(w, "b");
    let dev = b.rootfs().join("dev");
    b.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("link")).unwrap();
    fs::write(dev.join("console"), "").unwrap();
    b.spec["process"]["terminal"] = json!(true);
    b.script(&format!(
        "grep -e ' /proc/.*devpts' -e core_pattern.*devpts /proc/self/mountinfo && echo UNMASKED; {MASKED}"
    ));
    let adversary = Adversary::exchange(&dev.join("console"), &dev.join("link"));
    assert_masked(&b);
    drop(adversary);
}

/// CVE-2026-41579, CVE-2026-47766: `/dev` of the image leads to a directory of the host, or is exchanged for a link that
/// does: nothing is made in it, replaced or removed.
fn dev_leads_to_the_host(w: &World) {
    let mut b = Bundle::new(w, "b");
    let host = w.scratch().join("host");
    fs::create_dir_all(host.join("pts")).unwrap();
    for file in ["ptmx", "null", "kmsg"] {
        fs::write(host.join(file), "the host's").unwrap();
    }
    let (dev, link) = (b.rootfs().join("dev"), b.rootfs().join("link"));
    symlink(&host, &link).unwrap();
    b.spec["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    b.script("true");
    let untouched = || {
        let mut names: Vec<String> = fs::read_dir(&host)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["kmsg", "null", "ptmx", "pts"]);
        for file in ["ptmx", "null", "kmsg"] {
            assert_eq!(fs::read_to_string(host.join(file)).unwrap(), "the host's");
        }
        assert_eq!(fs::read_dir(host.join("pts")).unwrap().count(), 0);
    };
    // With a file system mounted over it, and with what is made in the image's own directory.
    for mounted in [true, false] {
        if !mounted {
            let mounts = b.spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        }
        renameat_with(CWD, &dev, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        // Whether it starts or not.
        let _ = b.run("c");
        untouched();
        renameat_with(CWD, &dev, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        let adversary = Adversary::exchange(&dev, &link);
        let mut ran = 0;
        rounds(|| {
            ran += usize::from(b.run("c").code() == 0);
            ran > 0
        });
        drop(adversary);
        untouched();
        assert!(ran > 0, "no container started");
        if !fs::symlink_metadata(&dev).unwrap().is_dir() {
            renameat_with(CWD, &dev, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        }
    }
}

/// CVE-2026-30892: a user without a group is that user, and not root.
fn user_of_a_number_alone(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    detached(&b, "c");
    let who = |user: &str| b.runtime(["exec", "--user", user, "c", "sh", "-c", "id -u; id -g"]);
    assert_eq!(who("1").text(), "1\n0");
    assert_eq!(who("1:2").text(), "1\n2");
    for wrong in ["", ":", "1:", "x", "-1", "4294967296"] {
        who(wrong).fails(255, &["--user"]);
    }
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}

/// CVE-2021-43784: a text of more than 16 bits can count is one text, not the beginning of others.
fn longest_of_texts(w: &World) {
    let mut b = Bundle::new(w, "b");
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let long = format!("/{}\n/proc/self/ns/net", "a".repeat(65_537));
    b.script("readlink /proc/self/ns/net");
    let list = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "network");
    list.push(json!({"type": "network", "path": long}));
    let done = b.run("c");
    assert!(done.code() != 0 && !done.stdout.contains(&own), "{done}");
    b.spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
    b.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    let many: Vec<String> = (0..5000).map(|number| format!("V{number}={}", "b".repeat(20))).collect();
    b.spec["process"]["env"] = json!(many);
    b.script("echo $V4999");
    assert_eq!(b.run("c").text(), "b".repeat(20));
}

/// No variable, mount, or descriptor of the host, nor its namespaces.
fn nothing_of_the_host_comes_in(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script(
        "env; echo --; cut -d' ' -f5 /proc/self/mountinfo; echo --; ls /proc/self/fd; echo --; \
         for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo --; ls /proc | grep -c '^[0-9]'",
    );
    let done = b.command(["run", "--bundle"]).arg(&b.dir).arg("c").env("HOST_SECRET", "1").done();
    let text = done.ok().text();
    let parts: Vec<Vec<&str>> = text.split("--\n").map(|part| part.lines().collect()).collect();
    let names: Vec<&str> = parts[0].iter().map(|line| line.split('=').next().unwrap()).collect();
    for name in &names {
        assert!(["PATH", "TERM", "HOME", "PWD", "SHLVL", "OLDPWD"].contains(name), "{names:?}");
    }
    for at in &parts[1] {
        let known = ["/proc", "/dev", "/sys"].iter().any(|dir| Path::new(at).starts_with(dir));
        assert!(*at == "/" || known, "mount {at}");
    }
    assert_eq!(parts[2], ["0", "1", "2", "3"]);
    for (inside, kind) in parts[3].iter().zip(["mnt", "pid", "net", "ipc", "uts", "cgroup"]) {
        let ours = fs::read_link(PathBuf::from("/proc/self/ns").join(kind)).unwrap();
        assert_ne!(Path::new(inside), ours, "{kind}");
    }
    assert!(parts[4][0].parse::<u32>().unwrap() <= 4, "{:?}", parts[4]);
}

/// CVE-2022-29162, CVE-2022-24769, CVE-2022-27650: what is added is not inheritable.
fn capabilities_are_not_inheritable(w: &World) {
    let mut b = Bundle::new(w, "b");
    b.script("sleep 600");
    detached(&b, "c");
    let caps = b.runtime([
        "exec",
        "--cap",
        "CAP_SYS_ADMIN",
        "c",
        "grep",
        "-E",
        "CapInh|CapAmb",
        "/proc/self/status",
    ]);
    assert_eq!(caps.text(), format!("CapInh:\t{:016x}\nCapAmb:\t{:016x}", 0, 0));
    let _ = b.runtime(["delete", "-f", "c"]).ok();
}

/// Calls that Docker's default profile denies to a container without further capabilities, by their numbers on
/// x86-64 (the engine's own profile, by `cata run`): each is really made. That none is missing is a test of the profile's.
const DENIED: [(&str, u32); 72] = [
    ("_sysctl", 156),
    ("acct", 163),
    ("add_key", 248),
    ("afs_syscall", 183),
    ("bpf", 321),
    ("clock_settime", 227),
    ("create_module", 174),
    ("delete_module", 176),
    ("fanotify_init", 300),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("finit_module", 313),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("fsopen", 430),
    ("fspick", 433),
    ("get_kernel_syms", 177),
    ("get_mempolicy", 239),
    ("getpmsg", 181),
    ("init_module", 175),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    ("io_uring_setup", 425),
    ("ioperm", 173),
    ("iopl", 172),
    ("kcmp", 312),
    ("kexec_file_load", 320),
    ("kexec_load", 246),
    ("keyctl", 250),
    ("lookup_dcookie", 212),
    ("lsm_get_self_attr", 459),
    ("lsm_list_modules", 461),
    ("lsm_set_self_attr", 460),
    ("mbind", 237),
    ("migrate_pages", 256),
    ("mount", 165),
    ("mount_setattr", 442),
    ("move_mount", 429),
    ("move_pages", 279),
    ("nfsservctl", 180),
    ("open_by_handle_at", 304),
    ("open_tree", 428),
    ("open_tree_attr", 467),
    ("perf_event_open", 298),
    ("pidfd_getfd", 438),
    ("pivot_root", 155),
    ("process_madvise", 440),
    ("putpmsg", 182),
    ("query_module", 178),
    ("quotactl", 179),
    ("quotactl_fd", 443),
    ("reboot", 169),
    ("request_key", 249),
    ("security", 185),
    ("set_mempolicy", 238),
    ("set_mempolicy_home_node", 450),
    ("setdomainname", 171),
    ("sethostname", 170),
    ("setns", 308),
    ("settimeofday", 164),
    ("swapoff", 168),
    ("swapon", 167),
    ("sysfs", 139),
    ("syslog", 103),
    ("tuxcall", 184),
    ("umount2", 166),
    ("unshare", 272),
    ("uselib", 134),
    ("userfaultfd", 323),
    ("ustat", 136),
    ("vhangup", 153),
    ("vserver", 236),
];

fn default_filter_denies_each_call(w: &World) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    // Arguments that would make most of them fail otherwise (EFAULT, EBADF), were they let through.
    let numbers: Vec<String> = DENIED.iter().map(|(_, number)| number.to_string()).collect();
    let script = format!(
        "for my $n ({}) {{ $! = 0; my $r = syscall($n, -1, -1, -1, -1, -1, -1); print \"$n $r \", $!+0, \"\\n\"; }} \
         $! = 0; my $r = syscall(56, 0x10000000, 0, 0, 0, 0); print \"56 $r \", $!+0, \"\\n\"; \
         $! = 0; $r = syscall(435, 0, 0); print \"435 $r \", $!+0, \"\\n\"; \
         $! = 0; $r = syscall(41, 40, 1, 0); print \"41 $r \", $!+0, \"\\n\"; \
         $! = 0; $r = syscall(0x40000000 + 39); print \"x32 $r \", $!+0, \"\\n\"; \
         print \"pid \", syscall(39), \"\\n\";",
        numbers.join(",")
    );
    let mut args = vec!["run", "--rm"];
    let volumes: Vec<String> = ["/usr", "/lib", "/lib64", "/bin"]
        .iter()
        .filter(|dir| Path::new(dir).exists())
        .map(|dir| format!("{}:{dir}:ro", fs::canonicalize(dir).unwrap().display()))
        .collect();
    for volume in &volumes {
        args.extend(["-v", volume]);
    }
    args.extend(["busybox", "/usr/bin/perl", "-e", &script]);
    let lines = w.cata(&args).lines();
    for (name, number) in DENIED {
        let line = lines.iter().find(|line| line.starts_with(&format!("{number} "))).unwrap();
        assert!(line.ends_with("-1 1") || line.ends_with("-1 38"), "{name}: {line}");
    }
    for (line, why) in [
        ("56 -1 1", "clone of a user namespace"),
        ("435 -1 38", "clone3"),
        ("41 -1 ", "AF_VSOCK"),
        ("x32 -1 38", "x32"),
    ] {
        assert!(lines.iter().any(|found| found.starts_with(line)), "{why}: {lines:?}");
    }
    assert!(lines.iter().any(|line| line == "pid 1"), "getpid must work: {lines:?}");
}

/// A container in the mount namespace of its runtime: it sees nothing of the mounts there, also not by the ways out of
/// a changed root, and leaves nothing there.
fn mount_namespace_of_the_runtime(w: &World) {
    let mut b = Bundle::new(w, "b");
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    fs::write("/host-marker", "").unwrap();
    b.spec["linux"]["namespaces"] = json!([]);
    b.spec.as_object_mut().unwrap().remove("hostname");
    let rights = json!(["CAP_SYS_CHROOT", "CAP_KILL", "CAP_DAC_OVERRIDE"]);
    b.spec["process"]["capabilities"] = json!({"bounding": rights, "effective": rights, "permitted": rights});
    // A directory that stays open while the root becomes another is above that root.
    let out = "readlink /proc/self/ns/mnt; pwd; ls -d /host-marker /proc/self/status; \
        exec 9</; chroot /proc /self/fd/9/bin/busybox sh -c \
        'cd /self/fd/9 && for i in 1 2 3 4 5 6 7 8 9; do cd -P ..; done; ls -d bin host-marker'";
    b.script(&format!("({out}) > /said 2> /errors; touch /done; sleep 600"));
    b.spec["process"]["cwd"] = json!("/tmp");
    detached(&b, "c");
    eventually("its program", Duration::from_secs(60), || b.rootfs().join("done").exists().then_some(()));
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    let expected = format!("{own}\n/tmp\n/proc/self/status\nbin\n");
    let said = fs::read_to_string(b.rootfs().join("said")).unwrap();
    assert_eq!(said, expected, "{}", fs::read_to_string(b.rootfs().join("errors")).unwrap());
    assert_eq!(b.runtime(["exec", "c", "sh", "-c", out]).stdout, expected);
    assert_eq!(mounts(), before, "a mount of the container's is the host's");
    let _ = b.runtime(["delete", "-f", "c"]).ok();
    assert_eq!(mounts(), before);
    // Users of a namespace of its own could not come back.
    b.spec["linux"]["namespaces"] = json!([{"type": "user"}]);
    b.run("d").fails(1, &["needs a mount namespace too"]);
    fs::remove_file("/host-marker").unwrap();
}
