//! Further processes in a running container, and terminals.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use cata_runtime::plan::WindowSize;
use cata_runtime::{ExecPlan, ExecRequest, Handles, SpawnError, exec, spawn};
use serde_json::json;

use crate::Case;
use crate::world::{Outcome, Running, World, capture, spec, wait};

pub(crate) const CASES: &[Case] = &[
    ("exec_is_in_every_namespace", namespaces),
    ("exec_takes_user_environment_and_directory", user),
    ("exec_bad_entrypoint", bad),
    ("exec_after_the_end", ended),
    ("exec_privileged", privileged),
    ("exec_joins_the_cgroup", cgroup),
    ("terminal_of_a_container", terminal),
    ("terminal_of_an_exec", exec_terminal),
    ("terminal_with_init", init_terminal),
];

fn sleeper(world: &World) -> (cata_runtime::plan::Plan, Running) {
    let plan = world.plan(&spec(&["sleep", "60"]));
    let running = Running::start(&plan);
    (plan, running)
}

fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest { argv: argv.iter().map(|s| (*s).to_owned()).collect(), ..ExecRequest::default() }
}

fn run(
    plan: &cata_runtime::plan::Plan,
    running: &Running,
    request: ExecRequest,
) -> Result<Outcome, SpawnError> {
    let plan = ExecPlan::new(plan, request);
    capture(|handles| exec(&plan, running.spawned.pidfd.as_fd(), handles))
}

fn namespaces(world: &World) {
    let (plan, running) = sleeper(world);
    let script = "for n in pid ipc uts net mnt cgroup; do readlink /proc/self/ns/$n; done; cat /proc/1/cmdline; exit 5";
    let outcome = run(&plan, &running, request(&["sh", "-c", script])).expect("a process");
    let expected: Vec<String> = ["pid", "ipc", "uts", "net", "mnt", "cgroup"]
        .iter()
        .map(|n| format!("/proc/{}/ns/{n}", running.pid()))
        .map(|path| std::fs::read_link(path).expect("a link").display().to_string())
        .collect();
    assert_eq!(outcome.output, format!("{}\nsleep\060\0", expected.join("\n")));
    assert_eq!(outcome.code, 5);
    // The caller's own children are born where they always were.
    let mine = std::fs::read_link("/proc/self/ns/pid_for_children").expect("a link");
    assert_eq!(mine, std::fs::read_link("/proc/self/ns/pid").expect("a link"));
}

fn user(world: &World) {
    let (plan, running) = sleeper(world);
    let mut asked =
        request(&["sh", "-c", "id -u; id -G; echo $A $TERM $HOME; pwd; grep CapEff /proc/self/status"]);
    asked.user = Some("postgres".into());
    asked.env = vec!["A=b".into(), "TERM=dumb".into()];
    asked.cwd = Some("/tmp".into());
    let output = run(&plan, &running, asked).expect("a process").output;
    assert_eq!(output, format!("999\n999 101\nb dumb /var/lib/postgresql\n/tmp\nCapEff:\t{:016x}", 0));
    let mut asked = request(&["true"]);
    asked.user = Some("nobody-here".into());
    let error = run(&plan, &running, asked).expect_err("no such user");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "unable to find user nobody-here: no matching entries in passwd file");
    let mut asked = request(&["true"]);
    asked.cwd = Some("/no/such".into());
    let error = run(&plan, &running, asked).expect_err("no such directory");
    assert_eq!(error.to_string(), "change to working directory `/no/such`");
}

fn bad(world: &World) {
    let (plan, running) = sleeper(world);
    let error = run(&plan, &running, request(&["foo"])).expect_err("no such program");
    assert_eq!(error.to_string(), "exec: \"foo\": executable file not found in $PATH");
    assert_eq!(error.exit_code(), 127);
    let error = run(&plan, &running, request(&["/bin/noexec"])).expect_err("not executable");
    assert_eq!(error.exit_code(), 126);
}

fn ended(world: &World) {
    let (plan, running) = sleeper(world);
    rustix::process::pidfd_send_signal(&running.spawned.pidfd, rustix::process::Signal::KILL)
        .expect("it runs");
    wait(&running.spawned);
    let error = run(&plan, &running, request(&["true"])).expect_err("it has ended");
    assert!(matches!(error, SpawnError::NotRunning), "{error}");
    // And the caller can still have children.
    assert_eq!(world.sh("exit 4").code, 4);
}

