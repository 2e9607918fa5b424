//! The program `spfs`.

fn main() {}
