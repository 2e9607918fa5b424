//! Doing the same to many things on several threads: over a network each waits for an answer, not for a processor.

use crate::error::Result;

/// Threads for work that waits for a server.
pub(crate) const WAITING: usize = 16;
/// Things that are worth a thread.
const SHARE: usize = 4;

/// Has `work` done on pieces of `items`, on up to `threads` threads of which this is one. Returns the results in
/// order, or the first error.
pub(crate) fn spread<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&[T]) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let threads = threads.min(items.len() / SHARE).max(1);
    if threads == 1 {
        return work(items);
    }
    let mut pieces = items.chunks(items.len().div_ceil(threads));
    let first = pieces.next().unwrap_or_default();
    let work = &work;
    std::thread::scope(|scope| {
        let others: Vec<_> = pieces.map(|piece| scope.spawn(move || work(piece))).collect();
        let mut results = work(first);
        for other in others {
            let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let Ok(all) = &mut results {
                match other {
                    Ok(more) => all.extend(more),
                    Err(e) => results = Err(e),
                }
            }
        }
        results
    })
}
