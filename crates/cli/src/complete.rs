//! What can come next on a command line, for the shells: commands, flags, their values, and the names of what
//! there is.
//!
//! The scripts that `cata completion` prints hand the words of the line to `cata __complete`, which answers with
//! one candidate a line, its description after a tab. What the answer is made of is the tree that parses.

use clap::{Arg, ArgAction, Command};

use crate::command::TREE;
use crate::session::{self, Session};
use crate::tree::{Body, Exit, Node, Outcome};

/// The word under which shells ask.
pub(crate) const WORD: &str = "__complete";

/// What may stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Containers,
    /// Those that run.
    Running,
    /// Those that do not.
    Resting,
    Images,
    Networks,
    Volumes,
    Kernels,
    Machines,
}

/// What the shell is to offer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    /// Candidates with their descriptions.
    words: Vec<(String, String)>,
    /// Names that the engine knows.
    names: Option<Names>,
}

/// Values of flags that take one of a few words.
const VALUES: &[(&str, &[&str])] = &[
    ("isolation", &["process", "vm"]),
    ("vmm", &["auto", "kvm", "qemu"]),
    ("restart", &["no", "always", "unless-stopped", "on-failure"]),
    ("pull", &["always", "missing", "never"]),
    ("format", &["json", "table"]),
    ("progress", &["auto", "plain", "quiet", "rawjson"]),
    ("signal", &["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM"]),
    ("stop-signal", &["SIGINT", "SIGQUIT", "SIGTERM"]),
    ("platform", &["linux/amd64", "linux/arm64"]),
];

/// Answers a shell. `words` are those of the line behind the program's name; the last is being typed.
pub(crate) fn answer(words: &[String], session: impl FnOnce(&[String]) -> Session) -> Outcome {
    let (typed, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let offer = offer(before, typed);
    let mut lines = String::new();
    for (word, about) in &offer.words {
        lines.push_str(&format!("{word}\t{about}\n"));
    }
    if let Some(names) = offer.names {
        // Who may not ask the engine has no names to choose from.
        for name in known(&session(before), names).unwrap_or_default() {
            if name.starts_with(typed) {
                lines.push_str(&format!("{name}\t\n"));
            }
        }
    }
    session::print(lines)?;
    Ok(Exit::OK)
}

/// PURE: what can come where `typed` begins.
fn offer(before: &[String], typed: &str) -> Offer {
    let mut program = crate::program();
    let mut nodes = TREE;
    let mut words = before.iter();
    let mut verb: Option<&'static Node> = None;
    // The flag whose value comes next; positional words so far.
    let (mut open, mut places): (Option<Arg>, usize) = (None, 0);
    while let Some(word) = words.next() {
        if open.take().is_some() {
            continue;
        }
        if word.starts_with('-') && word.len() > 1 {
            open = flag(&program, word).filter(takes_next).cloned().filter(|_| !word.contains('='));
        } else if verb.is_some() {
            places += 1;
            // What follows belongs to the container.
            if verb.is_some_and(|node| node.usage.contains("[ARG...]") || node.usage.contains("[ps OPTIONS]"))
            {
                return if words.next().is_some() { Offer::default() } else { place(verb, places, typed) };
            }
        } else {
            let Some(node) = nodes.iter().find(|node| node.answers(word)) else { return Offer::default() };
            match &node.body {
                Body::Group(inner) => {
                    nodes = inner;
                    if let Some(front) = node.front {
                        program = (front.augment)(Command::new(node.name));
                    }
                }
                Body::Verb { augment, .. } => {
                    program = augment(Command::new(node.name));
                    verb = Some(node);
                }
            }
        }
    }
    if let Some(arg) = open {
        return value(&arg, typed);
    }
    if let Some((name, value_typed)) = typed.split_once('=').filter(|_| typed.starts_with("--")) {
        let Some(arg) = flag(&program, name) else { return Offer::default() };
        let mut offer = value(arg, value_typed);
        offer.words.iter_mut().for_each(|(word, _)| *word = format!("{name}={word}"));
        // Names would need the flag in front of them.
        return Offer { names: None, ..offer };
    }
    if typed.starts_with('-') {
        return Offer { words: flags(&program, typed), names: None };
    }
    match verb {
        Some(_) => place(verb, places, typed),
        None => {
            let shown = nodes.iter().filter(|node| node.name.starts_with(typed));
            let words = shown.map(|node| (node.name.to_owned(), node.about.to_owned())).collect();
            Offer { words, names: None }
        }
    }
}

/// The flag that a word of the line is, or ends with (`-it`).
fn flag<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let name = word.split('=').next().unwrap_or(word);
    let mut args = command.get_arguments();
    match name.strip_prefix("--") {
        Some(long) => args.find(|arg| {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
        }),
        None => {
            let last = name.chars().next_back()?;
            args.find(|arg| arg.get_short() == Some(last))
        }
    }
}

fn takes_next(arg: &&Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
        && !arg.is_require_equals_set()
        && !arg.is_positional()
}

fn flags(command: &Command, typed: &str) -> Vec<(String, String)> {
    let visible = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
    visible
        .filter_map(|arg| {
            let word = match (arg.get_long(), arg.get_short()) {
                (Some(long), _) => format!("--{long}"),
                (None, Some(short)) => format!("-{short}"),
                (None, None) => return None,
            };
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            word.starts_with(typed).then_some((word, about))
        })
        .collect()
}

