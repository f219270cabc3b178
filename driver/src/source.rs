//! What every source of frames has in common.

use crate::memory::{FrameLease, FrameRing};
use frame::StreamDescription;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a source does when every slot of the ring is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// hold the origin back
    Wait,
    /// let the newest whole frame go
    Drop,
}

/// What a source has to say.
#[derive(Debug)]
pub enum Arrival {
    /// a frame, whole, in the ring
    Frame(FrameLease),
    /// the ring was full and the source let the frame go
    Dropped {
        /// number of the frame within the run
        frame_number: u64,
    },
    /// nothing within the source's patience, at most 20 ms
    Idle,
    /// no more will come
    End,
}

/// Why a source cannot be opened or go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// the file cannot be read
    #[error("{path}: {reason}")]
    Read {
        /// file
        path: PathBuf,
        /// what failed
        reason: String,
    },
    /// the file is not what it should be
    #[error("{path}: {found}; expected {expected}")]
    Content {
        /// file
        path: PathBuf,
        /// what was found
        found: String,
        /// what was expected and what to do
        expected: String,
    },
    /// a parameter is wrong
    #[error("source.{key} = {value}: {expected}")]
    Parameter {
        /// key
        key: &'static str,
        /// value
        value: String,
        /// what is allowed
        expected: String,
    },
    /// a frame does not fit the ring's slots
    #[error("a frame of {frame_bytes} bytes does not fit the ring's slots of {slot_bytes} bytes")]
    SlotTooSmall {
        /// bytes of the frame
        frame_bytes: usize,
        /// bytes of a slot
        slot_bytes: usize,
    },
    /// RDMA
    #[error(transparent)]
    Rdma(#[from] crate::rdma::RdmaError),
    /// a DECTRIS stream
    #[error(transparent)]
    Dectris(#[from] crate::dectris::DectrisError),
    /// packets over UDP
    #[error(transparent)]
    Udp(#[from] crate::udp::UdpError),
}

/// A source of frames. [`FrameSource::arm`] does everything slow; afterwards [`FrameSource::next`] allocates nothing.
pub trait FrameSource: Send {
    /// what is known before the first frame
    fn stream(&self) -> &StreamDescription;
    /// makes ready; frames will carry `epoch`
    fn arm(&mut self, epoch: u32) -> Result<(), SourceError>;
    /// shows it the ring, where a device must know the memory beforehand; after arming, before the first frame
    fn prepare(&mut self, _ring: &FrameRing) -> Result<(), SourceError> {
        Ok(())
    }
    /// the next frame, or why there is none; waits at most 20 ms
    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError>;
    /// what somebody should know of how the frames ended; when no more will come
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
    /// what it has counted of its own, for the run's summary
    fn counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

impl FrameSource for Box<dyn FrameSource> {
    fn stream(&self) -> &StreamDescription {
        self.as_ref().stream()
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.as_mut().arm(epoch)
    }

    fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        self.as_mut().prepare(ring)
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        self.as_mut().next(ring, when_full)
    }

    fn remarks(&self) -> Vec<String> {
        self.as_ref().remarks()
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.as_ref().counts()
    }
}

/// Keeps a rate by an absolute schedule, so that a late frame does not delay those behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    interval_ns: u64,
    next_ns: u64,
}

/// Longest wait before a source says that it is idle.
pub(crate) const PATIENCE_NS: u64 = 20_000_000;

impl Pace {
    /// `rate_hz` frames per second; 0 is as fast as possible.
    pub(crate) fn new(rate_hz: f64) -> Self {
        let interval_ns = if rate_hz > 0.0 { (1e9 / rate_hz) as u64 } else { 0 };
        Self {
            interval_ns,
            next_ns: 0,
        }
    }

    /// Waits for the time of the next frame; false if that is further away than a source's patience.
    pub(crate) fn due(&mut self) -> bool {
        if self.interval_ns == 0 {
            return true;
        }
        let now = crate::clock::monotonic_ns();
        if self.next_ns == 0 {
            self.next_ns = now;
        }
        let ahead = self.next_ns.saturating_sub(now);
        if ahead > 0 {
            std::thread::sleep(std::time::Duration::from_nanos(ahead.min(PATIENCE_NS)));
        }
        ahead <= PATIENCE_NS
    }

    /// The frame that was due has gone out.
    pub(crate) fn done(&mut self) {
        self.next_ns += self.interval_ns;
    }
}
