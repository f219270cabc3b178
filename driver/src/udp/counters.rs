//! What happened to packets, counted, for metrics and the run's summary.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($name:ident: $help:literal;)*) => {
        /// Counters of a UDP source. They only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $help] pub $name: AtomicU64,)*
        }

        impl Counters {
            /// Name, meaning and value of every counter.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name.load(Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    packets: "packets received";
    placed: "packets whose pixels became part of a frame";
    moved: "of these, packets that came in another order than expected: their pixels were moved";
    missing: "packets that frames were handed on without";
    duplicate: "packets that had come before";
    late: "packets of frames that had been handed on or let go";
    no_room: "packets of frames that found no slot";
    stray: "packets of another acquisition: by their number or by their time";
    beyond: "packets of frames after the run's last or before its first";
    bad_size: "packets of a wrong size";
    bad_version: "packets with another header version";
    bad_detector: "packets of another detector";
    bad_part: "packets whose module, row or column does not exist";
    bad_packet: "packets whose number is too high";
    socket_drops: "packets that the kernel dropped because its buffer was full";
}

/// More.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}
