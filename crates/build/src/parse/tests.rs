//! Dockerfiles read, printed and read again; faults with their lines.

use proptest::prelude::*;

use super::*;
use crate::ast::Command;

#[test]
fn directives_comments_and_continuations() {
    let text = "# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all\n\n# comment\nFROM a`\n  b\n";
    let file = parse("# escape=`\nFROM a\nRUN one `\n  # not in it\n\n  two \\\n").unwrap();
    assert_eq!(file.directives.escape, '`');
    let Kind::Run(run) = &file.instructions[1].kind else { panic!() };
    assert_eq!(run.command, Command::Shell("one   two \\".into()));
    assert_eq!(file.oddities.len(), 1);
    assert!(parse(text).is_err(), "`ab` is two words without AS");
    assert!(parse("# escape=x\nFROM a").is_err() && parse("# escape=\\\n# escape=\\\nFROM a").is_err());
    let commented = parse("# a comment\n# escape=`\nFROM a\nRUN x \\\n y").unwrap();
    assert_eq!(commented.directives.escape, '\\');
}

#[test]
fn faults_are_named_with_line_and_hint() {
    for (text, line, message) in [
        ("FROM a\nRUM x", 2, "unknown instruction: RUM"),
        ("RUN x", 1, "no build stage"),
        ("", 0, "no build stage"),
        ("FROM a b", 1, "one or three"),
        ("FROM a AS 1x", 1, "invalid name"),
        ("FROM a\nCOPY --chmdo=1 a b", 2, "unknown flag"),
        ("FROM a\nCOPY a", 2, "at least two"),
        ("FROM a\nENV A", 2, "two arguments"),
        ("FROM a\nENV A=b c", 2, "can't find ="),
        ("FROM a\nSHELL bash", 2, "JSON"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc"),
        ("FROM a\nHEALTHCHECK --interval=x CMD y", 2, "invalid duration"),
        ("FROM a\nONBUILD FROM b", 2, "ONBUILD trigger"),
        ("FROM a\nUSER a b", 2, "exactly one"),
        ("FROM a\nRUN --network=a --network=b x", 2, "duplicate flag"),
        ("FROM a\nCOPY --link=maybe a b", 2, "boolean"),
        ("FROM a\nRUN", 2, "at least one"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(message), "{text}: {}", error.message);
        assert_eq!(error.line, line, "{text}");
    }
    assert_eq!(parse("FROM a\nRUM x").unwrap_err().hint.as_deref(), Some("did you mean RUN?"));
}

#[test]
fn heredocs_are_taken_from_the_lines_below() {
    let file = parse("FROM a\nRUN <<-ONE cat <<'TWO'\n\tx\n\tONE\n$y\nTWO\nUSER u").unwrap();
    let Kind::Run(run) = &file.instructions[1].kind else { panic!() };
    assert_eq!(run.heredocs.len(), 2);
    assert_eq!((run.heredocs[0].content.as_str(), run.heredocs[0].expand), ("x\n", true));
    assert_eq!((run.heredocs[1].content.as_str(), run.heredocs[1].expand), ("$y\n", false));
    assert_eq!(file.instructions[2].line, 7);
    // What only looks like one.
    let plain = parse("FROM a\nRUN echo \"<<EOF\" $((1 << 2)) a<<<b").unwrap();
    let Kind::Run(run) = &plain.instructions[1].kind else { panic!() };
    assert!(run.heredocs.is_empty());
}

fn round(text: &str) {
    let Ok(first) = parse(text) else { return };
    let printed = first.to_string();
    let second =
        parse(&printed).unwrap_or_else(|error| panic!("{error} in what was printed:\n{printed}\nof\n{text}"));
    assert_eq!(first.instructions, second.instructions, "printed:\n{printed}\nof\n{text}");
    assert_eq!(first.directives, second.directives);
}

#[test]
fn what_is_printed_is_read_the_same() {
    round(
        "# escape=`\nARG A=1\nFROM --platform=$P a:$A AS b\nRUN --mount=type=cache,target=/x --network=none a `\n b\n",
    );
    round(
        "FROM a\nRUN [\"a\", \"b\\n\\\"\"]\nCMD []\nENTRYPOINT e\nENV a b c\nENV a=\"b c\" d=e\\ f\nLABEL x='y'",
    );
    round(
        "FROM a\nCOPY --from=x --chown=1:2 --chmod=755 --link --parents --exclude=*.md --exclude=b a b c/\nADD [\"a b\", \"c\"]",
    );
    round(
        "FROM a\nCOPY <<EOF <<-B /x/\nfoo\nEOF\n\tbar\nB\nHEALTHCHECK --interval=1.5s --retries=3 CMD [\"a\"]\nHEALTHCHECK NONE",
    );
    round(
        "FROM a\nONBUILD RUN <<EOF\nx\nEOF\nVOLUME /a /b\nSHELL [\"a\"]\nEXPOSE 1 2/udp\nMAINTAINER  a  b \nSTOPSIGNAL 9",
    );
    // Flags with quotes and escapes in them.
    round(
        "FROM a\nRUN --mount='type=cache,target=/a b' --mount=target=/c\\ d\\\\e,id=\"'\" x\nCOPY --chown=\\\"1 a b",
    );
    round("# escape=`\nFROM a\nRUN --mount=target=/a`` b --network='no ne' x\nRUN --mount=target=/a\\b x");
    // What looks like a flag behind the end of the flags.
    round("FROM -- --a AS b\nRUN -- --x y\nCOPY -- --a b\nADD --link -- --a --b c");
    // What ends in the escape character, which only the end of the file lets it.
    round("FROM a\nWORKDIR /x\\\\\\");
    round("FROM a\\\\\n");
}

proptest! {
    #[test]
    fn any_text_is_read_without_harm(text in ".{0,200}") {
        round(&text);
    }

    #[test]
    fn any_lines_of_words_are_read_and_printed_the_same(
        lines in proptest::collection::vec((
            prop_oneof![
                Just("RUN"), Just("COPY"), Just("ADD"), Just("ENV"), Just("LABEL"), Just("ARG"), Just("CMD"),
                Just("EXPOSE"), Just("VOLUME"), Just("USER"), Just("WORKDIR"), Just("HEALTHCHECK"), Just("ONBUILD RUN"),
                Just("SHELL"), Just("STOPSIGNAL"), Just("MAINTAINER"), Just("FROM"), Just("ONBUILD COPY"), Just("#"), Just(""),
            ],
            "[a-z$={}'\"\\\\ \\[\\],<\t/-]{0,30}",
        ), 0..8),
    ) {
        let mut text = String::from("FROM a\n");
        for (keyword, rest) in lines {
            text.push_str(&format!("{keyword} {rest}\n"));
        }
        round(&text);
    }
}
