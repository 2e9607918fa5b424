//! What people do with spfs, one verb a file; silent, for programs to build on.
