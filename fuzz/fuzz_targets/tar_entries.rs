//! Entries of a layer's tar stream: headers, PAX records, sparse maps, names.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = cata_image::layer::apply_to_null(data);
});
