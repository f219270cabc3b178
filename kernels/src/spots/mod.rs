//! Bragg spots: strong pixels by DIALS's dispersion and dispersion-extended thresholds, put together to spots; or
//! peakfinder8's peaks.
//!
//! The device marks strong pixels, bit for bit as DIALS 3.12 does (`spots.cl`, `bitmaps.cl`, `real.cl`), counts them exactly and lists
//! the first [`SpotConfig::pixels_max`] of them; the host joins neighbours (`labels.rs`). Coordinates are those of pixel
//! centres: the first pixel's centre is (0, 0); NXmx's beam centre, DIALS and pyFAI say 0.5 more.
//!
//! Masked pixels, saturated ones, negative ones and numbers that are none take no part. Pixels of 2^24 counts or more
//! may be strong and take no part in their neighbours' statistics. Floats are rounded to whole numbers first.

mod labels;
pub mod reference;
mod rings;

use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::program::Program;
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};
use labels::Labels;
use rings::{Frames, Rings};
use std::sync::Arc;

const SOURCE: &str = concat!(
    include_str!("real.cl"),
    include_str!("spots.cl"),
    include_str!("bitmaps.cl"),
    include_str!("rings.cl")
);
/// Rows of a work item on a CPU and elsewhere.
const ROWS: [usize; 2] = [64, 32];
/// Columns of a work item on a CPU and elsewhere.
const TILE: [usize; 2] = [512, 16];
/// Words of a bitmap's row, and rows, that a work item goes through, on a CPU and elsewhere.
const SPAN: [(usize, usize); 2] = [(4096, 64), (1, 1)];
/// Half width of the box at most: sums of squares of 24-bit pixels must fit into 64 bits.
pub const RADIUS_MAX: usize = 5;

/// How strong pixels are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpotAlgorithm {
    /// DIALS's `DispersionThreshold`
    Dispersion,
    /// DIALS's `DispersionExtendedThreshold`
    DispersionExtended,
    /// peakfinder8 of Cheetah and OM: what stands out of its ring around the beam
    Peakfinder8,
}

/// What is a strong pixel, and what is a spot. Peakfinder8 uses `strong_sigmas`, `threshold`, `min_pixels`, `max_pixels` and
/// what is named after it; the others all but that.
#[derive(Clone, Debug)]
pub struct SpotConfig {
    /// how strong pixels are told
    pub algorithm: SpotAlgorithm,
    /// half width of the box around a pixel, 1 to [`RADIUS_MAX`]
    pub radius: usize,
    /// how many sigmas the box must vary more than counting explains
    pub background_sigmas: f64,
    /// how many sigmas the pixel must stand out; with peakfinder8 the peak's intensity, too
    pub strong_sigmas: f64,
    /// only pixels above this value can be strong
    pub threshold: f64,
    /// valid pixels that a box must hold, 2 or more
    pub min_count: usize,
    /// counts per photon
    pub gain: f64,
    /// pixels at or above this value are saturated
    pub saturation: Option<f64>,
    /// whether pixels that touch at a corner belong together
    pub diagonal: bool,
    /// pixels of a spot at least
    pub min_pixels: usize,
    /// pixels of a spot at most
    pub max_pixels: usize,
    /// distance of a spot's centroid from its largest pixel at most, pixels
    pub max_separation_px: f64,
    /// strong pixels of a frame that are listed; a frame with more has no spots and says so
    pub pixels_max: usize,
    /// spots of a frame that are kept, the strongest
    pub spots_max: usize,
    /// for peakfinder8: number of each pixel's ring, its distance from the beam in whole pixels, row by row
    pub rings: Arc<[u16]>,
    /// for peakfinder8: peaks end at the edges of panels of this shape, which fill the frame; `None`: one panel
    pub panel: Option<Shape>,
    /// for peakfinder8: half the radius of what counts as a peak's surroundings, pixels, 1 to 20
    pub background_radius: usize,
}

impl Default for SpotConfig {
    fn default() -> Self {
        Self {
            algorithm: SpotAlgorithm::DispersionExtended,
            radius: 3,
            background_sigmas: 6.0,
            strong_sigmas: 3.0,
            threshold: 0.0,
            min_count: 2,
            gain: 1.0,
            saturation: None,
            diagonal: false,
            min_pixels: 3,
            max_pixels: 1000,
            max_separation_px: 2.0,
            pixels_max: 32768,
            spots_max: 1024,
            rings: Arc::new([]),
            panel: None,
            background_radius: 3,
        }
    }
}

