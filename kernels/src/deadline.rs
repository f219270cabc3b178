//! How long this thread waits for a device: a kernel that never ends must not stop whoever waits for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Calls `work`, whose waits for a device end after `limit` altogether, with [`crate::AcceleratorError::Hung`]; a queue that
/// was given up is not waited for again. Without it a thread waits as long as the device takes.
pub fn within<R>(limit: Duration, work: impl FnOnce() -> R) -> R {
    let before = UNTIL.replace(Some(Instant::now() + limit));
    let result = work();
    UNTIL.set(before);
    result
}

/// What is left of this thread's limit; `None` where it has none.
pub(crate) fn left() -> Option<Duration> {
    UNTIL.get().map(|until| until.saturating_duration_since(Instant::now()))
}
