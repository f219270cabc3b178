//! Plain filters of images on the host; edges are mirrored, the outermost value twice.

/// The place within `length` that a place outside of it is mirrored to.
pub(crate) fn mirrored(index: isize, length: usize) -> usize {
    let period = 2 * length as isize;
    let place = index.rem_euclid(period) as usize;
    if place < length { place } else { 2 * length - 1 - place }
}

/// Values of one window, kept in order, so that a window moves by one without sorting anew.
struct Window(Vec<f32>);

impl Window {
    fn insert(&mut self, value: f32) {
        let at = self.0.partition_point(|v| v.total_cmp(&value).is_lt());
        self.0.insert(at, value);
    }

    fn remove(&mut self, value: f32) {
        let at = self.0.partition_point(|v| v.total_cmp(&value).is_lt());
        self.0.remove(at);
    }
}

/// Median over `high`×`wide` windows; an even window reaches one further to the left, and of an even number of values
/// the upper one is taken.
pub(crate) fn median(image: &[f32], columns: usize, high: usize, wide: usize) -> Vec<f32> {
    let rows = image.len() / columns.max(1);
    let mut out = Vec::with_capacity(image.len());
    let mut window = Window(Vec::with_capacity(high * wide));
    let value = |row: isize, column: isize| image[mirrored(row, rows) * columns + mirrored(column, columns)];
    let (up, left) = ((high / 2) as isize, (wide / 2) as isize);
    for row in 0..rows as isize {
        let around = row - up..row - up + high as isize;
        window.0.clear();
        for row in around.clone() {
            for column in -left..wide as isize - left {
                window.0.push(value(row, column));
            }
        }
        window.0.sort_unstable_by(f32::total_cmp);
        out.push(window.0[high * wide / 2]);
        for column in 1..columns as isize {
            for row in around.clone() {
                window.remove(value(row, column - 1 - left));
                window.insert(value(row, column - 1 - left + wide as isize));
            }
            out.push(window.0[high * wide / 2]);
        }
    }
    out
}

/// The same of single rows, up to `widest` columns; nothing is allocated later.
pub(crate) struct RowMedian(Window);

impl RowMedian {
    pub(crate) fn new(widest: usize) -> Self {
        Self(Window(Vec::with_capacity(widest + 1)))
    }

    /// Median over windows of `wide` columns, no more than there are.
    pub(crate) fn run(&mut self, row: &[f32], wide: usize, out: &mut [f32]) {
        let (window, left) = (&mut self.0, (wide / 2) as isize);
        let value = |column: isize| row[mirrored(column, row.len())];
        window.0.clear();
        (-left..wide as isize - left).for_each(|column| window.insert(value(column)));
        for (column, place) in out.iter_mut().enumerate() {
            if let Some(before) = column.checked_sub(1) {
                window.remove(value(before as isize - left));
                window.insert(value(before as isize - left + wide as isize));
            }
            *place = window.0[wide / 2];
        }
    }
}

/// Gaussian of `sigma` rows and columns, cut off at four times its width.
pub(crate) fn gaussian(image: &[f32], columns: usize, sigma: [f64; 2]) -> Vec<f32> {
    let rows = image.len() / columns.max(1);
    let kernel = |sigma: f64| -> Vec<f64> {
        let reach = (4.0 * sigma + 0.5) as i32;
        let weights: Vec<f64> = (-reach..=reach)
            .map(|k| (-0.5 * (f64::from(k) / sigma).powi(2)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / sum).collect()
    };
    let vertical = kernel(sigma[0]);
    let reach = (vertical.len() / 2) as isize;
    let mut middle = Vec::with_capacity(image.len());
    let mut line = vec![0.0; columns];
    for row in 0..rows as isize {
        line.fill(0.0);
        for (k, weight) in vertical.iter().enumerate() {
            let from = &image[mirrored(row + k as isize - reach, rows) * columns..][..columns];
            line.iter_mut()
                .zip(from)
                .for_each(|(sum, v)| *sum += weight * f64::from(*v));
        }
        middle.extend(line.iter().map(|v| *v as f32));
    }
    let horizontal = kernel(sigma[1]);
    let reach = (horizontal.len() / 2) as isize;
    let mut padded = vec![0.0; columns + 2 * reach as usize];
    let mut out = Vec::with_capacity(image.len());
    for row in middle.chunks_exact(columns) {
        for (index, place) in padded.iter_mut().enumerate() {
            *place = f64::from(row[mirrored(index as isize - reach, columns)]);
        }
        out.extend(padded.windows(horizontal.len()).map(|window| {
            let sum: f64 = window.iter().zip(&horizontal).map(|(v, w)| v * w).sum();
            sum as f32
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_mirrored_with_the_edge_twice() {
        let places: Vec<usize> = (-4..8).map(|i| mirrored(i, 3)).collect();
        assert_eq!(places, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1][..].to_vec());
    }

    #[test]
    fn medians_are_those_of_sorted_windows() {
        let (rows, columns) = (9, 14);
        let image: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 101) as f32).collect();
        for (high, wide) in [(1, 5), (1, 4), (3, 3), (2, 6), (1, 31)] {
            let found = median(&image, columns, high, wide);
            if high == 1 {
                let (mut rows, mut out) = (RowMedian::new(wide), vec![0.0; image.len()]);
                let pairs = image.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
                pairs.for_each(|(row, out)| rows.run(row, wide, out));
                assert_eq!(out, found);
            }
            for (index, found) in found.iter().enumerate() {
                let (row, column) = ((index / columns) as isize, (index % columns) as isize);
                let mut window: Vec<f32> = (0..high as isize)
                    .flat_map(|y| (0..wide as isize).map(move |x| (y, x)))
                    .map(|(y, x)| {
                        let y = mirrored(row + y - high as isize / 2, rows);
                        image[y * columns + mirrored(column + x - wide as isize / 2, columns)]
                    })
                    .collect();
                window.sort_by(f32::total_cmp);
                assert_eq!(*found, window[high * wide / 2]);
            }
        }
    }

    #[test]
    fn a_gaussian_keeps_what_is_constant_and_spreads_a_point_evenly() {
        assert!(
            gaussian(&[2.5; 60], 10, [2.0, 1.0])
                .iter()
                .all(|v| (v - 2.5).abs() < 1e-6)
        );
        let mut image = vec![0.0; 41 * 41];
        image[20 * 41 + 20] = 1.0;
        let spread = gaussian(&image, 41, [2.0, 3.0]);
        let expected = (-0.5f64 * (1.0 / 4.0 + 4.0 / 9.0)).exp();
        let ratio = f64::from(spread[21 * 41 + 22] / spread[20 * 41 + 20]);
        assert!((ratio - expected).abs() < 1e-5, "{ratio} {expected}");
    }
}
