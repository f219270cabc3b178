//! Parallel-beam filtered back-projection, projection by projection (Kak & Slaney, Principles of Computerized
//! Tomographic Imaging, 1988, chapter 3): a slice is `π / (2 n)` times the sum of `n` filtered projections smeared
//! back along their rays, so every batch of projections sharpens it.
//!
//! A point `(x, y)`, in pixels from the rotation axis, is seen at column `u = x cos θ + y sin θ + axis`. In a slice
//! `x` grows along the rows of the picture and `y` down them. Points beyond the detector add nothing.
//!
//! Projections are filtered on the host (see [`filter`]) into a layout of 16 detector rows side by side and taken by
//! the device 16 angles at a time. The same projections in the same order give the same bits, whatever the batches
//! they came in.

mod arrangement;
pub mod filter;
pub mod reference;
mod slabs;
mod window;

pub use arrangement::{Arrangement, STRIPE_COLUMNS_MAX};
pub use filter::Filter;
pub use slabs::{SlabConfig, SlabReconstructor};
pub use window::SlidingWindow;

use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::correction::CorrectedBatch;
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::parallel::share;
use filter::RowFilter;

const SOURCE: &str = include_str!("backprojector.cl");

/// Rows that lie side by side.
pub const BLOCK_ROWS: usize = 16;
/// Angles that the device takes at once.
pub const BATCH_ANGLES: usize = 16;
/// Columns of zeros around a filtered row: one before, two behind.
const GUARD_COLUMNS: usize = 3;
/// Points whose sums are parted at once: as much as a core's own cache holds.
const PART_POINTS: usize = 1024;

/// A plane of the volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plane {
    /// across the axis at a detector row: `columns`×`columns`, x along the picture's rows, y down them
    Horizontal {
        /// detector row
        row: usize,
    },
    /// all 16 horizontal planes of a block of detector rows, one after the other: no more work than one of them
    Slab {
        /// number of the block: rows `16 block` to `16 block + 15`
        block: usize,
    },
    /// along the axis: `rows`×`columns`, x along the picture's rows
    VerticalXz {
        /// distance from the axis, pixels
        y_px: f64,
    },
    /// along the axis: `rows`×`columns`, y along the picture's rows
    VerticalYz {
        /// distance from the axis, pixels
        x_px: f64,
    },
    /// anyhow: `nj`×`ni` points at `origin + i · along_i + j · along_j`, each `[x, y, z]` in pixels, x and y from the axis, z
    /// the detector row
    Oblique {
        /// the first point
        origin_px: [f64; 3],
        /// from one point to the next along the picture's rows
        along_i_px: [f64; 3],
        /// from one row of the picture to the next
        along_j_px: [f64; 3],
        /// points of a row of the picture
        ni: usize,
        /// rows of the picture
        nj: usize,
    },
}

/// What to reconstruct.
#[derive(Clone, Debug, PartialEq)]
pub struct BackprojectorConfig {
    /// detector rows
    pub rows: usize,
    /// detector columns
    pub columns: usize,
    /// column of the rotation axis, pixels from the centre of column 0
    pub rotation_axis_px: f64,
    /// window on the ramp
    pub filter: Filter,
    /// planes
    pub planes: Vec<Plane>,
}

/// Points of a plane on the device.
struct Grid {
    plane: Plane,
    /// x0, x per i, x per j, y0, y per i, y per j
    points: [f32; 6],
    /// z0, z per i, z per j
    heights: [f32; 3],
    ni: usize,
    nj: usize,
    first_block: usize,
    blocks: usize,
    lane: usize,
    sums: Buffer<f32>,
    /// projections that it rests on, and the sum of their weights
    used: (i64, f64),
}

/// The operation; see the module.
pub struct Backprojector {
    config: BackprojectorConfig,
    one_row: Kernel,
    whole_block: Kernel,
    oblique: Kernel,
    filter: RowFilter,
    blocks: usize,
    filtered: Buffer<f32>,
    cosines: Buffer<f32>,
    sines: Buffer<f32>,
    trigonometry: [[f32; BATCH_ANGLES]; 2],
    waiting: usize,
    /// projections among those that wait: added less taken away, and the sum of their weights
    waiting_used: (i64, f64),
    used: (i64, f64),
    grids: Vec<Grid>,
    /// whether the device has failed while it changed the sums
    damaged: bool,
    tile: usize,
    local: [usize; 3],
}

