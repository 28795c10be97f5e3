//! PURE: the stages of a Dockerfile, what each builds on and takes from, and which a target needs.

use std::collections::BTreeMap;

use crate::ast::{Dockerfile, Instruction, Kind};
use crate::error::{Error, Result, nearest};
use crate::expand::Scope;
use crate::lint::{Rule, Warning};

/// What the command line says about variables and platforms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// The platform that is built for, `linux/amd64`.
    pub target_platform: String,
    /// The platform that is built on.
    pub build_platform: String,
    /// `--target`.
    pub target: Option<String>,
}

/// The stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// In the order of the file.
    pub stages: Vec<Stage>,
    /// Which is asked for.
    pub target: usize,
    /// ARGs above the first FROM, and those that are always there.
    pub globals: BTreeMap<String, Option<String>>,
    /// How the file escapes.
    pub escape: char,
    /// What the lint has to say.
    pub warnings: Vec<Warning>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its place in the file.
    pub index: usize,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// What it builds on.
    pub base: Base,
    /// `FROM`'s image with variables expanded.
    pub base_name: String,
    /// `FROM --platform`, expanded.
    pub platform: Option<String>,
    /// The line of its FROM.
    pub line: usize,
    /// Without FROM.
    pub instructions: Vec<Instruction>,
    /// Stages it takes files from.
    pub takes_from: Vec<usize>,
}

/// What a stage builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(usize),
    /// An image, or a named context.
    External(String),
}

/// Variables that are always there, in the scope above the first FROM.
#[must_use]
pub fn platform_args(given: &Given, stage: &str) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("TARGET", &given.target_platform), ("BUILD", &given.build_platform)] {
        let mut parts = platform.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        args.insert(format!("{prefix}OS"), part());
        args.insert(format!("{prefix}ARCH"), part());
        args.insert(format!("{prefix}VARIANT"), part());
        args.insert(format!("{prefix}PLATFORM"), platform.clone());
    }
    args.insert("TARGETSTAGE".to_owned(), stage.to_owned());
    args
}

impl Graph {
    /// Finds the stages.
    ///
    /// # Errors
    /// An unknown target; a FROM whose variables give no name.
    pub fn new(file: &Dockerfile, given: &Given) -> Result<Self> {
        let escape = file.directives.escape;
        let stage = given.target.as_deref().unwrap_or("default");
        let mut globals: BTreeMap<String, Option<String>> =
            platform_args(given, stage).into_iter().map(|(name, value)| (name, Some(value))).collect();
        // An argument that is given replaces a predefined one.
        for (name, value) in &given.args {
            if let Some(known) = globals.get_mut(name) {
                *known = Some(value.clone());
            }
        }
        // As if nothing were given: what the defaults alone make of a FROM.
        let mut defaults = globals.clone();
        let mut graph =
            Self { stages: Vec::new(), target: 0, globals: BTreeMap::new(), escape, warnings: Vec::new() };
        for instruction in &file.instructions {
            match &instruction.kind {
                Kind::From(from) => {
                    let stage = graph.from(instruction, from, &globals)?;
                    let (name, _) = expand(&defaults, &from.image, escape, instruction.line)?;
                    if !crate::lint::is_image_name(&name) && graph.stage_named(stage.index, &name).is_none() {
                        graph.warnings.push(Warning::new(
                            Rule::InvalidDefaultArgInFrom,
                            instruction.line,
                            format!(
                                "Default value for ARG {} results in empty or invalid base image name",
                                from.image
                            ),
                        ));
                    }
                    graph.stages.push(stage);
                }
                Kind::Arg(args) if graph.stages.is_empty() => {
                    for arg in args {
                        let value = match (given.args.get(&arg.name), &arg.default) {
                            (Some(value), _) => Some(value.clone()),
                            (None, Some(default)) => {
                                Some(expand(&globals, default, escape, instruction.line)?.0)
                            }
                            (None, None) => globals.get(&arg.name).cloned().flatten(),
                        };
                        globals.insert(arg.name.clone(), value);
                        let default = match &arg.default {
                            Some(default) => Some(expand(&defaults, default, escape, instruction.line)?.0),
                            None => defaults.get(&arg.name).cloned().flatten(),
                        };
                        defaults.insert(arg.name.clone(), default);
                    }
                }
                kind => {
                    let origin = origin(kind);
                    let Some(stage) = graph.stages.last() else { continue };
                    let (index, mut takes) = (stage.index, stage.takes_from.clone());
                    for name in origin {
                        takes.extend(graph.stage_before(index, &name));
                    }
                    if let Some(stage) = graph.stages.last_mut() {
                        stage.takes_from = takes;
                        stage.instructions.push(instruction.clone());
                    }
                }
            }
        }
        graph.globals = globals;
        graph.target = match &given.target {
            None => graph.stages.len().saturating_sub(1),
            Some(name) => graph.find(name).ok_or_else(|| graph.unknown_target(name))?,
        };
        Ok(graph)
    }

