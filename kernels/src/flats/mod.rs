//! Flats taken before, between and after: the flat of a moment lies on the line between those around it.

use crate::invalid::Invalid;

/// Flats by the time they were taken, each the mean of those of one moment.
pub struct TimedFlats {
    pixels: usize,
    moments: Vec<Moment>,
}

struct Moment {
    seconds: f64,
    frames: usize,
    sums: Vec<f64>,
}

impl TimedFlats {
    /// For frames of so many pixels.
    pub fn new(pixels: usize) -> Self {
        Self {
            pixels,
            moments: Vec::new(),
        }
    }

    /// Adds one flat frame, counts row by row, taken at `seconds`. Frames that are closer than `gap_s` to those of a
    /// moment join it.
    pub fn add(&mut self, seconds: f64, gap_s: f64, counts: &[f32]) -> Result<(), Invalid> {
        Invalid::expect_len("the flat's number of pixels", counts.len(), self.pixels)?;
        Invalid::unless(seconds.is_finite(), "the flat's time", seconds, "a number of seconds")?;
        let near = |moment: &&mut Moment| (moment.seconds - seconds).abs() <= gap_s;
        if let Some(moment) = self.moments.iter_mut().find(near) {
            moment
                .sums
                .iter_mut()
                .zip(counts)
                .for_each(|(sum, v)| *sum += f64::from(*v));
            // The moment is the mean of its frames' times.
            moment.seconds += (seconds - moment.seconds) / (moment.frames + 1) as f64;
            moment.frames += 1;
        } else {
            let sums = counts.iter().map(|v| f64::from(*v)).collect();
            self.moments.push(Moment {
                seconds,
                frames: 1,
                sums,
            });
        }
        self.moments.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Ok(())
    }

    /// Moments that flats were taken at, in seconds, with their numbers of frames.
    pub fn moments(&self) -> impl Iterator<Item = (f64, usize)> {
        self.moments.iter().map(|moment| (moment.seconds, moment.frames))
    }

    /// Writes the flat of a moment into `out`: between two moments on the line between them, outside as the nearest.
    /// Nothing is allocated.
    pub fn at(&self, seconds: f64, out: &mut [f32]) -> Result<(), Invalid> {
        Invalid::expect_len("the flat's number of pixels", out.len(), self.pixels)?;
        let behind = self.moments.partition_point(|moment| moment.seconds <= seconds);
        let (Some(before), Some(after)) = (
            self.moments.get(behind.saturating_sub(1)),
            self.moments.get(behind.min(self.moments.len().saturating_sub(1))),
        ) else {
            return Err(Invalid::value("the number of flats", 0, "at least 1"));
        };
        let span = after.seconds - before.seconds;
        let share = if span > 0.0 {
            ((seconds - before.seconds) / span).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let (a, b) = ((1.0 - share) / before.frames as f64, share / after.frames as f64);
        for (out, (x, y)) in out.iter_mut().zip(before.sums.iter().zip(&after.sums)) {
            *out = (a * x + b * y) as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_lies_between_those_around_it() {
        let mut flats = TimedFlats::new(2);
        assert!(
            flats
                .at(0.0, &mut [0.0; 2])
                .unwrap_err()
                .to_string()
                .contains("number of flats is 0")
        );
        // After first: order does not matter.
        flats.add(110.0, 5.0, &[300.0, 20.0]).unwrap();
        flats.add(9.0, 5.0, &[100.0, 40.0]).unwrap();
        flats.add(11.0, 5.0, &[102.0, 44.0]).unwrap();
        assert_eq!(flats.moments().collect::<Vec<_>>(), [(10.0, 2), (110.0, 1)]);
        let at = |seconds: f64| {
            let mut out = [0.0; 2];
            flats.at(seconds, &mut out).unwrap();
            out
        };
        assert_eq!(at(-5.0), [101.0, 42.0]);
        assert_eq!(at(10.0), [101.0, 42.0]);
        assert_eq!(at(60.0), [200.5, 31.0]);
        assert_eq!(at(110.0), [300.0, 20.0]);
        assert_eq!(at(1e9), [300.0, 20.0]);
        flats.add(60.0, 5.0, &[0.0, 0.0]).unwrap();
        let mut out = [1.0; 2];
        flats.at(60.0, &mut out).unwrap();
        assert_eq!(out, [0.0; 2]);
        assert!(flats.add(f64::NAN, 1.0, &[0.0; 2]).is_err() && flats.add(0.0, 1.0, &[0.0; 3]).is_err());
    }
}
