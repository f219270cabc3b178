//! Seeded faults between a source and the tracker: frames that vanish, come twice, overtake each other, come too
//! late or arrive changed. Counts what it did, so that a test can compare.

use crate::memory::{FrameLease, FrameRing};
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::StreamDescription;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// `[source.faults]`: probabilities per frame, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FaultConfig {
    /// Seed of everything that is random.
    pub seed: u64,
    /// Share of frames that vanish.
    pub drop: f64,
    /// Share of frames that come twice.
    pub duplicate: f64,
    /// Share of frames that are overtaken by up to `reorder_depth` others.
    pub reorder: f64,
    /// Most frames that overtake one (1 to 60: within the tracker's window).
    pub reorder_depth: usize,
    /// Share of frames with changed bytes.
    pub corrupt: f64,
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_depth: 16,
            corrupt: 0.0,
        }
    }
}

/// What was done to the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// frames that vanished
    pub dropped: u64,
    /// second arrivals
    pub duplicated: u64,
    /// frames held back
    pub reordered: u64,
    /// frames changed
    pub corrupted: u64,
}

/// A source with faults. Only frames with a checksum are changed: without one nobody could notice.
pub struct Faulty<S: FrameSource> {
    source: S,
    config: FaultConfig,
    random: Pcg64Mcg,
    /// frames on their way, with the number of frames that still overtake each
    held: VecDeque<(usize, FrameLease)>,
    again: Option<FrameLease>,
    ended: bool,
    injected: Injected,
}

