//! Whole command lines: what is refused, with which words and which exit code, and the help texts.

use crate::command::TREE;
use crate::tree::follow;
use crate::{family, help, program, refusal};

/// The refusal of a line, or `parsed`.
fn refuse(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let arguments = std::iter::once("cata".to_owned()).chain(words.iter().cloned());
    match program().try_get_matches_from(arguments) {
        Ok(_) => "parsed\n".to_owned(),
        Err(error) => {
            let path = follow(TREE, words.iter().map(String::as_str));
            let failure = refusal::failure(&error, &path, &words);
            format!("{}exit {}\n", failure.text(false), failure.exit_code(family(&words)))
        }
    }
}

fn refusals(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("$ cata {line}\n{}", refuse(line))).collect()
}

#[test]
fn every_place_of_the_tree_is_a_sound_clap_command() {
    program().debug_assert();
}

#[test]
fn flags_after_the_image_belong_to_the_container() {
    let lines = [
        "run busybox ls -la --gpus",
        "run -it --rm busybox -c x",
        "run -itd --name=x busybox sh -c true",
        "run --rm=false -eA=b -p80:80 -v/a:/b busybox -e",
        "exec -it pg psql -U postgres -c select",
        "container run -h box busybox hostname -h",
        "top pg -o pid,comm",
        "logs -fn 5 pg",
        "logs --tail -1 pg",
        "stop -t -1 pg",
        "run --memory-swap -1 --pids-limit -1 busybox",
        "--root /x ps -aq",
        "run -d -d --name a --name b busybox",
    ];
    let text = refusals(&lines);
    assert_eq!(text.matches("parsed").count(), lines.len(), "{text}");
}

#[test]
fn what_run_captures_is_what_was_typed() {
    let matches =
        program().try_get_matches_from(["cata", "run", "-it", "busybox", "ls", "-it", "--", "-x"]).unwrap();
    let (_, run) = matches.subcommand().unwrap();
    let words: Vec<&String> = run.get_many("image_and_command").unwrap().collect();
    assert_eq!(words, ["busybox", "ls", "-it", "--", "-x"]);
    assert_eq!(run.get_one("interactive"), Some(&true));
    assert_eq!(run.get_one("tty"), Some(&true));
    assert_eq!(run.get_one("detach"), Some(&false));
}

#[test]
fn refusals_are_clear() {
    insta::assert_snapshot!(refusals(&[
        "run --gpus some busybox",
        "run --volumes-from=x:w busybox",
        "create --link a busybox",
        "run --shiny busybox",
        "run -X busybox",
        "run",
        "run --memory lots busybox",
        "run -m",
        "run --memory",
        "run --cpus=-1 busybox",
        "run --restart sometimes busybox",
        "run --isolation vm busybox",
        "run -p 1:2:3 busybox",
        "run --ip 1.2.3 busybox",
        "run --rm=maybe busybox",
        "run --detach-keys ctrl-1 busybox",
        "exec pg",
        "exec",
        "stop",
        "stop -t soon pg",
        "rename a",
        "rename a b c",
        "ps extra",
        "ps --colour",
        "logs --details pg",
        "container checkpoint a b",
        "container dance",
        "dance",
        "-H tcp://x ps",
        "--debug ps",
        "network create --attachable x",
        "network create",
        "volume rm",
        "completion",
    ]));
}

#[test]
fn help_texts() {
    let show = |line: &str| {
        let path = follow(TREE, line.split_whitespace());
        format!("$ cata {line} --help\n{}", help::text(&path, TREE, 100))
    };
    let lines = [
        "",
        "container",
        "network",
        "run",
        "exec",
        "container ls",
        "stop",
        "logs",
        "inspect",
        "network create",
    ];
    insta::assert_snapshot!(lines.map(show).join("\n\n"));
}

/// The words of a line as a shell has them, up to a redirection.
fn shell_words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut quote, mut between) = (None, true);
    for character in line.chars() {
        match (character, quote) {
            ('\'' | '"', None) => {
                quote = Some(character);
                if std::mem::take(&mut between) {
                    words.push(String::new());
                }
            }
            (character, Some(open)) if character == open => quote = None,
            ('>' | '#' | '|' | ';', None) => break,
            (character, None) if character.is_whitespace() => between = true,
            (character, _) => {
                if std::mem::take(&mut between) {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push(character);
            }
        }
    }
    words
}

/// What the documents tell people to type can be typed.
#[test]
fn command_lines_of_the_documents_parse() {
    let mut count = 0;
    for document in [include_str!("../../../docs/guide.md"), include_str!("../../../README.md")] {
        let lines = document.lines().filter_map(|line| {
            let line = line.strip_prefix("    ").or_else(|| line.strip_prefix("$ "))?;
            line.starts_with("cata ").then_some(line)
        });
        for line in lines {
            let words = shell_words(line);
            if let Err(error) = program().try_get_matches_from(&words) {
                let path = follow(TREE, words[1..].iter().map(String::as_str));
                panic!("{line}: {}", refusal::failure(&error, &path, &words[1..]).text(false));
            }
            count += 1;
        }
    }
    assert!(count > 25, "only {count} command lines were found");
}

#[test]
fn configuration_of_the_guide_is_read() {
    let guide = include_str!("../../../docs/guide.md");
    let (_, rest) = guide.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let config = cata_engine::images::registry::Config::parse(text).unwrap();
    assert_eq!(config.registry("docker.io").mirrors.len(), 2);
    assert!(config.registry("old.example").insecure && config.registry("registry.example:5000").ca.is_some());
}
