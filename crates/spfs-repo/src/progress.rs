//! How long work tells what it does, and is told to stop.

/// Hears how far long work has come. Called from several threads at once.
pub trait Progress: Sync {
    /// More files or objects are known to be ahead, with their bytes.
    fn expect(&self, _items: u64, _bytes: u64) {}
    /// Files or objects are finished, with their bytes.
    fn advance(&self, _items: u64, _bytes: u64) {}
    /// Whether the work should stop; it then ends with [`crate::Error::Interrupted`] and leaves nothing behind.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Progress that nobody watches.
pub struct NoProgress;

impl Progress for NoProgress {}
