//! A stack of tasks that several threads work on until none is left.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The tasks that wait. Newest first, so that a tree is walked depth-first and little of it waits.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    /// Threads that work on a task, and may still add some.
    busy: usize,
}

impl<T: Send> Queue<T> {
    /// A queue with one task.
    pub fn new(first: T) -> Self {
        Queue { state: Mutex::new(State { waiting: vec![first], busy: 0 }), changed: Condvar::new() }
    }

    /// Adds tasks; the last one is done first.
    pub fn add(&self, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let before = state.waiting.len();
        state.waiting.extend(tasks);
        match state.waiting.len() - before {
            0 => {}
            1 => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }

    /// Works on tasks until there are none and nobody can add any. Called by every thread. When `stopped`, the tasks
    /// that wait are dropped.
    pub fn work(&self, stopped: impl Fn() -> bool, mut task: impl FnMut(T)) {
        while let Some(next) = self.next() {
            let _done = Done(self);
            if stopped() {
                self.lock().waiting.clear();
            } else {
                task(next);
            }
        }
    }

    fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.waiting.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a task, also when it panics: the other threads must not wait for it.
struct Done<'q, T: Send>(&'q Queue<T>);

impl<T: Send> Drop for Done<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 && state.waiting.is_empty() {
            self.0.changed.notify_all();
        }
    }
}
