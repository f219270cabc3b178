//! Iterative reconstruction on request, where projections are few or noisy: SIRT (Gilbert 1972, J. Theor. Biol. 36, 105)
//! and CGLS (Hestenes & Stiefel 1952, on the normal equations), with a projector and its exact transpose on the device.
//!
//! 16 slices at a time in the layout of slabs, single precision: CGLS' conjugate directions lose each other after five or
//! so iterations, so that two programs then differ by a per cent where both still improve. SIRT's residual, weighted by one over each ray's length, and CGLS' residual
//! never grow; both are told for every iteration.

pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};

const SOURCE: &str = include_str!("iterative.cl");
/// Slices that lie side by side.
const LANES: usize = 16;

/// Which iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iteration {
    /// slow and smooth
    Sirt {
        /// whether values below zero are set to zero after every iteration
        nonnegative: bool,
    },
    /// fast; noise comes back when it goes on for long
    Cgls,
}

/// What all slabs of a volume have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct IterativeConfig {
    /// detector columns; slices have as many each way
    pub columns: usize,
    /// column of the rotation axis, pixels from the centre of column 0
    pub rotation_axis_px: f64,
    /// angle of each projection
    pub angles_deg: Vec<f64>,
    /// which iteration
    pub iteration: Iteration,
    /// how many of them
    pub iterations: usize,
}

impl IterativeConfig {
    /// Bytes of device memory that a slab takes.
    pub fn bytes_needed(&self) -> usize {
        let (pixels, rays) = (self.columns * self.columns, self.columns * self.angles_deg.len());
        let cgls = if self.iteration == Iteration::Cgls { 1 } else { 0 };
        // images and direction, gradient; measured and residual, seen; weights of one slice
        let values = (1 + 2 * cgls) * pixels * LANES + (2 + cgls) * rays * LANES + pixels + rays;
        values * size_of::<f32>()
    }
}

/// The operation; see the module.
pub struct Iterative {
    config: IterativeConfig,
    project: Kernel,
    spread: Kernel,
    combine: Kernel,
    squares: Kernel,
    cosines: Buffer<f32>,
    sines: Buffer<f32>,
    ray_weights: Buffer<f32>,
    ray_lengths: Buffer<f32>,
    pixel_weights: Buffer<f32>,
    image: Buffer<f32>,
    measured: Buffer<f32>,
    residual: Buffer<f32>,
    direction: Option<Buffer<f32>>,
    gradient: Option<Buffer<f32>>,
    seen: Option<Buffer<f32>>,
    factors: Buffer<f32>,
    sums: Buffer<f32>,
    local: [usize; 3],
}

impl Iterative {
    /// Prepares; everything is allocated here.
    pub fn new(accelerator: &Accelerator, queue: &Queue, config: &IterativeConfig) -> Result<Self, AcceleratorError> {
        let value = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
        let (columns, angles) = (config.columns, config.angles_deg.len());
        if !(2..=1 << 14).contains(&columns) || !(1..=1 << 16).contains(&angles) {
            return value(
                "sinogram",
                format!("{angles}x{columns}"),
                "1 to 65536 angles, 2 to 16384 columns",
            );
        }
        if !config.rotation_axis_px.is_finite() {
            return value(
                "rotation_axis_px",
                config.rotation_axis_px.to_string(),
                "a number of pixels",
            );
        }
        let cpu = accelerator.info().kind == DeviceKind::Cpu;
        let program = accelerator.program("iterative", SOURCE, "-cl-std=CL1.2 -cl-mad-enable")?;
        let (pixels, rays) = (columns * columns, columns * angles);
        let buffer = |count: usize| accelerator.buffer::<f32>(count);
        let cgls = config.iteration == Iteration::Cgls;
        let only = |count: usize| if cgls { buffer(count).map(Some) } else { Ok(None) };
        let mut iterative = Self {
            project: program.kernel("project")?,
            spread: program.kernel("spread")?,
            combine: program.kernel("combine")?,
            squares: program.kernel("squares")?,
            cosines: buffer(angles)?,
            sines: buffer(angles)?,
            ray_weights: buffer(rays)?,
            ray_lengths: buffer(rays)?,
            pixel_weights: buffer(pixels)?,
            image: buffer(pixels * LANES)?,
            measured: buffer(rays * LANES)?,
            residual: buffer(rays * LANES)?,
            direction: only(pixels * LANES)?,
            gradient: only(pixels * LANES)?,
            seen: only(rays * LANES)?,
            factors: buffer(2 * LANES)?,
            sums: buffer(columns.max(angles) * LANES)?,
            local: if cpu { [1, 1, 1] } else { [16, 4, 1] },
            config: config.clone(),
        };
        iterative.weigh(queue)?;
        Ok(iterative)
    }

