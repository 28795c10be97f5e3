//! The channel between a guest and its host: any bytes, in pieces.
#![no_main]

use cata_guest::protocol::{Ask, Boot, Decoder, Exited, Failed, Frame, Hello, Kind, Start, Started, Told};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::default();
    let size = data.first().map_or(1, |byte| usize::from(*byte) + 1);
    for piece in data.chunks(size) {
        decoder.feed(piece);
        loop {
            match decoder.take() {
                Ok(Some(frame)) => look(&frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn look(frame: &Frame) {
    assert!(frame.payload.len() <= frame.kind.longest());
    // What was read is written the same.
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    let mut decoder = Decoder::default();
    decoder.feed(&bytes);
    assert_eq!(decoder.take().as_ref(), Ok(&Some(frame.clone())));
    let _ = (frame.stream(), frame.granted(), frame.signal_fate(), frame.size());
    match frame.kind {
        Kind::Hello => drop(frame.parse::<Hello>()),
        Kind::Boot => drop(frame.parse::<Boot>()),
        Kind::Start => drop(frame.parse::<Start>()),
        Kind::Started => drop(frame.parse::<Started>()),
        Kind::Failed => drop(frame.parse::<Failed>()),
        Kind::Exited => drop(frame.parse::<Exited>()),
        Kind::Ask => drop(frame.parse::<Ask>()),
        Kind::Told => drop(frame.parse::<Told>()),
        _ => {}
    }
}
