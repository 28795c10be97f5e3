//! `info`.

use clap::Args;
use serde_json::Value;

use crate::render::size;
use crate::render::template::Format;
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Print with "json" or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Verb for Info {
    fn call(self, session: &Session) -> Outcome {
        let document = session.engine()?.info()?;
        match self.format.as_deref().unwrap_or_default() {
            "" => session::print(text(&document))?,
            "json" => session::print_line(document.to_string())?,
            template => session::print_line(Format::parse(template)?.fill(&document)?)?,
        }
        Ok(Exit::OK)
    }
}

/// Docker's lines; what the engine does not say is left out.
const LINES: [(&str, &str); 20] = [
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Isolation", "Isolation"),
    ("Security Options", "SecurityOptions"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("Root Dir", "DockerRootDir"),
];

fn text(document: &Value) -> String {
    let mut text = String::new();
    for (label, key) in LINES {
        let value = match (key, document.get(key)) {
            (_, None | Some(Value::Null)) => continue,
            ("MemTotal", Some(bytes)) => size::binary(bytes.as_u64().unwrap_or_default()),
            (_, Some(Value::String(string))) => string.clone(),
            (_, Some(Value::Array(items))) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
            (_, Some(Value::Object(map))) => {
                map.iter().map(|(k, v)| format!("{k}: {}", plain(v))).collect::<Vec<_>>().join(", ")
            }
            (_, Some(other)) => other.to_string(),
        };
        text.push_str(&format!("{label}: {value}\n"));
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn text_shows_what_is_known() {
        let document = json!({
            "Containers": 3, "ContainersRunning": 1, "MemTotal": 25_272_000_000_u64, "Name": "box",
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"], "Isolation": {"process": "yes"},
        });
        insta::assert_snapshot!(text(&document), @r"
        Containers: 3
         Running: 1
        Isolation: process: yes
        Security Options: name=seccomp,profile=builtin name=cgroupns
        Total Memory: 23.54GiB
        Name: box
        ");
    }
}
