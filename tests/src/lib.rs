//! Integration tests' worlds.
