//! What live projections go through before they are filtered: what a column has in all of them and its neighbours have not,
//! a ring in the slices, is taken away, and those of a half acquisition are placed on the wide detector.
//!
//! Projections are kept as they came, so that either may change and the slices be summed anew.

use crate::accelerator::AcceleratorError;
use crate::half_acquisition::HalfAcquisition;
use crate::image::RowMedian;

/// Widest median that stripes stand out from, columns.
pub const STRIPE_COLUMNS_MAX: usize = 1024;

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
    /// of a row: the sum over projections, mean and median
    sum: Vec<f64>,
    lines: [Vec<f32>; 2],
    median: RowMedian,
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
            sum: vec![0.0; columns],
            lines: [vec![0.0; columns], vec![0.0; columns]],
            median: RowMedian::new(STRIPE_COLUMNS_MAX),
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
    /// its median over `size` columns, [`STRIPE_COLUMNS_MAX`] at most. Nothing is taken away where there are no projections or
    /// no more than one column. Allocates nothing.
    pub fn set_offsets<'a>(&mut self, count: usize, projection: impl Fn(usize) -> &'a [f32], size: usize) {
        let columns = self.columns;
        let size = size.min(columns).min(STRIPE_COLUMNS_MAX);
        self.cleaning = count > 0 && size > 1;
        if !self.cleaning {
            return;
        }
        let (sum, [mean, smooth]) = (&mut self.sum, &mut self.lines);
        for (row, out) in self.offsets.chunks_exact_mut(columns).enumerate() {
            sum.fill(0.0);
            for number in 0..count {
                let values = projection(number).get(row * columns..(row + 1) * columns);
                sum.iter_mut()
                    .zip(values.unwrap_or_default())
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let places = mean.iter_mut().zip(&*sum);
            places.for_each(|(place, sum)| *place = (sum / count as f64) as f32);
            // Where it follows the sample the median does, too; a stripe narrower than half of it stands out.
            self.median.run(mean, size, smooth);
            let places = out.iter_mut().zip(mean.iter().zip(&*smooth));
            places.for_each(|(place, (mean, smooth))| *place = mean - smooth);
        }
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
