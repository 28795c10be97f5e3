//! `events`: what is told, by whom, in which order; replayed, followed, and across deaths.

use cata_tests::command::{PATIENCE, Running, eventually};
use cata_tests::harness::Test;
use cata_tests::world::World;
use serde_json::Value;

use crate::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(events_tell_a_life_in_order), test!(events_survive_deaths_and_rotation)]
}

/// What has been told of one container so far, one word or two an event.
fn told(w: &World, name: &str) -> Vec<String> {
    let format = "{{.Action}}{{with index .Actor.Attributes \"exitCode\"}} {{.}}{{end}}{{with index .Actor.Attributes \"signal\"}} {{.}}{{end}}";
    let filter = format!("container={name}");
    let args = ["events", "--since", "0", "--until", "0s", "--filter", &filter, "--format", format];
    let lines = w.cata(&args).lines();
    // A terminal's size has no place in the story.
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn documents(w: &World, filters: &[&str]) -> Vec<Value> {
    let mut args = vec!["events", "--since", "0", "--until", "0s", "--format", "json"];
    filters.iter().for_each(|filter| args.extend(["--filter", filter]));
    w.cata(&args).lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `cata events` that is known to follow already.
fn follow(w: &World, args: &[&str]) -> Running {
    let running = w.cata_run([&["events"][..], args].concat()).start();
    let mut number = 0;
    eventually("it follows", PATIENCE, || {
        let name = format!("probe{number}");
        number += 1;
        let _ = w.cata(&["volume", "create", &name]).ok();
        let _ = w.cata(&["volume", "rm", &name]).ok();
        running.stdout().contains(&name).then_some(())
    });
    running
}

fn events_tell_a_life_in_order(w: &World) {
    let follower = follow(w, &["--format", "{{.Type}} {{.Action}} {{.Actor.ID}}"]);
    let id = live(w);
    check_stories(w);
    let all = documents(w, &[]);
    check_documents(w, &all, &id);
    // Who followed heard the same of what came after it: the images had come before.
    let mut want: Vec<String> = all
        .iter()
        .map(|event| {
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {} {}", word(&event["Type"]), word(&event["Action"]), word(&event["Actor"]["ID"]))
        })
        .collect();
    let of_interest = |line: &String| !line.contains("probe") && !line.starts_with("image ");
    want.retain(of_interest);
    want.sort();
    let mut heard: Vec<String> = Vec::new();
    eventually("the follower has heard it all", PATIENCE, || {
        heard = follower.stdout().lines().map(str::to_owned).filter(of_interest).collect();
        (heard.len() >= want.len()).then_some(())
    });
    heard.sort();
    assert_eq!(heard, want);
    assert!(follower.stderr().is_empty(), "{}", follower.stderr());
}

/// Everything that can happen to a container; its id.
fn live(w: &World) -> String {
    let _ = w.cata(&["network", "create", "lan"]).ok();
    let args =
        ["run", "-d", "--name", "one", "--label", "tier=front", "--network", "lan", "-v", "data:/data"];
    let health = ["--health-cmd", "test -f /ok", "--health-interval", "50ms", "--health-retries", "1"];
    let script = "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.05; done";
    let id = w.cata(&[&args[..], &health, &["busybox", "sh", "-c", script]].concat()).text();
    eventually("it is unhealthy", PATIENCE, || {
        told(w, "one").contains(&"health_status: unhealthy".to_owned()).then_some(())
    });
    let _ = w.cata(&["exec", "one", "touch", "/ok"]).ok();
    let _ = w.cata(&["exec", "one", "sh", "-c", "exit 4"]).exits(4);
    eventually("it is healthy", PATIENCE, || {
        told(w, "one").contains(&"health_status: healthy".to_owned()).then_some(())
    });
    let _ = w.cata(&["pause", "one"]).ok();
    let _ = w.cata(&["unpause", "one"]).ok();
    let _ = w.cata(&["rename", "one", "two"]).ok();
    let _ = w.cata(&["update", "--restart", "no", "two"]).ok();
    let _ = w.cata(&["restart", "two"]).ok();
    // The trap is there again.
    eventually("it is ready", PATIENCE, || {
        w.cata(&["exec", "two", "rm", "/ready"]).status.success().then_some(())
    });
    let _ = w.cata(&["stop", "two"]).ok();
    let _ = w.cata(&["rm", "two"]).ok();
    let _ = w.cata(&["volume", "rm", "data"]).ok();
    let _ = w.cata(&["network", "rm", "lan"]).ok();
    id
}

fn check_stories(w: &World) {
    // Before it had its new name, and after; what the checks of its health and of its readiness add is left out.
    let story = |name: &str| {
        let noise = ["exec_create: rm", "exec_start: rm", "exec_die", "health_status"];
        let lines = told(w, name).into_iter();
        lines.filter(|line| !noise.iter().any(|noise| line.starts_with(noise))).collect::<Vec<_>>()
    };
    let one = story("one");
    let execs = [
        "exec_create: touch /ok",
        "exec_start: touch /ok",
        "exec_create: sh -c exit 4",
        "exec_start: sh -c exit 4",
    ];
    assert_eq!(one, [&["create", "start"][..], &execs, &["pause", "unpause"]].concat());
    // Which exit code the restarted process had depends on whether its trap was there in time.
    let two: Vec<String> = story("two").into_iter().map(|line| line.replace("die 137", "die 3")).collect();
    let two: Vec<&str> = two.iter().map(String::as_str).filter(|line| *line != "kill 9").collect();
    let ending = ["kill 15", "die 3", "stop"];
    let restart = [&["rename", "update"][..], &ending, &["start", "restart"], &ending, &["destroy"]];
    assert_eq!(two, restart.concat());
}

fn check_documents(w: &World, all: &[Value], id: &str) {
    let find = |kind: &str, action: &str| {
        let fits = |event: &&Value| event["Type"] == kind && event["Action"] == action;
        all.iter().filter(fits).collect::<Vec<_>>()
    };
    let create = find("container", "create")[0];
    assert_eq!(create["Actor"]["ID"], id);
    assert_eq!((&create["from"], &create["status"]), (&"busybox".into(), &"create".into()));
    assert_eq!(create["Actor"]["Attributes"]["tier"], "front");
    assert_eq!(find("container", "rename")[0]["Actor"]["Attributes"]["oldName"], "one");
    let codes: Vec<&Value> =
        find("container", "exec_die").iter().map(|event| &event["Actor"]["Attributes"]["exitCode"]).collect();
    assert!(codes.contains(&&"4".into()) && codes.contains(&&"0".into()), "{codes:?}");
    for (kind, actions) in [
        ("network", ["create", "connect", "disconnect", "destroy"]),
        ("volume", ["create", "mount", "unmount", "destroy"]),
    ] {
        let mut last = 0;
        for action in actions {
            let found = find(kind, action);
            let of_it = |event: &&&Value| {
                event["Actor"]["Attributes"]["name"] == "lan" || event["Actor"]["ID"] == "data"
            };
            let event = found.iter().find(of_it).unwrap_or_else(|| panic!("{kind} {action}: {found:?}"));
            let at = event["timeNano"].as_i64().unwrap();
            assert!(at > last, "{kind} {action}");
            last = at;
            if ["connect", "disconnect", "mount", "unmount"].contains(&action) {
                assert_eq!(event["Actor"]["Attributes"]["container"], id, "{kind} {action}");
            }
        }
    }
    // A slice of time, and labels.
    let start = find("container", "start")[0]["timeNano"].as_i64().unwrap();
    let moment = format!("{}.{:09}", start / 1_000_000_000, start % 1_000_000_000);
    let slice = w.cata(&["events", "--since", &moment, "--until", &moment, "-f", "label=tier=front"]).lines();
    assert_eq!(slice.len(), 1, "{slice:?}");
    assert!(
        slice[0].contains(&format!(" container start {id} (image=busybox, name=one, tier=front)")),
        "{slice:?}"
    );
    assert!(documents(w, &["label=tier=back"]).is_empty());
    w.cata(&["events", "--filter", "node=x"]).fails(1, &["invalid filter 'node'"]);
}

fn events_survive_deaths_and_rotation(w: &World) {
    // A supervisor that is killed tells nothing any more; who finds what it left does.
    let _ = w.cata(&["run", "-d", "--name", "lost", "busybox", "sleep", "600"]).ok();
    let status = w.state().join(w.field("lost", "{{.Id}}")).join("status.json");
    let status: Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    let pid = i32::try_from(status["supervisor_pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("somebody tells its end", PATIENCE, || {
        let _ = w.cata(&["ps"]).ok();
        (told(w, "lost") == ["create", "start", "die 137"]).then_some(())
    });
    let _ = w.cata(&["rm", "lost"]).ok();

    // Three readers: one is killed, which is nobody's business; one follows across a rotation.
    let mut dead = follow(w, &[]);
    let follower = follow(w, &["--filter", "type=container", "--filter", "type=volume"]);
    dead.kill();
    let journal = w.state().join("events/journal");
    let filler = std::fs::File::options().append(true).open(&journal).unwrap();
    // Lines that are none, as a killed writer leaves them.
    let rubbish = [b"{\"at\":1,\"subject\":\"cont\n".repeat(50_000), b"{\"half".to_vec()].concat();
    std::io::Write::write_all(&mut &filler, &rubbish).unwrap();
    drop(filler);
    // The first writer that finds it too long puts it aside.
    let _ = w.cata(&["run", "--rm", "--name", "across", "busybox", "true"]).ok();
    assert!(journal.with_extension("1").exists());
    let story = ["create", "attach", "start", "die 0", "destroy"];
    assert_eq!(told(w, "across"), story);
    eventually("the follower has crossed over", PATIENCE, || {
        let heard = follower.stdout();
        let heard = heard.lines().filter(|line| line.contains("name=across")).count();
        (heard == story.len()).then_some(())
    });
    // And the file is bounded: the second rotation forgets.
    let filler = std::fs::File::options().append(true).open(&journal).unwrap();
    std::io::Write::write_all(&mut &filler, &rubbish).unwrap();
    let _ = w.cata(&["volume", "create", "last"]).ok();
    let _ = w.cata(&["volume", "rm", "last"]).ok();
    assert!(told(w, "lost").is_empty());
    assert_eq!(std::fs::read_dir(w.state().join("events")).unwrap().count(), 2);
}
