//! COPY and ADD.

use super::{Action, Planner};
use crate::ast::{self, Instruction};
use crate::error::{Error, Result};
use crate::metadata::{Mode, absolute};
use crate::pattern::Glob;
use crate::source::GitSource;

/// Files to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStep {
    /// ADD: addresses are fetched, local archives unpacked.
    pub add: bool,
    /// What `sources` are in.
    pub origin: Origin,
    /// In order.
    pub sources: Vec<CopySource>,
    /// Absolute.
    pub destination: String,
    /// Whether it was written as a directory.
    pub into_directory: bool,
    /// `--chown`, a name or number and perhaps a group.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Mode>,
    /// `--link`: independent of what is below it.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--unpack`; `None`: local archives of ADD are.
    pub unpack: Option<bool>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
}

/// What files are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The build context.
    Context,
    /// Another stage.
    Stage(usize),
    /// A named context, or an image.
    External(String),
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern within the origin, relative to its root.
    Path(String),
    /// A here-document.
    Inline {
        /// The file's name, if the destination is a directory.
        name: String,
        /// Its content.
        content: String,
    },
    /// `http://…`, `https://…`.
    Url(String),
    /// A repository.
    Git(String),
}

impl Planner<'_> {
    pub(super) fn copy(&mut self, copy: &ast::Copy, instruction: &Instruction, add: bool) -> Result<()> {
        let line = instruction.line;
        let keyword = if add { "ADD" } else { "COPY" };
        let origin = match &copy.from {
            None => Origin::Context,
            Some(name) if name.contains('$') => {
                return Err(Error::new("variables are not expanded in --from")
                    .at(name.clone())
                    .hint("build a stage FROM the variable, and copy --from that stage"));
            }
            Some(name) => match self.graph.stage_before(self.index, name) {
                Some(stage) => Origin::Stage(stage),
                None => Origin::External(name.clone()),
            },
        };
        let (mut sources, mut said) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            let inline = copy.heredocs.iter().find(|heredoc| is_mark(source, &heredoc.name));
            if let Some(heredoc) = inline {
                let content = if heredoc.expand {
                    self.word_keeping_quotes(&heredoc.content, line)?
                } else {
                    heredoc.content.clone()
                };
                sources.push(CopySource::Inline { name: heredoc.name.clone(), content });
                said.push(format!("<<{}", heredoc.name));
                continue;
            }
            let word = self.word(source, line)?;
            sources.push(source_of(&word, add));
            said.push(word);
        }
        let written = self.word(&copy.destination, line)?;
        if written.is_empty() {
            return Err(
                Error::new(format!("{keyword} has an empty destination")).at(copy.destination.clone())
            );
        }
        let into_directory =
            written.ends_with('/') || written.ends_with("/.") || matches!(written.as_str(), "." | "..");
        if sources.len() > 1 && !into_directory {
            return Err(Error::new(format!(
                "when using {keyword} with more than one source file, the destination must be a directory and end with a /"
            ))
            .at(copy.destination.clone()));
        }
        let destination = absolute(&self.plan.config.working_dir, &written);
        let optional = |planner: &mut Self, text: &Option<String>| match text {
            Some(text) => planner.word(text, line).map(|word| Some(word).filter(|word| !word.is_empty())),
            None => Ok(None),
        };
        let chown = optional(self, &copy.chown)?;
        let chmod = optional(self, &copy.chmod)?.map(|text| Mode::parse(&text)).transpose()?;
        let checksum = optional(self, &copy.checksum)?;
        let mut exclude = Vec::new();
        for pattern in &copy.exclude {
            let pattern = self.word(pattern, line)?;
            Glob::new(pattern.strip_prefix('!').unwrap_or(&pattern))
                .map_err(|why| Error::new(format!("--exclude={pattern}: {why}")).at(pattern.clone()))?;
            exclude.push(pattern);
        }
        said.push(written);
        let said = copy_line(keyword, copy, &said);
        let step = CopyStep {
            add,
            origin,
            sources,
            destination,
            into_directory,
            chown,
            chmod,
            link: copy.link,
            parents: copy.parents,
            exclude,
            checksum,
            unpack: copy.unpack,
            keep_git_dir: copy.keep_git_dir,
        };
        check(&step)?;
        self.step(line, instruction.text.clone(), said, Action::Copy(Box::new(step)));
        Ok(())
    }
}

/// What does not go together.
fn check(step: &CopyStep) -> Result<()> {
    let remote = step.sources.iter().any(|s| matches!(s, CopySource::Url(_) | CopySource::Git(_)));
    if let Some(checksum) = &step.checksum {
        if !remote {
            return Err(Error::new("checksum can't be specified for non-HTTP(S) sources").at("--checksum"));
        }
        if step.sources.len() > 1 {
            return Err(Error::new("checksum can't be specified for multiple sources").at("--checksum"));
        }
        let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let sound = match step.sources.first() {
            Some(CopySource::Git(_)) => !checksum.is_empty() && hex(checksum),
            _ => checksum.strip_prefix("sha256:").is_some_and(|text| text.len() == 64 && hex(text)),
        };
        if !sound {
            return Err(Error::new(format!("invalid checksum {checksum}"))
                .at("--checksum")
                .hint("sha256: and 64 digits for a file, a commit id for a repository"));
        }
    }
    for source in &step.sources {
        if let CopySource::Path(path) = source {
            Glob::new(path)
                .map_err(|why| Error::new(format!("the pattern {path} has {why}")).at(path.clone()))?;
        }
    }
    Ok(())
}

fn is_mark(word: &str, name: &str) -> bool {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<");
    rest.is_some_and(|rest| rest.trim_start_matches('-').trim_matches(['"', '\'']) == name)
}

fn source_of(word: &str, add: bool) -> CopySource {
    if add {
        if GitSource::is(word) {
            return CopySource::Git(word.to_owned());
        }
        if word.starts_with("http://") || word.starts_with("https://") {
            return CopySource::Url(word.to_owned());
        }
    }
    // Relative to the origin's root, which nothing leads out of; `--parents` marks where parents begin.
    let pivot = word.split("/./").map(|part| absolute("/", part)).collect::<Vec<_>>();
    let mut path = pivot.join("/.");
    if word.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    CopySource::Path(path.trim_start_matches('/').to_owned())
}

fn copy_line(keyword: &str, copy: &ast::Copy, words: &[String]) -> String {
    let mut said = keyword.to_owned();
    for (flag, value) in [("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if let Some(value) = value {
            said.push_str(&format!(" --{flag}={value}"));
        }
    }
    format!("{said} {}", words.join(" "))
}
