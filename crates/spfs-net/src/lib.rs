//! Repositories at the other end of a wire.
