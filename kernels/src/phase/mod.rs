//! Phase retrieval from a single distance (Paganin et al. 2002, Journal of Microscopy 206, 33, eq. 12): the
//! transmission of a homogeneous object, seen at a distance behind it, is low-pass filtered by
//! `1 / (1 + π λ z (δ/β) f²)`, `f` in cycles per length, and its minus logarithm is the line integral of absorption
//! that tomography needs, with the noise and the edge fringes gone.
//!
//! Projections are padded to at least twice their size, so that one edge never reaches the other. Batches are shared
//! between host threads; the same projection gives the same bits in any batch.

pub mod reference;

use crate::fft::{RealFft2, Work, fast_length, frequency};
use crate::invalid::Invalid;
use crate::parallel::share;
use realfft::num_complex::Complex;

/// Wavelength times photon energy, nm keV (CODATA 2018: h c / e).
pub const WAVELENGTH_NM_KEV: f64 = 1.239_841_984;

/// What lies around a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// its edge goes on
    Edge,
    /// it is mirrored at its edge
    Symmetric,
}

/// How the projections were taken.
#[derive(Clone, Debug, PartialEq)]
pub struct PaganinConfig {
    /// detector rows
    pub rows: usize,
    /// detector columns
    pub columns: usize,
    /// effective size of a pixel at the sample, µm
    pub pixel_size_um: f64,
    /// photon energy, keV
    pub energy_kev: f64,
    /// from the sample to the detector, mm; of a diverging beam the effective one
    pub distance_mm: f64,
    /// δ/β of the material
    pub delta_beta: f64,
    /// what lies around a projection
    pub padding: Padding,
    /// smallest filtered transmission whose logarithm is taken
    pub clip_epsilon: f32,
    /// host threads for a batch
    pub threads: usize,
}

impl PaganinConfig {
    /// `π λ z δ/β`, µm²: the filter is a half where `f²` is one over it.
    pub fn alpha_um2(&self) -> f64 {
        let wavelength_um = WAVELENGTH_NM_KEV * 1e-3 / self.energy_kev;
        std::f64::consts::PI * wavelength_um * (self.distance_mm * 1e3) * self.delta_beta
    }

    fn check(&self) -> Result<(), Invalid> {
        let within = |name, value: f64, low: f64, high: f64, allowed| {
            Invalid::unless(value >= low && value <= high, name, value, allowed)
        };
        within(
            "pixel_size_um",
            self.pixel_size_um,
            1e-3,
            1e4,
            "0.001 to 10000 (micrometres, not metres)",
        )?;
        within("energy_kev", self.energy_kev, 0.1, 1e3, "0.1 to 1000 (keV, not eV)")?;
        within(
            "distance_mm",
            self.distance_mm,
            1e-2,
            1e6,
            "0.01 to 1000000 (millimetres, not metres)",
        )?;
        within("delta_beta", self.delta_beta, 1e-3, 1e7, "0.001 to 10000000")?;
        let epsilon = f64::from(self.clip_epsilon);
        within(
            "clip_epsilon",
            epsilon,
            f64::from(f32::MIN_POSITIVE),
            1.0,
            "above 1.2e-38, at most 1",
        )?;
        let size = format!("{}x{}", self.rows, self.columns);
        let fits = (2..=1 << 15).contains(&self.rows) && (2..=1 << 15).contains(&self.columns);
        Invalid::unless(fits, "the projection's size", size, "2x2 to 32768x32768")?;
        Invalid::unless((1..=1024).contains(&self.threads), "threads", self.threads, "1 to 1024")
    }
}

struct Thread {
    image: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    work: Work<f32>,
}

/// The operation; see the module.
pub struct Paganin {
    config: PaganinConfig,
    plan: RealFft2<f32>,
    padded: [usize; 2],
    row_terms: Vec<f32>,
    column_terms: Vec<f32>,
    scale: f32,
    threads: Vec<Thread>,
}

