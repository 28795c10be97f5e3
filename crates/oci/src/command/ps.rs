//! `ps`: the processes of a container.

use std::process::Command as Program;

use super::{Command, HELP};
use crate::World;
use crate::args::{Given, value};
use crate::error::{Error, Result};

pub(super) const COMMAND: Command = Command {
    name: "ps",
    words: "ID [OPTIONS OF ps]",
    help: "list the processes of a container",
    flags: &[value("format", "f", "FORMAT", "`table` or `json`"), HELP],
    stop: 1,
    count: (1, usize::MAX),
    makes: false,
    run,
};

fn run(world: &World, given: &Given) -> Result<u8> {
    let container = world.store.get(super::id(given))?;
    let pids = match container.cgroup() {
        Some(cgroup) => cgroup.processes().map_err(|e| Error::chain("list processes", &e))?,
        None => container.process().map(|(pid, _)| pid.as_raw_nonzero().get()).into_iter().collect(),
    };
    match given.get("format").unwrap_or("table") {
        "json" => println!("{}", serde_json::Value::from(pids)),
        "table" => {
            let options: Vec<&String> = given.words.iter().skip(1).collect();
            let mut ps = Program::new("ps");
            if options.is_empty() {
                ps.arg("-ef");
            }
            let output = ps.args(options).output().map_err(|e| Error::new(format!("run ps: {e}")))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines();
            let header = lines.next().unwrap_or_default();
            let column = header.split_whitespace().position(|word| word == "PID");
            let column = column.ok_or_else(|| Error::new("the output of ps has no column PID"))?;
            println!("{header}");
            for line in lines {
                let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
                if pid.is_some_and(|pid| pids.contains(&pid)) {
                    println!("{line}");
                }
            }
        }
        other => return Err(Error::usage(format!("invalid format `{other}`: it is `table` or `json`"))),
    }
    Ok(0)
}

/// Columns as wide as their widest cell.
pub(super) fn print<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("   ").trim_end());
    }
}
