//! PURE: what is allowed and probably not meant. The rules have BuildKit's names.

use crate::ast::{Command, Dockerfile, Kind, OddityKind};
use crate::error::excerpt;

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

/// What a `# check=` line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `skip=all`.
    pub skip_all: bool,
    /// `skip=A,B`.
    pub skip: Vec<String>,
    /// `error=true`: findings are errors.
    pub error: bool,
}

impl Settings {
    /// Reads the line: `skip=A,B;error=true`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut settings = Self::default();
        for part in text.split(';') {
            match part.trim().split_once('=') {
                Some(("skip", "all")) => settings.skip_all = true,
                Some(("skip", rules)) => {
                    settings.skip = rules.split(',').map(|r| r.trim().to_owned()).collect();
                }
                Some(("error", value)) => settings.error = value == "true",
                _ => {}
            }
        }
        settings
    }

    /// Whether a finding is wanted.
    #[must_use]
    pub fn wants(&self, warning: &Warning) -> bool {
        !self.skip_all && !self.skip.iter().any(|rule| *rule == format!("{:?}", warning.rule))
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
    }
    found
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

    #[test]
    fn settings_are_read() {
        let settings = Settings::read("skip=JSONArgsRecommended,StageNameCasing;error=true");
        assert!(settings.error && !settings.wants(&Warning::new(Rule::StageNameCasing, 1, "")));
        assert!(settings.wants(&Warning::new(Rule::UndefinedVar, 1, "")));
    }
}
