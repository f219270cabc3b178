//! Equally sloped tomography (Miao, Förster & Levi 2005, Phys. Rev. B 72, 052103; Fahimian et al. 2010, Phys. Med. Biol. 55,
//! 5383): projections at angles whose slopes are evenly apart have Fourier transforms that lie exactly on a pseudo-polar
//! grid, so a slice can be compared with what was measured without interpolating. Between them stand constraints: nothing
//! below zero, nothing outside the sample's support.
//!
//! The slice is the one within the constraints that is nearest to the measured lines, frequencies weighted by the area
//! that they stand for; it is found by projected gradients with momentum (Beck & Teboulle 2009, SIAM J. Imaging Sci. 2, 183),
//! taken back to a plain step wherever the error would grow, so that it never does. It ends when the error is flat.

mod pseudo_polar;

use crate::invalid::Invalid;
use pseudo_polar::PseudoPolar;
use realfft::num_complex::Complex;
use std::f64::consts::TAU;

/// What to reconstruct and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct SlopedConfig {
    /// detector columns; slices have as many each way
    pub columns: usize,
    /// column of the rotation axis, pixels from the centre of column 0
    pub rotation_axis_px: f64,
    /// projections of a half turn, a multiple of 4, at [`equally_sloped_angles_deg`]
    pub angles: usize,
    /// numbers of projections that are missing
    pub lost: Vec<usize>,
    /// most iterations
    pub iterations: usize,
    /// the error is flat where it falls by less than this share in an iteration: 0.01 as a rule, as what comes later is noise
    pub flat: f64,
    /// whether nothing is below zero
    pub nonnegative: bool,
    /// radius of the circle about the axis that holds the sample, pixels
    pub support_px: f64,
}

/// The angles of `count` projections, degrees from -45 up to 135: slopes from -1 in steps of `4 / count` along x, then along
/// y.
pub fn equally_sloped_angles_deg(count: usize) -> Vec<f64> {
    let half = count / 2;
    let angle = |line: usize| (-1.0 + 2.0 * (line % half) as f64 / half as f64).atan().to_degrees();
    (0..2 * half)
        .map(|line| angle(line) + if line < half { 0.0 } else { 90.0 })
        .collect()
}

/// The operation; one slice at a time, on the host.
pub struct Sloped {
    config: SlopedConfig,
    transform: PseudoPolar,
    weights: Vec<f64>,
    support: Vec<bool>,
    /// one over the largest curvature of the error
    step: f64,
}

impl Sloped {
    /// Prepares: finds out how large a step may be.
    pub fn new(config: &SlopedConfig) -> Result<Self, Invalid> {
        let (columns, angles) = (config.columns, config.angles);
        Invalid::unless((8..=1 << 13).contains(&columns), "columns", columns, "8 to 8192")?;
        let fits = angles >= 4 && angles.is_multiple_of(4) && angles <= 1 << 14;
        Invalid::unless(fits, "angles", angles, "a multiple of 4, at most 16384")?;
        let lost = config.lost.iter().filter(|line| **line >= angles).count();
        Invalid::unless(
            lost == 0,
            "lost",
            format!("{:?}", config.lost),
            "numbers of projections",
        )?;
        let axis = config.rotation_axis_px;
        Invalid::unless(axis.is_finite(), "rotation_axis_px", axis, "a number of pixels")?;
        Invalid::unless(config.support_px > 0.0, "support_px", config.support_px, "above 0")?;
        let half = angles / 2;
        let transform = PseudoPolar::new(columns, half);
        let weight = |index: usize| {
            let (line, k) = (index % half, index / half % transform.radial());
            let family = index / half / transform.radial();
            if config.lost.contains(&(family * half + line)) {
                return 0.0;
            }
            // Area between neighbouring slopes and frequencies: along x or y the radius times the step in slope; the value at
            // zero stands for a quarter of its neighbour's; the others for themselves and their conjugates.
            let area = if k == 0 { 0.25 } else { 2.0 * k as f64 };
            // Towards the highest frequency of a row more and more of what is seen comes from beyond it.
            let frequency = k as f64 * transform.step() * transform.slope(line).hypot(1.0);
            let trusted = 0.5 + 0.5 * (TAU * frequency.min(0.5)).cos();
            area * trusted
        };
        let middle = (columns as f64 - 1.0) / 2.0;
        let inside =
            |i: usize| ((i % columns) as f64 - middle).hypot((i / columns) as f64 - middle) <= config.support_px;
        let mut sloped = Self {
            weights: (0..transform.len()).map(weight).collect(),
            support: (0..columns * columns).map(inside).collect(),
            step: 0.0,
            config: config.clone(),
            transform,
        };
        sloped.step = sloped.largest_step();
        Ok(sloped)
    }