/// A spot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spot {
    /// centroid along rows, weighted by counts; 0 is the centre of the first row
    pub row: f32,
    /// centroid along columns
    pub column: f32,
    /// sum of its pixels, counts; with peakfinder8 without the background
    pub intensity: f64,
    /// its largest pixel, counts
    pub max: u32,
    /// number of its pixels
    pub pixels: u32,
}

/// What was found in a frame.
#[derive(Clone, Debug, Default)]
pub struct FrameSpots {
    /// strong pixels, all of them
    pub strong_pixels: u64,
    /// spots, all of them; `None`: more strong pixels than are listed, so that spots cannot be told
    pub found: Option<u64>,
    /// the strongest spots, strongest first
    pub spots: Vec<Spot>,
}

/// Buffers that depend on the batch.
struct Maps {
    strong: Buffer<u16>,
    /// of dispersion-extended alone
    foreground: Option<(Buffer<u16>, Buffer<u16>)>,
    counts: Buffer<u32>,
    list: Buffer<u32>,
}

struct Kernels {
    /// of dispersion and dispersion-extended
    threshold: Kernel,
    erode: Kernel,
    extended: Kernel,
    count: Kernel,
    list: Kernel,
}

/// The operation; see the module.
pub struct SpotFinder {
    config: SpotConfig,
    kernels: Kernels,
    shape: Shape,
    pixel_type: PixelType,
    batch_limit: usize,
    tile: usize,
    rows: usize,
    /// words of a bitmap's row, and rows, that a work item goes through
    span: (usize, usize),
    /// work items side by side in a group, where the device wants groups
    group: usize,
    good: Buffer<i8>,
    settings: Buffer<u8>,
    roots: Buffer<u64>,
    maps: Maps,
    /// of peakfinder8 alone
    rings: Option<Rings>,
    counts_host: Vec<u32>,
    list_host: Vec<u32>,
    labels: Labels,
}

impl SpotFinder {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &SpotConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<SpotFinder, AcceleratorError> {
        check(config)?;
        let program = accelerator.program("spots", SOURCE, &options(accelerator, config, pixel_type))?;
        Self::with_program(accelerator, &program, config, shape, pixel_type, mask, batch_limit)
    }

