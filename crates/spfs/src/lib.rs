//! What people do with spfs, one verb a file; silent, for programs to build on.

pub use spfs_mount as mount;
pub use spfs_repo as repo;

pub mod shell;
