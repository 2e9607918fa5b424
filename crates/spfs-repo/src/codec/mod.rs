//! Bytes to plain structs and back: stored objects, what is hashed, tag records.