impl Backprojector {
    /// Prepares; everything is allocated here.
    pub fn new(accelerator: &Accelerator, config: &BackprojectorConfig) -> Result<Self, AcceleratorError> {
        let value = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
        if config.columns < 2 || config.rows < 1 || config.columns > 1 << 15 || config.rows > 1 << 15 {
            let shape = format!("{}x{}", config.rows, config.columns);
            return value("detector", shape, "1 to 32768 rows and 2 to 32768 columns");
        }
        if !config.rotation_axis_px.is_finite() {
            return value(
                "rotation_axis_px",
                config.rotation_axis_px.to_string(),
                "a number of pixels",
            );
        }
        let cpu = accelerator.info().kind == DeviceKind::Cpu;
        let (tile, local) = if cpu { (8, [1, 1, 1]) } else { (1, [16, 4, 1]) };
        let kernel = |lanes: usize, name| {
            let options = format!("-cl-std=CL1.2 -cl-mad-enable -DTILE={tile} -DLANES={lanes}");
            accelerator.program("backprojector", SOURCE, &options)?.kernel(name)
        };
        let blocks = config.rows.div_ceil(BLOCK_ROWS);
        let grids = config
            .planes
            .iter()
            .map(|plane| grid(accelerator, config, *plane))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            one_row: kernel(1, "backprojector")?,
            whole_block: kernel(BLOCK_ROWS, "backprojector")?,
            oblique: kernel(1, "backprojector_oblique")?,
            filter: RowFilter::new(config.filter, config.columns),
            filtered: accelerator.buffer(BATCH_ANGLES * blocks * block_values(config.columns))?,
            cosines: accelerator.buffer(BATCH_ANGLES)?,
            sines: accelerator.buffer(BATCH_ANGLES)?,
            trigonometry: [[0.0; BATCH_ANGLES]; 2],
            waiting: 0,
            waiting_used: (0, 0.0),
            used: (0, 0.0),
            blocks,
            grids,
            damaged: false,
            tile,
            local,
            config: config.clone(),
        })
    }

    /// Bytes of device memory in use.
    pub fn device_bytes(&self) -> usize {
        let sums: usize = self.grids.iter().map(|grid| grid.sums.len()).sum();
        (self.filtered.len() + sums + 2 * BATCH_ANGLES) * size_of::<f32>()
    }

    /// Projections that the planes rest on so far; one taken away again does not count.
    pub fn angles_used(&self) -> u64 {
        self.used.0.max(0) as u64
    }

    /// Takes corrected projections in order; `angles_deg` has one angle each.
    pub fn push(
        &mut self,
        queue: &Queue,
        projections: &mut CorrectedBatch,
        angles_deg: &[f64],
    ) -> Result<(), AcceleratorError> {
        let pixels = self.config.rows * self.config.columns;
        AcceleratorError::expect_len("a projection's number of pixels", projections.shape().pixels(), pixels)?;
        AcceleratorError::expect_len("the number of angles", angles_deg.len(), projections.frames())?;
        let values = projections.map(queue)?;
        let pushed = values
            .chunks_exact(pixels)
            .zip(angles_deg)
            .try_for_each(|(projection, angle_deg)| self.push_values(queue, projection, *angle_deg));
        values.unmap()?;
        pushed
    }

    /// Takes one corrected projection, `rows`×`columns` values.
    pub fn push_values(&mut self, queue: &Queue, projection: &[f32], angle_deg: f64) -> Result<(), AcceleratorError> {
        self.push_weighted(queue, projection, angle_deg, 1.0)
    }

    /// The same with a weight: a projection beside a lost one stands for more than its own step of angle, and one that
    /// was taken with weight 1 is taken away again with weight -1. A slice is divided by the sum of all weights.
    pub fn push_weighted(
        &mut self,
        queue: &Queue,
        projection: &[f32],
        angle_deg: f64,
        weight: f32,
    ) -> Result<(), AcceleratorError> {
        let count = i64::from(weight > 0.0) - i64::from(weight < 0.0);
        self.push_counted(queue, projection, angle_deg, weight, count, None)
    }

    /// The same for many planes that are nobody's hurry: before each of them the device is waited for and `between` called, so
    /// that others may go first.
    pub fn push_between(
        &mut self,
        queue: &Queue,
        projection: &[f32],
        angle_deg: f64,
        weight: f32,
        between: &dyn Fn(),
    ) -> Result<(), AcceleratorError> {
        self.push_counted(queue, projection, angle_deg, weight, 1, Some(between))
    }

    /// Changes the weight of a projection that was taken before by so much: it does not count once more.
    pub fn push_again(
        &mut self,
        queue: &Queue,
        projection: &[f32],
        angle_deg: f64,
        weight: f32,
    ) -> Result<(), AcceleratorError> {
        self.push_counted(queue, projection, angle_deg, weight, 0, None)
    }

    fn push_counted(
        &mut self,
        queue: &Queue,
        projection: &[f32],
        angle_deg: f64,
        weight: f32,
        count: i64,
        between: Option<&dyn Fn()>,
    ) -> Result<(), AcceleratorError> {
        let pixels = self.config.rows * self.config.columns;
        AcceleratorError::expect_len("a projection's number of pixels", projection.len(), pixels)?;
        let taken = self.filter(queue, projection, weight).and_then(|()| {
            self.waits(angle_deg, weight, count);
            match self.waiting == BATCH_ANGLES {
                true => self.accumulate(queue, between),
                false => Ok(()),
            }
        });
        self.damaged |= taken.is_err();
        taken
    }

    /// Filters a projection into the next place of the batch.
    fn filter(&mut self, queue: &Queue, projection: &[f32], weight: f32) -> Result<(), AcceleratorError> {
        let columns = self.config.columns;
        let values = self.blocks * block_values(columns);
        let mut filtered = queue.map(&mut self.filtered, self.waiting * values, values)?;
        for (row, pixels) in projection.chunks_exact(columns).enumerate() {
            let start = row / BLOCK_ROWS * block_values(columns) + BLOCK_ROWS + row % BLOCK_ROWS;
            let places = filtered[start..].iter_mut().step_by(BLOCK_ROWS);
            for (place, value) in places.zip(self.filter.run(pixels)) {
                *place = weight * *value;
            }
        }
        filtered.unmap()
    }

    /// Notes a filtered projection that waits for a full batch.
    fn waits(&mut self, angle_deg: f64, weight: f32, count: i64) {
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        self.trigonometry[0][self.waiting] = cos as f32;
        self.trigonometry[1][self.waiting] = sin as f32;
        self.waiting += 1;
        self.waiting_used = (self.waiting_used.0 + count, self.waiting_used.1 + f64::from(weight));
    }

    /// Takes the projections that still wait for a full batch: at the end of a scan.
    pub fn flush(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        self.flush_by(queue, None)
    }

    /// The same, as [`Self::push_between`] takes them.
    pub fn flush_between(&mut self, queue: &Queue, between: &dyn Fn()) -> Result<(), AcceleratorError> {
        self.flush_by(queue, Some(between))
    }

    fn flush_by(&mut self, queue: &Queue, between: Option<&dyn Fn()>) -> Result<(), AcceleratorError> {
        if self.waiting == 0 {
            return Ok(());
        }
        let values = self.blocks * block_values(self.config.columns);
        let rest = BATCH_ANGLES - self.waiting;
        let mut filtered = queue.map(&mut self.filtered, self.waiting * values, rest * values)?;
        filtered.fill(0.0);
        filtered.unmap()?;
        let taken = self.accumulate(queue, between);
        self.damaged |= taken.is_err();
        taken
    }

    /// Takes the waiting projections into every plane. Where that fails they are lost, and the planes are no more what they were.
    fn accumulate(&mut self, queue: &Queue, between: Option<&dyn Fn()>) -> Result<(), AcceleratorError> {
        let smeared = self.smear(queue, between);
        let (count, weight) = std::mem::take(&mut self.waiting_used);
        self.waiting = 0;
        smeared?;
        self.used = (self.used.0 + count, self.used.1 + weight);
        for grid in &mut self.grids {
            grid.used = (grid.used.0 + count, grid.used.1 + weight);
        }
        Ok(())
    }

    /// Whether the device has failed while it changed the planes: they are to be [`reset`](Self::reset).
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Smears the waiting projections back over every plane.
    fn smear(&mut self, queue: &Queue, between: Option<&dyn Fn()>) -> Result<(), AcceleratorError> {
        queue.write(&self.cosines, 0, &self.trigonometry[0])?;
        queue.write(&self.sines, 0, &self.trigonometry[1])?;
        let global = |points: usize, local: usize| points.div_ceil(self.tile).next_multiple_of(local);
        let (columns, blocks) = (self.config.columns as u32, self.blocks as u32);
        for grid in &self.grids {
            if let Some(between) = between {
                queue.finish()?;
                between();
            }
            let axis = Arg::F32(self.config.rotation_axis_px as f32);
            let (ni, nj) = (Arg::U32(grid.ni as u32), Arg::U32(grid.nj as u32));
            let [x0, xi, xj, y0, yi, yj] = grid.points.map(Arg::F32);
            let [z0, zi, zj] = grid.heights.map(Arg::F32);
            let (p, c, s) = ((&self.filtered).into(), (&self.cosines).into(), (&self.sines).into());
            let size = [
                global(grid.ni, self.local[0]),
                global(grid.nj, self.local[1]),
                grid.blocks,
            ];
            let (columns, blocks, sums) = (Arg::U32(columns), Arg::U32(blocks), (&grid.sums).into());
            if let Plane::Oblique { .. } = grid.plane {
                let rows = Arg::U32(self.config.rows as u32);
                let arguments = [
                    p, c, s, x0, xi, xj, y0, yi, yj, z0, zi, zj, ni, nj, axis, columns, blocks, rows, sums,
                ];
                queue.launch(&mut self.oblique, &arguments, size, self.local)?;
                continue;
            }
            let (first, lane) = (Arg::U32(grid.first_block as u32), Arg::U32(grid.lane as u32));
            let arguments = [
                p, c, s, x0, xi, xj, y0, yi, yj, ni, nj, axis, columns, blocks, first, lane, sums,
            ];
            let kernel = match grid.plane {
                Plane::Horizontal { .. } => &mut self.one_row,
                _ => &mut self.whole_block,
            };
            queue.launch(kernel, &arguments, size, self.local)?;
        }
        queue.finish()
    }

    /// Copies a plane as it is after the batches so far; `out` has the plane's number of points.
    pub fn snapshot(&mut self, queue: &Queue, plane: usize, out: &mut [f32]) -> Result<(), AcceleratorError> {
        self.snapshot_by(queue, plane, out, 1)
    }

    /// The same; so many threads copy a slab.
    pub fn snapshot_by(
        &mut self,
        queue: &Queue,
        plane: usize,
        out: &mut [f32],
        threads: usize,
    ) -> Result<(), AcceleratorError> {
        let (rows, columns, planes) = (self.config.rows, self.config.columns, self.grids.len());
        let outside = AcceleratorError::OutOfRange {
            what: "list of planes",
            offset: plane,
            count: 1,
            len: planes,
        };
        let grid = self.grids.get_mut(plane).ok_or(outside)?;
        let (used, weight) = grid.used;
        // What was added and taken away again leaves rounding only.
        let scale = if used <= 0 || weight <= 0.0 {
            0.0
        } else {
            std::f64::consts::PI / (2.0 * weight)
        } as f32;
        let count = grid.sums.len();
        let (plane, ni) = (grid.plane, grid.ni);
        let sums = queue.map(&mut grid.sums, 0, count)?;
        match plane {
            Plane::Horizontal { .. } | Plane::Oblique { .. } => {
                AcceleratorError::expect_len("the output's number of points", out.len(), count)?;
                out.iter_mut()
                    .zip(sums.iter())
                    .for_each(|(out, sum)| *out = sum * scale);
            }
            Plane::Slab { .. } => {
                AcceleratorError::expect_len("the output's number of points", out.len(), count)?;
                part(&sums, out, scale, threads);
            }
            Plane::VerticalXz { .. } | Plane::VerticalYz { .. } => {
                AcceleratorError::expect_len("the output's number of points", out.len(), rows * columns)?;
                for (row, out) in out.chunks_exact_mut(ni).enumerate() {
                    let start = row / BLOCK_ROWS * ni * BLOCK_ROWS + row % BLOCK_ROWS;
                    let lane = sums[start..].iter().step_by(BLOCK_ROWS);
                    out.iter_mut().zip(lane).for_each(|(out, sum)| *out = sum * scale);
                }
            }
        }
        sums.unmap()
    }

    /// Forgets every projection.
    pub fn reset(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        self.waiting = 0;
        self.waiting_used = (0, 0.0);
        self.used = (0, 0.0);
        self.clear(queue)?;
        self.damaged = false;
        Ok(())
    }

    /// Projections that plane `plane` rests on so far: fewer than the others after it has moved.
    pub fn plane_used(&self, plane: usize) -> u64 {
        self.grids.get(plane).map_or(0, |grid| grid.used.0.max(0) as u64)
    }

    /// Moves the rotation axis: every plane begins again with the projections that come.
    pub fn set_rotation_axis(&mut self, queue: &Queue, rotation_axis_px: f64) -> Result<(), AcceleratorError> {
        if !rotation_axis_px.is_finite() {
            return Err(AcceleratorError::Value {
                name: "rotation_axis_px",
                value: rotation_axis_px.to_string(),
                allowed: "a number of pixels",
            });
        }
        self.config.rotation_axis_px = rotation_axis_px;
        self.clear(queue)
    }

    /// Puts another plane of the same kind and size in the place of plane `index`, which begins again with the projections that
    /// come. Allocates nothing.
    pub fn set_plane(&mut self, queue: &Queue, index: usize, plane: Plane) -> Result<(), AcceleratorError> {
        let planes = self.grids.len();
        let place = place(&self.config, plane)?;
        let grid = self.grids.get_mut(index).ok_or(AcceleratorError::OutOfRange {
            what: "list of planes",
            offset: index,
            count: 1,
            len: planes,
        })?;
        let same = std::mem::discriminant(&grid.plane) == std::mem::discriminant(&plane);
        if !same || (grid.ni, grid.nj) != (place.ni, place.nj) {
            return Err(AcceleratorError::Mismatch {
                what: "the plane",
                found: format!("{plane:?}"),
                expected: format!("one of the same kind and size as {:?}", grid.plane),
            });
        }
        (grid.plane, grid.points, grid.heights) = (plane, place.points, place.heights);
        (grid.first_block, grid.lane) = (place.first_block, place.lane);
        grid.used = (0, 0.0);
        queue.clear(&grid.sums)?;
        queue.finish()
    }

    /// Empties every plane.
    fn clear(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        for grid in &mut self.grids {
            grid.used = (0, 0.0);
            queue.clear(&grid.sums)?;
        }
        queue.finish()
    }
}

