//! Containers in virtual machines that do a server's work, and many of them at once.

use cata_tests::command::{Done, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::machines::{BOOT, SOON, on_kvm, run};
use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(machine_crowd).with_kernel(),
        test!(machine_postgres).with_kernel().images(&["postgres"]).needs(&["psql"]).also_in_lab_for(330),
    ]
}

fn machine_crowd(w: &World) {
    let many = 20;
    let start = |number: u32| {
        let name = format!("vm{number}");
        let words = ["run", "-d", "--isolation", "vm", "--cpus", "1", "--memory", "96m", "--name", &name];
        let words = words.into_iter().chain(["busybox", "sh", "-c", "echo here; sleep 36000"]);
        w.cata_run(words.collect::<Vec<_>>()).patience(BOOT).start()
    };
    // A guest's first word has a deadline, which an emulated processor does not keep for all of them at once.
    let at_once = if on_kvm() { 2 } else { many };
    for first in (0..many).step_by(at_once as usize) {
        let starting: Vec<_> = (first..many.min(first + at_once)).map(start).collect();
        for one in starting {
            let _ = one.done(BOOT).ok();
        }
    }
    let running = w.cata(&["ps", "-q"]).lines();
    assert_eq!(running.len(), many as usize);
    for number in [0, many - 1] {
        let name = format!("vm{number}");
        eventually("its output", SOON, || (w.cata(&["logs", &name]).text() == "here").then_some(()));
    }
    let mut args = vec!["rm", "-f"];
    args.extend(running.iter().map(String::as_str));
    let _ = w.cata_run(args).patience(SOON).done().ok();
}

fn psql(sql: &str) -> Done {
    let args = ["-h", "127.0.0.1", "-p", "5433", "-U", "postgres", "-Atc", sql];
    Run::new("psql").args(args).env("PGPASSWORD", "password").patience(SOON).done()
}

/// A server on its volume, made by the first start on whichever hull, and then served by the other one.
fn machine_postgres(w: &World) {
    // Making the data takes hundreds of processes, each of which is dear in the lab's guests; serving it takes a few.
    if on_kvm() {
        on_the_host(w);
        assert_eq!(psql("create table t as select * from generate_series(1, 1000) as n").code(), 0);
        let _ = w.cata_run(["stop", "-t", "90", "pg"]).patience(SOON).done().ok();
        let _ = w.cata(&["rm", "pg"]).ok();
        in_a_machine(w);
    } else {
        in_a_machine(w);
        let _ = w.cata(&["rm", "pgvm"]).ok();
        // The same data in a container.
        on_the_host(w);
        assert_eq!(psql("select count(*) from t").text(), "2000");
        let _ = w.cata(&["rm", "-f", "pg"]).ok();
    }
}

const VOLUME: &str = "pgdata:/var/lib/postgresql/data";

fn on_the_host(w: &World) {
    let args = ["run", "-d", "--name", "pg", "-p", "5433:5432", "-e", "POSTGRES_PASSWORD=password"];
    let args: Vec<&str> = args.into_iter().chain(["-v", VOLUME, "postgres"]).collect();
    let _ = w.cata(&args).ok();
    eventually("the server answers", SOON, || (psql("select 1").code() == 0).then_some(()));
}

/// The server's whole life in a machine; its table has 2000 lines at the end.
fn in_a_machine(w: &World) {
    let args = ["-d", "--name", "pgvm", "-p", "5433:5432", "-e", "POSTGRES_PASSWORD=password"];
    let args: Vec<&str> = args.into_iter().chain(["-v", VOLUME, "postgres"]).collect();
    let _ = run(w, &args).ok();
    eventually("the server answers", BOOT, || (psql("select 1").code() == 0).then_some(()));
    let _ = psql("create table if not exists t as select * from generate_series(1, 1000) as n").ok();
    let _ = psql("insert into t select * from generate_series(1, 2000 - (select count(*)::int from t))").ok();
    let top = w.cata_run(["top", "pgvm"]).patience(SOON).done().ok().stdout;
    assert!(top.contains("postgres"), "{top}");
    assert!(
        !Run::new("ps").arg("aux").done().ok().stdout.contains("postgres: "),
        "the host sees its processes"
    );
    let count = ["exec", "-u", "postgres", "pgvm", "psql", "-Atc", "select count(*) from t"];
    assert_eq!(w.cata_run(count).patience(SOON).done().text(), "2000");
    let _ = w.cata_run(["stop", "-t", "90", "pgvm"]).patience(SOON).done().ok();
    assert_eq!(w.field("pgvm", "{{.State.ExitCode}}"), "0");
}
