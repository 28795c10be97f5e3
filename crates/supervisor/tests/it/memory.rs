//! What a supervisor costs. A measurement, printed; run it on a release build:
//! `CATA_TEST_SUPERVISOR=target/release/cata-supervisor cargo test -p cata-supervisor memory -- --nocapture`

use cata_sandbox::launch::StdinPlan;

use crate::world::{World, exec, wait_for};

const SUPERVISORS: usize = 24;

#[test]
fn memory_of_many_supervisors() {
    let worlds: Vec<World> = (0..SUPERVISORS)
        .map(|_| {
            let mut world = World::new("echo hello; sleep 1000");
            world.launch.stdin = StdinPlan::Open;
            world.start();
            world
        })
        .collect();
    for world in &worlds {
        wait_for("output is logged", || world.log() == b"hello\n");
        let mut client = world.client();
        let session = exec("x", "exit 0", cata_sandbox::protocol::Streams::default());
        let number = client.exec(session, &[]).expect("started").number;
        client.finish_exec(number, Some(crate::world::SOON)).expect("ended");
    }
    let mut total = 0;
    for world in &worlds {
        let pid = world.status().supervisor_pid;
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        total += field("Pss:");
        if std::ptr::eq(world, &worlds[0]) {
            println!("{text}");
        }
    }
    println!("PSS per supervisor, mean of {SUPERVISORS}: {} KiB", total / SUPERVISORS as u64);
    // conmon's figure is the aim of a release build; others are linked dynamically and not optimised.
    let most = if std::env::var_os("CATA_TEST_SUPERVISOR").is_some() { 373 } else { 1024 };
    assert!(total / (SUPERVISORS as u64) < most, "more than {most} KiB");
}
