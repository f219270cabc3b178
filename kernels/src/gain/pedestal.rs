//! Pedestals of one gain from frames without beam: a running mean for every pixel over a window of frames.
//!
//! The first `window` words of a pixel are summed; afterwards each new one replaces a window's share of the sum,
//! `s += x - s / window`, so that the pedestal follows a drift (Leonarski et al., Struct. Dyn. 7, 014305, 2020). Words in
//! another gain say nothing of this one: they are left out and counted.

/// Words that a pedestal looks back on, unless said otherwise.
pub const WINDOW: u32 = 128;

/// Pedestals that follow the frames; see the module.
#[derive(Clone, Debug)]
pub struct PedestalTracker {
    /// the two gain bits of words that count
    bits: u16,
    window: u32,
    sums: Vec<f64>,
    /// of squares, for the noise
    squares: Vec<f64>,
    /// words of each pixel that counted
    counts: Vec<u32>,
    frames: u64,
    wrong_gain: u64,
}

impl PedestalTracker {
    /// For G0, G1 or G2 (`gain` 0 to 2), frames of so many pixels, and a window of at least 1 frame.
    pub fn new(pixels: usize, gain: usize, window: u32) -> Self {
        Self {
            bits: [0, 1, 3][gain.min(2)],
            window: window.max(1),
            sums: vec![0.0; pixels],
            squares: vec![0.0; pixels],
            counts: vec![0; pixels],
            frames: 0,
            wrong_gain: 0,
        }
    }

    /// Takes a frame, row by row; words beyond the tracker's pixels say nothing.
    pub fn push(&mut self, words: impl IntoIterator<Item = u16>) {
        let window = f64::from(self.window);
        let state = self.sums.iter_mut().zip(&mut self.squares).zip(&mut self.counts);
        for (word, ((sum, square), count)) in words.into_iter().zip(state) {
            // All ones: the pixel never came. Zero ADU in a switched gain: the end of its range.
            let special = matches!(word, 0xFFFF | 0xC000 | 0x4000);
            if word >> 14 != self.bits || special {
                self.wrong_gain += 1;
                continue;
            }
            let adu = f64::from(word & 0x3FFF);
            if *count >= self.window {
                *sum -= *sum / window;
                *square -= *square / window;
            }
            *sum += adu;
            *square += adu * adu;
            *count = count.saturating_add(1);
        }
        self.frames += 1;
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Words so far that were in another gain or none.
    pub fn wrong_gain(&self) -> u64 {
        self.wrong_gain
    }

    fn in_window(&self, pixel: usize) -> f64 {
        f64::from(self.counts[pixel].min(self.window))
    }

    /// The pedestal of every pixel, ADU; NaN where no word counted.
    pub fn means(&self) -> Vec<f32> {
        let mean = |pixel: usize| (self.sums[pixel] / self.in_window(pixel)) as f32;
        (0..self.sums.len()).map(mean).collect()
    }

    /// Its noise, the standard deviation of one word, ADU; NaN where fewer than two words counted.
    pub fn deviations(&self) -> Vec<f32> {
        let deviation = |pixel: usize| {
            let (n, mean) = (self.in_window(pixel), self.sums[pixel] / self.in_window(pixel));
            if n < 2.0 {
                return f32::NAN;
            }
            ((self.squares[pixel] / n - mean * mean).max(0.0) * n / (n - 1.0)).sqrt() as f32
        };
        (0..self.sums.len()).map(deviation).collect()
    }
}