    /// The same with a program that has been built with these [`options`].
    fn with_program(
        accelerator: &Accelerator,
        program: &Program,
        config: &SpotConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<SpotFinder, AcceleratorError> {
        if mask.shape() != shape {
            let (found, expected) = (mask.shape().to_string(), shape.to_string());
            return Err(AcceleratorError::Mismatch {
                what: "the mask's shape",
                found,
                expected,
            });
        }
        let other = other_than_cpu(accelerator);
        let (tile, rows) = (TILE[other], ROWS[other]);
        let saturation = config.saturation.and_then(|value| limits::at_least(pixel_type, value));
        let (extended, name) = match config.algorithm {
            SpotAlgorithm::Dispersion | SpotAlgorithm::Peakfinder8 => (false, "dispersion"),
            SpotAlgorithm::DispersionExtended => (true, "scattered"),
        };
        let words = shape.rows * shape.columns.div_ceil(16);
        let strips = shape.rows.div_ceil(rows);
        let good: Vec<i8> = (0..shape.pixels())
            .map(|pixel| if mask.rejects(pixel) { 0 } else { -1 })
            .collect();
        let rings = if config.algorithm == SpotAlgorithm::Peakfinder8 {
            check_panel(config, shape)?;
            Some(Rings::new(accelerator, program, config, shape, &good, batch_limit)?)
        } else {
            None
        };
        let bitmap = || accelerator.buffer::<u16>(batch_limit * words);
        let mut finder = Self {
            kernels: Kernels {
                threshold: program.kernel(name)?,
                erode: program.kernel("erode")?,
                extended: program.kernel("extended")?,
                count: program.kernel("count_strong")?,
                list: program.kernel("list_strong")?,
            },
            shape,
            pixel_type,
            batch_limit,
            tile,
            rows,
            span: SPAN[other],
            group: [1, 64][other],
            good: accelerator.buffer_from(&good)?,
            settings: accelerator.buffer_from(&settings(config, saturation))?,
            roots: accelerator.buffer_from(&roots(config))?,
            maps: Maps {
                strong: bitmap()?,
                foreground: if extended { Some((bitmap()?, bitmap()?)) } else { None },
                counts: accelerator.buffer(batch_limit * strips)?,
                list: accelerator.buffer(batch_limit * config.pixels_max * 2)?,
            },
            rings,
            counts_host: vec![0; batch_limit * strips],
            list_host: vec![0; config.pixels_max * 2],
            labels: Labels::new(config.pixels_max),
            config: config.clone(),
        };
        // Once over a black frame: some drivers finish compiling at the first launch.
        let (queue, offsets) = (accelerator.queue()?, accelerator.buffer(1)?);
        let black = accelerator.buffer(shape.pixels() * pixel_type.bytes())?;
        finder.launch(&queue, &black, &offsets, 0, 1)?;
        queue.finish()?;
        Ok(finder)
    }

    /// Finds the spots of a batch; `outputs` has one entry per frame, in the batch's order, each with room for
    /// [`SpotConfig::spots_max`] spots. Returns when they are filled.
    pub fn run(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        outputs: &mut [FrameSpots],
    ) -> Result<(), AcceleratorError> {
        batch.check(self.shape.pixels() * self.pixel_type.bytes(), self.batch_limit)?;
        AcceleratorError::expect_len("the number of outputs", outputs.len(), batch.frames())?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        let (strips, limit) = (self.strips(), self.config.pixels_max);
        queue.read(&self.maps.counts, 0, &mut self.counts_host[..outputs.len() * strips])?;
        if let Some(rings) = &mut self.rings {
            rings.begin(queue, outputs.len())?;
        }
        for (frame, output) in outputs.iter_mut().enumerate() {
            let counts = &self.counts_host[frame * strips..][..strips];
            output.strong_pixels = counts.iter().map(|count| u64::from(*count)).sum();
            output.spots.clear();
            output.found = None;
            if output.strong_pixels > limit as u64 {
                continue;
            }
            let listed = &mut self.list_host[..2 * output.strong_pixels as usize];
            queue.read(&self.maps.list, frame * limit * 2, listed)?;
            let (labels, config) = (&mut self.labels, &self.config);
            output.found = Some(match &mut self.rings {
                None => labels.spots(listed, self.shape, config, &mut output.spots),
                Some(rings) => {
                    rings.candidates(labels, frame, listed, config);
                    0
                }
            });
        }
        self.peaks(queue, batch, outputs)
    }

    /// The second half of peakfinder8: what surrounds its candidates decides which are peaks.
    fn peaks(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        outputs: &mut [FrameSpots],
    ) -> Result<(), AcceleratorError> {
        let Some(rings) = &mut self.rings else {
            return Ok(());
        };
        rings.send(queue)?;
        for (frames, group) in batch.groups() {
            let of = Frames {
                frames,
                offsets: batch.offsets(),
                good: &self.good,
                settings: &self.settings,
            };
            rings.surround(queue, &of, (group.first, group.count))?;
        }
        rings.peaks(queue, &self.config, &mut self.labels, outputs)
    }

    /// Strong pixels of frame `index` of the last batch, row by row. For tests and pictures: it allocates.
    pub fn strong(&self, queue: &Queue, index: usize) -> Result<Vec<bool>, AcceleratorError> {
        let per_row = self.shape.columns.div_ceil(16);
        let mut words = vec![0u16; self.shape.rows * per_row];
        queue.read(&self.maps.strong, index * words.len(), &mut words)?;
        let bit = |row: usize, column: usize| words[row * per_row + column / 16] >> (column % 16) & 1 == 1;
        let row = |row| (0..self.shape.columns).map(move |column| bit(row, column));
        Ok((0..self.shape.rows).flat_map(row).collect())
    }

    fn strips(&self) -> usize {
        self.shape.rows.div_ceil(self.rows)
    }

    fn launch(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
    ) -> Result<(), AcceleratorError> {
        if let Some(rings) = &mut self.rings {
            let of = Frames {
                frames,
                offsets,
                good: &self.good,
                settings: &self.settings,
            };
            rings.threshold(queue, &of, &self.maps.strong, (first, count), self.group)?;
        } else {
            self.disperse(queue, frames, offsets, first, count)?;
        }
        let (rows, words, maps) = (self.shape.rows, self.shape.columns.div_ceil(16), &self.maps);
        let (strips, kernels) = (self.strips(), &mut self.kernels);
        let arguments = [
            Arg::U32(first as u32),
            Arg::U32(rows as u32),
            Arg::U32(words as u32),
            (&maps.strong).into(),
            (&maps.counts).into(),
        ];
        queue.launch(&mut kernels.count, &arguments, [strips, count, 1], [1; 3])?;
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            Arg::U32(rows as u32),
            Arg::U32(self.shape.columns as u32),
            (&maps.strong).into(),
            (&maps.counts).into(),
            Arg::U32(self.config.pixels_max as u32),
            (&maps.list).into(),
        ];
        queue.launch(&mut kernels.list, &arguments, [strips, count, 1], [1; 3])
    }

