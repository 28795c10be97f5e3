//! Property tests of the frames: whatever arrives, in whatever pieces.

use proptest::prelude::*;

use super::*;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let kind = (0..Kind::ALL.len()).prop_map(|at| Kind::ALL[at]);
    let frame = (kind, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
        |(kind, session, mut payload)| {
            payload.truncate(kind.longest());
            Frame { kind, session, payload }
        },
    );
    proptest::collection::vec(frame, 0..20)
}

proptest! {
    #[test]
    fn frames_arrive_whole_whatever_the_pieces(frames in frames(), size in 1_usize..300) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.feed(piece);
            while let Some(frame) = decoder.take().unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_keep_more_than_it_needs(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..64),
    ) {
        let mut decoder = Decoder::default();
        for piece in pieces {
            decoder.feed(&piece);
            loop {
                match decoder.take() {
                    Ok(Some(frame)) => {
                        prop_assert!(frame.payload.len() <= frame.kind.longest());
                        let _ = frame.stream();
                        let _ = frame.granted();
                        let _ = frame.signal_fate();
                        let _ = frame.size();
                        let _ = frame.parse::<Hello>();
                        let _ = frame.parse::<Told>();
                    }
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    #[test]
    fn allowance_never_exceeds_a_window(steps in proptest::collection::vec((any::<bool>(), 0_u32..200_000), 0..50)) {
        let mut allowance = Allowance::default();
        let mut model = i64::from(WINDOW);
        for (earn, bytes) in steps {
            let change = if earn { i64::from(bytes) } else { -i64::from(bytes) };
            let fits = (0..=i64::from(WINDOW)).contains(&(model + change));
            let done = if earn { allowance.earn(bytes) } else { allowance.spend(bytes as usize) };
            prop_assert_eq!(done.is_ok(), fits);
            if fits {
                model += change;
            }
            prop_assert!(allowance.now() <= PIECE);
        }
    }
}

#[test]
fn kinds_have_numbers_of_their_own() {
    for (at, kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(Kind::from_byte(*kind as u8), Some(*kind));
        assert!(Kind::ALL[..at].iter().all(|other| *other as u8 != *kind as u8));
    }
    assert_eq!(Kind::from_byte(0), None);
    assert_eq!(Kind::from_byte(255), None);
}

#[test]
fn frame_beyond_its_kind_is_refused_before_its_bytes_are_kept() {
    let mut bytes = u32::MAX.to_le_bytes().to_vec();
    bytes.extend([Kind::Eof as u8, 1, 0, 0, 0]);
    let mut decoder = Decoder::default();
    decoder.feed(&bytes);
    assert!(matches!(decoder.take(), Err(ProtocolError::Length(Kind::Eof, _))));
}
