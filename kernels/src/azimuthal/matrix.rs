//! Which share of each pixel belongs to which bin, worked out in f64.
//!
//! Definitions are those of pyFAI (Kieffer & Wright, Powder Diffr. 28, S339, 2013; Ashiotis et al., J. Appl. Cryst. 48,
//! 510, 2015), so that results can be compared like with like:
//! - `no`: the whole pixel belongs to the bin of its centre;
//! - `bbox`: the pixel covers centre ± the largest distance of a corner, in radius and in azimuth, evenly;
//! - `full`: the pixel is the polygon of its corners in radius and azimuth. Along the azimuth an edge is taken at its
//!   mean height within each radial bin.
//!
//! Shares of a pixel add up to one: what reaches beyond the first or last bin belongs to that bin.

use super::{AzimuthalConfig, Bins, Splitting};
use crate::accelerator::AcceleratorError;
use frame::PixelMask;
use std::f64::consts::{PI, TAU};

/// Shares in rows of bins. Bins are counted with the radius fastest: `azimuthal bin × radial bins + radial bin`.
pub(super) struct Matrix {
    /// radial bins
    pub(super) radial: Bins,
    /// azimuthal bins of a 2-D integration, scaled to degrees
    pub(super) azimuthal: Option<Bins>,
    /// where each bin's entries start, and where the last one's end
    pub(super) starts: Vec<u32>,
    /// pixel of each entry, ascending within a bin
    pub(super) pixel: Vec<u32>,
    /// share of each entry
    pub(super) weight: Vec<f32>,
}

impl Matrix {
    /// The matrix of a configuration; pixels for which `valid` does not hold have no entry.
    pub(super) fn new(
        config: &AzimuthalConfig,
        mask: &PixelMask,
        valid: impl Fn(usize) -> bool,
    ) -> Result<Self, AcceleratorError> {
        let space = Space::new(config, mask)?;
        let columns = space.radial.count();
        let bins = columns * space.azimuthal.as_ref().map_or(1, |bins| bins.count());
        let mut entries: Vec<(u32, u32, f32)> = Vec::new();
        let mut shares = Vec::new();
        for pixel in (0..mask.shape().pixels()).filter(|pixel| !mask.rejects(*pixel) && valid(*pixel)) {
            space.shares(pixel, &mut shares);
            let of_pixel = shares
                .iter()
                .map(|(bin, share)| (*bin as u32, pixel as u32, *share as f32));
            entries.extend(of_pixel.filter(|(_, _, share)| *share != 0.0));
        }
        if u32::try_from(entries.len()).is_err() {
            return Err(AcceleratorError::Value {
                name: "the number of shares of pixels in bins",
                value: entries.len().to_string(),
                allowed: "at most 4294967295: ask for fewer bins",
            });
        }
        let mut starts = vec![0u32; bins + 1];
        for (bin, ..) in &entries {
            starts[*bin as usize + 1] += 1;
        }
        for bin in 0..bins {
            starts[bin + 1] += starts[bin];
        }
        let mut next = starts.clone();
        let (mut pixel, mut weight) = (vec![0; entries.len()], vec![0.0; entries.len()]);
        for (bin, of_pixel, share) in entries {
            let at = next[bin as usize] as usize;
            (pixel[at], weight[at]) = (of_pixel, share);
            next[bin as usize] += 1;
        }
        Ok(Self {
            radial: space.radial,
            azimuthal: space.azimuthal,
            starts,
            pixel,
            weight,
        })
    }
}

/// Radius and azimuth, their ranges, and where pixels lie in them.
pub(super) struct Space<'a> {
    config: &'a AzimuthalConfig,
    pub(super) radial: Bins,
    pub(super) azimuthal: Option<Bins>,
    /// range of the radius before the last bin was widened
    radial_range: (f64, f64),
    azimuthal_range: Option<(f64, f64)>,
    /// whether azimuths end at π (else at 2π)
    ends_at_pi: bool,
}

/// Half a turn as single precision has it: where the reference ends its azimuthal range.
const HALF_TURN: f64 = PI as f32 as f64;

