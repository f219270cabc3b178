//! Marks the threads and the stretch of time in which a frame is on its way: nothing is allocated there.
//! A test replaces the global allocator with one that counts what [`active`] threads ask for.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in its data-plane stretch.
pub fn active() -> bool {
    ACTIVE.with(Cell::get)
}

/// From here to the guard's drop this thread allocates nothing.
#[must_use]
pub fn enter() -> Guard {
    ACTIVE.with(|active| active.set(true));
    Guard(())
}

/// The end of a data-plane stretch.
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.with(|active| active.set(false));
    }
}