    /// Marks strong pixels by dispersion or dispersion-extended.
    fn disperse(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
    ) -> Result<(), AcceleratorError> {
        let (rows, columns) = (self.shape.rows, self.shape.columns);
        let (words, strips, maps) = (columns.div_ceil(16), rows.div_ceil(self.rows), &self.maps);
        let (good, settings) = (&self.good, &self.settings);
        let (number, high, wide) = (Arg::U32(first as u32), Arg::U32(rows as u32), Arg::U32(columns as u32));
        macro_rules! arguments {
            ($one:expr, $two:expr) => {
                [
                    frames.into(),
                    offsets.into(),
                    number,
                    good.into(),
                    high,
                    wide,
                    settings.into(),
                    $one.into(),
                    $two.into(),
                ]
            };
        }
        let group = |items: usize| (items.next_multiple_of(self.group), [self.group, 1, 1]);
        let (tiles, local) = group(columns.div_ceil(self.tile));
        let kernels = &mut self.kernels;
        let found = maps
            .foreground
            .as_ref()
            .map_or(&maps.strong, |(foreground, _)| foreground);
        let arguments = arguments!(&self.roots, found);
        queue.launch(&mut kernels.threshold, &arguments, [tiles, strips, count], local)?;
        if let Some((foreground, core)) = &maps.foreground {
            let (across, local) = group(words.div_ceil(self.span.0));
            let global = [across, rows.div_ceil(self.span.1), count];
            queue.launch(&mut kernels.erode, &arguments!(foreground, core), global, local)?;
            queue.launch(&mut kernels.extended, &arguments!(core, &maps.strong), global, local)?;
        }
        Ok(())
    }
}

fn check(config: &SpotConfig) -> Result<(), AcceleratorError> {
    let wrong = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
    let box_pixels = box_pixels(config);
    if !(1..=RADIUS_MAX).contains(&config.radius) {
        return wrong("radius", config.radius.to_string(), "1 to 5");
    }
    if !(2..=box_pixels).contains(&config.min_count) {
        let allowed = "2 to the number of pixels in the box";
        return wrong("min_count", config.min_count.to_string(), allowed);
    }
    for (name, sigmas) in [
        ("background_sigmas", config.background_sigmas),
        ("strong_sigmas", config.strong_sigmas),
    ] {
        if !(0.0..=1000.0).contains(&sigmas) {
            return wrong(name, sigmas.to_string(), "0 to 1000");
        }
    }
    if !(1e-3..=1e6).contains(&config.gain) {
        return wrong("gain", config.gain.to_string(), "0.001 to 1000000 counts per photon");
    }
    if !(0.0..4e9).contains(&config.threshold) {
        return wrong("threshold", config.threshold.to_string(), "0 to 4e9 counts");
    }
    if config.min_pixels == 0 || config.min_pixels > config.max_pixels {
        return wrong("min_pixels", config.min_pixels.to_string(), "1 to max_pixels");
    }
    if !(1..=20).contains(&config.background_radius) {
        return wrong("background_radius", config.background_radius.to_string(), "1 to 20");
    }
    if config.pixels_max == 0 || config.spots_max == 0 {
        return wrong("pixels_max and spots_max", "0".into(), "at least 1");
    }
    Ok(())
}

/// Refuses panels that do not fill the frame.
fn check_panel(config: &SpotConfig, shape: Shape) -> Result<(), AcceleratorError> {
    let panel = rings::panel(config, shape);
    let fills = |length: usize, of: usize| length > 0 && of.is_multiple_of(length);
    if fills(panel.rows, shape.rows) && fills(panel.columns, shape.columns) {
        return Ok(());
    }
    Err(AcceleratorError::Mismatch {
        what: "the panels' shape",
        found: panel.to_string(),
        expected: format!("one that fills frames of {shape} without a rest"),
    })
}

/// A double as m · 2^e with bit 52 of m set.
fn parts(value: f64) -> (u64, i32) {
    let (bits, exponent) = (
        value.to_bits() & ((1 << 52) - 1),
        (value.to_bits() >> 52) as i32 & 0x7ff,
    );
    if exponent == 0 {
        // Zero; smaller numbers than a double's normal ones are none of a user's.
        return (0, 0);
    }
    (bits | 1 << 52, exponent - 1075)
}