impl Paganin {
    /// Prepares; everything is allocated here.
    pub fn new(config: &PaganinConfig) -> Result<Self, Invalid> {
        config.check()?;
        let padded = [fast_length(2 * config.rows), fast_length(2 * config.columns)];
        let plan = RealFft2::new(padded[0], padded[1]);
        let factor = config.alpha_um2() / config.pixel_size_um.powi(2);
        let term = |k: usize, length: usize| (factor * frequency(k, length).powi(2)) as f32;
        let thread = |_| Thread {
            image: vec![0.0; padded[0] * padded[1]],
            spectrum: plan.spectrum(),
            work: plan.work(),
        };
        Ok(Self {
            row_terms: (0..padded[0]).map(|k| term(k, padded[0])).collect(),
            column_terms: (0..plan.half()).map(|k| term(k, padded[1])).collect(),
            scale: (1.0 / (padded[0] * padded[1]) as f64) as f32,
            threads: (0..config.threads).map(thread).collect(),
            config: config.clone(),
            padded,
            plan,
        })
    }

    /// Bytes of host memory in use.
    pub fn host_bytes(&self) -> usize {
        let thread = |thread: &Thread| thread.image.len() * 4 + thread.spectrum.len() * 8;
        self.threads.iter().map(thread).sum()
    }

    /// Turns transmissions, `[projection][row][column]`, into line integrals of absorption, in place. Values that are
    /// not finite count as 1 (nothing there).
    pub fn run(&mut self, projections: &mut [f32]) -> Result<(), Invalid> {
        self.each(projections, true)
    }

    /// Only filters: transmissions stay transmissions.
    pub fn filter(&mut self, projections: &mut [f32]) -> Result<(), Invalid> {
        self.each(projections, false)
    }

    fn each(&mut self, projections: &mut [f32], log: bool) -> Result<(), Invalid> {
        let pixels = self.config.rows * self.config.columns;
        let whole = projections.len().next_multiple_of(pixels);
        Invalid::expect_len("the number of values", projections.len(), whole)?;
        let mut threads = std::mem::take(&mut self.threads);
        if let ([thread, ..], true) = (threads.as_mut_slice(), projections.len() == pixels) {
            self.one(thread, projections, log);
        } else {
            let mut items: Vec<&mut [f32]> = projections.chunks_exact_mut(pixels).collect();
            share(&mut threads, &mut items, |thread, _, item| self.one(thread, item, log));
        }
        self.threads = threads;
        Ok(())
    }

    fn one(&self, thread: &mut Thread, projection: &mut [f32], log: bool) {
        let (rows, columns) = (self.config.rows, self.config.columns);
        for (row, out) in thread.image.chunks_exact_mut(self.padded[1]).enumerate() {
            let row = source(row, rows, self.padded[0], self.config.padding);
            let from = &projection[row * columns..][..columns];
            for (column, out) in out.iter_mut().enumerate() {
                let value = from[source(column, columns, self.padded[1], self.config.padding)];
                *out = if value.is_finite() { value } else { 1.0 };
            }
        }
        self.plan
            .forward(&mut thread.image, &mut thread.spectrum, &mut thread.work);
        for (row, line) in thread.spectrum.chunks_exact_mut(self.plan.half()).enumerate() {
            let base = 1.0 + self.row_terms[row];
            for (value, term) in line.iter_mut().zip(&self.column_terms) {
                *value *= self.scale / (base + term);
            }
        }
        self.plan
            .inverse(&mut thread.spectrum, &mut thread.image, &mut thread.work);
        let lines = thread.image.chunks_exact(self.padded[1]);
        for (line, out) in lines.zip(projection.chunks_exact_mut(columns)) {
            for (value, out) in line.iter().zip(out) {
                *out = if log {
                    -value.max(self.config.clip_epsilon).ln()
                } else {
                    *value
                };
            }
        }
    }
}

/// Which of `size` values lies at place `index` of `padded`: the values first, then what follows their end, then what
/// comes before their beginning.
pub(crate) fn source(index: usize, size: usize, padded: usize, padding: Padding) -> usize {
    let before = (padded - size) / 2;
    if index < size {
        return index;
    }
    let behind = index < padded - before;
    match padding {
        Padding::Edge if behind => size - 1,
        Padding::Edge => 0,
        Padding::Symmetric => {
            let away = if behind { index - size } else { padded - 1 - index };
            // A padded length may be a little more than twice the size.
            let there = away % (2 * size);
            let there = if there < size { there } else { 2 * size - 1 - there };
            if behind { size - 1 - there } else { there }
        }
    }
}

#[cfg(test)]
mod tests;
