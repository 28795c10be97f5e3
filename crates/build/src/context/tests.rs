//! Contexts made by hand, friendly and hostile.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cata_sys::path::Root as Beneath;

use super::*;
use crate::ignore::Ignore;

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.txt", "src/main.rs", "src/lib/x.rs", "src/lib/y.tmp", "doc/a.md", "doc/b.md"] {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), name).unwrap();
    }
    dir
}

fn pick(
    dir: &Path,
    sources: &[&str],
    ignore: &str,
    cache: Option<&mut StatCache>,
) -> Result<Selection, ContextError> {
    let root = Beneath::open_trusted(dir).unwrap();
    let ignore = Ignore::parse(ignore).unwrap();
    let none = Ignore::default();
    let how = How { ignore: &ignore, exclude: &none, parents: false, stage: false, threads: 2 };
    select(&root, sources, &how, cache)
}

fn names(selection: &Selection) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let of = |root: &Root| {
        root.entries.iter().map(|e| format!("{}:{}", text(&root.name), text(&e.path))).collect::<Vec<_>>()
    };
    selection.roots.iter().flat_map(of).collect()
}

#[test]
fn directories_files_and_patterns_are_taken() {
    let dir = tree();
    assert_eq!(names(&pick(dir.path(), &["a.txt"], "", None).unwrap()), ["a.txt:"]);
    let src = pick(dir.path(), &["src"], "**/*.tmp", None).unwrap();
    assert_eq!(names(&src), ["src:", "src:lib", "src:lib/x.rs", "src:main.rs"]);
    let docs = pick(dir.path(), &["doc/*.md"], "", None).unwrap();
    assert_eq!(names(&docs), ["a.md:", "b.md:"]);
    let all = pick(dir.path(), &["."], "*\n!doc/a.md", None).unwrap();
    assert_eq!(names(&all), [":", ":doc", ":doc/a.md"]);
}

#[test]
fn the_key_follows_content_and_mode_but_not_time() {
    let dir = tree();
    let key = || pick(dir.path(), &["src"], "", None).unwrap().key(false);
    let first = key();
    let file = fs::File::options().append(true).open(dir.path().join("src/main.rs")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(key(), first);
    fs::write(dir.path().join("a.txt"), "not in src").unwrap();
    assert_eq!(key(), first);
    fs::write(dir.path().join("src/main.rs"), "other").unwrap();
    let second = key();
    assert_ne!(second, first);
    fs::rename(dir.path().join("src/main.rs"), dir.path().join("src/Main.rs")).unwrap();
    assert_ne!(key(), second);
}

#[test]
fn what_is_missing_ignored_or_outside_is_named() {
    let dir = tree();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink("/etc", dir.path().join("etc")).unwrap();
    let missing = pick(dir.path(), &["nothing"], "", None).unwrap_err();
    assert!(matches!(missing, ContextError::NotFound { ignored: false, .. }));
    let ignored = pick(dir.path(), &["a.txt"], "*.txt", None).unwrap_err();
    assert!(ignored.hint().unwrap().contains(".dockerignore"));
    for path in ["out/secret", "etc/passwd", "../x", "src/../../x"] {
        assert!(matches!(pick(dir.path(), &[path], "", None), Err(ContextError::NotFound { .. })), "{path}");
    }
    // A link in a directory is copied as the link it is.
    assert!(names(&pick(dir.path(), &["."], "", None).unwrap()).contains(&":out".to_owned()));
    assert!(pick(dir.path(), &["*.zip"], "", None).is_err());
}

#[test]
fn unchanged_files_are_not_read_again() {
    let dir = tree();
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("stat");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    // Times of change cannot be set: until the files are old enough, nothing is remembered.
    for _ in 0..200 {
        let mut cache = StatCache::open(&path);
        let first = pick(dir.path(), &["src"], "", Some(&mut cache)).unwrap();
        cache.save().unwrap();
        let again = StatCache::open(&path);
        let stats: Vec<_> = first.roots[0].entries.iter().filter(|e| e.digest.is_some()).collect();
        if stats.iter().all(|entry| again.get(&entry.stat) == entry.digest) {
            let file = fs::File::options().append(true).open(dir.path().join("src/main.rs")).unwrap();
            file.set_modified(old).unwrap();
            let changed = pick(dir.path(), &["src/main.rs"], "", None).unwrap();
            assert_eq!(again.get(&changed.roots[0].entries[0].stat), None);
            return;
        }
        std::thread::yield_now();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("nothing was ever remembered");
}

#[test]
fn a_damaged_cache_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stat");
    for bytes in [&b"nonsense"[..], b"catast1\n", &[b"catast1\n".as_slice(), &[7; 200]].concat()] {
        fs::write(&path, bytes).unwrap();
        let stat = rustix::fs::stat(dir.path()).unwrap();
        assert_eq!(StatCache::open(&path).get(&stat), None);
    }
}

#[test]
fn a_huge_sparse_file_and_a_pipe_are_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("big")).unwrap().set_len(1 << 40).unwrap();
    assert!(pick(dir.path(), &["big"], "", None).is_ok());
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let error = pick(dir.path(), &["."], "", None).unwrap_err();
    assert!(error.to_string().contains("pipe"), "{error}");
    assert!(pick(dir.path(), &["."], "pipe", None).is_ok());
}

#[test]
fn further_names_of_a_file_are_found_and_count() {
    let dir = tree();
    let key = || pick(dir.path(), &["src"], "", None).unwrap().key(false);
    fs::copy(dir.path().join("src/main.rs"), dir.path().join("src/same.rs")).unwrap();
    let apart = key();
    fs::remove_file(dir.path().join("src/same.rs")).unwrap();
    fs::hard_link(dir.path().join("src/main.rs"), dir.path().join("src/same.rs")).unwrap();
    // A name outside of what is taken is nobody's first.
    fs::hard_link(dir.path().join("src/lib/x.rs"), dir.path().join("elsewhere")).unwrap();
    let found = pick(dir.path(), &["src"], "", None).unwrap();
    let links: Vec<(&[u8], &[u8])> = found.roots[0]
        .links()
        .into_iter()
        .map(|(at, first)| {
            let path = |at: usize| found.roots[0].entries[at].path.as_slice();
            (path(at), path(first))
        })
        .collect();
    assert_eq!(links, [(&b"same.rs"[..], &b"main.rs"[..])]);
    assert_ne!(key(), apart);
}
