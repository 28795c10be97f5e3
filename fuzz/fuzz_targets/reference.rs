//! References as users and annotations write them.
#![no_main]

use cata_spec::Reference;

libfuzzer_sys::fuzz_target!(|data: &str| {
    if let Ok(reference) = Reference::parse(data) {
        let again = Reference::parse(&reference.to_string()).expect("what is printed can be read");
        assert_eq!(again, reference);
        assert_eq!(Reference::parse(&reference.familiar()).expect("so can the short form"), reference);
    }
});