impl<'a> Space<'a> {
    pub(super) fn new(config: &'a AzimuthalConfig, mask: &PixelMask) -> Result<Self, AcceleratorError> {
        check(config, mask.shape().pixels())?;
        let azimuthal_range = config.azimuthal_range_deg;
        let ends_at_pi = azimuthal_range.is_none_or(|(_, high)| high <= 180.0);
        let mut space = Self {
            config,
            radial: Bins::new(0.0, 1.0, config.bins, config.geometry.scale),
            azimuthal: None,
            radial_range: (0.0, 1.0),
            azimuthal_range: azimuthal_range.map(|(low, high)| (low.to_radians(), high.to_radians())),
            ends_at_pi,
        };
        let needs_chi = config.azimuthal_bins.is_some();
        let (mut radius, mut chi) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        let wider = |range: &mut (f64, f64), low: f64, high: f64| {
            if low.is_finite() && high.is_finite() {
                *range = (range.0.min(low), range.1.max(high));
            }
        };
        for pixel in (0..mask.shape().pixels()).filter(|pixel| !mask.rejects(*pixel)) {
            let ([low, high], [low_chi, high_chi]) = space.extent(pixel, needs_chi);
            wider(&mut radius, low, high);
            wider(&mut chi, low_chi, high_chi);
        }
        // A frame whose pixels are all masked has bins, too, and they stay empty.
        if radius.0 > radius.1 {
            (radius, chi) = ((0.0, 1.0), (-PI, PI));
        }
        let scale = config.geometry.scale;
        let given = config.radial_range.map(|(low, high)| (low / scale, high / scale));
        space.radial_range = given.unwrap_or((radius.0.max(0.0), radius.1.max(0.0)));
        space.radial = Bins::new(space.radial_range.0, space.radial_range.1, config.bins, scale);
        if let Some(count) = config.azimuthal_bins {
            let turn = if ends_at_pi {
                (-HALF_TURN, HALF_TURN)
            } else {
                (0.0, 2.0 * HALF_TURN)
            };
            let (low, high) = space.azimuthal_range.unwrap_or((chi.0.max(turn.0), chi.1.min(turn.1)));
            space.azimuthal_range = Some((low, high));
            space.azimuthal = Some(Bins::new(low, high, count, 180.0 / PI));
        }
        Ok(space)
    }

    /// Azimuth of a pixel's centre.
    fn chi(&self, pixel: usize) -> f64 {
        self.turned(self.config.geometry.chi.as_ref().map_or(0.0, |chi| chi[pixel]))
    }

    fn turned(&self, chi: f64) -> f64 {
        if !self.ends_at_pi && chi < 0.0 { chi + TAU } else { chi }
    }

    /// Corners of a pixel as (radius, azimuth), azimuths as they are.
    fn corners(&self, pixel: usize) -> [[f64; 2]; 4] {
        let corners = self.config.geometry.corners.as_ref();
        let corners = corners.map_or([[self.config.geometry.radial[pixel], self.chi(pixel)]; 4], |c| {
            c.of(pixel)
        });
        corners.map(|[radius, chi]| [radius, self.turned(chi)])
    }

    /// Lowest and highest radius and azimuth of a pixel, by the kind of splitting.
    fn extent(&self, pixel: usize, needs_chi: bool) -> ([f64; 2], [f64; 2]) {
        let radius = self.config.geometry.radial[pixel];
        match self.config.splitting {
            Splitting::No => ([radius; 2], [if needs_chi { self.chi(pixel) } else { 0.0 }; 2]),
            Splitting::Bbox => {
                let ([half, half_chi], chi) = (self.half_widths(pixel), self.chi(pixel));
                ([radius - half, radius + half], [chi - half_chi, chi + half_chi])
            }
            Splitting::Full => {
                let corners = self.corners(pixel);
                let of = |axis: usize| {
                    let values = corners.iter().map(|corner| corner[axis]);
                    [
                        values.clone().fold(f64::INFINITY, f64::min),
                        values.fold(f64::NEG_INFINITY, f64::max),
                    ]
                };
                (of(0), of(1))
            }
        }
    }

    /// The largest distance of a corner from the centre, in radius and in azimuth.
    fn half_widths(&self, pixel: usize) -> [f64; 2] {
        let (radius, chi) = (self.config.geometry.radial[pixel], self.chi(pixel));
        let mut half = [0f64; 2];
        for corner in self.corners(pixel) {
            let turned = (corner[1] - chi).abs();
            half[0] = half[0].max((corner[0] - radius).abs());
            half[1] = half[1].max(turned.min(TAU - turned));
        }
        half
    }

    /// Bins that share a pixel, and its share in each.
    pub(super) fn shares(&self, pixel: usize, shares: &mut Vec<(usize, f64)>) {
        shares.clear();
        match (self.config.splitting, &self.azimuthal) {
            (Splitting::Full, None) => self.polygon_1d(pixel, shares),
            (Splitting::Full, Some(azimuthal)) => self.polygon_2d(pixel, azimuthal, shares),
            (_, azimuthal) => self.boxed(pixel, azimuthal.as_ref(), shares),
        }
    }

