//! Which bin each pixel belongs to, and what the bins weigh when no pixel is left out.

use super::AzimuthalConfig;
use crate::accelerator::AcceleratorError;
use frame::geometry::Corners;
use frame::{PixelMask, PixelType, Shape};
use std::f64::consts::{PI, TAU};

/// Where pixels lie and what they see; row by row, one value per pixel. The pipeline makes it from
/// `frame::Geometry`, tests make it from anything.
#[derive(Clone, Debug, Default)]
pub struct AzimuthalGeometry {
    /// radial coordinate of pixel centres, for example q in 1/nm or 2theta in radians
    pub radial: Vec<f64>,
    /// factor from that to the unit of bins and ranges: 180/pi from radians to degrees, else 1
    pub scale: f64,
    /// name of the unit of bins and ranges
    pub unit: String,
    /// relative solid angle; `None`: 1
    pub solid_angle: Option<Vec<f64>>,
    /// polarisation factor; `None`: 1
    pub polarization: Option<Vec<f64>>,
    /// azimuth of pixel centres, radians; needed for azimuthal bins and ranges
    pub chi: Option<Vec<f64>>,
    /// corners of pixels, radii in the unit of `radial`; needed to split pixels
    pub corners: Option<Corners>,
}

/// Equally wide bins, as pyFAI's CSR engine lays them out: from the smallest to just above the largest radius
/// of any pixel that is not masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// lower edge of the first, in the geometry's own unit
    low: f64,
    width: f64,
    count: usize,
    scale: f64,
}

impl Bins {
    /// `count` bins between `low` and `high`, in the geometry's own unit.
    pub fn new(low: f64, high: f64, count: usize, scale: f64) -> Self {
        // One part in 2^23 above, so that the outermost pixel is inside (Kieffer & Karkoulis 2013).
        let up = 1.0 + f64::from(f32::EPSILON);
        let high = if high > 0.0 { high * up } else { high / up };
        Self {
            low,
            width: (high - low) / count as f64,
            count,
            scale,
        }
    }

    /// The bin of a radius; `None` outside. Truncates towards zero, as the reference does: with a range that
    /// begins inside the detector the first bin also takes pixels up to one width below it.
    pub fn of(&self, radius: f64) -> Option<usize> {
        let bin = self.place(radius).trunc();
        (bin >= 0.0 && bin < self.count as f64).then_some(bin as usize)
    }

    /// A radius counted in bins.
    pub(super) fn place(&self, radius: f64) -> f64 {
        (radius - self.low) / self.width
    }

    /// Number of bins.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bin centres in the unit of the configuration.
    pub fn centers(&self) -> Vec<f64> {
        let high = self.low + self.width * self.count as f64;
        let (first, last) = (self.low + 0.5 * self.width, high - 0.5 * self.width);
        let step = (last - first) / (self.count.max(2) - 1) as f64;
        (0..self.count)
            .map(|bin| (bin as f64 * step + first) * self.scale)
            .collect()
    }

    /// The edges between bins, `count + 1` of them, in the unit of the configuration.
    pub fn edges(&self) -> Vec<f64> {
        (0..=self.count)
            .map(|bin| (self.low + bin as f64 * self.width) * self.scale)
            .collect()
    }
}

/// The tables that the kernels read.
pub(crate) struct Lookup {
    pub(crate) bins: Bins,
    /// bin of each pixel, `bins` where masked; padded to whole vectors
    pub(crate) index: Vec<u16>,
    pub(crate) norm: Vec<f32>,
    pub(crate) dark: Vec<f32>,
    pub(crate) norm_scale: f32,
    pub(crate) dark_shift: u32,
    pub(crate) bin_count: Vec<u32>,
    pub(crate) bin_norm: Vec<u64>,
    pub(crate) bin_dark: Vec<i64>,
}

impl Lookup {
    pub(crate) fn new(
        config: &AzimuthalConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
    ) -> Result<Self, AcceleratorError> {
        let pixels = shape.pixels();
        check(config, shape, mask)?;
        let Fields { norm, dark } = Fields::new(config, pixels);
        let range = config
            .azimuthal_range_deg
            .map(|(low, high)| (low.to_radians(), high.to_radians()));
        let around = |index: usize| {
            let chi = config.geometry.chi.as_ref().map_or(0.0, |chi| chi[index]);
            range.is_none_or(|(low, high)| {
                let chi = if high > PI && chi < 0.0 { chi + TAU } else { chi };
                (low..=high).contains(&chi)
            })
        };
        let valid = |index: usize| usable(norm[index], dark[index]) && around(index);
        let bins = layout(config, mask, pixels)?;
        let mut index = vec![config.bins as u16; pixels.next_multiple_of(32)];
        for pixel in (0..pixels).filter(|pixel| !mask.rejects(*pixel) && valid(*pixel)) {
            if let Some(bin) = bins.of(config.geometry.radial[pixel]) {
                index[pixel] = bin as u16;
            }
        }
        // Powers of two that keep the sum over all pixels inside 63 bits.
        let spare = 62 - pixels.next_power_of_two().ilog2() as i32;
        let largest = |values: &[f32]| {
            let used = values
                .iter()
                .zip(&index)
                .filter(|(_, bin)| usize::from(**bin) < config.bins);
            used.fold(0f32, |largest, (value, _)| largest.max(value.abs()))
        };
        let bits = |value: f32| value.max(f32::MIN_POSITIVE).log2().floor() as i32 + 1;
        let norm_scale = 2f32.powi((spare - bits(largest(&norm))).clamp(-100, 100));
        let raw_bits = if pixel_type == PixelType::F32 {
            0
        } else {
            8 * pixel_type.bytes() as i32
        };
        let dark_bits = bits(largest(&dark)).max(raw_bits);
        let dark_shift = (spare - dark_bits - 1).clamp(0, 40) as u32;
        let dark_scale = 2f32.powi(dark_shift as i32);
        let mut lookup = Self {
            bin_count: vec![0; config.bins],
            bin_norm: vec![0; config.bins],
            bin_dark: vec![0; config.bins],
            bins,
            index,
            norm,
            dark,
            norm_scale,
            dark_shift,
        };
        for pixel in 0..pixels {
            let bin = usize::from(lookup.index[pixel]);
            if bin == config.bins {
                continue;
            }
            lookup.bin_count[bin] += 1;
            // The same rounding as the kernel's, so that bin minus left-out pixels is exact.
            lookup.bin_norm[bin] += (lookup.norm[pixel] * norm_scale).round_ties_even() as u64;
            lookup.bin_dark[bin] += (lookup.dark[pixel] * dark_scale).round_ties_even() as i64;
        }
        Ok(lookup)
    }

