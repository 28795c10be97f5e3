//! Writer and reader against each other.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::launch::LogPlan;
use crate::stamp::Stamp;

fn plan(max_size: u64, max_file: u32) -> LogPlan {
    LogPlan::JsonFile { max_size, max_file }
}

fn all(dir: &Path, options: &Options) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut sink = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    read(dir, options, &mut sink).expect("readable");
    entries
}

fn text(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.bytes.clone()).collect()
}

#[test]
fn entries_are_dockers_lines() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(dir.path().into(), &plan(1 << 20, 2)).expect("kept");
    let mut out = Input::new(Stream::Stdout);
    writer.take(&mut out, b"he said \"hi\"\t\x01\\\nand", Stamp(0));
    writer.take(&mut out, b" more\n\xff\n", Stamp(1));
    let live = fs::read_to_string(file(dir.path(), 0)).expect("utf-8");
    assert_eq!(
        live,
        concat!(
            r#"{"log":"he said \"hi\"\t\u0001\\\n","stream":"stdout","time":"1970-01-01T00:00:00.000000000Z"}"#,
            "\n",
            r#"{"log":"and more\n","stream":"stdout","time":"1970-01-01T00:00:00.000000001Z"}"#,
            "\n",
            "{\"log\":\"\u{fffd}\\n\",\"raw\":\"ff0a\",\"stream\":\"stdout\",",
            r#""time":"1970-01-01T00:00:00.000000001Z"}"#,
            "\n",
        )
    );
}

#[test]
fn long_line_is_cut_between_characters() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(dir.path().into(), &plan(1 << 20, 2)).expect("kept");
    let mut out = Input::new(Stream::Stderr);
    let line = format!("x{}\n", "ä".repeat(LONGEST));
    for piece in line.as_bytes().chunks(1000) {
        writer.take(&mut out, piece, Stamp(0));
    }
    let entries = all(dir.path(), &Options::default());
    assert_eq!(text(&entries), line.as_bytes());
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|e| e.bytes.len() <= LONGEST && std::str::from_utf8(&e.bytes).is_ok()));
}

#[test]
fn rotation_keeps_the_youngest_and_tail_crosses_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut writer = Writer::open(dir.path().into(), &plan(1000, 3)).expect("kept");
    let mut out = Input::new(Stream::Stdout);
    for n in 0..100 {
        writer.take(&mut out, format!("line {n}\n").as_bytes(), Stamp(n));
    }
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 3);
    for n in 0..3 {
        assert!(fs::metadata(file(dir.path(), n)).expect("file").len() <= 1000);
    }
    let entries = all(dir.path(), &Options::default());
    assert!(entries.len() > 20 && entries.len() < 60);
    assert_eq!(entries.last().expect("some").bytes, b"line 99\n");
    assert!(entries.windows(2).all(|w| w[1].time.0 == w[0].time.0 + 1));
    for tail in [0, 1, 5, 17, 30, 1000] {
        let last = all(dir.path(), &Options { tail: Some(tail), ..Options::default() });
        let from = entries.len().saturating_sub(tail);
        assert_eq!(last, entries[from..]);
    }
    let some = Options { since: Some(Stamp(90)), until: Some(Stamp(95)), ..Options::default() };
    assert_eq!(all(dir.path(), &some).len(), 6);
}

#[test]
fn torn_entry_is_stepped_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    fs::write(file(dir.path(), 0), "{\"log\":\"half\n").expect("write");
    let mut writer = Writer::open(dir.path().into(), &plan(1 << 20, 2)).expect("kept");
    writer.take(&mut Input::new(Stream::Stdout), b"whole\n", Stamp(0));
    assert_eq!(text(&all(dir.path(), &Options::default())), b"whole\n");
    assert!(all(&dir.path().join("none"), &Options::default()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_survives(pieces in proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "[a-z\n]{0,400}".prop_map(String::into_bytes),
            proptest::collection::vec(Just(b'x'), 0..40_000),
        ], 0..12)) {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut writer = Writer::open(dir.path().into(), &plan(50_000, 900)).expect("kept");
        let mut out = Input::new(Stream::Stdout);
        for piece in &pieces {
            writer.take(&mut out, piece, Stamp(5));
        }
        writer.end(&mut out, Stamp(6));
        let entries = all(dir.path(), &Options::default());
        prop_assert_eq!(text(&entries), pieces.concat());
        prop_assert!(entries.iter().all(|e| e.bytes.len() <= LONGEST));
    }
}
