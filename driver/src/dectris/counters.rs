//! What happened on the stream, counted, for metrics and the run's summary.

use super::series::SeriesCounts;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($name:ident: $help:literal;)*) => {
        /// Counters of a DECTRIS source. They only grow.
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
    messages: "messages received";
    placed: "images that were received straight into their slot";
    disconnects: "connections that ended, or were ended for what they sent";
    malformed: "messages that are none of the stream's";
    damaged: "images whose bytes cannot be a frame of the series; corrupt in the ledger";
    series: "series that were taken";
    stray_images: "images of a series that was over, or of one that never began";
    stray_starts: "starts of a series that was over or running already";
    stray_ends: "ends of a series that was not running";
    early_images: "images that came before the start of their series";
    missing_ends: "series that ended without a message that says so";
    short_series: "series that ended with images missing";
    superseded: "series that another one cut short";
}

impl Counters {
    /// Takes over what the state machine has counted.
    pub(super) fn show(&self, counts: &SeriesCounts) {
        self.series.store(counts.series, Relaxed);
        self.stray_images.store(counts.stray_images, Relaxed);
        self.stray_starts.store(counts.stray_starts, Relaxed);
        self.stray_ends.store(counts.stray_ends, Relaxed);
        self.early_images.store(counts.early_images, Relaxed);
        self.missing_ends.store(counts.missing_ends, Relaxed);
        self.short_series.store(counts.short_series, Relaxed);
        self.superseded.store(counts.superseded, Relaxed);
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
