//! Linux calls made safe: all unsafe code of the container side.
