//! Every interleaving of the ring's counting, by loom.
#![allow(unsafe_code, clippy::unwrap_used)] // a test

#[path = "../driver/src/memory/counting.rs"]
mod counting;

use counting::SlotCounts;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// One slot, a free list and a payload whose accesses loom watches for races.
struct Model {
    counts: SlotCounts,
    free: Mutex<Vec<usize>>,
    payload: UnsafeCell<u32>,
}

fn read(model: &Model) -> u32 {
    model.payload.with(|value| {
        // SAFETY: loom fails the test if a write runs at the same time, which is what the test is about.
        unsafe { *value }
    })
}

fn write(model: &Model, number: u32) {
    model.payload.with_mut(|value| {
        // SAFETY: as in `read`.
        unsafe { *value = number }
    });
}

fn drop_lease(model: &Model) {
    if model.counts.release(0) {
        model.free.lock().unwrap().push(0);
    }
}

#[test]
fn the_last_lease_gives_the_slot_back_once_and_after_every_read() {
    loom::model(|| {
        let model = Arc::new(Model {
            counts: SlotCounts::new(1),
            free: Mutex::new(vec![]),
            payload: UnsafeCell::new(0),
        });
        write(&model, 7);
        model.counts.publish(0);
        model.counts.share(0);
        model.counts.share(0);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let model = model.clone();
                thread::spawn(move || {
                    assert_eq!(read(&model), 7);
                    drop_lease(&model);
                })
            })
            .collect();
        assert_eq!(read(&model), 7);
        drop_lease(&model);
        // Whoever finds the slot free may write it at once: loom sees a race if a read could still come.
        let taken = model.free.lock().unwrap().pop();
        if let Some(slot) = taken {
            assert!(slot < model.counts.slots());
            assert_eq!(model.counts.leases(slot), 0);
            write(&model, 8);
        }
        for reader in readers {
            reader.join().unwrap();
        }
        let left = model.free.lock().unwrap().len();
        assert_eq!(left + usize::from(taken.is_some()), 1, "given back exactly once");
    });
}

#[test]
fn a_lease_may_be_shared_while_another_is_dropped() {
    loom::model(|| {
        let model = Arc::new(Model {
            counts: SlotCounts::new(1),
            free: Mutex::new(vec![]),
            payload: UnsafeCell::new(0),
        });
        write(&model, 3);
        model.counts.publish(0);
        model.counts.share(0);
        let other = model.clone();
        let sharing = thread::spawn(move || {
            other.counts.share(0);
            drop_lease(&other);
            assert_eq!(read(&other), 3);
            drop_lease(&other);
        });
        drop_lease(&model);
        sharing.join().unwrap();
        assert_eq!((model.counts.leases(0), model.free.lock().unwrap().len()), (0, 1));
    });
}
