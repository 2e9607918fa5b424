//! The system calls that no library wraps safely; the only module of the project with hand-written `unsafe`.

pub mod map;
pub mod mount;
pub mod process;
