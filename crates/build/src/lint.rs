//! PURE: what is allowed and probably not meant. The rules have BuildKit's names.

use cata_spec::Reference;

use crate::ast::{Command, Dockerfile, Instruction, Kind, OddityKind};
use crate::error::excerpt;
use crate::ignore::Ignore;
use crate::stage::{Action, CopySource, Origin, Plan};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which rule.
    pub rule: Rule,
    /// Where.
    pub line: usize,
    /// What.
    pub message: String,
}

impl Warning {
    /// A finding.
    pub fn new(rule: Rule, line: usize, message: impl Into<String>) -> Self {
        Self { rule, line, message: message.into() }
    }

    /// `WARNING: Rule - message (line 3)` and the line.
    #[must_use]
    pub fn text(&self, file: &str, dockerfile: &str) -> String {
        let excerpt = excerpt(file, dockerfile, self.line, None);
        format!("WARNING: {:?} - {} (line {})\n{excerpt}", self.rule, self.message, self.line)
    }
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are BuildKit's and say it")]
pub enum Rule {
    ConsistentInstructionCasing,
    CopyIgnoredFile,
    DuplicateStageName,
    ExposeInvalidFormat,
    ExposeProtoCasing,
    FromAsCasing,
    FromPlatformFlagConstDisallowed,
    InvalidDefaultArgInFrom,
    InvalidDefinitionDescription,
    JSONArgsRecommended,
    LegacyKeyValueFormat,
    MaintainerDeprecated,
    MultipleInstructionsDisallowed,
    NoEmptyContinuation,
    RedundantTargetPlatform,
    ReservedStageName,
    SecretsUsedInArgOrEnv,
    StageNameCasing,
    UndefinedArgInFrom,
    UndefinedVar,
    WorkdirRelativePath,
}

impl Rule {
    /// Whether it is only looked at when somebody asks for it.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::CopyIgnoredFile | Self::InvalidDefinitionDescription)
    }

    /// What it is about.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::ConsistentInstructionCasing => "All commands should be typed in the same case",
            Self::CopyIgnoredFile => "What COPY takes should not be left out by .dockerignore",
            Self::DuplicateStageName => "Stage names should be unique",
            Self::ExposeInvalidFormat => "EXPOSE should name ports, no addresses or ports of the host",
            Self::ExposeProtoCasing => "Protocols in EXPOSE should be in lower case",
            Self::FromAsCasing => "AS should be typed in the case of FROM",
            Self::FromPlatformFlagConstDisallowed => "FROM --platform should not be constant",
            Self::InvalidDefaultArgInFrom => "Defaults of global ARGs should make a valid base image name",
            Self::InvalidDefinitionDescription => {
                "A comment right above an ARG or a stage should begin with its name"
            }
            Self::JSONArgsRecommended => "JSON arguments hand signals of the system on",
            Self::LegacyKeyValueFormat => "ENV and LABEL should be written with an equals sign",
            Self::MaintainerDeprecated => "MAINTAINER is deprecated, use a label",
            Self::MultipleInstructionsDisallowed => {
                "Of several instructions of this kind only the last one counts"
            }
            Self::NoEmptyContinuation => "Empty continuation lines will become errors",
            Self::RedundantTargetPlatform => "FROM --platform=$TARGETPLATFORM is the default",
            Self::ReservedStageName => "Stage names should not be those that mean something else",
            Self::SecretsUsedInArgOrEnv => "Sensitive data should not be in ARG or ENV",
            Self::StageNameCasing => "Stage names should be in lower case",
            Self::UndefinedArgInFrom => "FROM should use ARGs that were declared",
            Self::UndefinedVar => "Variables should be declared before they are used",
            Self::WorkdirRelativePath => "WORKDIR should not depend on the base image's",
        }
    }
}

/// What a `# check=` line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `skip=all`.
    pub skip_all: bool,
    /// `skip=A,B`.
    pub skip: Vec<String>,
    /// `error=true`: findings are errors.
    pub error: bool,
    /// `experimental=all`.
    pub experimental_all: bool,
    /// `experimental=A,B`.
    pub experimental: Vec<String>,
}

