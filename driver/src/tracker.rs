//! The tracker gives every expected frame exactly one receipt: complete, partial, corrupt or lost. Duplicates,
//! late, stale and unexpected arrivals are counted events. A state machine: no clock, thread or I/O inside.
//!
//! Invariants: after [`Tracker::finish`], `expected = complete + partial + corrupt + lost`; within the window the
//! order of arrival does not matter; a frame declared lost is never re-opened.

use frame::FrameHeader;
use serde::Serialize;

/// What became of an expected frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameState {
    /// not yet settled
    Expected = 0,
    /// arrived whole
    Complete = 1,
    /// arrived with parts missing
    Partial = 2,
    /// arrived, but not as it was sent
    Corrupt = 3,
    /// never arrived, or was let go
    Lost = 4,
}

/// The answer to one arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// the first arrival of an expected frame
    Accepted(FrameState),
    /// it had arrived before
    Duplicate,
    /// it had been declared lost
    Late,
    /// it belongs to another epoch
    Stale,
    /// no frame of this number is expected
    Unexpected,
}

/// Frames by state, and counted events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// frames of the run
    pub expected: u64,
    /// arrived whole
    pub complete: u64,
    /// arrived with parts missing
    pub partial: u64,
    /// never arrived, or let go
    pub lost: u64,
    /// arrivals of frames that had arrived before
    pub duplicate: u64,
    /// arrivals of frames that had been declared lost
    pub late: u64,
    /// arrived, but not as sent
    pub corrupt: u64,
    /// arrivals of another epoch
    pub stale: u64,
    /// arrivals with a number that no frame of the run has
    pub unexpected: u64,
}