/// `settings_t` of `spots.cl`.
fn settings(config: &SpotConfig, saturation: Option<f64>) -> Vec<u8> {
    let factor = if config.gain == 1.0 {
        config.background_sigmas
    } else {
        config.gain
    };
    let numbers = [parts(factor), parts(config.strong_sigmas), parts(config.gain)];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|(m, _)| m.to_ne_bytes()).collect();
    bytes.extend(numbers.iter().flat_map(|(_, e)| e.to_ne_bytes()));
    let whole = [
        config.min_count as u32,
        config.threshold as u32,
        saturation.map_or(u32::MAX, |value| value.ceil() as u32),
    ];
    bytes.extend(whole.iter().flat_map(|value| value.to_ne_bytes()));
    let floats = [config.background_sigmas, config.strong_sigmas, config.gain];
    bytes.extend(floats.iter().flat_map(|value| (*value as f32).to_ne_bytes()));
    bytes.extend(lit(config).to_ne_bytes());
    bytes.extend(least_spread(config).to_ne_bytes());
    bytes.resize(72, 0);
    bytes
}

fn box_pixels(config: &SpotConfig) -> usize {
    (2 * config.radius + 1).pow(2)
}

/// A box whose largest pixel is below this cannot vary more than counting explains. With m pixels, the sum x and the largest
/// pixel b, squares add up to b x at most and x is at least b, so that m y - x^2 > g x (m - 1 + n_b sqrt(2 (m - 1))) asks for
/// b > g (1 + n_b sqrt(2 / (m - 1))).
fn lit(config: &SpotConfig) -> u32 {
    let bound = 1.0 + config.background_sigmas * (2.0 / (box_pixels(config) as f64 - 1.0)).sqrt();
    (config.gain * bound * (1.0 - 1e-6)) as u32 + 1
}

/// What y / x must exceed x / m by, in units of the gain, whatever the number m of pixels in the box.
fn least_spread(config: &SpotConfig) -> f32 {
    let spread = |m: usize| {
        let m = m as f64;
        (m - 1.0 + config.background_sigmas * (2.0 * (m - 1.0)).sqrt()) / m
    };
    (config.min_count..=box_pixels(config))
        .map(spread)
        .fold(f64::INFINITY, f64::min) as f32
}

/// What the number of photons times the first factor is multiplied with, for each number of pixels in a box.
fn roots(config: &SpotConfig) -> Vec<u64> {
    (0..=box_pixels(config))
        .flat_map(|pixels| {
            let (m, e) = parts(reference::box_factor(config, pixels as f64));
            [m, i64::from(e) as u64]
        })
        .collect()
}

/// Index of what differs between CPUs and other devices.
fn other_than_cpu(accelerator: &Accelerator) -> usize {
    usize::from(accelerator.info().kind != DeviceKind::Cpu)
}

fn options(accelerator: &Accelerator, config: &SpotConfig, pixel_type: PixelType) -> String {
    let other = other_than_cpu(accelerator);
    let (tile, rows) = (TILE[other], ROWS[other]);
    let saturation = config
        .saturation
        .and_then(|value| limits::at_least(pixel_type, value))
        .is_some();
    let pixel = pixel_type.opencl_name();
    let wide = matches!(pixel_type, PixelType::U32 | PixelType::I32 | PixelType::F32);
    let signed = matches!(pixel_type, PixelType::I16 | PixelType::I32);
    // A CPU's vectors hold twice as many sums of 16 bits; and its cache holds the rows of a box.
    let (lane, keep, (words, span_rows)) = (["ushort", "uint"][other], 1 - other, SPAN[other]);
    format!(
        "-cl-std=CL1.2 -DPIXEL={pixel} -DPIXEL16={pixel}16 -DLANE={lane} -DLANE2={lane}2 -DLANE4={lane}4 -DLANE8={lane}8 \
         -DLANE16={lane}16 -DTO_LANE16=convert_{lane}16 -DKEEP_ROWS={keep} -DSPAN_WORDS={words} -DSPAN_ROWS={span_rows} \
         -DRADIUS={} -DTILE={tile} -DROWS={rows} -DSIGNED={} -DFLOATING={} -DWIDE={} -DHAS_SATURATION={} -DHAS_GAIN={}",
        config.radius,
        u8::from(signed),
        u8::from(pixel_type == PixelType::F32),
        u8::from(wide),
        u8::from(saturation),
        u8::from(config.gain != 1.0),
    )
}

#[cfg(test)]
mod peak_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
