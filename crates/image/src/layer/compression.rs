//! Compressed streams, told by their first bytes: media types are only somebody's word.

use std::io::{self, BufRead, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::RegistryError;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// From the first bytes.
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Refuses layers that cannot be had or read, by their media type.
pub(crate) fn check_media_type(media: &str) -> Result<(), RegistryError> {
    use cata_spec::image::media_type as m;
    let known = [
        m::OCI_LAYER,
        m::OCI_LAYER_GZIP,
        m::OCI_LAYER_ZSTD,
        m::DOCKER_LAYER,
        m::DOCKER_LAYER_GZIP,
        m::DOCKER_LAYER_ZSTD,
        "application/vnd.docker.container.image.rootfs.diff+x-gtar",
    ];
    if known.contains(&media) { Ok(()) } else { Err(RegistryError::LayerType(media.to_owned())) }
}

/// Whether a media type says that the layer may not be distributed.
pub(crate) fn is_foreign(media: &str) -> bool {
    media.contains(".foreign.") || media.contains(".nondistributable.")
}

/// The uncompressed bytes of a stream.
pub(crate) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
    Bzip2(Box<MultiBzDecoder<R>>),
    Xz(Box<XzReader<R>>),
}

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        match Compression::detect(input.fill_buf()?) {
            Compression::Plain => Ok(Self::Plain(input)),
            Compression::Gzip => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(input)))),
            Compression::Zstd => Ok(Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(input)?))),
            Compression::Bzip2 => Ok(Self::Bzip2(Box::new(MultiBzDecoder::new(input)))),
            Compression::Xz => Ok(Self::Xz(Box::new(XzReader::new(input, true)))),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(input) => input.read(buffer),
            Self::Zstd(input) => input.read(buffer),
            Self::Bzip2(input) => input.read(buffer),
            Self::Xz(input) => input.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_by_their_first_bytes() {
        assert_eq!(Compression::detect(b"\x1f\x8b\x08"), Compression::Gzip);
        assert_eq!(Compression::detect(b"\x28\xb5\x2f\xfd"), Compression::Zstd);
        assert_eq!(Compression::detect(b"BZh9"), Compression::Bzip2);
        assert_eq!(Compression::detect(b"\xfd7zXZ\0"), Compression::Xz);
        assert_eq!(Compression::detect(b"etc/\0"), Compression::Plain);
        assert_eq!(Compression::detect(b""), Compression::Plain);
    }
}
