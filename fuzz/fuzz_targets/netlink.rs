//! The kernel's answers, and attributes within them.
#![no_main]

use cata_network::netlink::decode;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for answer in decode::answers(data) {
        if let Ok(decode::Answer::Message { body, .. }) = answer {
            for (_, value) in decode::attributes(body) {
                let _ = decode::attributes(value).count();
                let _ = decode::u32_at(value, 0);
            }
        }
    }
});