    /// The largest number of pixels that one bin has within one of the chunks.
    pub(crate) fn crowd(&self, chunk: usize) -> usize {
        let bins = self.bin_count.len();
        let mut count = vec![0usize; bins + 1];
        let mut crowd = 0;
        for pixels in self.index.chunks(chunk) {
            count.fill(0);
            for bin in pixels {
                count[usize::from(*bin)] += 1;
            }
            crowd = crowd.max(count[..bins].iter().copied().max().unwrap_or(0));
        }
        crowd
    }
}

/// What pixels see.
pub(super) struct Fields {
    /// normalisation of each pixel
    pub(super) norm: Vec<f32>,
    /// dark of each pixel
    pub(super) dark: Vec<f32>,
}

impl Fields {
    pub(super) fn new(config: &AzimuthalConfig, pixels: usize) -> Self {
        let dark = |index: usize| config.dark.as_ref().map_or(0.0, |dark| dark[index]);
        Self {
            norm: (0..pixels).map(|index| config.norm(index) as f32).collect(),
            dark: (0..pixels).map(dark).collect(),
        }
    }
}

/// Whether a pixel of this normalisation and dark can take part.
pub(super) fn usable(norm: f32, dark: f32) -> bool {
    norm.is_finite() && norm > 0.0 && dark.is_finite()
}

pub(super) fn check(config: &AzimuthalConfig, shape: Shape, mask: &PixelMask) -> Result<(), AcceleratorError> {
    let pixels = shape.pixels();
    if mask.shape() != shape {
        let (found, expected) = (mask.shape().to_string(), shape.to_string());
        return Err(AcceleratorError::Mismatch {
            what: "the mask's shape",
            found,
            expected,
        });
    }
    if config.bins == 0 || config.bins > usize::from(u16::MAX) {
        let value = config.bins.to_string();
        return Err(AcceleratorError::Value {
            name: "bins",
            value,
            allowed: "1 to 65535",
        });
    }
    let geometry = &config.geometry;
    AcceleratorError::expect_len("the radial map's number of pixels", geometry.radial.len(), pixels)?;
    let maps = [
        (
            "the solid angle map's number of pixels",
            geometry.solid_angle.as_ref().map(Vec::len),
        ),
        (
            "the polarisation map's number of pixels",
            geometry.polarization.as_ref().map(Vec::len),
        ),
        ("the dark's number of pixels", config.dark.as_ref().map(Vec::len)),
        ("the flat's number of pixels", config.flat.as_ref().map(Vec::len)),
    ];
    for (what, found) in maps {
        AcceleratorError::expect_len(what, found.unwrap_or(pixels), pixels)?;
    }
    let finite_and_positive = |value: f64| value.is_finite() && value > 0.0;
    for (name, value) in [
        ("scale", geometry.scale),
        ("normalization_factor", config.normalization_factor),
    ] {
        if !finite_and_positive(value) {
            let value = value.to_string();
            return Err(AcceleratorError::Value {
                name,
                value,
                allowed: "a finite number above 0",
            });
        }
    }
    Ok(())
}

fn layout(config: &AzimuthalConfig, mask: &PixelMask, pixels: usize) -> Result<Bins, AcceleratorError> {
    let scale = config.geometry.scale;
    if let Some((low, high)) = config.radial_range {
        if !(low.is_finite() && high.is_finite() && low < high) {
            let value = format!("{low} to {high}");
            return Err(AcceleratorError::Value {
                name: "radial_range",
                value,
                allowed: "two finite numbers, low < high",
            });
        }
        return Ok(Bins::new(low / scale, high / scale, config.bins, scale));
    }
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for index in (0..pixels).filter(|index| !mask.rejects(*index)) {
        let radius = config.geometry.radial[index];
        if radius.is_finite() {
            (low, high) = (low.min(radius), high.max(radius));
        }
    }
    // A frame whose pixels are all masked has bins, too, and they stay empty.
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    Ok(Bins::new(low.max(0.0), high.max(0.0), config.bins, scale))
}
