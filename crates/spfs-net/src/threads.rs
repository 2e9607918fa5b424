//! The runtime of all clients of this process: started with the first connection, ended with the last one, so that a
//! process that enters namespaces has no threads any more.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use spfs_repo::{Error, Result};
use tokio::runtime::Runtime;

/// A hold on the runtime.
pub struct Threads(Arc<Runtime>);

impl Threads {
    /// That of this process.
    pub fn of_this_process() -> Result<Self> {
        static RUNTIME: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());
        let mut shared = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = shared.upgrade() {
            return Ok(Threads(runtime));
        }
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("spfs-net")
            .enable_all()
            .build()
            .map_err(Error::io("start", "the threads of the network"))?;
        let made = Arc::new(made);
        *shared = Arc::downgrade(&made);
        Ok(Threads(made))
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.0
    }

    /// Lets go of it. The last one ends it.
    pub fn end(self) {
        if let Some(runtime) = Arc::into_inner(self.0) {
            // A look-up of a name that nobody answers is not waited for.
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
