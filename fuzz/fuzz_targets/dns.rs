//! Questions of containers and answers of name servers.
#![no_main]

use cata_network::dns::message::{self, Question};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(query) = Question::parse(data) {
        let section = query.section(data);
        let _ = (query.datagram(), query.is_single_label());
        let _ = message::is_reply_to(data, 1, section);
    }
    let _ = message::is_failure(data);
    let _ = message::id(data);
});
