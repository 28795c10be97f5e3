//! PURE: one stage becomes steps, once the configuration of what it builds on is known.
//!
//! All variables are expanded here, in the order of the instructions; a step holds what is done and nothing
//! else. The configuration changes as the instructions say; the history has a line for each.

mod copy;
mod scope;

pub use copy::{CopySource, CopyStep, Origin};
pub use scope::Arguments;

use std::collections::BTreeMap;

use cata_spec::image::{ContainerConfig, Healthcheck};

use crate::ast::{self, Command, Instruction, Kind};
use crate::error::{Error, Result};
use crate::graph::{Given, Graph};
use crate::lint::{Rule, Warning};
use crate::metadata::{self, Device, Mount, absolute};
use crate::print::json;
use scope::Names;

/// Where programs are looked for in an image that does not say.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage, ready to be performed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// How an image of it is run.
    pub config: ContainerConfig,
    /// MAINTAINER.
    pub author: Option<String>,
    /// For stages that build on this one.
    pub arguments: Arguments,
    /// What the lint has to say.
    pub warnings: Vec<Warning>,
    /// Build arguments that were asked for.
    pub consumed: Vec<String>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where it stands; 0 for a trigger of the base image.
    pub line: usize,
    /// What the screen shows.
    pub title: String,
    /// What the history shows.
    pub created_by: String,
    /// What is done.
    pub action: Action,
}

/// What a step does to the file system.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing: it only changes the configuration.
    Nothing,
    /// Makes the working directory.
    Workdir {
        /// Absolute.
        path: String,
        /// `USER`, whose it will be.
        user: String,
    },
    /// Runs a program.
    Run(Box<RunStep>),
    /// Copies files.
    Copy(Box<CopyStep>),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// A script that is put at this path for the run.
    pub script: Option<(String, String)>,
    /// `NAME=value`: the image's and the build arguments.
    pub env: Vec<String>,
    /// Proxies, which make no difference to the result.
    pub proxies: Vec<String>,
    /// `USER`.
    pub user: String,
    /// `WORKDIR`.
    pub workdir: String,
    /// `--mount`.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// Plans a stage.
///
/// # Errors
/// A fault in an instruction, with its line.
pub fn plan(
    graph: &Graph,
    index: usize,
    given: &Given,
    base: &ContainerConfig,
    inherited: Option<&Arguments>,
) -> Result<Plan> {
    let stage = &graph.stages[index];
    let mut planner = Planner {
        graph,
        index,
        given,
        names: Names::new(graph, inherited, &base.env),
        plan: Plan {
            steps: Vec::new(),
            config: base.clone(),
            author: None,
            arguments: Arguments::default(),
            warnings: Vec::new(),
            consumed: Vec::new(),
        },
        cmd_set: false,
    };
    for trigger in std::mem::take(&mut planner.plan.config.on_build) {
        let mut instruction = crate::parse::parse_trigger(&trigger, '\\')
            .map_err(|error| trigger_error(&error, &trigger, &stage.base_name, stage.line))?;
        instruction.line = 0;
        planner
            .instruction(&instruction)
            .map_err(|error| trigger_error(&error, &trigger, &stage.base_name, stage.line))?;
    }
    for instruction in &stage.instructions {
        planner.instruction(instruction).map_err(|error| error.on(instruction.line))?;
    }
    planner.plan.arguments = planner.names.arguments;
    planner.plan.consumed = planner.names.consumed;
    Ok(planner.plan)
}

fn trigger_error(error: &Error, trigger: &str, base: &str, line: usize) -> Error {
    Error::new(format!("ONBUILD trigger `{trigger}` of {base}: {}", error.message)).on(line)
}

struct Planner<'p> {
    graph: &'p Graph,
    index: usize,
    given: &'p Given,
    names: Names,
    plan: Plan,
    cmd_set: bool,
}

