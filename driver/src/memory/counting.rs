//! The counting of the ring, apart from its memory, so that every interleaving of it can be tried: `tests/ring_model.rs`
//! compiles this file with loom's atomics.
//!
//! A slot's count is 0 while it is free or being written and the number of its leases otherwise.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Leases by slot.
#[derive(Debug)]
pub struct SlotCounts(Box<[AtomicU32]>);

impl SlotCounts {
    /// All free.
    pub fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicU32::new(0)).collect())
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.0.len()
    }

    /// The slot has been written and has its first lease.
    pub fn publish(&self, slot: usize) {
        // The lease goes to other threads through a queue, which carries the writes along.
        self.0[slot].store(1, Ordering::Release);
    }

    /// One lease more; the caller holds one.
    pub fn share(&self, slot: usize) {
        self.0[slot].fetch_add(1, Ordering::Relaxed);
    }

    /// One lease less; true if it was the last, and then the slot is the caller's to give back.
    pub fn release(&self, slot: usize) -> bool {
        if self.0[slot].fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        // Every read through a lease happened before the slot is written again.
        fence(Ordering::Acquire);
        true
    }

    /// Leases of a slot now.
    pub fn leases(&self, slot: usize) -> u32 {
        self.0[slot].load(Ordering::Relaxed)
    }
}
