//! From a directory tree to payloads and a manifest.
