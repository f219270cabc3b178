//! What live projections go through before they are filtered: what a column has in all of them and its neighbours have not,
//! a ring in the slices, is taken away, and those of a half acquisition are placed on the wide detector.
//!
//! Projections are kept as they came, so that either may change and the slices be summed anew.

use crate::accelerator::AcceleratorError;
use crate::half_acquisition::HalfAcquisition;
use crate::image::median;
use crate::parallel::share;

/// See the module.
pub struct Arrangement {
    rows: usize,
    columns: usize,
    half: Option<HalfAcquisition>,
    cleaning: bool,
    /// what is taken away, `rows`×`columns`
    offsets: Vec<f32>,
    cleaned: Vec<f32>,
    wide: Vec<f32>,
}

impl Arrangement {
    /// For projections of `rows`×`columns`; everything is allocated here. Nothing is taken away at first.
    pub fn new(rows: usize, columns: usize, half: Option<HalfAcquisition>) -> Self {
        let wide = half.as_ref().map_or(0, HalfAcquisition::wide_columns);
        Self {
            rows,
            columns,
            half,
            cleaning: false,
            offsets: vec![0.0; rows * columns],
            cleaned: vec![0.0; rows * columns],
            wide: vec![0.0; rows * wide],
        }
    }

    /// Another axis of the half acquisition, on a wide detector of the same width.
    pub fn set_half(&mut self, half: HalfAcquisition) -> Result<(), AcceleratorError> {
        let columns = self.wide.len() / self.rows.max(1);
        AcceleratorError::expect_len("the wide detector's columns", half.wide_columns(), columns)?;
        self.half = Some(half);
        Ok(())
    }

    /// Takes away from now on how far the mean of `count` projections, those that `projection` gives, lies at every pixel from
    /// its median over `size` columns. Nothing is taken away where there are no projections or no more than one column.
    /// As many threads as are given change no bit.
    pub fn set_offsets<'a>(
        &mut self,
        count: usize,
        projection: impl Fn(usize) -> &'a [f32] + Sync,
        size: usize,
        threads: usize,
    ) {
        let columns = self.columns;
        self.cleaning = count > 0 && size > 1 && columns > 1;
        if !self.cleaning {
            return;
        }
        let mut sums = vec![vec![0.0_f64; columns]; threads.max(1)];
        let mut rows: Vec<&mut [f32]> = self.offsets.chunks_exact_mut(columns).collect();
        share(&mut sums, &mut rows, |sum, row, out| {
            sum.fill(0.0);
            for number in 0..count {
                let values = projection(number).get(row * columns..(row + 1) * columns);
                sum.iter_mut()
                    .zip(values.unwrap_or_default())
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let mean: Vec<f32> = sum.iter().map(|sum| (sum / count as f64) as f32).collect();
            // Where it follows the sample the median does, too; a stripe narrower than half of it stands out.
            let smooth = median(&mean, columns, 1, size.min(columns));
            let places = out.iter_mut().zip(mean.iter().zip(&smooth));
            places.for_each(|(place, (mean, smooth))| *place = mean - smooth);
        });
    }

    /// A projection as it is filtered. Allocates nothing.
    pub fn run<'a>(&'a mut self, projection: &'a [f32]) -> Result<&'a [f32], AcceleratorError> {
        AcceleratorError::expect_len(
            "a projection's number of pixels",
            projection.len(),
            self.rows * self.columns,
        )?;
        let cleaned = if self.cleaning {
            let places = self.cleaned.iter_mut().zip(projection.iter().zip(&self.offsets));
            places.for_each(|(place, (value, offset))| *place = value - offset);
            &self.cleaned[..]
        } else {
            projection
        };
        let Some(half) = &self.half else { return Ok(cleaned) };
        half.place(cleaned, &mut self.wide)
            .map_err(|error| AcceleratorError::Mismatch {
                what: "a projection of a half acquisition",
                found: error.to_string(),
                expected: format!("rows of {} columns", self.columns),
            })?;
        Ok(&self.wide)
    }
}
