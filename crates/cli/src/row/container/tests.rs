//! `ps`: lines and filters over made-up containers.

use std::collections::BTreeMap;

use cata_engine::health::HealthStatus;
use jiff::tz::TimeZone;

use super::{Container, FILTERS, KIND, Port, Selection, cells, select};
use crate::parse::filter::Filters;
use crate::render::listing;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_700_000_000 * SECOND;

fn container(name: &str, state: &'static str, age_s: u64) -> Container {
    Container {
        id: format!("{:0>64}", format!("{}f", name.len())),
        name: name.to_owned(),
        image: "postgres".to_owned(),
        image_id: "sha256:abcdef".to_owned(),
        platform: "linux/amd64".to_owned(),
        command: vec!["docker-entrypoint.sh".to_owned(), "postgres".to_owned()],
        created: NOW - age_s * SECOND,
        state,
        started: Some(NOW - age_s * SECOND),
        finished: Some(NOW - age_s / 2 * SECOND),
        exit_code: 0,
        oom_killed: false,
        health: None,
        ports: Vec::new(),
        asked_ports: Vec::new(),
        labels: BTreeMap::new(),
        mounts: Vec::new(),
        volumes: 0,
        networks: vec!["bridge".to_owned()],
        sizes: None,
    }
}

fn several() -> Vec<Container> {
    let mut up = container("pg", "running", 5);
    up.health = Some(HealthStatus::Healthy);
    up.ports =
        vec![Port { container: 5432, protocol: "tcp", host: Some(("0.0.0.0".parse().unwrap(), 5432)) }];
    up.asked_ports = vec![(5432, "tcp".to_owned(), true)];
    up.labels = BTreeMap::from([("tier".to_owned(), "db".to_owned())]);
    up.mounts = vec![("pgdata".to_owned(), "/data".to_owned())];
    let mut dead = container("eater", "exited", 7200);
    dead.exit_code = 137;
    dead.oom_killed = true;
    dead.asked_ports = vec![(80, "tcp".to_owned(), true), (53, "udp".to_owned(), false)];
    vec![
        up,
        container("frozen", "paused", 90),
        container("new", "created", 100),
        dead,
        container("done", "exited", 86_400),
    ]
}

fn names(filters: &[&str], all: bool, last: Option<usize>) -> String {
    let typed: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
    let filters = match Filters::parse(&typed, &FILTERS) {
        Ok(filters) => filters,
        Err(error) => return error.to_string(),
    };
    match select(several(), &Selection { filters: &filters, all, last }) {
        Ok(list) => list.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn table_is_dockers() {
    let rows: Vec<_> = several().iter().map(|c| cells(c, NOW, &TimeZone::UTC, true)).collect();
    insta::assert_snapshot!(listing::text(&KIND, &rows, None, false).unwrap());
}

#[test]
fn filters_select() {
    let cases: &[(&[&str], bool, Option<usize>)] = &[
        (&[], false, None),
        (&[], true, None),
        (&[], false, Some(3)),
        (&["name=e"], true, None),
        (&["name=^pg$"], true, None),
        (&["status=exited"], false, None),
        (&["status=exited", "status=created"], false, None),
        (&["exited=137"], false, None),
        (&["label=tier"], false, None),
        (&["label=tier=web"], false, None),
        (&["ancestor=postgres:latest", "name=pg"], false, None),
        (&["ancestor=busybox"], true, None),
        (&["volume=/data"], true, None),
        (&["network=bridge", "health=healthy"], true, None),
        (&["publish=5000-6000"], true, None),
        (&["publish=80"], true, None),
        (&["publish=53/udp"], true, None),
        (&["expose=53/udp"], true, None),
        (&["expose=50-90"], true, None),
        (&["before=new"], true, None),
        (&["since=new"], true, None),
        (&["since=nobody"], true, None),
        (&["status=sleepy"], true, None),
        (&["exited=x"], true, None),
        (&["colour=blue"], true, None),
    ];
    let lines: Vec<String> = cases
        .iter()
        .map(|(f, all, last)| format!("{f:?} {all} {last:?} => {}", names(f, *all, *last)))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}
