//! The slots that nobody has. The one that was given back last is taken first: where frames are dealt with as fast as they come,
//! few slots are in use, and their bytes are still in a processor's cache when they are written again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Numbers of free slots; nothing is allocated after it is made.
pub(super) struct FreeSlots {
    free: Mutex<Vec<usize>>,
    more: Condvar,
}

impl FreeSlots {
    /// Room for `slots` numbers, and none of them yet.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            free: Mutex::new(Vec::with_capacity(slots)),
            more: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot is free; each is given once after it was taken, so that there is room for it.
    pub(super) fn give(&self, slot: usize) {
        self.lock().push(slot);
        self.more.notify_one();
    }

    /// A free slot, if there is one.
    pub(super) fn take(&self) -> Option<usize> {
        self.lock().pop()
    }

    /// A free slot; waits for one without spinning.
    pub(super) fn take_within(&self, wait: Duration) -> Option<usize> {
        let until = Instant::now() + wait;
        let mut free = self.lock();
        loop {
            if let Some(slot) = free.pop() {
                return Some(slot);
            }
            let left = until
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())?;
            free = self
                .more
                .wait_timeout(free, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How many are free.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_given_is_taken_first() {
        let free = FreeSlots::new(3);
        assert_eq!((free.take(), free.take_within(Duration::from_millis(1))), (None, None));
        for slot in 0..3 {
            free.give(slot);
        }
        assert_eq!((free.take(), free.len()), (Some(2), 2));
        free.give(2);
        let taken: Vec<usize> = std::iter::from_fn(|| free.take_within(Duration::ZERO)).collect();
        assert_eq!(taken, [2, 1, 0]);
    }
}
