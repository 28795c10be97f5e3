//! Dockerfiles: read, printed, read again, planned; and their words, patterns and mounts.
#![no_main]

use cata_build::graph::{Given, Graph};
use cata_build::ignore::Ignore;
use cata_build::{lint, metadata, parse, stage};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ignore) = Ignore::parse(text) {
        let _ = ignore.leaves_out(&["a", "b.md"]);
    }
    let _ = (metadata::mount(text, "/w"), metadata::ports(text), metadata::Mode::parse(text));
    let Ok(file) = parse(text) else { return };
    let printed = file.to_string();
    let again = parse(&printed).expect("what was printed is read");
    assert_eq!(file.instructions, again.instructions);
    let _ = lint::file(&file);
    let given = Given { target_platform: "linux/amd64".into(), ..Given::default() };
    if let Ok(graph) = Graph::new(&file, &given) {
        for index in graph.needed(graph.target) {
            let _ = stage::plan(&graph, index, &given, &stage::scratch(), None);
        }
    }
});
