//! Tests of the tree.

use proptest::prelude::*;

use super::{Value, parse};

fn text(yaml: &str, path: &[&str]) -> Option<String> {
    let root = parse("f", yaml).unwrap();
    let node = path.iter().try_fold(&root, |node, key| node.get(key))?;
    match &node.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[test]
fn scalars_keep_their_text_and_line() {
    let yaml = "a:\n  b: 1.10\n  c: 'no'\n  d: ~\n";
    assert_eq!(text(yaml, &["a", "b"]).as_deref(), Some("1.10"));
    let root = parse("f", yaml).unwrap();
    assert_eq!(root.get("a").unwrap().get("c").unwrap().place.line, 3);
    assert_eq!(root.get("a").unwrap().place.line, 1);
    assert_eq!(root.get("a").unwrap().get("d").unwrap().value, Value::Null);
}

#[test]
fn merge_keys_give_what_is_not_there() {
    let yaml = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nall:\n  <<: [*b, *o]\n  x: 9\n";
    assert_eq!(text(yaml, &["all", "x"]).as_deref(), Some("9"));
    assert_eq!(text(yaml, &["all", "y"]).as_deref(), Some("2"));
    assert_eq!(text(yaml, &["all", "z"]).as_deref(), Some("4"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (yaml, line, word) in [
        ("a: 1\na: 2\n", 2, "twice"),
        ("a:\n\t- b\n", 2, ""),
        ("a: 1\n---\nb: 2\n", 3, "second"),
        ("a: !secret x\n", 1, "tag"),
        ("a:\n  <<: 3\n", 2, "<<"),
    ] {
        let error = parse("f", yaml).unwrap_err().to_string();
        assert!(error.starts_with(&format!("f:{line}: ")) && error.contains(word), "{yaml:?}: {error}");
    }
}

#[test]
fn aliases_of_aliases_end() {
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = level - 1;
        yaml.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 9].join(", ")));
    }
    assert!(parse("f", &yaml).unwrap_err().to_string().contains("more values"));
    assert!(parse("f", &"[".repeat(10_000)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(yaml in "[-a-c:{}\\[\\]&*!<>|'\"#, \n\t0-9]{0,80}") {
        let _ = parse("f", &yaml);
    }
}
