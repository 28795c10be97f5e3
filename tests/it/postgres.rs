//! A real server: PostgreSQL 15 from Debian's packages, by the contract of the well-known image.

use cata_tests::command::{Done, PATIENCE, Run, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;

use crate::test;

const IMAGE: &[&str] = &["postgres"];

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(story).images(IMAGE).needs(&["psql"]),
        test!(first_start_runs_the_init_files).images(IMAGE).needs(&["psql"]),
        test!(without_a_password_it_says_so).images(IMAGE),
        test!(host_is_seen_from_inside).images(&["debian"]),
    ]
}

fn psql(sql: &str) -> Done {
    let args = ["-h", "127.0.0.1", "-p", "5432", "-U", "postgres", "-Atc", sql];
    Run::new("psql").args(args).env("PGPASSWORD", "password").done()
}

fn ready() {
    eventually("the server answers", PATIENCE, || (psql("select 1").code() == 0).then_some(()));
}

fn story(w: &World) {
    let run = "container run --detach --name pg --publish 5432:5432 -e POSTGRES_PASSWORD=password postgres";
    let id = w.cata(&run.split(' ').collect::<Vec<_>>()).text();
    assert_eq!(id.len(), 64);
    ready();
    // The server's own short-lived processes come and go between the two looks, so both are taken again then.
    eventually("`top` and `ps aux` tell the same processes", PATIENCE, || {
        let top = w.cata(&["container", "top", "pg"]).lines();
        let ps = Run::new("ps").arg("aux").done().ok().stdout;
        let on_host = |line: &String| {
            let pid = line.split_whitespace().nth(1);
            ps.lines().any(|l| l.split_whitespace().nth(1) == pid && l.contains("postgres"))
        };
        (top.len() > 5 && top[1..].iter().all(on_host)).then_some(())
    });
    let _ = psql("create table t as select * from generate_series(1, 1000) as n").ok();
    let wrong = Run::new("psql").args(["-h", "127.0.0.1", "-U", "postgres", "-c", "select 1"]);
    assert_ne!(wrong.env("PGPASSWORD", "wrong").done().code(), 0, "any password is let in");
    let count = ["exec", "pg", "psql", "-U", "postgres", "-Atc", "select count(*) from t"];
    assert_eq!(w.cata(&count).text(), "1000");
    let _ = w.cata(&["stop", "-t", "50", "pg"]).ok();
    // SIGINT, the image's signal, is a fast and clean shutdown.
    assert!(w.cata(&["ps", "-a"]).ok().stdout.contains("Exited (0)"));
    let _ = w.cata(&["start", "pg"]).ok();
    ready();
    assert_eq!(w.cata(&count).text(), "1000");
    let logs = w.cata(&["logs", "--tail", "5", "pg"]).ok();
    assert_eq!(logs.stdout.lines().count() + logs.stderr.lines().count(), 5, "{logs}");
    assert_eq!(w.inspect("pg")["State"]["Running"], true);
    let _ = w.cata(&["rm", "-f", "-v", "pg"]).ok();
    assert_eq!(w.cata(&["volume", "ls", "-q"]).text(), "");
}

fn first_start_runs_the_init_files(w: &World) {
    let init = w.scratch().join("init");
    std::fs::create_dir(&init).unwrap();
    std::fs::write(init.join("1.sql"), "create table seeded as select 7 as n").unwrap();
    std::fs::write(
        init.join("2.sh"),
        "psql -U \"$POSTGRES_USER\" -d \"$POSTGRES_DB\" -c 'insert into seeded values (8)'",
    )
    .unwrap();
    let secret = w.file("secret", "password\n");
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "pg",
            "-p",
            "5432:5432",
            "-v",
            "db:/var/lib/postgresql/data",
            "-v",
            &format!("{}:/docker-entrypoint-initdb.d:ro", init.display()),
            "-v",
            &format!("{}:/secret:ro", secret.display()),
            "-e",
            "POSTGRES_PASSWORD_FILE=/secret",
            "-e",
            "POSTGRES_DB=shop",
            "postgres",
            "-c",
            "max_connections=17",
        ])
        .ok();
    ready();
    let shop =
        |sql: &str| w.cata(&["exec", "-u", "postgres", "pg", "psql", "-d", "shop", "-Atc", sql]).text();
    assert_eq!(shop("select sum(n) from seeded"), "15");
    assert_eq!(shop("show max_connections"), "17");
    // The cluster is the volume's, not the container's.
    let _ = w.cata(&["rm", "-f", "pg"]).ok();
    let _ = w
        .cata(&[
            "run",
            "-d",
            "--name",
            "pg",
            "-p",
            "5432:5432",
            "-v",
            "db:/var/lib/postgresql/data",
            "postgres",
        ])
        .ok();
    ready();
    assert_eq!(shop("select sum(n) from seeded"), "15");
}

fn without_a_password_it_says_so(w: &World) {
    let done = w.cata(&["run", "--rm", "postgres"]).exits(1);
    assert!(done.stderr.contains("POSTGRES_PASSWORD"), "{done}");
    let version = w.cata(&["run", "--rm", "postgres", "postgres", "--version"]).text();
    assert!(version.starts_with("postgres (PostgreSQL) 15"), "{version}");
}

fn host_is_seen_from_inside(w: &World) {
    let args = [
        "run",
        "--rm",
        "--privileged",
        "--pid=host",
        "debian",
        "nsenter",
        "-t",
        "1",
        "-m",
        "-u",
        "-n",
        "-i",
        "ps",
        "aux",
    ];
    let seen = w.cata(&args).ok().stdout;
    let first = seen.lines().find(|l| l.split_whitespace().nth(1) == Some("1")).unwrap();
    let own = std::fs::read_to_string("/proc/1/comm").unwrap();
    assert!(first.contains(own.trim()), "{first}");
}