/// Writes sums whose 16 rows lie side by side as 16 planes, one after the other, each value multiplied: some points at a time,
/// so that their sums are read from memory once.
fn part(sums: &[f32], out: &mut [f32], scale: f32, threads: usize) {
    let points = sums.len() / BLOCK_ROWS;
    let lanes = BLOCK_ROWS.div_ceil(threads.max(1));
    let mut groups: Vec<&mut [f32]> = out.chunks_mut((lanes * points).max(1)).collect();
    share(&mut vec![(); groups.len()], &mut groups, |(), group, planes| {
        for first in (0..points).step_by(PART_POINTS) {
            let count = PART_POINTS.min(points - first);
            let sums = &sums[first * BLOCK_ROWS..][..count * BLOCK_ROWS];
            for (lane, plane) in planes.chunks_exact_mut(points).enumerate() {
                let lane = sums[group * lanes + lane..].iter().step_by(BLOCK_ROWS);
                let places = plane[first..first + count].iter_mut();
                places.zip(lane).for_each(|(out, sum)| *out = sum * scale);
            }
        }
    });
}

/// Values of one block of 16 rows at one angle.
fn block_values(columns: usize) -> usize {
    (columns + GUARD_COLUMNS) * BLOCK_ROWS
}

/// Where the points of a plane are.
struct Place {
    points: [f32; 6],
    heights: [f32; 3],
    ni: usize,
    nj: usize,
    first_block: usize,
    blocks: usize,
    lane: usize,
}