    fn from(
        &mut self,
        instruction: &Instruction,
        from: &crate::ast::From,
        globals: &BTreeMap<String, Option<String>>,
    ) -> Result<Stage> {
        let line = instruction.line;
        let (base_name, undefined) = expand(globals, &from.image, self.escape, line)?;
        if base_name.trim().is_empty() {
            let mut error = Error::new(format!("base name ({}) should not be blank", from.image))
                .at(from.image.clone())
                .on(line);
            if let Some(name) = undefined.first() {
                error = error.hint(format!("{name} has no value: only ARGs above the first FROM count here"));
            }
            return Err(error);
        }
        for name in undefined {
            self.warnings.push(Warning::new(
                Rule::UndefinedArgInFrom,
                line,
                format!("FROM argument '{name}' is not declared"),
            ));
        }
        let platform = match &from.platform {
            Some(platform) => Some(expand(globals, platform, self.escape, line)?.0).filter(|p| !p.is_empty()),
            None => None,
        };
        let index = self.stages.len();
        let name = from.name.as_ref().map(|name| name.to_ascii_lowercase());
        if let Some(name) = &name
            && self.stages.iter().any(|stage| stage.name.as_ref() == Some(name))
        {
            self.warnings.push(Warning::new(
                Rule::DuplicateStageName,
                line,
                format!("Duplicate stage name {name:?}, stage names should be unique"),
            ));
        }
        let base = match self.stage_named(index, &base_name) {
            Some(stage) => Base::Stage(stage),
            None if base_name == "scratch" => Base::Scratch,
            None => Base::External(base_name.clone()),
        };
        Ok(Stage {
            index,
            name,
            base,
            base_name,
            platform,
            line,
            instructions: Vec::new(),
            takes_from: Vec::new(),
        })
    }

    /// An earlier stage by name: the latest of that name.
    fn stage_named(&self, before: usize, name: &str) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        self.stages[..before].iter().rposition(|stage| stage.name.as_ref() == Some(&name))
    }

    /// An earlier stage by name or number.
    #[must_use]
    pub fn stage_before(&self, before: usize, name: &str) -> Option<usize> {
        self.stage_named(before, name).or_else(|| name.parse().ok().filter(|number| *number < before))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.stage_before(self.stages.len(), name)
    }

    /// A stage whose name looks like it.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.stages.iter().filter_map(|stage| stage.name.as_deref()))
    }

    fn unknown_target(&self, name: &str) -> Error {
        let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let error = Error::new(format!("target stage {name:?} could not be found"));
        match self.nearest(name) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None if names.is_empty() => error.hint("no stage of this Dockerfile has a name"),
            None => error.hint(format!("its stages are {}", names.join(", "))),
        }
    }

    /// The stages a stage needs, itself included, in ascending order: those it builds on, and those it takes
    /// files from.
    #[must_use]
    pub fn needed(&self, target: usize) -> Vec<usize> {
        let mut needed = std::collections::BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            if needed.insert(index) {
                let stage = &self.stages[index];
                waiting.extend(&stage.takes_from);
                if let Base::Stage(base) = stage.base {
                    waiting.push(base);
                }
            }
        }
        needed.into_iter().collect()
    }

    /// How a stage is called on the screen.
    #[must_use]
    pub fn title(&self, index: usize) -> String {
        match &self.stages[index].name {
            Some(name) => name.clone(),
            None => format!("stage-{index}"),
        }
    }
}

/// What `COPY --from` and `RUN --mount=from=` name.
fn origin(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Copy(copy) => copy.from.clone().into_iter().collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| mount.split(','))
            .filter_map(|field| field.strip_prefix("from="))
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// A word with global arguments; also those without a value.
fn expand(
    globals: &BTreeMap<String, Option<String>>,
    text: &str,
    escape: char,
    line: usize,
) -> Result<(String, Vec<String>)> {
    let lookup = |name: &str| globals.get(name).cloned().flatten();
    let mut scope = Scope::new(&lookup, escape);
    let word = scope.word(text).map_err(|error| error.on(line))?;
    Ok((word, scope.undefined))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str, target: Option<&str>, args: &[(&str, &str)]) -> Result<Graph> {
        let given = Given {
            args: args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            target_platform: "linux/arm64/v8".into(),
            build_platform: "linux/amd64".into(),
            target: target.map(str::to_owned),
        };
        Graph::new(&crate::parse(text)?, &given)
    }

    #[test]
    fn stages_that_nothing_needs_are_left_out() {
        let text = "FROM a AS one\nRUN x\nFROM b AS two\nFROM c\nCOPY --from=one /x /\nRUN --mount=from=0,target=/m y\nFROM two";
        let graph = graph(text, None, &[]).unwrap();
        assert_eq!(graph.needed(graph.target), [1, 3]);
        assert_eq!(graph.needed(2), [0, 2]);
        assert_eq!(graph.stages[3].base, Base::Stage(1));
    }

    #[test]
    fn global_arguments_are_expanded_in_from() {
        let text = "ARG V=1\nARG IMAGE=base:${V}\nFROM --platform=$BUILDPLATFORM ${IMAGE} AS b\nFROM x-$TARGETARCH$TARGETVARIANT";
        let plain = graph(text, None, &[]).unwrap();
        assert_eq!(plain.stages[0].base, Base::External("base:1".into()));
        assert_eq!(plain.stages[0].platform.as_deref(), Some("linux/amd64"));
        assert_eq!(plain.stages[1].base_name, "x-arm64v8");
        let given = graph(text, Some("B"), &[("V", "2")]).unwrap();
        assert_eq!((given.target, given.stages[0].base_name.as_str()), (0, "base:2"));
    }

    #[test]
    fn an_unknown_target_names_the_near_one() {
        let error = graph("FROM a AS builder", Some("bulider"), &[]).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean builder?"));
        let error = graph("FROM $NONE", None, &[]).unwrap_err();
        assert_eq!(error.line, 1);
    }
}