    /// Weights from the lengths of rays and what pixels give: the projector's own answer to ones.
    fn weigh(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        let (cosines, sines): (Vec<f32>, Vec<f32>) = self
            .config
            .angles_deg
            .iter()
            .map(|angle| angle.to_radians().sin_cos())
            .map(|(sin, cos)| (cos as f32, sin as f32))
            .unzip();
        queue.write(&self.cosines, 0, &cosines)?;
        queue.write(&self.sines, 0, &sines)?;
        let inverse = |sums: &[f32]| -> Vec<f32> {
            let first = sums.iter().step_by(LANES);
            first.map(|sum| if *sum > 1e-6 { 1.0 / sum } else { 0.0 }).collect()
        };
        fill(queue, &mut self.image, 1.0)?;
        self.project(queue, 0, None)?;
        let rays = self.residual.len();
        let sums = queue.map(&mut self.residual, 0, rays)?;
        let lengths: Vec<f32> = sums.iter().step_by(LANES).copied().collect();
        let weights = inverse(&sums);
        sums.unmap()?;
        queue.write(&self.ray_lengths, 0, &lengths)?;
        queue.write(&self.ray_weights, 0, &weights)?;
        fill(queue, &mut self.residual, 1.0)?;
        self.spread(queue, 0)?;
        let pixels = self.image.len();
        let sums = queue.map(&mut self.image, 0, pixels)?;
        let weights = inverse(&sums);
        sums.unmap()?;
        queue.write(&self.pixel_weights, 0, &weights)
    }

    /// Values of a slab's sinograms, `[angle][column][16 rows]`.
    pub fn sinogram_len(&self) -> usize {
        self.measured.len()
    }

    /// Values of a slab's slices, `[16 slices][y][x]`.
    pub fn slices_len(&self) -> usize {
        self.image.len()
    }

