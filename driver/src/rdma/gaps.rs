//! What a free-running stream has lost. A state machine: one stream, fed with the messages that arrived.
//!
//! A stream numbers its messages from 0, modulo 2³², in the immediate. Stream i of n carries the frames i, i + n, i + 2n …
//! of the run in order, so that a step in the numbering says which frames are missing.

/// What one message tells about those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// it follows the last one
    Next,
    /// messages are missing: the first frame number that is, and how many are
    Gap {
        /// first missing frame
        first: u64,
        /// how many frames of the stream are missing
        count: u64,
    },
    /// sequence and frame number contradict each other, or it is older than the last one
    Odd,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    streams: u64,
    sequence: u32,
    frame: u64,
}

impl Gaps {
    /// Stream `stream` of `streams`, before its first message.
    pub fn new(stream: u64, streams: u64) -> Self {
        Self {
            streams: streams.max(1),
            sequence: 0,
            frame: stream,
        }
    }

    /// A message has arrived.
    pub fn on_message(&mut self, sequence: u32, frame: u64) -> Finding {
        let missing = u64::from(sequence.wrapping_sub(self.sequence));
        let expected = self.frame;
        let told = frame
            .checked_sub(expected)
            .map(|step| (step / self.streams, step % self.streams));
        // A step of more than half the numbers is one backwards.
        if missing > u64::from(u32::MAX / 2) || told != Some((missing, 0)) {
            return Finding::Odd;
        }
        self.sequence = sequence.wrapping_add(1);
        self.frame = frame + self.streams;
        match missing {
            0 => Finding::Next,
            count => Finding::Gap { first: expected, count },
        }
    }

    /// Frames from one of the stream to the next.
    pub fn step(&self) -> u64 {
        self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_names_its_frames_and_contradictions_are_odd() {
        let mut gaps = Gaps::new(1, 2);
        assert_eq!(gaps.on_message(0, 1), Finding::Next);
        assert_eq!(gaps.on_message(3, 7), Finding::Gap { first: 3, count: 2 });
        assert_eq!(gaps.on_message(4, 8), Finding::Odd, "not a frame of this stream");
        assert_eq!(gaps.on_message(4, 11), Finding::Odd, "sequence and number disagree");
        assert_eq!(gaps.on_message(2, 5), Finding::Odd, "older than the last");
        assert_eq!(gaps.on_message(4, 9), Finding::Next);
    }

    proptest! {
        #[test]
        fn what_arrived_and_what_is_missing_are_all_that_was_sent(
            arrived in prop::collection::vec(any::<bool>(), 1..300),
            streams in 1u64..4,
        ) {
            let mut gaps = Gaps::new(0, streams);
            let (mut got, mut missing, mut last) = (0, 0, 0);
            for (index, _) in arrived.iter().enumerate().filter(|(_, here)| **here) {
                match gaps.on_message(index as u32, index as u64 * streams) {
                    Finding::Next => {}
                    Finding::Gap { first, count } => {
                        prop_assert_eq!(first + count * streams, index as u64 * streams);
                        missing += count;
                    }
                    Finding::Odd => prop_assert!(false, "nothing is odd here"),
                }
                got += 1;
                last = index as u64 + 1;
            }
            prop_assert_eq!(got + missing, last);
        }
    }
}