fn privileged(world: &World) {
    let (plan, running) = sleeper(world);
    let mut asked = request(&["grep", "CapEff", "/proc/self/status"]);
    asked.privileged = true;
    let output = run(&plan, &running, asked).expect("a process").output;
    assert_eq!(output, format!("CapEff:\t{:016x}", cata_sys::capability::bounding()));
}

fn cgroup(world: &World) {
    let mut document = spec(&["sleep", "60"]);
    document["linux"]["cgroupsPath"] = json!(format!("/cata-dev-runtime/{}-exec", std::process::id()));
    let plan = world.plan(&document);
    let cgroup = cata_runtime::cgroup::create(plan.cgroup.as_ref().expect("a plan")).expect("a cgroup");
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let handles = Handles::new(null.as_fd(), null.as_fd(), null.as_fd()).cgroup(&cgroup);
    let first = spawn(&plan, &handles).expect("a container");
    let further = ExecPlan::new(&plan, request(&["sleep", "60"]));
    let second = exec(&further, first.pidfd.as_fd(), &handles).expect("a process");
    let of = |pid: rustix::process::Pid| {
        std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).expect("a file")
    };
    assert_eq!(of(first.pid), of(second.pid));
    assert!(of(first.pid).contains("cata-dev-runtime"));
    cgroup.kill(std::time::Duration::from_secs(5)).expect("killed");
    // The first process of a pid namespace ends only after everybody in it was waited for.
    assert_eq!((wait(&second), wait(&first)), (137, 137));
    cgroup.remove(std::time::Duration::from_secs(5)).expect("removed");
}

/// Everything that a terminal says until its other side closes.
fn read_all(terminal: std::os::fd::OwnedFd) -> String {
    let mut terminal = std::fs::File::from(terminal);
    let mut bytes = Vec::new();
    // EIO: the last slave was closed.
    let _ = terminal.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

fn terminal(world: &World) {
    let mut document = spec(&[
        "sh",
        "-c",
        "tty; stty size; test -t 0 && echo yes; stat -c %t:%T /dev/console; \
        readlink /proc/self/fd/2; read line; echo got $line",
    ]);
    document["process"]["terminal"] = json!(true);
    document["process"]["consoleSize"] = json!({"height": 30, "width": 100});
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let mut spawned = spawn(&world.plan(&document), &Handles::new(null.as_fd(), null.as_fd(), null.as_fd()))
        .expect("a container");
    let master = spawned.terminal.take().expect("a terminal");
    let mut keys = std::fs::File::from(rustix::io::dup(&master).expect("a copy"));
    keys.write_all(b"word\n").expect("keys");
    drop(keys);
    let text = read_all(master);
    assert_eq!(wait(&spawned), 0);
    let lines: Vec<&str> = text.lines().filter(|line| *line != "word").collect();
    assert_eq!(lines, ["/dev/pts/0", "30 100", "yes", "88:0", "/dev/pts/0", "got word"]);
}

fn exec_terminal(world: &World) {
    let (plan, running) = sleeper(world);
    let mut asked = request(&["sh", "-c", "tty; stty size; ps -o pid,tty,args | grep -c pts"]);
    asked.terminal = true;
    asked.window = Some(WindowSize { rows: 24, columns: 80 });
    let plan = ExecPlan::new(&plan, asked);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let handles = Handles::new(null.as_fd(), null.as_fd(), null.as_fd());
    let mut spawned = exec(&plan, running.spawned.pidfd.as_fd(), &handles).expect("a process");
    let text = read_all(spawned.terminal.take().expect("a terminal"));
    assert_eq!(wait(&spawned), 0);
    assert!(text.starts_with("/dev/pts/0\n24 80\n"), "{text}");
}

fn init_terminal(world: &World) {
    let mut document = spec(&["sh", "-c", "read line; echo got $line; sleep 60"]);
    document["process"]["terminal"] = json!(true);
    let options = cata_runtime::plan::Options { init: true, ..world.options() };
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let plan = world.plan_with(&document, &options);
    let mut spawned =
        spawn(&plan, &Handles::new(null.as_fd(), null.as_fd(), null.as_fd())).expect("a container");
    let mut master = std::fs::File::from(spawned.terminal.take().expect("a terminal"));
    master.write_all(b"word\n").expect("keys");
    let mut text = String::new();
    let mut bytes = [0; 256];
    while !text.contains("got word") {
        let length = master.read(&mut bytes).expect("output");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    // Control-C goes to the payload, whose death ends the container.
    master.write_all(b"\x03").expect("a key");
    assert_eq!(wait(&spawned), 130);
}
