//! What happened, counted, for metrics and events.

use super::admission::Reason;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($name:ident: $help:literal;)*) => {
        /// Counters of an RDMA source. They only grow, but for `granted` and `connections`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $name: AtomicU64,)*
            refused: [AtomicU64; Reason::ALL.len()],
        }

        impl Counters {
            /// Name, meaning and value of every counter but the refusals.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    connections: "connections that stand now";
    granted: "slots that senders may write now";
    epochs: "connections that were made; each is an epoch of its own for the slots granted on it";
    broken: "connections that ended before their sender was done";
    announced: "frames announced by senders";
    stale: "frames whose header carried the epoch of another run";
    violations: "announcements of slots that were not the sender's";
    gaps: "frames that a free-running sender sent and that never arrived";
    overruns: "gaps that began while no slot was free";
    not_ready: "times that the device had no receive for a message; an alarm in reliable mode";
}

impl Counters {
    /// One refusal more.
    pub fn refuse(&self, reason: Reason) {
        self.refused[reason as usize - 1].fetch_add(1, Relaxed);
    }

    /// Refusals by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL
            .into_iter()
            .map(|reason| (reason, self.refused[reason as usize - 1].load(Relaxed)))
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