    /// By iterating the normal equations on a picture with a bit of everything.
    fn largest_step(&mut self) -> f64 {
        let columns = self.config.columns;
        let mut image: Vec<f64> = (0..columns * columns)
            .map(|i| 1.0 + ((i * 7919) % 31) as f64 / 31.0)
            .collect();
        let mut values = vec![Complex::default(); self.transform.len()];
        let mut largest: f64 = 0.0;
        for _ in 0..12 {
            let norm = image.iter().map(|v| v * v).sum::<f64>().sqrt();
            if norm == 0.0 {
                break;
            }
            image.iter_mut().for_each(|v| *v /= norm);
            self.transform.forward(&image, &mut values);
            values.iter_mut().zip(&self.weights).for_each(|(v, w)| *v *= *w);
            self.transform.adjoint(&values, &mut image);
            largest = image.iter().map(|v| v * v).sum::<f64>().sqrt();
        }
        // What the iteration has not found yet.
        if largest > 0.0 { 1.0 / (1.1 * largest) } else { 0.0 }
    }

    /// Reconstructs a slice `[y][x]` from its line integrals `[projection][column]`, in the order of
    /// [`equally_sloped_angles_deg`]; rows of lost ones are not looked at. Answers the error after every iteration, of the
    /// measured lines' norm: it never grows.
    pub fn run(&mut self, sinogram: &[f32], slice: &mut [f32]) -> Result<Vec<f64>, Invalid> {
        self.run_while(sinogram, slice, || true)
    }

    /// The same; `go_on` is asked before every iteration, and where it says no the slice is what there is by then.
    pub fn run_while(
        &mut self,
        sinogram: &[f32],
        slice: &mut [f32],
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<f64>, Invalid> {
        let (columns, angles) = (self.config.columns, self.config.angles);
        Invalid::expect_len("the sinogram's number of values", sinogram.len(), angles * columns)?;
        Invalid::expect_len("the slice's number of points", slice.len(), columns * columns)?;
        let measured = self.measured(sinogram);
        let whole = self.norm(&measured);
        let mut image = vec![0.0; slice.len()];
        if whole == 0.0 {
            slice.fill(0.0);
            return Ok(vec![0.0]);
        }
        let zero = vec![Complex::default(); measured.len()];
        let (mut seen, mut ahead, mut ahead_seen) = (zero.clone(), image.clone(), zero.clone());
        let (mut next_seen, mut residual) = (zero.clone(), zero);
        let mut gradient = image.clone();
        let (mut errors, mut momentum) = (vec![1.0], 1.0);
        while errors.len() <= self.config.iterations && go_on() {
            for (index, place) in residual.iter_mut().enumerate() {
                *place = (ahead_seen[index] - measured[index]) * self.weights[index];
            }
            self.transform.adjoint(&residual, &mut gradient);
            let mut next = ahead.clone();
            for (index, value) in next.iter_mut().enumerate() {
                *value -= self.step * gradient[index];
                if !self.support[index] || (self.config.nonnegative && *value < 0.0) {
                    *value = 0.0;
                }
            }
            self.transform.forward(&next, &mut next_seen);
            residual
                .iter_mut()
                .enumerate()
                .for_each(|(i, place)| *place = next_seen[i] - measured[i]);
            let (error, last) = (self.norm(&residual) / whole, errors[errors.len() - 1]);
            if error > last {
                if momentum == 1.0 {
                    break; // even a plain step finds nothing better: rounding is all that is left
                }
                momentum = 1.0;
                ahead.copy_from_slice(&image);
                ahead_seen.copy_from_slice(&seen);
                continue;
            }
            let after = 0.5 * (1.0 + f64::sqrt(1.0 + 4.0 * momentum * momentum));
            let push = (momentum - 1.0) / after;
            (0..next.len()).for_each(|i| ahead[i] = next[i] + push * (next[i] - image[i]));
            (0..seen.len()).for_each(|i| ahead_seen[i] = next_seen[i] + (next_seen[i] - seen[i]) * push);
            image = next;
            std::mem::swap(&mut seen, &mut next_seen);
            momentum = after;
            errors.push(error);
            if last - error < self.config.flat * last {
                break;
            }
        }
        slice.iter_mut().zip(&image).for_each(|(out, v)| *out = *v as f32);
        Ok(errors)
    }

    fn norm(&self, values: &[Complex<f64>]) -> f64 {
        values
            .iter()
            .zip(&self.weights)
            .map(|(v, w)| w * v.norm_sqr())
            .sum::<f64>()
            .sqrt()
    }

    /// Projections' transforms at the grid's points along their lines.
    fn measured(&self, sinogram: &[f32]) -> Vec<Complex<f64>> {
        let (columns, half, radial) = (self.config.columns, self.config.angles / 2, self.transform.radial());
        let mut out = vec![Complex::default(); self.transform.len()];
        for (number, projection) in sinogram.chunks_exact(columns).enumerate() {
            if self.config.lost.contains(&number) {
                continue;
            }
            let (family, line) = (number / half, number % half);
            let step = self.transform.step() * self.transform.slope(line).hypot(1.0);
            for k in 0..radial {
                let frequency = k as f64 * step;
                let turn = Complex::from_polar(1.0, -TAU * frequency);
                // Horner: from the last column to the first.
                let sum = projection
                    .iter()
                    .rev()
                    .fold(Complex::new(0.0, 0.0), |sum, v| sum * turn + f64::from(*v));
                let start = Complex::from_polar(1.0, TAU * frequency * self.config.rotation_axis_px);
                out[(family * radial + k) * half + line] = sum * start;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