impl Settings {
    /// Reads the line: `skip=A,B;error=true;experimental=C`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        let list = |rules: &str| rules.split(',').map(|rule| rule.trim().to_owned()).collect();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("skip", "all")) => settings.skip_all = true,
                Some(("skip", rules)) => settings.skip = list(rules),
                Some(("experimental", "all")) => settings.experimental_all = true,
                Some(("experimental", rules)) => settings.experimental = list(rules),
                Some(("error", value)) => {
                    settings.error = match value.to_ascii_lowercase().as_str() {
                        "true" | "1" | "t" => true,
                        "false" | "0" | "f" => false,
                        _ => return Err(format!("check: error={value} is neither true nor false")),
                    }
                }
                _ => return Err(format!("check: invalid option `{part}`")),
            }
        }
        Ok(settings)
    }

    /// Of a file; `over` (`--build-arg BUILDKIT_DOCKERFILE_CHECK`) replaces its line.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn of(file: &Dockerfile, over: Option<&str>) -> Result<Self, String> {
        over.or(file.directives.check.as_deref()).map_or_else(|| Ok(Self::default()), Self::read)
    }

    /// Whether a finding is wanted.
    #[must_use]
    pub fn wants(&self, warning: &Warning) -> bool {
        let name = format!("{:?}", warning.rule);
        let lies_in = |list: &[String]| list.contains(&name);
        if warning.rule.is_experimental() && (self.experimental_all || lies_in(&self.experimental)) {
            return true;
        }
        !warning.rule.is_experimental() && !self.skip_all && !lies_in(&self.skip)
    }
}

/// What can be said of the file alone.
#[must_use]
pub fn file(file: &Dockerfile) -> Vec<Warning> {
    let mut found = Vec::new();
    for oddity in &file.oddities {
        match oddity.kind {
            OddityKind::EmptyContinuation => {
                found.push(Warning::new(Rule::NoEmptyContinuation, oddity.line, "Empty continuation line"));
            }
        }
    }
    casing(file, &mut found);
    // Which of those that count once were there in this stage.
    let mut once: Vec<&'static str> = Vec::new();
    for instruction in &file.instructions {
        let mut add = |rule, message: String| found.push(Warning::new(rule, instruction.line, message));
        if let Kind::From(from) = &instruction.kind {
            once.clear();
            from_line(from, &instruction.text, &mut add);
        }
        repeated(&instruction.kind, &mut once, &mut add);
        one(&instruction.kind, &mut add);
        described(instruction, &mut add);
    }
    found
}

/// What COPY and ADD take of the context although `.dockerignore` leaves it out.
#[must_use]
pub fn ignored(plan: &Plan, ignore: &Ignore) -> Vec<Warning> {
    let mut found = Vec::new();
    for step in plan.steps.iter().filter(|step| step.line > 0) {
        let Action::Copy(copy) = &step.action else { continue };
        if copy.origin != Origin::Context {
            continue;
        }
        for source in &copy.sources {
            let CopySource::Path(path) = source else { continue };
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            if !parts.is_empty() && ignore.leaves_out(&parts) {
                let verb = if copy.add { "Add" } else { "Copy" };
                found.push(Warning::new(
                    Rule::CopyIgnoredFile,
                    step.line,
                    format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore"),
                ));
            }
        }
    }
    found
}

/// Whether an image could have this name.
pub(crate) fn is_image_name(name: &str) -> bool {
    name == "scratch" || Reference::parse(name).is_ok()
}

/// A comment right above is taken for a description, which begins with the name.
fn described(instruction: &Instruction, add: &mut dyn FnMut(Rule, String)) {
    let (what, names): (_, Vec<&str>) = match &instruction.kind {
        Kind::From(from) => ("FROM", from.name.iter().map(String::as_str).collect()),
        Kind::Arg(args) => ("ARG", args.iter().map(|arg| arg.name.as_str()).collect()),
        _ => return,
    };
    let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else { return };
    if names.iter().any(|name| comment.split(' ').next() == Some(name)) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    add(
        Rule::InvalidDefinitionDescription,
        format!("Comment for {what} should follow the format: `# {example} <description>`"),
    );
}

fn repeated(kind: &Kind, once: &mut Vec<&'static str>, add: &mut dyn FnMut(Rule, String)) {
    let keyword = kind.keyword();
    if !matches!(kind, Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_)) {
        return;
    }
    if once.contains(&keyword) {
        add(
            Rule::MultipleInstructionsDisallowed,
            format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            ),
        );
    }
    once.push(keyword);
}

fn one(kind: &Kind, add: &mut dyn FnMut(Rule, String)) {
    let keyword = kind.keyword();
    match kind {
        Kind::Maintainer(_) => add(
            Rule::MaintainerDeprecated,
            "Maintainer instruction is deprecated in favor of using label".to_owned(),
        ),
        Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) => add(
            Rule::JSONArgsRecommended,
            format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            ),
        ),
        Kind::Env(pairs) | Kind::Label(pairs) => {
            if pairs.iter().any(|pair| pair.legacy) {
                add(
                    Rule::LegacyKeyValueFormat,
                    format!(
                        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                    ),
                );
            }
            if keyword == "ENV" {
                pairs.iter().for_each(|pair| secret("ENV", &pair.name, add));
            }
        }
        Kind::Arg(args) => args.iter().for_each(|arg| secret("ARG", &arg.name, add)),
        Kind::Expose(ports) => ports.iter().for_each(|port| expose(port, add)),
        _ => {}
    }
}

