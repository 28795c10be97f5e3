//! `compare`: one image on both hulls, side by side.

use std::time::Duration;

use cata_engine::compare::{CompareRequest, Comparison, Hull, Ready};
use clap::Args;

use super::container::create::convert;
use crate::options::convert::Use;
use crate::options::create::CreateOptions;
use crate::parse;
use crate::render::error::Failure;
use crate::render::progress::{Screen, To};
use crate::render::{size, table};
use crate::session::{self, Session};
use crate::tree::{Exit, Outcome, Verb};

/// Where the processor is emulated a server takes its time.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    options: CreateOptions,
    /// What shows that it is ready: a TCP port that accepts, or a shell command that succeeds in it (its health check, or
    /// its first port)
    #[arg(long, value_name = "port|command")]
    ready: Option<String>,
    /// How long each may take to become ready
    #[arg(long, value_name = "duration", value_parser = parse::duration::parse)]
    timeout: Option<Duration>,
    /// Print with "table" or "json"
    #[arg(long, value_name = "string")]
    format: Option<String>,
    // Everything after the image belongs to the container, dashes or not.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    image_and_command: Vec<String>,
}

impl Verb for Compare {
    fn call(self, session: &Session) -> Outcome {
        self.refuse()?;
        let json = match self.format.as_deref() {
            None | Some("" | "table") => false,
            Some("json" | "{{json .}}") => true,
            Some(other) => {
                return Err(Failure::flag(format!("invalid value {other:?} for --format: table or json")));
            }
        };
        let quiet = self.options.life.quiet;
        let create = convert(self.options, self.image_and_command, Use::Detached)?;
        let ready = self.ready.map(|text| match text.parse() {
            Ok(port) => Ready::Port(port),
            Err(_) => Ready::Command(text),
        });
        let request = CompareRequest { create, ready, patience: self.timeout.unwrap_or(PATIENCE) };
        let screen = Screen::new(if quiet { To::Nowhere } else { To::Stderr });
        let comparison = session.engine()?.compare(&request, &screen)?;
        if json {
            let text = serde_json::to_string_pretty(&comparison)
                .map_err(|error| Failure::client(format!("cannot write the comparison: {error}")))?;
            session::print_line(text)?;
        } else {
            session::print(render(&comparison))?;
        }
        Ok(Exit::OK)
    }
}

impl Compare {
    /// What makes no sense with two containers that nobody is attached to.
    fn refuse(&self) -> Result<(), Failure> {
        let (process, life) = (&self.options.process, &self.options.life);
        let given = [
            ("--name", process.name.is_some()),
            ("--attach", !process.attach.is_empty()),
            ("--interactive", process.interactive),
            ("--isolation", self.options.isolation.isolation.is_some()),
            ("--restart", life.restart.is_some()),
            ("--cidfile", life.cidfile.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::flag(format!(
                "{flag} makes no sense with compare: it runs the image twice, unattended, and removes both"
            ))),
            None => Ok(()),
        }
    }
}

/// PURE: the table.
fn render(comparison: &Comparison) -> String {
    let Comparison { image, ready, host, container, vm } = comparison;
    let row =
        |name: &str, cell: &dyn Fn(&Hull) -> String| format!("{name}\t{}\t{}", cell(container), cell(vm));
    let has = |hull: &Hull, what: &str| hull.shared.get(what).copied().unwrap_or(false);
    let whose = |shared: bool| if shared { "the host's" } else { "its own" };
    let mut lines = vec![
        format!("{}\tCONTAINER\tVM", image.to_uppercase()),
        row("kernel", &|hull| format!("{} ({})", hull.view.kernel, whose(has(hull, "kernel")))),
        row("run by", &|hull| match &hull.machine {
            Some(machine) => machine.monitor.clone(),
            None => "the kernel".to_owned(),
        }),
        row("processors", &|hull| hull.view.cpus.to_string()),
        row("memory it sees", &|hull| size::binary(hull.view.memory)),
        row("first instruction", &|hull| milliseconds(hull.first_instruction_ms)),
        row("ready", &|hull| milliseconds(hull.ready_ms)),
        row("its processes", &|hull| hull.processes.to_string()),
        row("processes on the host", &|hull| on_host(hull)),
        row("memory, all of it", &|hull| size::binary(hull.memory.whole)),
        row("memory, the engine's part", &|hull| size::binary(hull.memory.outside)),
        row("root file system", &|hull| hull.view.root.clone()),
        row("device nodes", &|hull| hull.view.nodes.len().to_string()),
        row("hardware it drives", &|hull| {
            let hosts = has(hull, "kernel") && hull.view.drivers == host.drivers;
            if hosts { "the host's".to_owned() } else { hull.view.drivers.join(" ") }
        }),
    ];
    let kinds = container.shared.keys().filter(|kind| kind.as_str() != "kernel");
    lines.extend(kinds.map(|kind| row(kind, &|hull| whose(has(hull, kind)).to_owned())));
    let mut text = table::docker(&lines);
    text.push_str(&format!("\nReady: {}. Memory: proportional set sizes on the host.\n", ready.describe()));
    if let Some(machine) = &vm.machine {
        text.push_str(&format!("VM: {}, kernel {}: {}.\n", machine.monitor, machine.kernel, machine.reason));
    }
    text
}

fn milliseconds(value: f64) -> String {
    if value < 1000.0 { format!("{value:.1} ms") } else { format!("{:.2} s", value / 1000.0) }
}

/// `cata-supervisor, postgres ×6`.
fn on_host(hull: &Hull) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for process in &hull.on_host {
        match counted.iter_mut().find(|(name, _)| *name == process.name) {
            Some((_, count)) => *count += 1,
            None => counted.push((&process.name, 1)),
        }
    }
    let word = |(name, count): (&str, usize)| {
        if count > 1 { format!("{name} ×{count}") } else { name.to_owned() }
    };
    counted.into_iter().map(word).collect::<Vec<_>>().join(", ")
}
