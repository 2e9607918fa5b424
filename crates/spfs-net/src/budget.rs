//! How much of what comes and goes over one connection is in memory at one time, however many threads use it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in all. What is larger than this has all of it for itself.
const TOTAL: usize = 64 << 20;
/// What is smaller needs no share.
const SMALL: usize = 1 << 20;
/// Bytes that are counted as one.
const UNIT: usize = 64 << 10;
/// How long a share is waited for. It is a budget and no lock: whoever keeps much for long stops nobody for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The budget of a connection.
pub struct Budget(Arc<Semaphore>);

/// A part of the budget; given back when it is dropped.
#[derive(Default)]
pub struct Share(Option<OwnedSemaphorePermit>);

impl Default for Budget {
    fn default() -> Self {
        Budget(Arc::new(Semaphore::new(TOTAL / UNIT)))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.min(TOTAL).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Budget {
    /// A share for so many bytes, if it is to be had at once.
    pub fn try_take(&self, bytes: usize) -> Option<Share> {
        if bytes < SMALL {
            return Some(Share::default());
        }
        self.0.clone().try_acquire_many_owned(units(bytes)).ok().map(|permit| Share(Some(permit)))
    }

    /// A share for so many bytes, once it is to be had.
    pub async fn take(&self, bytes: usize) -> Share {
        if bytes < SMALL {
            return Share::default();
        }
        let permit = tokio::time::timeout(PATIENCE, self.0.clone().acquire_many_owned(units(bytes))).await;
        Share(permit.ok().and_then(Result::ok))
    }
}

impl Share {
    /// Ties the share to `bytes`: it is given back with the last of them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.0.is_some() { Bytes::from_owner(Held { bytes, _share: self }) } else { bytes }
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_lives_as_long_as_the_bytes() {
        let budget = Budget::default();
        let all = budget.try_take(usize::MAX).unwrap();
        assert!(budget.try_take(SMALL).is_none());
        assert!(budget.try_take(SMALL - 1).is_some(), "what is small needs none");
        let bytes = all.hold(Bytes::from_static(b"some bytes"));
        let part = bytes.slice(5..);
        drop(bytes);
        assert!(budget.try_take(SMALL).is_none());
        assert_eq!(part, "bytes");
        drop(part);
        let halves = [TOTAL / 2, TOTAL / 2].map(|half| budget.try_take(half).unwrap());
        assert!(budget.try_take(SMALL).is_none());
        drop(halves);
        assert!(budget.try_take(TOTAL).is_some());
    }
}
