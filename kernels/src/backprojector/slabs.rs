//! Whole volumes, 16 slices at a time, from sinograms that lie as the device wants them.

use super::filter::RowFilter;
use super::{BATCH_ANGLES, BLOCK_ROWS, Backprojector, BackprojectorConfig, Filter, Plane, block_values};
use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::Queue;
use crate::parallel::share;

/// What all slabs of a volume have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct SlabConfig {
    /// detector columns; slices have as many each way
    pub columns: usize,
    /// column of the rotation axis, pixels from the centre of column 0
    pub rotation_axis_px: f64,
    /// angle of each projection
    pub angles_deg: Vec<f64>,
    /// weight of each projection (see [`Backprojector::push_weighted`]); empty: 1
    pub weights: Vec<f32>,
    /// window on the ramp
    pub filter: Filter,
    /// host threads that filter
    pub threads: usize,
    /// bytes that a slab may take, its sinograms and slices on the host included
    pub memory_budget_bytes: usize,
}

impl SlabConfig {
    /// Bytes that one slab takes: sinograms and slices on the host, the sums and filtered projections on the device.
    pub fn bytes_needed(&self) -> usize {
        let (columns, angles) = (self.columns, self.angles_deg.len());
        let host = BLOCK_ROWS * columns * angles + BLOCK_ROWS * columns * columns;
        let device = BLOCK_ROWS * columns * columns + BATCH_ANGLES * block_values(columns);
        (host + device) * size_of::<f32>()
    }
}

/// Reconstructs slab after slab; see the module.
pub struct SlabReconstructor {
    config: SlabConfig,
    backprojector: Backprojector,
    filters: Vec<RowFilter>,
}

impl SlabReconstructor {
    /// Prepares; everything is allocated here.
    pub fn new(accelerator: &Accelerator, config: &SlabConfig) -> Result<Self, AcceleratorError> {
        let angles = config.angles_deg.len();
        if !config.weights.is_empty() {
            AcceleratorError::expect_len("the number of weights", config.weights.len(), angles)?;
        }
        let needed = config.bytes_needed();
        if needed > config.memory_budget_bytes {
            return Err(AcceleratorError::Value {
                name: "memory_budget_bytes",
                value: format!(
                    "{} where a slab of 16 slices takes {needed}",
                    config.memory_budget_bytes
                ),
                allowed: "at least what one slab takes: give more memory, fewer projections or bin the detector",
            });
        }
        let backprojector = BackprojectorConfig {
            rows: BLOCK_ROWS,
            columns: config.columns,
            rotation_axis_px: config.rotation_axis_px,
            filter: config.filter,
            planes: vec![Plane::Slab { block: 0 }],
        };
        Ok(Self {
            backprojector: Backprojector::new(accelerator, &backprojector)?,
            filters: (0..config.threads.clamp(1, BATCH_ANGLES))
                .map(|_| RowFilter::new(config.filter, config.columns))
                .collect(),
            config: config.clone(),
        })
    }

    /// Values of a slab's sinograms, `[angle][column][16 rows]`.
    pub fn sinogram_len(&self) -> usize {
        self.config.angles_deg.len() * self.config.columns * BLOCK_ROWS
    }

    /// Values of a slab's slices, `[16 slices][y][x]`.
    pub fn slices_len(&self) -> usize {
        BLOCK_ROWS * self.config.columns * self.config.columns
    }

    /// Reconstructs 16 slices from their line integrals, `[angle][column][16 rows]`, into `[16 slices][y][x]`. The same slab
    /// gives the same bits on any number of threads, and those of [`Backprojector`] with the same projections.
    pub fn run(&mut self, queue: &Queue, sinograms: &[f32], slices: &mut [f32]) -> Result<(), AcceleratorError> {
        self.run_while(queue, sinograms, slices, || true)
    }

    /// The same; `go_on` is asked before every 16 projections, and where it says no the slices are not to be used.
    pub fn run_while(
        &mut self,
        queue: &Queue,
        sinograms: &[f32],
        slices: &mut [f32],
        go_on: impl Fn() -> bool,
    ) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("the sinograms' number of values", sinograms.len(), self.sinogram_len())?;
        AcceleratorError::expect_len("the slices' number of values", slices.len(), self.slices_len())?;
        self.backprojector.reset(queue)?;
        let size = self.config.columns * BLOCK_ROWS;
        for (number, batch) in sinograms.chunks(BATCH_ANGLES * size).enumerate() {
            if !go_on() {
                return Ok(());
            }
            let first = number * BATCH_ANGLES;
            let angles = first..first + batch.len() / size;
            let weights = self.config.weights.get(angles.clone()).unwrap_or(&[]);
            let angles_deg = &self.config.angles_deg[angles];
            self.backprojector
                .push_interleaved(queue, &mut self.filters, batch, angles_deg, weights)?;
        }
        self.backprojector.flush(queue)?;
        self.backprojector.snapshot_by(queue, 0, slices, self.filters.len())
    }
}

impl Backprojector {
    /// Takes up to 16 projections of 16 rows, `[angle][column][16]`, filtered on as many threads as there are filters;
    /// weights are 1 where there are none.
    fn push_interleaved(
        &mut self,
        queue: &Queue,
        filters: &mut [RowFilter],
        projections: &[f32],
        angles_deg: &[f64],
        weights: &[f32],
    ) -> Result<(), AcceleratorError> {
        let values = block_values(self.config.columns);
        let size = self.config.columns * BLOCK_ROWS;
        let weight = |number: usize| weights.get(number).copied().unwrap_or(1.0);
        let mut filtered = queue.map(&mut self.filtered, self.waiting * values, angles_deg.len() * values)?;
        let mut items: Vec<(&mut [f32], &[f32])> = filtered
            .chunks_exact_mut(values)
            .zip(projections.chunks_exact(size))
            .collect();
        share(filters, &mut items, |filter, number, (out, projection)| {
            let mut row = vec![0.0; projection.len() / BLOCK_ROWS];
            for lane in 0..BLOCK_ROWS {
                let from = projection[lane..].iter().step_by(BLOCK_ROWS);
                row.iter_mut().zip(from).for_each(|(v, from)| *v = *from);
                let places = out[BLOCK_ROWS + lane..].iter_mut().step_by(BLOCK_ROWS);
                places
                    .zip(filter.run(&row))
                    .for_each(|(place, v)| *place = weight(number) * *v);
            }
        });
        filtered.unmap()?;
        for (number, angle_deg) in angles_deg.iter().enumerate() {
            self.waits(*angle_deg, weight(number), 1);
        }
        if self.waiting == BATCH_ANGLES {
            self.accumulate(queue, None)
        } else {
            Ok(())
        }
    }
}
