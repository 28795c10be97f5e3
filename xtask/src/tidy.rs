//! What is said of the code is checked here: paths named in documents, the direction of dependencies, where
//! `unsafe` is, how long files are, that every file says what it owns.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below `dir` with this extension, builds and fuzz corpora left out.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if !matches!(name.to_str(), Some("target" | ".git" | "corpus")) {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn paths_named_in_documents_exist() {
    let mut missing = Vec::new();
    for document in files(&root(), "md") {
        let text = fs::read_to_string(&document).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let ours = ["crates/", "docs/", "tests/", "xtask/", "images/", "fuzz/", ".ci/"];
            let plain = !word.contains(['<', '*', ' ', '{']);
            if plain && ours.iter().any(|start| word.starts_with(start)) && !root().join(word).exists() {
                missing.push(format!("{}: {word}", short(&document)));
            }
        }
    }
    assert!(missing.is_empty(), "documents name what is not there:\n{}", missing.join("\n"));
}

/// Each room and what it may use: ARCHITECTURE.md, I7.
const MAY_USE: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("sys", &[]),
    ("kernel", &[]),
    ("runtime", &["spec", "sys"]),
    ("image", &["spec", "sys"]),
    ("build", &["spec", "sys"]),
    ("network", &["spec", "sys"]),
    ("guest", &["spec", "sys", "runtime", "network"]),
    ("vmm", &["spec", "sys", "runtime", "guest"]),
    ("sandbox", &["spec", "sys", "runtime", "guest"]),
    ("oci", &["spec", "sys", "runtime"]),
    ("supervisor", &["spec", "sys", "runtime", "sandbox", "network"]),
    ("engine", &["spec", "sys", "runtime", "kernel", "image", "build", "network", "guest", "sandbox"]),
    ("api", &["spec", "engine"]),
    ("compose", &[]),
    ("cli", &["spec", "engine", "compose"]),
];

#[test]
fn dependencies_between_rooms_go_down_only() {
    for (room, allowed) in MAY_USE.iter().copied() {
        let manifest = fs::read_to_string(root().join("crates").join(room).join("Cargo.toml")).unwrap();
        let product = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in product.lines() {
            let Some(rest) = line.strip_prefix("cata-") else { continue };
            let used = rest.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&used), "{room} must not depend on {used}");
        }
    }
    let rooms = fs::read_dir(root().join("crates")).unwrap().count();
    assert_eq!(rooms, MAY_USE.len(), "a room is missing in this test's table");
}

/// Files beyond `sys` that may hold `unsafe`: the hypervisor's calls on memory that a guest shares.
const FENCED: [&str; 6] = [
    "crates/vmm/src/kvm/fd.rs",
    "crates/vmm/src/kvm/prefault.rs",
    "crates/vmm/src/kvm/signal.rs",
    "crates/vmm/src/kvm/tap.rs",
    "crates/vmm/src/kvm/vm.rs",
    "crates/vmm/src/memory/transfer.rs",
];

#[test]
fn unsafe_code_is_in_sys_and_the_fenced_files_only() {
    let sys = root().join("crates/sys");
    for file in files(&root().join("crates"), "rs") {
        if file.starts_with(&sys) || FENCED.iter().any(|fenced| file.ends_with(fenced)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let allowed = text.contains("allow(unsafe_code") || text.contains("expect(unsafe_code");
        assert!(!allowed, "{} lets itself use unsafe code", short(&file));
    }
}

#[test]
fn every_file_says_what_it_owns_and_is_not_too_long() {
    for dir in ["crates", "xtask", "tests"] {
        for file in files(&root().join(dir), "rs") {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//!"), "{} does not begin with what it owns (//!)", short(&file));
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = product.lines().count();
            assert!(lines <= 800, "{} has {lines} lines", short(&file));
        }
    }
}
