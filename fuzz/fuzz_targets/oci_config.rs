//! A bundle's `config.json` to a plan: never panics, and twice the same.
#![no_main]

use cata_runtime::plan::{Host, Options, plan};
use cata_spec::runtime::Spec;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let options = || Options { hooks: true, ..Options::default() };
    let made = || plan(&spec, &Host { cgroups: None }, &options()).map_err(|error| error.to_string());
    assert_eq!(made(), made());
});