    fn boxed(&self, pixel: usize, azimuthal: Option<&Bins>, shares: &mut Vec<(usize, f64)>) {
        let needs_chi = azimuthal.is_some() || self.azimuthal_range.is_some();
        let ([low, high], [low_chi, high_chi]) = self.extent(pixel, needs_chi);
        if azimuthal.is_none()
            && let Some((first, last)) = self.azimuthal_range
            && (high_chi < first || low_chi > last)
        {
            return;
        }
        let along = |bins: &Bins, low: f64, high: f64| even(bins.place(low), bins.place(high), bins.count());
        let Some(radial) = along(&self.radial, low, high) else {
            return;
        };
        let Some(azimuthal) = azimuthal else {
            return shares.extend(radial.each());
        };
        let Some(around) = along(azimuthal, low_chi, high_chi) else {
            return;
        };
        for (row, share_chi) in around.each() {
            let row = row * self.radial.count();
            shares.extend(radial.each().map(|(bin, share)| (row + bin, share * share_chi)));
        }
    }

    /// Corners with azimuths that do not jump, though the pixel lies on the end of the range.
    fn joined(&self, pixel: usize) -> [[f64; 2]; 4] {
        let mut corners = self.corners(pixel);
        let [a, b, c, d] = corners;
        // The polygon of a pixel on the jump goes round the other way. The sum is the reference's, whose first
        // term is halved: it decides over the pixel that the beam hits.
        let area = 0.5 * (c[0] - a[0]) * (d[1] - b[1]) - (c[1] - a[1]) * (d[0] - b[0]);
        let mirrored = self
            .config
            .geometry
            .corners
            .as_ref()
            .is_some_and(|corners| corners.mirrored);
        if (if mirrored { -area } else { area }) > 0.0 {
            let (start, end) = if self.ends_at_pi { (0.0, PI) } else { (PI, TAU) };
            for corner in &mut corners {
                corner[1] += if corner[1] < start { TAU } else { 0.0 };
            }
            if corners.iter().map(|corner| corner[1]).sum::<f64>() > 4.0 * end {
                corners.iter_mut().for_each(|corner| corner[1] -= TAU);
            }
        }
        corners
    }

    fn polygon_1d(&self, pixel: usize, shares: &mut Vec<(usize, f64)>) {
        let corners = self.joined(pixel);
        let x = corners.map(|corner| self.radial.place(corner[0]));
        let (low, high) = limits(x);
        let bins = self.radial.count();
        if !(low.is_finite() && high.is_finite()) || high < 0.0 || low >= bins as f64 {
            return;
        }
        if let Some((first, last)) = self.azimuthal_range {
            let (low_chi, high_chi) = limits(corners.map(|corner| corner[1]));
            if high_chi < first || low_chi > last {
                return;
            }
        }
        if low.floor() == high.floor() {
            return shares.push((low.floor() as usize, 1.0));
        }
        let (first, end) = (low.floor().max(0.0) as usize, bins.min(high.floor() as usize + 1));
        for bin in first..end {
            let mut area = 0.0;
            for edge in 0..4 {
                let next = (edge + 1) % 4;
                let from = [x[edge], corners[edge][1] - corners[0][1]];
                let to = [x[next], corners[next][1] - corners[0][1]];
                if let Some((width, height)) = piece(from, to, bin as f64) {
                    area += width * height;
                }
            }
            shares.push((bin, area));
        }
        normalise(shares);
    }

    fn polygon_2d(&self, pixel: usize, azimuthal: &Bins, shares: &mut Vec<(usize, f64)>) {
        let corners = self.joined(pixel);
        let ((low, high), (low_chi, high_chi)) = (
            limits(corners.map(|corner| corner[0])),
            limits(corners.map(|corner| corner[1])),
        );
        let (radius, chi) = (self.radial_range, self.azimuthal_range.unwrap_or((-PI, PI)));
        let whole = low.is_finite() && high.is_finite() && low_chi.is_finite() && high_chi.is_finite();
        if !whole || high < radius.0 || low > radius.1 || high_chi < chi.0 || low_chi >= chi.1 {
            return;
        }
        let x = corners.map(|corner| self.radial.place(corner[0].clamp(radius.0, radius.1)));
        let y = corners.map(|corner| azimuthal.place(corner[1].clamp(chi.0, chi.1)));
        let ((low, high), (low_chi, high_chi)) = (limits(x), limits(y));
        let columns = high.ceil() as usize - low.floor() as usize;
        let rows = high_chi.ceil() as usize - low_chi.floor() as usize;
        let (column, row) = (low.floor(), low_chi.floor());
        for at in 0..columns {
            let start = shares.len();
            let bin = |up: usize| (row as usize + up) * self.radial.count() + column as usize + at;
            shares.extend((0..rows).map(|up| (bin(up), 0.0)));
            for edge in 0..4 {
                let next = (edge + 1) % 4;
                let (from, to) = ([x[edge] - column, y[edge] - row], [x[next] - column, y[next] - row]);
                let Some((width, height)) = piece(from, to, at as f64) else {
                    continue;
                };
                for (up, (_, area)) in shares[start..].iter_mut().enumerate() {
                    *area += width * (height - up as f64).clamp(0.0, 1.0);
                }
            }
        }
        shares.retain(|(_, area)| *area != 0.0);
        normalise(shares);
    }
}

