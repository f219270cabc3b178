//! How long this thread waits for a device: a kernel that never ends must not stop whoever waits for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long waits may take.
#[derive(Clone, Copy)]
enum Limit {
    /// all of them, to this moment
    Until(Instant),
    /// each of them
    Each(Duration),
}

thread_local! {
    static LIMIT: Cell<Option<Limit>> = const { Cell::new(None) };
}

/// Calls `work`, whose waits for a device end after `limit` altogether, with [`crate::AcceleratorError::Hung`]; a queue that
/// was given up is not waited for again. Without it a thread waits as long as the device takes.
pub fn within<R>(limit: Duration, work: impl FnOnce() -> R) -> R {
    limited(Limit::Until(Instant::now() + limit), work)
}

/// The same for work without a known end: each of its waits ends after `limit`.
pub fn each_within<R>(limit: Duration, work: impl FnOnce() -> R) -> R {
    limited(Limit::Each(limit), work)
}

fn limited<R>(limit: Limit, work: impl FnOnce() -> R) -> R {
    let before = LIMIT.replace(Some(limit));
    let result = work();
    LIMIT.set(before);
    result
}

/// How long this thread's next wait may take; `None` where it has no limit.
pub(crate) fn left() -> Option<Duration> {
    LIMIT.get().map(|limit| match limit {
        Limit::Until(until) => until.saturating_duration_since(Instant::now()),
        Limit::Each(limit) => limit,
    })
}