fn expose(port: &str, add: &mut dyn FnMut(Rule, String)) {
    if port.contains(':') && !port.contains('$') {
        add(
            Rule::ExposeInvalidFormat,
            format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            ),
        );
    } else if port.split_once('/').is_some_and(|(_, protocol)| protocol.chars().any(char::is_uppercase)) {
        add(
            Rule::ExposeProtoCasing,
            format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
        );
    }
}

fn from_line(from: &crate::ast::From, text: &str, add: &mut dyn FnMut(Rule, String)) {
    if let Some(name) = &from.name {
        if name.chars().any(char::is_uppercase) {
            add(Rule::StageNameCasing, format!("Stage name '{name}' should be lowercase"));
        }
        if matches!(name.as_str(), "scratch" | "context") {
            add(
                Rule::ReservedStageName,
                format!("Stage name should not use the same name as reserved stage {name:?}"),
            );
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let upper = |word: &str| word.chars().all(char::is_uppercase);
        if let (Some(first), Some(as_)) = (words.first(), words.iter().rev().nth(1))
            && upper(first) != upper(as_)
        {
            add(Rule::FromAsCasing, format!("'{as_}' and '{first}' keywords' casing do not match"));
        }
    }
    match from.platform.as_deref() {
        Some("$TARGETPLATFORM" | "${TARGETPLATFORM}") => add(
            Rule::RedundantTargetPlatform,
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior".to_owned(),
        ),
        Some(platform) if !platform.contains('$') => add(
            Rule::FromPlatformFlagConstDisallowed,
            format!("FROM --platform flag should not use constant value {platform:?}"),
        ),
        _ => {}
    }
}

/// Names that look as if their values should not be in an image.
fn secret(instruction: &str, name: &str, add: &mut dyn FnMut(Rule, String)) {
    let words: Vec<String> = name.to_ascii_lowercase().split(['_', '-', '.']).map(str::to_owned).collect();
    let telling = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    let harmless = words.iter().any(|word| word == "public");
    if !harmless && words.iter().any(|word| telling.contains(&word.as_str())) {
        add(
            Rule::SecretsUsedInArgOrEnv,
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"),
        );
    }
}

/// Keywords are all in capitals, or all not: as most of them are.
fn casing(file: &Dockerfile, found: &mut Vec<Warning>) {
    let is_upper = |word: &str| !word.chars().any(char::is_lowercase);
    let upper = file.instructions.iter().filter(|i| is_upper(&i.keyword)).count();
    let wants_upper = upper * 2 >= file.instructions.len();
    for instruction in &file.instructions {
        let word = &instruction.keyword;
        let fits = if wants_upper { is_upper(word) } else { !word.chars().any(char::is_uppercase) };
        if !fits {
            let case = if wants_upper { "uppercase" } else { "lowercase" };
            found.push(Warning::new(
                Rule::ConsistentInstructionCasing,
                instruction.line,
                format!("Command '{word}' should match the case of the command majority ({case})"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_find_what_they_are_for() {
        let text = "FROM --platform=linux/amd64 a as B\nMAINTAINER me\nENV A b\nARG API_TOKEN\nrun x\nCMD a\nCMD b\nEXPOSE 80/TCP 1:2\nRUN a \\\n\n  b\n";
        let found = file(&crate::parse(text).unwrap());
        let has = |rule: Rule| found.iter().any(|warning| warning.rule == rule);
        for rule in [
            Rule::FromPlatformFlagConstDisallowed,
            Rule::StageNameCasing,
            Rule::FromAsCasing,
            Rule::MaintainerDeprecated,
            Rule::LegacyKeyValueFormat,
            Rule::SecretsUsedInArgOrEnv,
            Rule::ConsistentInstructionCasing,
            Rule::JSONArgsRecommended,
            Rule::MultipleInstructionsDisallowed,
            Rule::ExposeProtoCasing,
            Rule::ExposeInvalidFormat,
            Rule::NoEmptyContinuation,
        ] {
            assert!(has(rule), "{rule:?} found nothing: {found:?}");
        }
        let clean = "FROM a AS b\nRUN x\nCMD [\"x\"]\n";
        assert_eq!(file(&crate::parse(clean).unwrap()), []);
    }

    /// Each rule finds what it is for, and nothing in the same file mended.
    #[test]
    fn every_rule_has_a_file_it_speaks_of() {
        use Rule::*;
        let cases = [
            (ConsistentInstructionCasing, "FROM a\nrun x\nUSER b", "FROM a\nRUN x\nUSER b"),
            (CopyIgnoredFile, "FROM a\nCOPY b.log /", "FROM a\nCOPY b.txt /"),
            (DuplicateStageName, "FROM a AS b\nFROM a AS b", "FROM a AS b\nFROM a AS c"),
            (ExposeInvalidFormat, "FROM a\nEXPOSE 1:2", "FROM a\nEXPOSE 2"),
            (ExposeProtoCasing, "FROM a\nEXPOSE 1/TCP", "FROM a\nEXPOSE 1/tcp"),
            (FromAsCasing, "FROM a as b", "FROM a AS b"),
            (
                FromPlatformFlagConstDisallowed,
                "FROM --platform=linux/amd64 a",
                "FROM --platform=$BUILDPLATFORM a",
            ),
            (InvalidDefaultArgInFrom, "ARG T\nFROM a:$T", "ARG T=1\nFROM a:$T"),
            (InvalidDefinitionDescription, "FROM b\n# something\nARG A", "FROM b\n# A is something\nARG A"),
            (JSONArgsRecommended, "FROM a\nCMD b", "FROM a\nCMD [\"b\"]"),
            (LegacyKeyValueFormat, "FROM a\nENV a b", "FROM a\nENV a=b"),
            (MaintainerDeprecated, "FROM a\nMAINTAINER b", "FROM a\nLABEL maintainer=b"),
            (MultipleInstructionsDisallowed, "FROM a\nCMD [\"b\"]\nCMD [\"c\"]", "FROM a\nCMD [\"c\"]"),
            (NoEmptyContinuation, "FROM a\nRUN b \\\n\n c", "FROM a\nRUN b \\\n c"),
            (RedundantTargetPlatform, "FROM --platform=$TARGETPLATFORM a", "FROM a"),
            (ReservedStageName, "FROM a AS scratch", "FROM a AS b"),
            (SecretsUsedInArgOrEnv, "FROM a\nARG API_TOKEN", "FROM a\nARG API_ADDRESS"),
            (StageNameCasing, "FROM a AS Bee", "FROM a AS bee"),
            (UndefinedArgInFrom, "FROM a$B", "ARG B=1\nFROM a$B"),
            (UndefinedVar, "FROM scratch\nCOPY $b /", "FROM scratch\nARG b\nCOPY $b /"),
            (WorkdirRelativePath, "FROM scratch\nWORKDIR a", "FROM scratch\nWORKDIR /a"),
        ];
        let ignore = Ignore::parse("*.log").unwrap();
        let all = |text: &str| -> Vec<Warning> {
            let parsed = crate::parse(text).unwrap();
            let given = crate::graph::Given::default();
            let graph = crate::graph::Graph::new(&parsed, &given).unwrap();
            let mut found = file(&parsed);
            found.extend(graph.warnings.clone());
            for stage in &graph.stages {
                let base = crate::stage::scratch();
                let plan = crate::stage::plan(&graph, stage.index, &given, &base, None).unwrap();
                found.extend(ignored(&plan, &ignore));
                found.extend(plan.warnings);
            }
            found
        };
        for (rule, wrong, right) in cases {
            let has = |text: &str| all(text).iter().any(|warning| warning.rule == rule);
            assert!(has(wrong), "{rule:?} says nothing of {wrong:?}");
            assert!(!has(right), "{rule:?} speaks of {right:?}");
            assert!(!rule.description().is_empty());
        }
    }

    #[test]
    fn settings_are_read() {
        let settings = Settings::read("skip=JSONArgsRecommended,StageNameCasing;error=true").unwrap();
        assert!(settings.error && !settings.wants(&Warning::new(Rule::StageNameCasing, 1, "")));
        assert!(settings.wants(&Warning::new(Rule::UndefinedVar, 1, "")));
        let ignored = Warning::new(Rule::CopyIgnoredFile, 1, "");
        assert!(!settings.wants(&ignored));
        assert!(Settings::read("skip=all;experimental=CopyIgnoredFile").unwrap().wants(&ignored));
        for wrong in ["error=perhaps", "skips=all", "all"] {
            assert!(Settings::read(wrong).is_err(), "{wrong}");
        }
    }
}
