//! The conformance suite that every kind of repository passes.
