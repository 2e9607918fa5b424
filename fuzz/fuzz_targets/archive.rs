//! `RUSTC_BOOTSTRAP=1 cargo fuzz run archive`; see ../checks.rs.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::archive(bytes));
