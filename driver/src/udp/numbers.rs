//! Which frame numbers are believed.

/// Packets in a row, all far ahead of the newest frame, after which the run believes them.
const AHEAD_PACKETS: u64 = 8;

/// The numbers that packets have carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// one past the highest frame that a packet was taken for
    newest_end: u64,
    /// packets far ahead of it that agree with each other, and the range of their frames
    ahead: u64,
    low: u64,
    high: u64,
}

impl Numbers {
    /// Whether a frame's number is near enough to what has come. A number that is not may be forged, or of another
    /// acquisition; believed at once it would make every frame before it lost.
    pub(super) fn credible(&mut self, frame: u64, window: u64) -> bool {
        if frame < self.newest_end + window {
            self.newest_end = self.newest_end.max(frame + 1);
            self.ahead = 0;
            return true;
        }
        let near = frame + window >= self.low && frame <= self.high + window;
        if self.ahead == 0 || !near {
            (self.ahead, self.low, self.high) = (1, frame, frame);
            return false;
        }
        self.ahead += 1;
        self.high = self.high.max(frame);
        // Before its first frame a run is more careful: it may hear the end of the acquisition before.
        let enough = self.newest_end > 0 || self.high - self.low >= window;
        if self.ahead < AHEAD_PACKETS || !enough {
            return false;
        }
        self.newest_end = frame + 1;
        self.ahead = 0;
        true
    }
}