    /// Reconstructs 16 slices from their line integrals, `[angle][column][16 rows]`, into `[16 slices][y][x]`; answers the
    /// norm of the residual before every iteration and after the last, all slices together. `progress` hears the number of
    /// every iteration that is done and says whether to go on.
    pub fn run(
        &mut self,
        queue: &Queue,
        sinograms: &[f32],
        slices: &mut [f32],
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Vec<f64>, AcceleratorError> {
        AcceleratorError::expect_len("the sinograms' number of values", sinograms.len(), self.sinogram_len())?;
        AcceleratorError::expect_len("the slices' number of values", slices.len(), self.slices_len())?;
        queue.write(&self.measured, 0, sinograms)?;
        queue.clear(&self.image)?;
        let norms = match self.config.iteration {
            Iteration::Sirt { nonnegative } => self.sirt(queue, nonnegative, &mut progress)?,
            Iteration::Cgls => self.cgls(queue, sinograms, &mut progress)?,
        };
        let pixels = self.config.columns * self.config.columns;
        let image = queue.map(&mut self.image, 0, pixels * LANES)?;
        for (lane, slice) in slices.chunks_exact_mut(pixels).enumerate() {
            let from = image[lane..].iter().step_by(LANES);
            slice.iter_mut().zip(from).for_each(|(out, v)| *out = *v);
        }
        image.unmap()?;
        Ok(norms)
    }

    fn sirt(
        &mut self,
        queue: &Queue,
        nonnegative: bool,
        progress: &mut impl FnMut(usize) -> bool,
    ) -> Result<Vec<f64>, AcceleratorError> {
        let mut norms = Vec::with_capacity(self.config.iterations + 1);
        for iteration in 1..=self.config.iterations {
            self.project(queue, 1, None)?;
            norms.push(self.squares(queue, Values::Residual, true)?.iter().sum::<f64>().sqrt());
            self.spread(queue, if nonnegative { 2 } else { 1 })?;
            queue.finish()?;
            if !progress(iteration) {
                break;
            }
        }
        self.project(queue, 1, None)?;
        norms.push(self.squares(queue, Values::Residual, true)?.iter().sum::<f64>().sqrt());
        Ok(norms)
    }

    fn cgls(
        &mut self,
        queue: &Queue,
        sinograms: &[f32],
        progress: &mut impl FnMut(usize) -> bool,
    ) -> Result<Vec<f64>, AcceleratorError> {
        queue.write(&self.residual, 0, sinograms)?;
        if let Some(direction) = &self.direction {
            queue.clear(direction)?; // it is multiplied by zero, which is no number where it holds none
        }
        self.gradient(queue)?;
        self.combine(queue, Pair::DirectionGradient, &[0.0; LANES], &[1.0; LANES])?;
        let mut gamma = self.squares(queue, Values::Gradient, false)?;
        let mut norms = vec![self.squares(queue, Values::Residual, false)?.iter().sum::<f64>().sqrt()];
        for iteration in 1..=self.config.iterations {
            self.project(queue, 0, Some(()))?;
            let seen = self.squares(queue, Values::Seen, false)?;
            let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
            let alpha: [f32; LANES] = std::array::from_fn(|lane| ratio(gamma[lane], seen[lane]) as f32);
            self.combine(queue, Pair::ImageDirection, &[1.0; LANES], &alpha)?;
            self.combine(queue, Pair::ResidualSeen, &[1.0; LANES], &alpha.map(|a| -a))?;
            norms.push(self.squares(queue, Values::Residual, false)?.iter().sum::<f64>().sqrt());
            self.gradient(queue)?;
            let next = self.squares(queue, Values::Gradient, false)?;
            let beta: [f32; LANES] = std::array::from_fn(|lane| ratio(next[lane], gamma[lane]) as f32);
            self.combine(queue, Pair::DirectionGradient, &beta, &[1.0; LANES])?;
            gamma = next;
            if !progress(iteration) {
                break;
            }
        }
        Ok(norms)
    }

    /// `mode` as in the kernel; of the direction into what it is seen as where `direction` is given, else of the image into
    /// the residual.
    fn project(&mut self, queue: &Queue, mode: u32, direction: Option<()>) -> Result<(), AcceleratorError> {
        let (from, to) = match (direction, &self.direction, &self.seen) {
            (Some(()), Some(direction), Some(seen)) => (direction, seen),
            _ => (&self.image, &self.residual),
        };
        let (columns, angles) = (self.config.columns, self.config.angles_deg.len());
        let arguments = [
            from.into(),
            (&self.cosines).into(),
            (&self.sines).into(),
            Arg::F32(self.config.rotation_axis_px as f32),
            Arg::U32(columns as u32),
            Arg::U32(angles as u32),
            Arg::U32(mode),
            (&self.ray_weights).into(),
            (&self.measured).into(),
            to.into(),
        ];
        let size = [
            columns.next_multiple_of(self.local[0]),
            angles.next_multiple_of(self.local[1]),
            1,
        ];
        queue.launch(&mut self.project, &arguments, size, self.local)
    }

    /// Of the residual into the image, `mode` as in the kernel.
    fn spread(&mut self, queue: &Queue, mode: u32) -> Result<(), AcceleratorError> {
        Self::transpose(
            queue,
            &mut self.spread,
            &self.config,
            mode,
            self.local,
            [
                &self.residual,
                &self.cosines,
                &self.sines,
                &self.pixel_weights,
                &self.image,
            ],
        )
    }

    /// Of the residual into the gradient.
    fn gradient(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        let gradient = self.gradient.as_ref().unwrap_or(&self.image);
        Self::transpose(
            queue,
            &mut self.spread,
            &self.config,
            0,
            self.local,
            [
                &self.residual,
                &self.cosines,
                &self.sines,
                &self.pixel_weights,
                gradient,
            ],
        )
    }

    fn transpose(
        queue: &Queue,
        kernel: &mut Kernel,
        config: &IterativeConfig,
        mode: u32,
        local: [usize; 3],
        [rays, cosines, sines, weights, image]: [&Buffer<f32>; 5],
    ) -> Result<(), AcceleratorError> {
        let columns = config.columns;
        let arguments = [
            rays.into(),
            cosines.into(),
            sines.into(),
            Arg::F32(config.rotation_axis_px as f32),
            Arg::U32(columns as u32),
            Arg::U32(config.angles_deg.len() as u32),
            Arg::U32(mode),
            weights.into(),
            image.into(),
        ];
        let size = [
            columns.next_multiple_of(local[0]),
            columns.next_multiple_of(local[1]),
            1,
        ];
        queue.launch(kernel, &arguments, size, local)
    }

    fn combine(
        &mut self,
        queue: &Queue,
        pair: Pair,
        a: &[f32; LANES],
        b: &[f32; LANES],
    ) -> Result<(), AcceleratorError> {
        let (direction, gradient, seen) = (self.direction.as_ref(), self.gradient.as_ref(), self.seen.as_ref());
        let (Some(direction), Some(gradient), Some(seen)) = (direction, gradient, seen) else {
            return Ok(()); // only CGLS combines, and it has them
        };
        let (to, from) = match pair {
            Pair::DirectionGradient => (direction, gradient),
            Pair::ImageDirection => (&self.image, direction),
            Pair::ResidualSeen => (&self.residual, seen),
        };
        queue.write(&self.factors, 0, a)?;
        queue.write(&self.factors, LANES, b)?;
        let count = to.len() / LANES;
        let local = [self.local[0] * self.local[1], 1, 1];
        let arguments = [to.into(), from.into(), (&self.factors).into(), Arg::U32(count as u32)];
        queue.launch(
            &mut self.combine,
            &arguments,
            [count.next_multiple_of(local[0]), 1, 1],
            local,
        )?;
        // The factors may not be written again before they were read.
        queue.finish()
    }

    fn squares(&mut self, queue: &Queue, values: Values, weighted: bool) -> Result<[f64; LANES], AcceleratorError> {
        let values = match values {
            Values::Residual => Some(&self.residual),
            Values::Gradient => self.gradient.as_ref(),
            Values::Seen => self.seen.as_ref(),
        };
        let Some(values) = values else {
            return Ok([0.0; LANES]); // only CGLS asks for these, and it has them
        };
        let width = self.config.columns;
        let lines = values.len() / LANES / width;
        let local = [self.local[0] * self.local[1], 1, 1];
        let arguments = [
            values.into(),
            (&self.ray_lengths).into(),
            Arg::U32(u32::from(weighted)),
            Arg::U32(width as u32),
            Arg::U32(lines as u32),
            (&self.sums).into(),
        ];
        queue.launch(
            &mut self.squares,
            &arguments,
            [lines.next_multiple_of(local[0]), 1, 1],
            local,
        )?;
        let mut totals = [0.0; LANES];
        let sums = queue.map(&mut self.sums, 0, lines * LANES)?;
        for (place, sum) in sums.iter().enumerate() {
            totals[place % LANES] += f64::from(*sum);
        }
        sums.unmap()?;
        Ok(totals)
    }
}

/// What is combined into what.
enum Pair {
    DirectionGradient,
    ImageDirection,
    ResidualSeen,
}

/// Whose squares are summed.
enum Values {
    Residual,
    Gradient,
    Seen,
}

fn fill(queue: &Queue, buffer: &mut Buffer<f32>, value: f32) -> Result<(), AcceleratorError> {
    let count = buffer.len();
    let mut values = queue.map(buffer, 0, count)?;
    values.fill(value);
    values.unmap()
}

#[cfg(test)]
mod tests;