impl<S: FrameSource> Faulty<S> {
    /// Wraps a source.
    pub fn new(source: S, config: FaultConfig) -> Result<Self, SourceError> {
        let shares = [
            ("drop", config.drop),
            ("duplicate", config.duplicate),
            ("reorder", config.reorder),
            ("corrupt", config.corrupt),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                let expected = "a share of frames from 0 to 1".into();
                return Err(SourceError::Parameter {
                    key,
                    value: share.to_string(),
                    expected,
                });
            }
        }
        if !(1..=60).contains(&config.reorder_depth) {
            return Err(SourceError::Parameter {
                key: "reorder_depth",
                value: config.reorder_depth.to_string(),
                expected: "allowed is 1 to 60".into(),
            });
        }
        Ok(Self {
            random: Pcg64Mcg::seed_from_u64(config.seed),
            held: VecDeque::with_capacity(config.reorder_depth + 2),
            again: None,
            ended: false,
            injected: Injected::default(),
            config,
            source,
        })
    }

    /// What has been done since it was made.
    pub fn injected(&self) -> Injected {
        self.injected
    }

    fn happens(&mut self, share: f64) -> bool {
        ((self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    /// The frame whose turn it is: one that enough others have overtaken.
    fn due(&mut self) -> Option<FrameLease> {
        let at = self.held.iter().position(|(left, _)| *left == 0 || self.ended)?;
        self.held.remove(at).map(|(_, lease)| lease)
    }

    /// A copy of a frame with one byte changed, in a slot of its own.
    fn changed(&mut self, lease: &FrameLease, ring: &FrameRing) -> Option<FrameLease> {
        let mut slot = ring.slot_within(Duration::from_millis(20))?;
        *slot.header_mut() = *lease.header();
        slot.header_mut().notes.set(0);
        lease.notes().iter().all(|note| slot.note(*note));
        let payload = lease.payload();
        slot.payload_mut()[..payload.len()].copy_from_slice(payload);
        let place = (self.random.next_u64() % payload.len().max(1) as u64) as usize;
        slot.payload_mut()[place] ^= 1 << (self.random.next_u64() % 8);
        Some(slot.publish())
    }

    /// A fresh frame meets its fate; `None` if it vanished or was held back.
    fn meet(&mut self, mut lease: FrameLease, ring: &FrameRing) -> Option<FrameLease> {
        for (left, _) in &mut self.held {
            *left = left.saturating_sub(1);
        }
        if self.happens(self.config.drop) {
            self.injected.dropped += 1;
            return None;
        }
        if self.happens(self.config.corrupt)
            && lease.header().flags & frame::header::FLAG_PAYLOAD_CRC != 0
            && let Some(changed) = self.changed(&lease, ring)
        {
            self.injected.corrupted += 1;
            lease = changed;
        }
        if self.happens(self.config.duplicate) {
            self.injected.duplicated += 1;
            self.again = Some(lease.clone());
        }
        if self.happens(self.config.reorder) && self.held.len() < self.config.reorder_depth {
            self.injected.reordered += 1;
            let overtaken = 1 + (self.random.next_u64() % self.config.reorder_depth as u64) as usize;
            self.held.push_back((overtaken, lease));
            return None;
        }
        Some(lease)
    }
}

impl<S: FrameSource> FrameSource for Faulty<S> {
    fn stream(&self) -> &StreamDescription {
        self.source.stream()
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.held.clear();
        self.again = None;
        self.ended = false;
        self.random = Pcg64Mcg::seed_from_u64(self.config.seed);
        self.source.arm(epoch)
    }

    fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        self.source.prepare(ring)
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        if let Some(lease) = self.again.take().or_else(|| self.due()) {
            return Ok(Arrival::Frame(lease));
        }
        if self.ended {
            return Ok(Arrival::End);
        }
        match self.source.next(ring, when_full)? {
            Arrival::Frame(lease) => Ok(self.meet(lease, ring).map_or(Arrival::Idle, Arrival::Frame)),
            Arrival::End => {
                self.ended = true;
                Ok(self.due().map_or(Arrival::End, Arrival::Frame))
            }
            other => Ok(other),
        }
    }

    fn remarks(&self) -> Vec<String> {
        self.source.remarks()
    }

    fn counts(&self) -> std::collections::BTreeMap<String, u64> {
        self.source.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, PageSize, PagesConfig};
    use crate::simulate::{Scene, Simulate, SimulateConfig};
    use crate::tracker::Tracker;

    #[test]
    fn the_tracker_finds_exactly_what_was_done() {
        let simulated = SimulateConfig {
            scene: Scene::Pattern,
            rows: 8,
            columns: 8,
            frames: 20_000,
            rate_hz: 0.0,
            checksum: true,
            ..SimulateConfig::default()
        };
        let config = FaultConfig {
            seed: 9,
            drop: 0.02,
            duplicate: 0.05,
            reorder: 0.2,
            reorder_depth: 40,
            corrupt: 0.01,
        };
        let mut source = Faulty::new(Simulate::new(simulated).unwrap(), config).unwrap();
        let pages = PagesConfig {
            bytes: FrameRing::bytes_needed(128, 128),
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        };
        let ring = FrameRing::new(HugePages::reserve(&pages).unwrap(), 128, 128).unwrap();
        source.arm(7).unwrap();
        let mut tracker = Tracker::new(7, 20_000, 64);
        loop {
            match source.next(&ring, WhenFull::Wait).unwrap() {
                Arrival::Frame(lease) => {
                    tracker.on_frame(lease.header(), lease.intact());
                }
                Arrival::End => break,
                Arrival::Idle | Arrival::Dropped { .. } => {}
            }
            while tracker.next_lost().is_some() {}
        }
        tracker.finish();
        while tracker.next_lost().is_some() {}
        let (injected, counts) = (source.injected(), *tracker.counts());
        assert!(injected.reordered > 1000 && injected.corrupted > 100, "{injected:?}");
        assert_eq!(counts.lost, injected.dropped);
        assert_eq!(counts.duplicate + counts.late, injected.duplicated);
        assert_eq!(counts.late, 0);
        assert_eq!(counts.corrupt, injected.corrupted);
        assert!(counts.closed());
        assert_eq!(ring.free(), 128);
    }
}
