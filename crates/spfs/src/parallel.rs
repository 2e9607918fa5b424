//! The same work on many things, on every core, with threads that all end before it returns.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// How many threads to use: one per core that this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on the number of every one of `count` items, on up to `threads` threads, and hands each result to
/// `consume` on the calling thread, in whatever order they come. Only a few results wait at any time. An error of
/// `consume` stops the rest and is returned.
pub fn each<R: Send, E>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> R + Sync,
    mut consume: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return (0..count).try_for_each(|number| consume(number, work(number)));
    }
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(threads * 2);
        for _ in 0..threads {
            let (sender, work, next, stop) = (sender.clone(), &work, &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || sender.send((number, work(number))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let result = receiver.iter().try_for_each(|(number, result)| consume(number, result));
        stop.store(true, Ordering::Relaxed);
        // Workers that wait to hand over a result see that nobody listens any more.
        drop(receiver);
        result
    })
}

/// Runs `work` on every item, on up to `threads` threads, and returns the results in order.
pub fn map<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    /// Items that a thread takes at a time: few enough to share the work evenly.
    const PIECE: usize = 64;
    let pieces: Vec<&[T]> = items.chunks(PIECE).collect();
    let mut results: Vec<Vec<R>> = Vec::new();
    results.resize_with(pieces.len(), Vec::new);
    let done: Result<(), std::convert::Infallible> = each(
        threads,
        pieces.len(),
        |number| pieces[number].iter().map(&work).collect::<Vec<R>>(),
        |number, result| {
            results[number] = result;
            Ok(())
        },
    );
    match done {
        Ok(()) => results.into_iter().flatten().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [1, 2, 7] {
            assert_eq!(map(threads, &items, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        }
        assert!(map(4, &[] as &[u32], |n| *n).is_empty());
    }

    #[test]
    fn an_error_stops_the_rest() {
        let started = AtomicUsize::new(0);
        let result = each(
            4,
            1_000_000,
            |number| {
                started.fetch_add(1, Ordering::Relaxed);
                number
            },
            |_, _| Err("stop"),
        );
        assert_eq!(result, Err("stop"));
        assert!(started.load(Ordering::Relaxed) < 1000);
    }
}