impl Counts {
    /// Whether every expected frame is settled.
    pub fn closed(&self) -> bool {
        self.expected == self.complete + self.partial + self.corrupt + self.lost
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tracker {
    epoch: u32,
    window: u64,
    states: Box<[FrameState]>,
    counts: Counts,
    /// one more than the highest number that arrived or was let go
    seen_end: u64,
    /// frames below this are settled or about to be declared lost
    horizon: u64,
    /// next frame that [`Tracker::next_lost`] looks at
    swept: u64,
    /// frames let go by the source, still to be reported
    dropped: std::collections::VecDeque<u64>,
}

impl Tracker {
    /// Expects frames 0 to `expected - 1` of `epoch`. A frame that has not come when the one `window` places
    /// after it has is lost.
    pub fn new(epoch: u32, expected: u64, window: u64) -> Self {
        Self {
            epoch,
            window,
            states: vec![FrameState::Expected; expected as usize].into(),
            counts: Counts {
                expected,
                ..Counts::default()
            },
            seen_end: 0,
            horizon: 0,
            swept: 0,
            dropped: std::collections::VecDeque::with_capacity(1024),
        }
    }

    /// A frame has arrived; `intact` says whether its bytes are those that were sent.
    pub fn on_frame(&mut self, header: &FrameHeader, intact: bool) -> Receipt {
        if header.epoch.get() != self.epoch {
            self.counts.stale += 1;
            return Receipt::Stale;
        }
        let number = header.frame_number.get();
        if number >= self.counts.expected {
            self.counts.unexpected += 1;
            return Receipt::Unexpected;
        }
        let state = &mut self.states[number as usize];
        match *state {
            FrameState::Expected => {}
            FrameState::Lost => {
                self.counts.late += 1;
                return Receipt::Late;
            }
            FrameState::Complete | FrameState::Partial | FrameState::Corrupt => {
                self.counts.duplicate += 1;
                return Receipt::Duplicate;
            }
        }
        let (new, count) = if !intact {
            (FrameState::Corrupt, &mut self.counts.corrupt)
        } else if header.is_partial() {
            (FrameState::Partial, &mut self.counts.partial)
        } else {
            (FrameState::Complete, &mut self.counts.complete)
        };
        *state = new;
        *count += 1;
        self.advance(number);
        Receipt::Accepted(new)
    }

    /// The source had no slot for a frame and let it go.
    pub fn on_dropped(&mut self, number: u64) {
        if number >= self.counts.expected || self.states[number as usize] != FrameState::Expected {
            return;
        }
        // Reported from `dropped`; a full list falls back on the sweep, which finds the frame still expected.
        if self.dropped.len() < self.dropped.capacity() {
            self.states[number as usize] = FrameState::Lost;
            self.counts.lost += 1;
            self.dropped.push_back(number);
        }
        self.advance(number);
    }

    fn advance(&mut self, number: u64) {
        self.seen_end = self.seen_end.max(number + 1);
        self.horizon = self.horizon.max((number + 1).saturating_sub(self.window));
    }

    /// The next frame that has just been declared lost; call until `None` after each event.
    pub fn next_lost(&mut self) -> Option<u64> {
        if let Some(number) = self.dropped.pop_front() {
            return Some(number);
        }
        while self.swept < self.horizon {
            let number = self.swept;
            self.swept += 1;
            let state = &mut self.states[number as usize];
            if *state == FrameState::Expected {
                *state = FrameState::Lost;
                self.counts.lost += 1;
                return Some(number);
            }
        }
        None
    }

    /// Nothing more will come: whatever is still expected is lost. Drain with [`Tracker::next_lost`].
    pub fn finish(&mut self) {
        self.horizon = self.counts.expected;
    }

    /// The run ends early on request: frames after the last that was seen were never sent and are no longer expected.
    pub fn end_early(&mut self) {
        self.counts.expected = self.counts.expected.min(self.seen_end);
        self.finish();
    }

    /// What became of a frame.
    pub fn state(&self, number: u64) -> FrameState {
        self.states
            .get(number as usize)
            .copied()
            .unwrap_or(FrameState::Expected)
    }

    /// Frames by state, and counted events.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame::{Compression, PixelType, Shape};
    use proptest::prelude::*;

    fn header(epoch: u32, number: u64) -> FrameHeader {
        let mut header = FrameHeader::new(Shape::new(1, 1), PixelType::U8, Compression::None);
        header.epoch.set(epoch);
        header.frame_number.set(number);
        header
    }

    fn drain(tracker: &mut Tracker) -> Vec<u64> {
        std::iter::from_fn(|| tracker.next_lost()).collect()
    }

    #[test]
    fn a_frame_is_lost_when_the_window_has_passed_and_late_afterwards() {
        let mut tracker = Tracker::new(1, 10, 4);
        for number in [0, 2, 3, 4] {
            assert_eq!(
                tracker.on_frame(&header(1, number), true),
                Receipt::Accepted(FrameState::Complete)
            );
            assert!(drain(&mut tracker).is_empty());
        }
        tracker.on_frame(&header(1, 5), true);
        assert_eq!(drain(&mut tracker), [1]);
        assert_eq!(tracker.on_frame(&header(1, 1), true), Receipt::Late);
        assert_eq!(tracker.on_frame(&header(1, 5), true), Receipt::Duplicate);
        assert_eq!(tracker.on_frame(&header(0, 6), true), Receipt::Stale);
        assert_eq!(tracker.on_frame(&header(1, 10), true), Receipt::Unexpected);
        tracker.on_dropped(7);
        assert_eq!(drain(&mut tracker), [7]);
        assert_eq!(
            tracker.on_frame(&header(1, 6), false),
            Receipt::Accepted(FrameState::Corrupt)
        );
        tracker.finish();
        assert_eq!(drain(&mut tracker), [8, 9]);
        assert!(tracker.counts().closed());
        assert_eq!((tracker.counts().lost, tracker.counts().corrupt), (4, 1));
    }

    #[test]
    fn a_run_that_ends_early_expects_no_more_than_was_sent() {
        let mut tracker = Tracker::new(1, 1000, 64);
        for number in (0..100).filter(|n| *n != 50) {
            tracker.on_frame(&header(1, number), true);
        }
        tracker.end_early();
        let lost: Vec<u64> = drain(&mut tracker);
        assert_eq!(lost, [50]);
        assert_eq!((tracker.counts().expected, tracker.counts().complete), (100, 99));
        assert!(tracker.counts().closed());
    }

    #[derive(Clone, Debug)]
    enum Event {
        Frame {
            epoch: u32,
            number: u64,
            intact: bool,
            partial: bool,
        },
        Dropped(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let frame = (0u32..10, 0u64..220, any::<bool>(), any::<bool>()).prop_map(|(epoch, number, intact, partial)| {
            Event::Frame {
                epoch: u32::from(epoch > 0),
                number,
                intact,
                partial,
            }
        });
        prop::collection::vec(
            prop_oneof![9 => frame, 1 => (0u64..220).prop_map(Event::Dropped)],
            0..600,
        )
    }

    proptest! {
        #[test]
        fn accounting_closes_under_any_sequence(events in events(), window in 1u64..80) {
            let expected = 200;
            let mut tracker = Tracker::new(1, expected, window);
            let mut settled = vec![0u32; expected as usize];
            let (mut arrivals, mut accepted) = (0u64, 0u64);
            for event in events {
                match event {
                    Event::Frame { epoch, number, intact, partial } => {
                        let mut header = header(epoch, number);
                        header.flags = if partial { frame::header::FLAG_PARTIAL } else { 0 };
                        arrivals += 1;
                        if let Receipt::Accepted(_) = tracker.on_frame(&header, intact) {
                            accepted += 1;
                            settled[number as usize] += 1;
                        }
                    }
                    Event::Dropped(number) => tracker.on_dropped(number),
                }
                while let Some(lost) = tracker.next_lost() {
                    settled[lost as usize] += 1;
                }
            }
            tracker.finish();
            while let Some(lost) = tracker.next_lost() {
                settled[lost as usize] += 1;
            }
            let counts = *tracker.counts();
            prop_assert!(counts.closed());
            prop_assert!(settled.iter().all(|times| *times == 1), "every frame is settled exactly once");
            prop_assert_eq!(counts.complete + counts.partial + counts.corrupt, accepted);
            prop_assert_eq!(accepted + counts.duplicate + counts.late + counts.stale + counts.unexpected, arrivals);
        }

        #[test]
        fn order_within_the_window_does_not_matter(seed in any::<u64>(), depth in 1usize..64) {
            use rand::{Rng, SeedableRng};
            let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
            let mut numbers: Vec<u64> = (0..500).collect();
            for block in numbers.chunks_mut(depth) {
                for i in (1..block.len()).rev() {
                    block.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
                }
            }
            let mut tracker = Tracker::new(1, 500, 64);
            for number in numbers {
                tracker.on_frame(&header(1, number), true);
                prop_assert_eq!(tracker.next_lost(), None);
            }
            prop_assert_eq!(tracker.counts().complete, 500);
        }
    }
}
