//! Processes in `top`: columns as `ps` names them, from the facts the engine reads. `ps` itself is never run.

use std::collections::HashMap;

use cata_engine::container::top::Process;
use jiff::tz::TimeZone;

use crate::parse::{ParseError, Parsed};
use crate::render::{table, time};

/// What a column needs besides the process.
pub(crate) struct Clock {
    /// Nanoseconds since the epoch.
    pub(crate) now: u64,
    pub(crate) zone: TimeZone,
    /// User names by uid, as the host knows them.
    pub(crate) users: HashMap<u32, String>,
}

/// `ps -ef`, Docker's default.
const FULL: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
/// `ps aux`.
const USER: [&str; 11] =
    ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tt", "stat", "start", "time", "command"];

/// Which columns `ps` options ask for, with their headings.
pub(crate) fn columns(options: &[String]) -> Parsed<Vec<(String, String)>> {
    let mut chosen: Vec<(String, String)> = Vec::new();
    let mut style: &[&str] = &FULL;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let text = word.trim();
        let list = match text {
            "-o" | "o" | "-eo" | "-axo" | "axo" | "--format" => {
                words.next().map(String::as_str).unwrap_or_default()
            }
            _ => match text.strip_prefix("--format=").or_else(|| text.strip_prefix("-o")) {
                Some(list) => list,
                None => {
                    style = style_of(text)?;
                    continue;
                }
            },
        };
        if list.is_empty() {
            return Err(ParseError::new(format!("ps option {text} wants a list of columns")));
        }
        for item in list.split([',', ' ']).filter(|item| !item.is_empty()) {
            let (name, heading) = item.split_once('=').unwrap_or((item, ""));
            let name = name.to_ascii_lowercase();
            let heading = if heading.is_empty() { heading_of(&name)? } else { heading.to_owned() };
            heading_of(&name)?;
            chosen.push((name, heading));
        }
    }
    if chosen.is_empty() {
        let named = |name: &&str| Ok(((*name).to_owned(), heading_of(name)?));
        return style.iter().map(named).collect();
    }
    Ok(chosen)
}

fn style_of(text: &str) -> Parsed<&'static [&'static str]> {
    match text {
        "aux" | "-aux" | "u" | "au" | "auxw" | "auxww" => Ok(&USER),
        "-ef" | "-e" | "-f" | "-A" | "-eF" | "ax" | "-ax" | "a" | "x" | "-a" => Ok(&FULL),
        _ => Err(ParseError::new(format!(
            "ps option '{text}' is not supported yet: use -ef, aux or -o COLUMNS"
        ))),
    }
}

fn heading_of(column: &str) -> Parsed<String> {
    let heading = match column {
        "uid" => "UID",
        "user" | "euser" => "USER",
        "pid" => "PID",
        "ppid" => "PPID",
        "c" => "C",
        "stime" => "STIME",
        "start" | "start_time" | "lstart" => "START",
        "tty" | "tt" | "tname" => "TTY",
        "time" | "cputime" => "TIME",
        "cmd" => "CMD",
        "command" | "args" => "COMMAND",
        "comm" | "ucmd" => "COMMAND",
        "%cpu" | "pcpu" => "%CPU",
        "%mem" | "pmem" => "%MEM",
        "vsz" | "vsize" => "VSZ",
        "rss" => "RSS",
        "stat" | "s" | "state" => "STAT",
        "etime" => "ELAPSED",
        "etimes" => "ELAPSED",
        _ => {
            return Err(ParseError::new(format!(
                "error: unknown user-defined format specifier \"{column}\""
            )));
        }
    };
    Ok(heading.to_owned())
}

/// The table.
pub(crate) fn text(processes: &[Process], columns: &[(String, String)], clock: &Clock) -> String {
    let heading = columns.iter().map(|(_, heading)| heading.as_str()).collect::<Vec<_>>().join("\t");
    let mut lines = vec![heading];
    for process in processes {
        let cells: Vec<String> = columns.iter().map(|(name, _)| cell(process, name, clock)).collect();
        // A tab in a command line would open a column of its own.
        lines.push(cells.iter().map(|cell| cell.replace(['\t', '\n'], " ")).collect::<Vec<_>>().join("\t"));
    }
    table::align(&lines, 20, 1)
}

fn cell(process: &Process, column: &str, clock: &Clock) -> String {
    let user = || clock.users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string());
    let elapsed = (clock.now / 1_000_000_000).saturating_sub(process.started);
    match column {
        // ps -f calls the user's name UID.
        "uid" | "user" | "euser" => user(),
        "pid" => process.pid.to_string(),
        "ppid" => process.parent.to_string(),
        "c" => format!("{:.0}", process.cpu_percent.floor().clamp(0.0, 99.0)),
        "stime" | "start" | "start_time" | "lstart" => {
            time::start_column(process.started, clock.now, &clock.zone)
        }
        "tty" | "tt" | "tname" => process.terminal.clone(),
        "time" | "cputime" => clock_text(process.cpu_seconds),
        "cmd" | "command" | "args" => process.command.clone(),
        "comm" | "ucmd" => process.name.clone(),
        "%cpu" | "pcpu" => format!("{:.1}", process.cpu_percent),
        "%mem" | "pmem" => format!("{:.1}", process.memory_percent),
        "vsz" | "vsize" => (process.virtual_bytes / 1024).to_string(),
        "rss" => (process.resident_bytes / 1024).to_string(),
        "stat" | "s" | "state" => process.state.clone(),
        "etime" => clock_text(elapsed),
        "etimes" => elapsed.to_string(),
        _ => String::new(),
    }
}

/// `00:01:02`, with days in front when there are any.
fn clock_text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let text = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{text}") } else { text }
}

/// User names of the host's `/etc/passwd`.
pub(crate) fn users(passwd: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use cata_engine::container::top::Process;
    use jiff::tz::TimeZone;

    use super::{Clock, columns, text, users};

    fn top(options: &[&str]) -> String {
        let process = Process {
            uid: 0,
            pid: 4242,
            parent: 4200,
            cpu_percent: 1.25,
            memory_percent: 0.3,
            virtual_bytes: 220 << 20,
            resident_bytes: 28 << 20,
            started: 1_700_000_000,
            terminal: "?".to_owned(),
            state: "Ss".to_owned(),
            cpu_seconds: 3723,
            command: "postgres -c\tfsync=off".to_owned(),
            name: "postgres".to_owned(),
        };
        let clock = Clock {
            now: 1_700_000_100_000_000_000,
            zone: TimeZone::UTC,
            users: users("root:x:0:0::/root:/bin/sh\n"),
        };
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        match columns(&options) {
            Ok(columns) => text(&[Process { uid: 999, ..process.clone() }, process], &columns, &clock),
            Err(error) => format!("{error}\n"),
        }
    }

    #[test]
    fn top_knows_the_usual_options() {
        let all: Vec<String> = [
            &[][..],
            &["aux"],
            &["-o", "pid,comm"],
            &["-eo", "pid=ID,etime"],
            &["-o", "shoe"],
            &["-Z"],
            &["-o"],
        ]
        .iter()
        .map(|options| format!("{options:?}\n{}", top(options)))
        .collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
