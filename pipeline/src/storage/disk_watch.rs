//! Whether the disk still does what it was asked for, seen by a thread that does not wait for it.

use super::frame_writer::Common;
use driver::clock::monotonic_ns;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A disk that gives no answer for so long: somebody should know.
const STILL_NS: u64 = 5_000_000_000;

/// What a run has asked its disk for: so many of one kind, writes or syncs. Writes that go on say nothing of a sync.
#[derive(Debug, Default)]
pub(super) struct Asked {
    open: AtomicU64,
    moved_ns: AtomicU64,
}

impl Asked {
    /// Something more is asked for.
    pub(super) fn begin(&self) {
        // After a rest the clock begins anew.
        if self.open.fetch_add(1, Relaxed) == 0 {
            self.moved_ns.store(monotonic_ns(), Relaxed);
        }
    }

    /// Something was done, or refused.
    pub(super) fn end(&self) {
        self.moved_ns.store(monotonic_ns(), Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    fn still_ns(&self, now: u64) -> u64 {
        match self.open.load(Relaxed) {
            0 => 0,
            _ => now.saturating_sub(self.moved_ns.load(Relaxed)),
        }
    }
}

/// Looks at the disk of a run.
#[derive(Debug)]
pub struct DiskWatch {
    common: Arc<Common>,
    said: bool,
}

impl DiskWatch {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self { common, said: false }
    }

    /// A sentence for whoever should know, once for every time that the disk stands still.
    pub fn look(&mut self) -> Option<String> {
        let now = monotonic_ns();
        let still = |asked: &Asked| asked.still_ns(now) > STILL_NS;
        let what = match (still(&self.common.writes), still(&self.common.syncs)) {
            (false, false) => None,
            (true, _) => Some("the disk has written nothing for 5 s"),
            (false, true) => Some("the disk has been syncing for 5 s: nothing that came since is safe yet"),
        };
        let news = what.filter(|_| !self.said);
        self.said = what.is_some();
        news.map(str::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_waited_for() {
        let asked = Asked::default();
        assert_eq!(asked.still_ns(u64::MAX), 0);
        asked.begin();
        asked.begin();
        let now = monotonic_ns();
        assert!(asked.still_ns(now + STILL_NS) >= STILL_NS - 1_000_000_000);
        asked.end();
        assert!(asked.still_ns(now + 2 * STILL_NS) > STILL_NS);
        asked.end();
        assert_eq!(asked.still_ns(u64::MAX), 0);
    }
}
