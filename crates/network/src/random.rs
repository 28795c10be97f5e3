//! What must be nobody else's: ids, hardware addresses, names of interfaces.

/// 64 hexadecimal characters.
pub(crate) fn id() -> String {
    hexadecimal(&bytes::<32>())
}

/// A locally administered address.
pub(crate) fn mac() -> [u8; 6] {
    let [a, b, c, d] = bytes::<4>();
    [0x02, 0x42, a, b, c, d]
}

/// A name for the host's end of a pair: the last one of a restarted container may not be gone yet.
pub(crate) fn interface() -> String {
    format!("veth{}", hexadecimal(&bytes::<4>()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut drawn = [0; N];
    // Up to 256 bytes are never cut short nor interrupted once the pool is seeded, which it is when the
    // system is up.
    let got = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty());
    assert!(got == Ok(N), "the kernel gives no randomness: {got:?}");
    drawn
}