fn limits(values: [f64; 4]) -> (f64, f64) {
    (
        values.into_iter().fold(f64::INFINITY, f64::min),
        values.into_iter().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// Signed width and mean height of the piece of an edge between `bin` and `bin + 1`.
fn piece(from: [f64; 2], to: [f64; 2], bin: f64) -> Option<(f64, f64)> {
    let (start, end) = (from[0].clamp(bin, bin + 1.0), to[0].clamp(bin, bin + 1.0));
    if start == end {
        return None;
    }
    let slope = (to[1] - from[1]) / (to[0] - from[0]);
    Some((end - start, from[1] + slope * (0.5 * (start + end) - from[0])))
}

/// Makes shares add up to one; a pixel without area has none.
fn normalise(shares: &mut Vec<(usize, f64)>) {
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    if sum == 0.0 || !sum.is_finite() {
        return shares.clear();
    }
    shares.iter_mut().for_each(|(_, share)| *share /= sum);
}

/// An interval that is shared evenly by the bins that it covers.
#[derive(Clone, Copy)]
struct Even {
    first: usize,
    last: usize,
    low: f64,
    high: f64,
}

/// `low` and `high` in bins; `None` where both lie outside. Truncated towards zero as [`Bins::of`].
fn even(low: f64, high: f64, bins: usize) -> Option<Even> {
    let (first, last) = (low.trunc(), high.trunc());
    if !(low.is_finite() && high.is_finite()) || last < 0.0 || first >= bins as f64 {
        return None;
    }
    Some(Even {
        first: first.max(0.0) as usize,
        last: (last as usize).min(bins - 1),
        low,
        high,
    })
}

impl Even {
    fn each(self) -> impl Iterator<Item = (usize, f64)> {
        let whole = 1.0 / (self.high - self.low);
        (self.first..=self.last).map(move |bin| {
            if self.first == self.last {
                (bin, 1.0)
            } else if bin == self.first {
                (bin, whole * ((bin + 1) as f64 - self.low))
            } else if bin == self.last {
                (bin, whole * (self.high - bin as f64))
            } else {
                (bin, whole)
            }
        })
    }
}

pub(super) fn check(config: &AzimuthalConfig, pixels: usize) -> Result<(), AcceleratorError> {
    let refused = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
    let geometry = &config.geometry;
    let chi = config.azimuthal_bins.is_some() || config.azimuthal_range_deg.is_some();
    if chi {
        let found = geometry.chi.as_ref().map_or(0, Vec::len);
        AcceleratorError::expect_len("the azimuth map's number of pixels", found, pixels)?;
    }
    if config.splitting != Splitting::No {
        let found = geometry.corners.as_ref().map_or(0, frame::geometry::Corners::pixels);
        AcceleratorError::expect_len("the number of pixels with corners", found, pixels)?;
    }
    if let Some(count) = config.azimuthal_bins.filter(|count| !(1..=65535).contains(count)) {
        return refused("azimuthal_bins", count.to_string(), "1 to 65535");
    }
    if let Some((low, high)) = config.azimuthal_range_deg
        && !(low < high && (low >= -180.0 && high <= 180.0 || low >= 0.0 && high <= 360.0))
    {
        let allowed = "low < high, both from -180 to 180 or both from 0 to 360 degrees";
        return refused("azimuthal_range_deg", format!("{low} to {high}"), allowed);
    }
    if let Some(clip) = config.sigma_clip
        && !(clip.cutoff.is_finite() && clip.cutoff >= 0.0 && clip.cycles >= 1)
    {
        let value = format!("cutoff {} in {} cycles", clip.cutoff, clip.cycles);
        return refused("sigma_clip", value, "a cutoff of 0 or more, and at least 1 cycle");
    }
    Ok(())
}