/// What a flag's value can be.
fn value(arg: &Arg, typed: &str) -> Offer {
    let long = arg.get_long().unwrap_or_default();
    let names = match long {
        "network" | "net" => Some(Names::Networks),
        "kernel" => Some(Names::Kernels),
        "machine" => Some(Names::Machines),
        _ => None,
    };
    let known = VALUES.iter().find(|(flag, _)| *flag == long).map_or(&[][..], |(_, values)| values);
    let fitting = known.iter().filter(|word| word.starts_with(typed));
    Offer { words: fitting.map(|word| ((*word).to_owned(), String::new())).collect(), names }
}

/// What a command's positional words are, by its usage line.
fn place(verb: Option<&'static Node>, place: usize, typed: &str) -> Offer {
    let Some(node) = verb else { return Offer::default() };
    let mut usage = node.usage.split_whitespace();
    let wanted = usage.clone().nth(place).or_else(|| usage.find(|word| word.ends_with("...]")));
    let wanted = wanted.unwrap_or_default().trim_start_matches('[');
    let names = match (node.name, wanted) {
        ("create", "NETWORK" | "VOLUME]") | (_, "COMMAND" | "NEW_NAME") => None,
        ("start", word) if word.starts_with("CONTAINER") => Some(Names::Resting),
        (
            "attach" | "exec" | "kill" | "pause" | "unpause" | "stop" | "top" | "wait" | "stats" | "port",
            word,
        ) if word.starts_with("CONTAINER") => Some(Names::Running),
        (_, word) if word.starts_with("CONTAINER") => Some(Names::Containers),
        (_, word)
            if ["IMAGE", "NAME[", "NAME|", "SOURCE_IMAGE", "REPOSITORY"]
                .iter()
                .any(|w| word.starts_with(w)) =>
        {
            Some(Names::Images)
        }
        (_, word) if word.starts_with("NETWORK") => Some(Names::Networks),
        (_, word) if word.starts_with("VOLUME") => Some(Names::Volumes),
        (_, word) if word.starts_with("KERNEL") => Some(Names::Kernels),
        (_, word) if word.starts_with("MACHINE") => Some(Names::Machines),
        _ => None,
    };
    let shells = if node.name == "completion" { &["bash", "zsh", "fish"][..] } else { &[] };
    let fitting = shells.iter().filter(|word| word.starts_with(typed));
    Offer { words: fitting.map(|word| ((*word).to_owned(), String::new())).collect(), names }
}

/// The names that there are.
fn known(session: &Session, names: Names) -> Result<Vec<String>, crate::render::error::Failure> {
    use cata_engine::status::StatusKind;
    let engine = session.engine()?;
    Ok(match names {
        Names::Containers | Names::Running | Names::Resting => {
            let views = engine.views()?.into_iter().filter(|view| {
                let resting = matches!(view.status.status, StatusKind::Exited | StatusKind::Created);
                match names {
                    Names::Running => !resting,
                    Names::Resting => resting,
                    _ => true,
                }
            });
            views.map(|view| view.record.name.to_string()).collect()
        }
        Names::Images => {
            let images = engine.image_list()?;
            images.iter().flat_map(|image| &image.names).map(cata_spec::Reference::familiar).collect()
        }
        Names::Networks => {
            engine.network_list()?.into_iter().map(|network| network.name.to_string()).collect()
        }
        Names::Volumes => engine.volume_list()?.into_iter().map(|volume| volume.name.to_string()).collect(),
        Names::Machines => engine.machine_list()?.iter().map(|view| view.record.name.to_string()).collect(),
        Names::Kernels => engine.kernel_list()?.into_iter().map(|(kernel, _)| kernel.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Names, Offer, offer};

    fn of(line: &str) -> Offer {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let typed = words.pop().unwrap_or_default();
        offer(&words, &typed)
    }

    fn words(line: &str) -> Vec<String> {
        of(line).words.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_flags_and_values_are_offered() {
        assert_eq!(words("netw"), ["network"]);
        assert!(words("").contains(&"run".to_owned()));
        assert_eq!(words("container rena"), ["rename"]);
        assert_eq!(words("run --isol"), ["--isolation"]);
        assert_eq!(words("run -it --isolation "), ["process", "vm"]);
        assert_eq!(words("run --isolation=v"), ["--isolation=vm"]);
        assert_eq!(words("--root /x stop --sig"), ["--signal"]);
        assert_eq!(words("completion z"), ["zsh"]);
        assert!(words("nonsense x").is_empty());
    }

    #[test]
    fn names_fit_the_place() {
        let names = |line: &str| of(line).names;
        assert_eq!(names("rm "), Some(Names::Containers));
        assert_eq!(names("rm -f one "), Some(Names::Containers));
        assert_eq!(names("container start "), Some(Names::Resting));
        assert_eq!(names("stop -t 5 "), Some(Names::Running));
        assert_eq!(names("exec -it -u root "), Some(Names::Running));
        assert_eq!(names("exec -it pg ps"), None);
        assert_eq!(names("run --rm -e A=b "), Some(Names::Images));
        assert_eq!(names("run busybox ls "), None);
        assert_eq!(names("run --network "), Some(Names::Networks));
        assert_eq!(names("network rm "), Some(Names::Networks));
        assert_eq!(names("network create "), None);
        assert_eq!(names("volume inspect "), Some(Names::Volumes));
        assert_eq!(names("rmi "), Some(Names::Images));
        assert_eq!(names("tag "), Some(Names::Images));
        assert_eq!(names("kernel use "), Some(Names::Kernels));
        assert_eq!(names("machine stop "), Some(Names::Machines));
        assert_eq!(names("rename one "), None);
    }
}
