//! Münch's filter: a stripe is what is slow along the columns and sharp across them, so a wavelet transform gathers it
//! in its vertical details, whose lowest frequencies along the columns are then damped.

use super::columns::pass;
use realfft::RealFftPlanner;

/// Daubechies' wavelets, by number of vanishing moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wavelet {
    /// 10 taps
    Db5,
    /// 18 taps
    Db9,
}

/// Scaling filters (Daubechies 1992, Ten Lectures on Wavelets, table 6.1), last tap first.
const DB5: [f64; 10] = [
    0.0033357252854737712,
    -0.012580751999081999,
    -0.006241490212798274,
    0.07757149384004572,
    -0.032244869584638375,
    -0.24229488706638203,
    0.13842814590132074,
    0.7243085284377729,
    0.6038292697971896,
    0.16010239797419293,
];
const DB9: [f64; 18] = [
    3.93473203162716e-05,
    -0.0002519631889427101,
    0.00023038576352319597,
    0.0018476468830562265,
    -0.00428150368246343,
    -0.004723204757751397,
    0.022361662123679096,
    0.00025094711483145197,
    -0.06763282906132997,
    0.03072568147933338,
    0.14854074933810638,
    -0.09684078322297646,
    -0.2932737832791749,
    0.13319738582500756,
    0.6572880780513005,
    0.6048231236901112,
    0.24383467461259034,
    0.038077947363878345,
];

impl Wavelet {
    fn low(self) -> &'static [f64] {
        match self {
            Self::Db5 => &DB5,
            Self::Db9 => &DB9,
        }
    }

    fn high(self) -> Vec<f64> {
        let low = self.low();
        let sign = |k: usize| if k.is_multiple_of(2) { -1.0 } else { 1.0 };
        (0..low.len()).map(|k| sign(k) * low[low.len() - 1 - k]).collect()
    }
}

/// Münch's filter.
#[derive(Clone, Debug, PartialEq)]
pub struct WaveletFourier {
    /// times that the wavelet transform is taken; fewer where the sinogram would become smaller than 16
    pub level: usize,
    /// width of what is damped, in frequencies; larger is stronger
    pub sigma: f64,
    /// the wavelet
    pub wavelet: Wavelet,
}

impl Default for WaveletFourier {
    fn default() -> Self {
        Self {
            level: 5,
            sigma: 1.0,
            wavelet: Wavelet::Db9,
        }
    }
}

struct Image {
    values: Vec<f64>,
    rows: usize,
    columns: usize,
}

impl WaveletFourier {
    pub(super) fn run(&self, sinogram: &mut [f32], columns: usize) {
        let rows = sinogram.len() / columns;
        let pad = 150.min(rows.min(columns) / 10);
        let (low, high) = (self.wavelet.low(), self.wavelet.high());
        let mut image = padded(sinogram, rows, columns, pad);
        let largest = (image.rows.min(image.columns) as f64 / 16.0).log2().floor().max(0.0) as usize;
        let level = if (1..=largest).contains(&self.level) {
            self.level
        } else {
            largest
        };
        let mut details = Vec::new();
        for _ in 0..level {
            // Along rows first: an image is [slow, fast] across, each of them [slow, fast] along the columns.
            let (slow, fast) = (split(&image, low), split(&image, &high));
            let (slow, fast) = (slow.turned(), fast.turned());
            let next = split(&slow, low).turned();
            let horizontal = split(&slow, &high).turned();
            let mut vertical = split(&fast, low).turned();
            let diagonal = split(&fast, &high).turned();
            damp(&mut vertical, self.sigma);
            details.push((horizontal, vertical, diagonal));
            image = next;
        }
        while let Some((horizontal, vertical, diagonal)) = details.pop() {
            image.crop(vertical.rows, vertical.columns);
            let slow = join(&image.turned(), &horizontal.turned(), low, &high).turned();
            let fast = join(&vertical.turned(), &diagonal.turned(), low, &high).turned();
            image = join(&slow, &fast, low, &high);
        }
        for (row, line) in sinogram.chunks_exact_mut(columns).enumerate() {
            let from = &image.values[(row + pad) * image.columns + pad..];
            line.iter_mut().zip(from).for_each(|(out, v)| *out = *v as f32);
        }
    }
}

