//! blobs, layers, registry, archives.