fn place(config: &BackprojectorConfig, plane: Plane) -> Result<Place, AcceleratorError> {
    let (columns, blocks) = (config.columns, config.rows.div_ceil(BLOCK_ROWS));
    let first = -((columns as f32 - 1.0) / 2.0);
    if let Plane::Oblique {
        origin_px,
        along_i_px,
        along_j_px,
        ni,
        nj,
    } = plane
    {
        return oblique([origin_px, along_i_px, along_j_px], ni, nj);
    }
    let (points, nj, first_block, blocks, lane) = match plane {
        Plane::Horizontal { row } => {
            if row >= config.rows {
                let len = config.rows;
                return Err(AcceleratorError::OutOfRange {
                    what: "detector",
                    offset: row,
                    count: 1,
                    len,
                });
            }
            (
                [first, 1.0, 0.0, first, 0.0, 1.0],
                columns,
                row / BLOCK_ROWS,
                1,
                row % BLOCK_ROWS,
            )
        }
        Plane::Slab { block } => {
            if block >= blocks {
                return Err(AcceleratorError::OutOfRange {
                    what: "blocks of rows",
                    offset: block,
                    count: 1,
                    len: blocks,
                });
            }
            ([first, 1.0, 0.0, first, 0.0, 1.0], columns, block, 1, BLOCK_ROWS)
        }
        Plane::VerticalXz { y_px } => ([first, 1.0, 0.0, y_px as f32, 0.0, 0.0], 1, 0, blocks, BLOCK_ROWS),
        Plane::VerticalYz { x_px } => ([x_px as f32, 0.0, 0.0, first, 1.0, 0.0], 1, 0, blocks, BLOCK_ROWS),
        // made above
        Plane::Oblique { .. } => ([0.0; 6], 0, 0, 0, 0),
    };
    Ok(Place {
        points,
        heights: [0.0; 3],
        ni: columns,
        nj,
        first_block,
        blocks,
        lane,
    })
}