/// Rows go on as their column's mean, columns as they end.
fn padded(sinogram: &[f32], rows: usize, columns: usize, pad: usize) -> Image {
    let mut means = vec![0.0; columns];
    for row in sinogram.chunks_exact(columns) {
        means.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    means.iter_mut().for_each(|sum| *sum /= rows as f64);
    let (high, wide) = (rows + 2 * pad, columns + 2 * pad);
    let mut values = Vec::with_capacity(high * wide);
    for row in 0..high {
        let inside = row.checked_sub(pad).filter(|row| *row < rows);
        values.extend((0..wide).map(|column| {
            let column = column.saturating_sub(pad).min(columns - 1);
            inside.map_or(means[column], |row| f64::from(sinogram[row * columns + column]))
        }));
    }
    Image {
        values,
        rows: high,
        columns: wide,
    }
}

impl Image {
    fn turned(&self) -> Image {
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..self.columns {
            values.extend(self.values[column..].iter().step_by(self.columns));
        }
        Image {
            values,
            rows: self.columns,
            columns: self.rows,
        }
    }

    /// Leaves out the last row or column where they are one too many: of an odd number, half is not a whole one.
    fn crop(&mut self, rows: usize, columns: usize) {
        if columns < self.columns {
            let lines = self.values.chunks_exact(self.columns);
            self.values = lines.flat_map(|line| line[..columns].iter().copied()).collect();
            self.columns = columns;
        }
        self.values.truncate(rows * self.columns);
        self.rows = rows;
    }
}

/// Every row filtered and every second value kept; rows are mirrored at their ends, the outermost value twice.
fn split(image: &Image, filter: &[f64]) -> Image {
    let taps = filter.len();
    let count = (image.columns + taps - 1) / 2;
    let mut values = Vec::with_capacity(image.rows * count);
    let mut line = vec![0.0; image.columns + 2 * taps];
    for row in image.values.chunks_exact(image.columns) {
        for (index, place) in line.iter_mut().enumerate() {
            *place = row[crate::image::mirrored(index as isize - taps as isize, image.columns)];
        }
        values.extend((0..count).map(|k| {
            let last = 2 * k + 1 + taps;
            let window = &line[last + 1 - taps..=last];
            window.iter().rev().zip(filter).map(|(v, f)| v * f).sum::<f64>()
        }));
    }
    Image {
        values,
        rows: image.rows,
        columns: count,
    }
}

/// Undoes [`split`] by both filters.
fn join(slow: &Image, fast: &Image, low: &[f64], high: &[f64]) -> Image {
    let taps = low.len();
    let count = 2 * slow.columns + 2 - taps;
    let mut values = Vec::with_capacity(slow.rows * count);
    let mut line = vec![0.0; 2 * slow.columns + taps];
    for (slow, fast) in slow
        .values
        .chunks_exact(slow.columns)
        .zip(fast.values.chunks_exact(slow.columns))
    {
        line.fill(0.0);
        for (k, (slow, fast)) in slow.iter().zip(fast).enumerate() {
            let places = line[2 * k..2 * k + taps].iter_mut();
            for (place, (low, high)) in places.zip(low.iter().rev().zip(high.iter().rev())) {
                *place += slow * low + fast * high;
            }
        }
        values.extend_from_slice(&line[taps - 2..taps - 2 + count]);
    }
    Image {
        values,
        rows: slow.rows,
        columns: count,
    }
}

/// Damps the slow part of every column by `1 - exp(-k² / 2σ²)`; as Münch's authors' programs count frequencies, the
/// middle is half a frequency pair off where the number of rows is even, which on real values acts as the mean of both.
fn damp(image: &mut Image, sigma: f64) {
    let rows = image.rows;
    let shift = if rows.is_multiple_of(2) { 1.0 } else { 0.0 };
    let weight = |k: f64| 1.0 - (-0.5 * (k / sigma).powi(2)).exp();
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(rows), planner.plan_fft_inverse(rows));
    let window: Vec<f64> = (0..=rows / 2)
        .map(|k| {
            let k = k as f64;
            // The highest frequency of an even number has no opposite.
            let last = 2 * k as usize == rows;
            let opposite = if last { weight(-k + shift) } else { weight(k + shift) };
            0.5 * (weight(-k + shift) + opposite) / rows as f64
        })
        .collect();
    let (mut line, mut spectrum) = (forward.make_input_vec(), forward.make_output_vec());
    for column in 0..image.columns {
        let places = image.values[column..].iter().step_by(image.columns);
        line.iter_mut().zip(places).for_each(|(v, place)| *v = *place);
        pass(&*forward, &*inverse, &mut line, &mut spectrum, &window);
        let places = image.values[column..].iter_mut().step_by(image.columns);
        places.zip(&line).for_each(|(place, v)| *place = *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_is_joined_again() {
        for (columns, wavelet) in [(44, Wavelet::Db5), (60, Wavelet::Db9)] {
            let values: Vec<f64> = (0..3 * columns).map(|i| ((i * i) % 97) as f64).collect();
            let image = Image {
                values,
                rows: 3,
                columns,
            };
            let (low, high) = (wavelet.low(), wavelet.high());
            let joined = join(&split(&image, low), &split(&image, &high), low, &high);
            assert_eq!((joined.rows, joined.columns), (3, columns));
            let differences = joined.values.iter().zip(&image.values).map(|(a, b)| (a - b).abs());
            assert!(differences.fold(0.0, f64::max) < 1e-8, "{wavelet:?}");
        }
    }

    #[test]
    fn only_what_is_slow_along_columns_is_damped() {
        let mut image = Image {
            values: (0..64)
                .flat_map(|row| [1.0, if row % 2 == 0 { 1.0 } else { -1.0 }])
                .collect(),
            rows: 64,
            columns: 2,
        };
        damp(&mut image, 1.0);
        assert!(image.values.iter().step_by(2).all(|v| v.abs() < 0.4), "a stripe");
        assert!(
            image.values.iter().skip(1).step_by(2).all(|v| v.abs() > 0.99),
            "no stripe"
        );
    }
}
