//! When a run's frames have all been sent. A state machine fed with events and time.
//!
//! A sender is done when it has said so on every connection. The run ends when senders that are done have accounted for
//! every frame, or when nobody has been connected for longer than the patience: what is missing then is lost.

/// Senders of a run that are remembered.
const SENDERS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Sender {
    id: u64,
    /// connections on which it has said so
    ended: u16,
    /// frames that it accounts for
    frames: u64,
    parts: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    expected: u64,
    patience_ns: u64,
    senders: Vec<Sender>,
    open: usize,
    alone_since_ns: u64,
}

impl Roster {
    /// Expects `expected` frames; without a sender it waits for `patience_ns`.
    pub fn new(expected: u64, patience_ns: u64, now_ns: u64) -> Self {
        Self {
            expected,
            patience_ns,
            senders: Vec::with_capacity(SENDERS_MAX),
            open: 0,
            alone_since_ns: now_ns,
        }
    }

    /// A connection of a sender stands.
    pub fn joined(&mut self, id: u64, parts: u16) {
        self.open += 1;
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.id == id) {
            sender.parts = parts;
        } else if self.senders.len() < SENDERS_MAX {
            // More are not remembered, and then the patience decides.
            self.senders.push(Sender {
                id,
                ended: 0,
                frames: 0,
                parts,
            });
        }
    }

    /// A sender says on one connection that it is done with so many frames of the run.
    pub fn ended(&mut self, id: u64, frames: u64) {
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.id == id) {
            sender.ended += 1;
            sender.frames = sender.frames.max(frames);
        }
    }

    /// A connection is gone.
    pub fn left(&mut self, now_ns: u64) {
        self.open = self.open.saturating_sub(1);
        self.alone_since_ns = now_ns;
    }

    /// Whether no more will come.
    pub fn over(&self, now_ns: u64) -> bool {
        let done = self.senders.iter().filter(|sender| sender.ended >= sender.parts);
        let accounted: u64 = done.map(|sender| sender.frames).sum();
        accounted >= self.expected || (self.open == 0 && now_ns.saturating_sub(self.alone_since_ns) > self.patience_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_when_every_frame_is_accounted_for() {
        let mut roster = Roster::new(100, 50, 0);
        roster.joined(1, 2);
        roster.joined(1, 2);
        roster.joined(2, 1);
        roster.ended(1, 60);
        assert!(!roster.over(10), "its other connection may still carry frames");
        roster.ended(1, 60);
        assert!(!roster.over(1000), "the second sender has 40 more");
        roster.ended(2, 40);
        assert!(roster.over(11));
    }

    #[test]
    fn a_sender_that_does_not_come_back_ends_the_run_after_the_patience() {
        let mut roster = Roster::new(100, 50, 0);
        roster.joined(1, 1);
        assert!(!roster.over(1_000_000), "a connected sender may take its time");
        roster.left(1_000_000);
        assert!(!roster.over(1_000_050));
        roster.joined(9, 1);
        assert!(!roster.over(2_000_000), "another one took over");
        roster.ended(9, 100);
        assert!(roster.over(2_000_000));
    }
}