fn grid(accelerator: &Accelerator, config: &BackprojectorConfig, plane: Plane) -> Result<Grid, AcceleratorError> {
    let place = place(config, plane)?;
    let lanes = if place.lane < BLOCK_ROWS { 1 } else { BLOCK_ROWS };
    Ok(Grid {
        plane,
        points: place.points,
        heights: place.heights,
        ni: place.ni,
        nj: place.nj,
        first_block: place.first_block,
        blocks: place.blocks,
        lane: place.lane,
        sums: accelerator.buffer(place.blocks * place.nj * place.ni * lanes)?,
        used: (0, 0.0),
    })
}

fn oblique(points: [[f64; 3]; 3], ni: usize, nj: usize) -> Result<Place, AcceleratorError> {
    let finite = points.iter().flatten().all(|value| value.is_finite());
    if ni < 1 || nj < 1 || ni > 1 << 15 || nj > 1 << 15 || !finite {
        return Err(AcceleratorError::Value {
            name: "oblique plane",
            value: format!("{nj}x{ni} points at {points:?}"),
            allowed: "1 to 32768 points each way at finite places",
        });
    }
    let along = |k: usize| points.map(|point| point[k] as f32);
    let ([x0, xi, xj], [y0, yi, yj]) = (along(0), along(1));
    Ok(Place {
        points: [x0, xi, xj, y0, yi, yj],
        heights: along(2),
        ni,
        nj,
        first_block: 0,
        blocks: 1,
        lane: 0,
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;
