//! A Dockerfile looked at without building: `--check` and `--call`.

use std::collections::BTreeMap;
use std::path::Path;

use cata_build::Dockerfile;
use cata_build::ast::{Instruction, Kind};
use cata_build::graph::{Base, Given, Graph};
use cata_build::ignore::Ignore;
use cata_build::lint;
use cata_build::metadata::MountKind;
use cata_build::stage::{Action, Plan};

use super::request::{BuildRequest, Context};
use super::{given, graph, language, parse};
use crate::error::{Error, Result};

/// What there is in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// In order.
    pub stages: Vec<OutlineStage>,
    /// The target's place in `stages`.
    pub target: usize,
    /// What the lint has to say.
    pub warnings: Vec<lint::Warning>,
    /// Arguments above the first FROM, and of the stages that the target needs.
    pub args: Vec<OutlineArg>,
    /// Secrets that steps ask for.
    pub secrets: Vec<Asked>,
    /// Agents that steps ask for.
    pub agents: Vec<Asked>,
    /// Caches that steps have.
    pub caches: Vec<Asked>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutlineStage {
    /// Its name, or `stage-` and its number.
    pub title: String,
    /// Its name as it was given.
    pub name: Option<String>,
    /// What a comment above says of it.
    pub description: Option<String>,
    /// What it builds on.
    pub base: String,
    /// `FROM --platform`, expanded.
    pub platform: Option<String>,
    /// The line of its FROM.
    pub line: usize,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What was given for it, or its default.
    pub value: Option<String>,
    /// What a comment above says of it.
    pub description: Option<String>,
    /// Where it is.
    pub line: usize,
}

/// Something that a step asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Its id.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The step's line.
    pub line: usize,
}

/// Reads and checks a Dockerfile; builds nothing.
///
/// # Errors
/// A fault in it.
pub fn outline(request: &BuildRequest) -> Result<Outline> {
    let file = parse(request)?;
    let given = given(request, request.platforms.first())?;
    let graph = graph(request, &file, &given)?;
    let mut found = Outline { target: graph.target, ..Outline::default() };
    let ignore = ignore(request)?;
    let mut warnings = lint::file(&file);
    warnings.extend(graph.warnings.clone());
    for index in graph.needed(graph.target) {
        let plan = plan(request, &graph, index, &given)?;
        warnings.extend(lint::ignored(&plan, &ignore));
        asked(&plan, &mut found);
        warnings.extend(plan.warnings);
    }
    found.warnings = wanted(&settings(request, &file)?, warnings);
    let froms: Vec<&Instruction> =
        file.instructions.iter().filter(|instruction| matches!(instruction.kind, Kind::From(_))).collect();
    found.stages = graph
        .stages
        .iter()
        .zip(froms)
        .map(|(stage, from)| {
            let given = match &from.kind {
                Kind::From(from) => from.name.clone(),
                _ => None,
            };
            OutlineStage {
                title: graph.title(stage.index),
                description: given.as_deref().and_then(|name| from.description(name)).map(str::to_owned),
                name: stage.name.clone(),
                base: stage.base_name.clone(),
                platform: stage.platform.clone(),
                line: stage.line,
            }
        })
        .collect();
    found.args = args(&file, &graph, request);
    Ok(found)
}

/// A stage without its base image: one that builds on an unknown base has variables nobody knows, so what is
/// undefined in it cannot be told.
fn plan(request: &BuildRequest, graph: &Graph, index: usize, given: &Given) -> Result<Plan> {
    let mut plan = cata_build::stage::plan(graph, index, given, &cata_build::stage::scratch(), None)
        .map_err(|error| language(request, &error))?;
    if matches!(graph.stages[index].base, Base::External(_)) {
        plan.warnings.retain(|warning| warning.rule != lint::Rule::UndefinedVar);
    }
    Ok(plan)
}

fn asked(plan: &Plan, found: &mut Outline) {
    for step in &plan.steps {
        let Action::Run(run) = &step.action else { continue };
        for mount in &run.mounts {
            let (list, id, required) = match &mount.kind {
                MountKind::Secret { id, required, .. } => (&mut found.secrets, id, *required),
                MountKind::Ssh { id, required, .. } => (&mut found.agents, id, *required),
                MountKind::Cache { id, .. } => (&mut found.caches, id, false),
                MountKind::Bind { .. } | MountKind::Tmpfs { .. } => continue,
            };
            match list.iter_mut().find(|known| known.id == *id) {
                Some(known) => known.required |= required,
                None => list.push(Asked { id: id.clone(), required, line: step.line }),
            }
        }
    }
}

fn args(file: &Dockerfile, graph: &Graph, request: &BuildRequest) -> Vec<OutlineArg> {
    let above = file.instructions.iter().take_while(|instruction| !matches!(instruction.kind, Kind::From(_)));
    let needed = graph.needed(graph.target);
    let below = needed.iter().flat_map(|index| &graph.stages[*index].instructions);
    let mut found: BTreeMap<(usize, &str), OutlineArg> = BTreeMap::new();
    for instruction in above.chain(below) {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            let value = request.args.get(&arg.name).or(arg.default.as_ref());
            let value = value.cloned().or_else(|| graph.globals.get(&arg.name).cloned().flatten());
            found.insert(
                (instruction.line, &arg.name),
                OutlineArg {
                    name: arg.name.clone(),
                    value,
                    description: instruction.description(&arg.name).map(str::to_owned),
                    line: instruction.line,
                },
            );
        }
    }
    let mut known: Vec<OutlineArg> = Vec::new();
    for arg in found.into_values() {
        // Declared again in a stage, it is the same one.
        match known.iter_mut().find(|other| other.name == arg.name) {
            Some(other) => {
                other.value = other.value.take().or(arg.value);
                other.description = other.description.take().or(arg.description);
            }
            None => known.push(arg),
        }
    }
    known
}

/// What the lint is told: by a `# check=` line, or by `--build-arg BUILDKIT_DOCKERFILE_CHECK` instead.
pub(super) fn settings(request: &BuildRequest, file: &Dockerfile) -> Result<lint::Settings> {
    let over = request.args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    lint::Settings::of(file, over).map_err(Error::Invalid)
}

/// What is wanted of findings, in order, once each.
pub(super) fn wanted(settings: &lint::Settings, mut found: Vec<lint::Warning>) -> Vec<lint::Warning> {
    found.retain(|warning| settings.wants(warning));
    found.sort_by_key(|warning| (warning.line, warning.rule));
    found.dedup();
    found
}

/// With `error=true` findings end a build.
pub(super) fn refuse(settings: &lint::Settings, found: &[lint::Warning]) -> Result<()> {
    if !settings.error || found.is_empty() {
        return Ok(());
    }
    let said = found.iter().map(|w| format!("{:?}: {} (line {})", w.rule, w.message, w.line));
    let said = said.collect::<Vec<_>>().join("\n");
    Err(Error::Invalid(format!("what the lint found is an error here (check: error=true)\n{said}")))
}

/// What is left out of the build context.
fn ignore(request: &BuildRequest) -> Result<Ignore> {
    let text = match (&request.dockerfile.ignore, &request.context) {
        (Some(text), _) => text.clone(),
        (None, Context::Directory(path)) => read(&path.join(".dockerignore"))?,
        (None, Context::Empty) => String::new(),
    };
    Ignore::parse(&text).map_err(|why| Error::Invalid(format!(".dockerignore: {why}")))
}

fn read(path: &Path) -> Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::file("read", path)(e)),
    }
}