impl Planner<'_> {
    fn instruction(&mut self, instruction: &Instruction) -> Result<()> {
        let line = instruction.line;
        let text = instruction.text.as_str();
        match &instruction.kind {
            Kind::From(_) => {}
            Kind::Run(run) => self.run(run, instruction)?,
            Kind::Cmd(command) => {
                self.plan.config.cmd = Some(self.command(command));
                self.cmd_set = true;
                self.nothing(line, text, format!("CMD {}", words(self.plan.config.cmd.as_ref())));
            }
            Kind::Entrypoint(command) => {
                self.plan.config.entrypoint = Some(self.command(command));
                if !self.cmd_set {
                    self.plan.config.cmd = None;
                }
                self.nothing(
                    line,
                    text,
                    format!("ENTRYPOINT {}", words(self.plan.config.entrypoint.as_ref())),
                );
            }
            Kind::Copy(copy) => self.copy(copy, instruction, false)?,
            Kind::Add(copy) => self.copy(copy, instruction, true)?,
            Kind::Env(pairs) => self.env(pairs, line, text)?,
            Kind::Label(pairs) => self.label(pairs, line, text)?,
            Kind::Arg(args) => self.args(args, line, text)?,
            Kind::Expose(ports) => self.expose(ports, line, text)?,
            Kind::Volume(paths) => self.volume(paths, line, text)?,
            Kind::User(user) => {
                let user = self.word(user, line)?;
                self.nothing(line, text, format!("USER {user}"));
                self.plan.config.user = user;
            }
            Kind::Workdir(path) => self.workdir(path, line, text)?,
            Kind::Stopsignal(signal) => {
                let signal = self.word(signal, line)?;
                if !metadata::is_signal(&signal) {
                    return Err(Error::new(format!("invalid signal: {signal}"))
                        .at(signal)
                        .hint("SIGTERM, or a number"));
                }
                self.nothing(line, text, format!("STOPSIGNAL {signal}"));
                self.plan.config.stop_signal = Some(signal);
            }
            Kind::Maintainer(name) => {
                self.plan.author = Some(name.clone());
                self.nothing(line, text, format!("MAINTAINER {name}"));
            }
            Kind::Shell(shell) => {
                self.plan.config.shell = Some(shell.clone());
                self.nothing(line, text, format!("SHELL [{}]", shell.join(" ")));
            }
            Kind::Healthcheck(check) => self.healthcheck(check, line, text),
            Kind::Onbuild(onbuild) => {
                self.plan.config.on_build.push(onbuild.trigger.clone());
                self.nothing(line, text, format!("ONBUILD {}", onbuild.trigger));
            }
        }
        Ok(())
    }

    fn label(&mut self, pairs: &[ast::Pair], line: usize, text: &str) -> Result<()> {
        let mut said = String::from("LABEL");
        for pair in pairs {
            let (name, value) = (self.word(&pair.name, line)?, self.value(pair, line)?);
            said.push_str(&format!(" {name}={value}"));
            self.plan.config.labels.insert(name, value);
        }
        self.nothing(line, text, said);
        Ok(())
    }

    fn expose(&mut self, ports: &[String], line: usize, text: &str) -> Result<()> {
        let mut said = Vec::new();
        for port in ports {
            for word in self.words(port, line)? {
                let ports = metadata::ports(&word)?;
                said.extend(ports.iter().map(|port| format!("{port}:{{}}")));
                self.plan.config.exposed_ports.extend(ports);
            }
        }
        // As Docker's tools write it, who sort them as texts.
        said.sort();
        self.nothing(line, text, format!("EXPOSE map[{}]", said.join(" ")));
        Ok(())
    }

    fn volume(&mut self, paths: &[String], line: usize, text: &str) -> Result<()> {
        let mut said = Vec::new();
        for path in paths {
            let path = self.word(path, line)?;
            if path.is_empty() {
                return Err(Error::new("VOLUME specified can not be an empty string"));
            }
            said.push(path.clone());
            self.plan.config.volumes.insert(path);
        }
        self.nothing(line, text, format!("VOLUME [{}]", said.join(" ")));
        Ok(())
    }

    fn nothing(&mut self, line: usize, title: &str, created_by: String) {
        self.step(line, title.to_owned(), created_by, Action::Nothing);
    }

    fn step(&mut self, line: usize, title: String, created_by: String, action: Action) {
        self.plan.steps.push(Step { line, title, created_by, action });
    }

    fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        self.plan.config.shell.clone().filter(|shell| !shell.is_empty()).unwrap_or_else(default)
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => [self.shell(), vec![line.clone()]].concat(),
        }
    }

    fn env(&mut self, pairs: &[ast::Pair], line: usize, text: &str) -> Result<()> {
        let mut said = String::from("ENV");
        let mut new = Vec::new();
        for pair in pairs {
            // Each sees what was before this instruction.
            let (name, value) = (self.word(&pair.name, line)?, self.value(pair, line)?);
            said.push_str(&format!(" {name}={value}"));
            new.push((name, value));
        }
        for (name, value) in new {
            let line = format!("{name}={value}");
            let prefix = format!("{name}=");
            match self.plan.config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
                Some(known) => *known = line,
                None => self.plan.config.env.push(line),
            }
            self.names.env.insert(name, value);
        }
        self.nothing(line, text, said);
        Ok(())
    }

    /// A pair's value; in the old form, quotes at its ends count as in the new one.
    fn value(&mut self, pair: &ast::Pair, line: usize) -> Result<String> {
        self.word(&pair.value, line)
    }

    fn args(&mut self, args: &[ast::Arg], line: usize, text: &str) -> Result<()> {
        let mut said = Vec::new();
        for arg in args {
            let default = match &arg.default {
                Some(default) => Some(self.word(default, line)?),
                None => None,
            };
            let value = self.names.declare(&arg.name, default.clone(), self.given);
            said.push(match (&arg.default, value) {
                (None, None) => arg.name.clone(),
                (_, value) => format!("{}={}", arg.name, value.or(default).unwrap_or_default()),
            });
        }
        self.nothing(line, text, format!("ARG {}", said.join(" ")));
        Ok(())
    }

    fn workdir(&mut self, path: &str, line: usize, text: &str) -> Result<()> {
        let path = self.word(path, line)?;
        if path.is_empty() {
            return Err(Error::new("WORKDIR needs a path").hint("a variable in it has no value"));
        }
        let before = &self.plan.config.working_dir;
        if !path.starts_with('/') && (before.is_empty() || before == "/") && line > 0 {
            let first = self.plan.steps.iter().all(|step| !matches!(step.action, Action::Workdir { .. }));
            if first {
                self.plan.warnings.push(Warning::new(
                    Rule::WorkdirRelativePath,
                    line,
                    format!(
                        "Relative workdir {path:?} can have unexpected results if the base image changes"
                    ),
                ));
            }
        }
        let path = absolute(before, &path);
        self.plan.config.working_dir.clone_from(&path);
        let user = self.plan.config.user.clone();
        self.step(line, text.to_owned(), format!("WORKDIR {path}"), Action::Workdir { path, user });
        Ok(())
    }

    fn healthcheck(&mut self, check: &ast::Healthcheck, line: usize, text: &str) {
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => [vec!["CMD".to_owned()], words.clone()].concat(),
            Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        self.plan.config.healthcheck = Some(Healthcheck {
            test,
            interval: check.interval.unwrap_or(0),
            timeout: check.timeout.unwrap_or(0),
            start_period: check.start_period.unwrap_or(0),
            start_interval: check.start_interval.unwrap_or(0),
            retries: check.retries.unwrap_or(0),
        });
        self.nothing(line, text, text.to_owned());
    }

    fn run(&mut self, run: &ast::Run, instruction: &Instruction) -> Result<()> {
        let line = instruction.line;
        let workdir =
            if self.plan.config.working_dir.is_empty() { "/" } else { &self.plan.config.working_dir };
        let workdir = workdir.to_owned();
        let mounts = self.mounts(run, line, &workdir)?;
        let network = match run.network.as_deref() {
            None => None,
            Some("default") => Some("default".to_owned()),
            Some(mode @ ("none" | "host")) => Some(mode.to_owned()),
            Some(other) => {
                return Err(Error::new(format!("invalid network mode {other:?}"))
                    .at(other)
                    .hint("default, none or host"));
            }
        };
        let insecure = match run.security.as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") => true,
            Some(other) => {
                return Err(Error::new(format!("security {other:?} is not valid"))
                    .at(other)
                    .hint("sandbox or insecure"));
            }
        };
        let mut devices = Vec::new();
        for text in &run.devices {
            devices.push(metadata::device(&self.word(text, line)?)?);
        }
        let (argv, script) = self.run_command(run);
        let declared = self.names.for_run();
        let mut said = String::from("RUN ");
        if !declared.is_empty() {
            said.push_str(&format!("|{} {} ", declared.len(), declared.join(" ")));
        }
        said.push_str(&argv.join(" "));
        let mut env = self.plan.config.env.clone();
        if !env.iter().any(|line| line.starts_with("PATH=")) {
            env.insert(0, format!("PATH={PATH}"));
        }
        env.extend(declared);
        let step = RunStep {
            argv,
            script,
            env,
            proxies: self.names.proxies(self.given),
            user: self.plan.config.user.clone(),
            workdir,
            mounts,
            network,
            insecure,
            devices,
        };
        self.step(line, instruction.text.clone(), said, Action::Run(Box::new(step)));
        Ok(())
    }

    fn mounts(&mut self, run: &ast::Run, line: usize, workdir: &str) -> Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for text in &run.mounts {
            let text = self.word_keeping_quotes(text, line)?;
            let mount = metadata::mount(&text, workdir)?;
            if mount.from().is_some_and(|from| from.contains('$')) {
                let from = mount.from().unwrap_or_default().to_owned();
                return Err(Error::new("variables are not expanded in `from`").at(from));
            }
            mounts.push(mount);
        }
        Ok(mounts)
    }

    /// The command, and a script if the here-document is one.
    fn run_command(&self, run: &ast::Run) -> (Vec<String>, Option<(String, String)>) {
        let line = match &run.command {
            Command::Exec(words) => return (words.clone(), None),
            Command::Shell(line) => line,
        };
        let Some(first) = run.heredocs.first() else { return (self.command(&run.command), None) };
        let alone = line.split_whitespace().count() == 1 && run.heredocs.len() == 1;
        if alone && first.content.starts_with("#!") {
            let path = format!("/dev/pipes/{}", first.name);
            return (vec![path.clone()], Some((path, first.content.clone())));
        }
        let mut text = String::new();
        if alone {
            text.clone_from(&first.content);
        } else {
            text.push_str(line);
            for heredoc in &run.heredocs {
                text.push('\n');
                text.push_str(&heredoc.content);
                text.push_str(&heredoc.name);
            }
        }
        ([self.shell(), vec![text]].concat(), None)
    }

    fn word(&mut self, text: &str, line: usize) -> Result<String> {
        let escape = self.graph.escape;
        self.names.expand(escape, line, &mut self.plan.warnings, |scope| scope.word(text))
    }

    fn words(&mut self, text: &str, line: usize) -> Result<Vec<String>> {
        let escape = self.graph.escape;
        self.names.expand(escape, line, &mut self.plan.warnings, |scope| scope.words(text))
    }

    fn word_keeping_quotes(&mut self, text: &str, line: usize) -> Result<String> {
        let escape = self.graph.escape;
        self.names.expand(escape, line, &mut self.plan.warnings, |scope| scope.document(text))
    }
}

fn words(list: Option<&Vec<String>>) -> String {
    json(list.map_or(&[], Vec::as_slice))
}

/// The configuration that `FROM scratch` begins with.
#[must_use]
pub fn scratch() -> ContainerConfig {
    ContainerConfig {
        env: vec![format!("PATH={PATH}")],
        working_dir: "/".to_owned(),
        labels: BTreeMap::new(),
        ..ContainerConfig::default()
    }
}

#[cfg(test)]
mod tests;
