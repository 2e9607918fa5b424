//! `RUSTC_BOOTSTRAP=1 cargo fuzz run view`; see ../mount_checks.rs.
#![no_main]

#[path = "../mount_checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::view(bytes));
