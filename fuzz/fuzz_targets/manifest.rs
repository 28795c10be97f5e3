//! Manifests, indexes and image configurations.
#![no_main]

use cata_spec::image::{ImageConfig, ManifestDocument};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(document) = ManifestDocument::parse(data, None) {
        // What is written again reads the same.
        let again = match &document {
            ManifestDocument::Image(manifest) => serde_json::to_vec(manifest),
            ManifestDocument::Index(index) => serde_json::to_vec(index),
        };
        let again = again.expect("plain data is always written");
        assert_eq!(ManifestDocument::parse(&again, None).expect("it was read before"), document);
    }
    let _ = serde_json::from_slice::<ImageConfig>(data);
});
