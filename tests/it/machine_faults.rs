//! Containers in virtual machines that do not come up, or have no room.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use cata_tests::command::{cata_binary, eventually};
use cata_tests::harness::Test;
use cata_tests::terminal::Terminal;
use cata_tests::world::World;

use crate::machines::{BOOT, SOON, gone, kill, processes_named, run};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(machine_does_not_come_up).with_kernel(), test!(machine_full_disk).with_kernel()]
}

/// What the supervisor of a container has written down about machines that did not come up.
fn others_made(w: &World, name: &str) -> usize {
    let id = w.field(name, "{{.Id}}");
    let log = w.root().join("containers").join(id).join("supervisor.log");
    fs::read_to_string(log).unwrap_or_default().matches("another machine is made in place of").count()
}

/// A machine that ends before its guest has said a word is made again; whoever is attached notices nothing.
fn machine_does_not_come_up(w: &World) {
    let qemu = "qemu-system-x86_64";
    let boots = || eventually("it boots", SOON, || (!processes_named(qemu).is_empty()).then_some(()));
    let vm = ["--isolation", "vm", "--vmm", "qemu", "busybox", "sh"];
    eventually("one was killed while it booted", BOOT, || {
        gone(qemu);
        let args = [&["run", "-i", "--name", "late"], &vm[..], &["-c", "cat; exit 3"]].concat();
        let starter = w.cata_run(args).input("in").patience(BOOT).start();
        boots();
        processes_named(qemu).into_iter().for_each(kill);
        let done = starter.done(BOOT);
        let made = others_made(w, "late");
        let _ = w.cata(&["rm", "late"]).ok();
        // It may have been killed when its guest was up: then that is what is told.
        (made > 0).then(|| assert_eq!((done.code(), done.stdout.as_str()), (3, "in"), "{done}"))
    });
    // With a terminal the next machine has another, and so has who looks at it.
    let again = || {
        let mut command = Command::new(cata_binary());
        command.args(["run", "-it", "--name", "seen"]).args(vm);
        command.env("CATA_ROOT", w.root()).env("CATA_STATE", w.state());
        let mut terminal = Terminal::run(&command, 30, 100);
        boots();
        processes_named(qemu).into_iter().for_each(kill);
        let up = eventually("a prompt, or an end", BOOT, || {
            let prompt = terminal.shown().contains("# ");
            let status = w.cata(&["inspect", "-f", "{{.State.Status}} {{.State.Error}}", "seen"]).stdout;
            // Killed when its guest was up, and not made again: that is an end too.
            (prompt || status.contains("killed by signal 9")).then_some(prompt)
        });
        if up && others_made(w, "seen") > 0 {
            terminal.type_in("stty size; exit 5\n");
            terminal.expect("30 100");
            assert_eq!(terminal.exit_code(), 5);
            return Some(());
        }
        None
    };
    eventually("one with a terminal was", BOOT, || {
        let done = again();
        let _ = w.cata_run(["rm", "-f", "seen"]).patience(SOON).done();
        gone(qemu);
        done
    });
    // One that never comes up has a name for it.
    let monitor = format!("/usr/bin/{qemu}");
    let monitor = monitor.as_str();
    rustix::mount::mount_bind("/bin/false", monitor).unwrap();
    run(w, &["--name", "never", "--vmm", "qemu", "busybox", "true"])
        .fails(125, &["the virtual machine (qemu) ended with 1"]);
    assert_eq!(others_made(w, "never"), 2);
    rustix::mount::unmount(monitor, rustix::mount::UnmountFlags::DETACH).unwrap();
    let _ = w.cata_run(["start", "-a", "never"]).patience(BOOT).done().exits(0);
    let _ = w.cata(&["rm", "never"]).ok();
}

/// An engine on a disk that fills up: a machine cannot be made, or its program hears of it; nothing is left.
fn machine_full_disk(w: &World) {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let small = w.scratch().join("small");
    fs::create_dir(&small).unwrap();
    mount("small", &small, "tmpfs", MountFlags::empty(), c"size=192m").unwrap();
    let root = small.join("root");
    let copied = Command::new("cp").arg("-a").arg(w.root()).arg(&root).status().unwrap();
    assert!(copied.success());
    let engine = |args: &[&str]| {
        let words = [&["--root", root.to_str().unwrap()], args].concat();
        w.cata_run(words).patience(BOOT).done()
    };
    let vm = |args: &[&str]| engine(&[&["run", "--isolation", "vm"], args].concat());
    let fill = || {
        let mut file = fs::File::create(small.join("fill")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    fill();
    vm(&["--name", "one", "busybox", "true"]).fails(125, &["no space left"]);
    assert_eq!(engine(&["ps", "-aq"]).text(), "");
    fs::remove_file(small.join("fill")).unwrap();
    // It fills up while the machine runs, by what the guest writes: the program is told, and ends as it will.
    let script = "cat /dev/zero > /big; echo code $?; exit 4";
    let done = vm(&["--name", "two", "busybox", "sh", "-c", script]).exits(4);
    assert!(done.stdout.contains("code 1") && done.stderr.contains("No space left"), "{done}");
    eventually("it has ended", SOON, || {
        let status = engine(&["inspect", "-f", "{{.State.Status}}", "two"]);
        (status.text() == "exited").then_some(())
    });
    let _ = engine(&["rm", "two"]).ok();
    assert_eq!(engine(&["ps", "-aq"]).text(), "");
    assert_eq!(vm(&["--rm", "busybox", "echo", "well"]).text(), "well");
    eventually("nothing is mounted on it", SOON, || unmount(&small, UnmountFlags::empty()).ok());
}
