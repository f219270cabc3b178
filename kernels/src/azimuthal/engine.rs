//! Azimuthal integration in every mode: picks the kernels that do a configuration best.

use super::lookup::{self, Fields, usable};
use super::matrix::Matrix;
use super::rows::Rows;
use super::spread::Spread;
use super::{AzimuthalConfig, AzimuthalIntegrator};
use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::Queue;
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};

enum Kind {
    /// 1-D without splitting
    Histogram(Box<AzimuthalIntegrator>),
    /// what is faster in the pixels' own order
    Spread(Box<Spread>),
    /// everything else
    Rows(Box<Rows>),
}

/// The operation; see the module.
pub struct AzimuthalEngine {
    kind: Kind,
    radial: Vec<f64>,
    edges: Vec<f64>,
    azimuthal: Option<Vec<f64>>,
    unit: String,
    outputs: usize,
}

impl AzimuthalEngine {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &AzimuthalConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<Self, AcceleratorError> {
        let (unit, outputs) = (config.geometry.unit.clone(), config.outputs());
        if config.is_histogram() {
            super::matrix::check(config, shape.pixels())?;
            let integrator = AzimuthalIntegrator::new(accelerator, config, shape, pixel_type, mask, batch_limit)?;
            return Ok(Self {
                radial: integrator.radial().to_vec(),
                edges: integrator.edges().to_vec(),
                azimuthal: None,
                kind: Kind::Histogram(Box::new(integrator)),
                unit,
                outputs,
            });
        }
        lookup::check(config, shape, mask)?;
        let fields = Fields::new(config, shape.pixels());
        let matrix = Matrix::new(config, mask, |pixel| usable(fields.norm[pixel], fields.dark[pixel]))?;
        let spread = Spread::new(accelerator, config, &fields, &matrix, shape, pixel_type, batch_limit)?;
        let kind = match spread {
            Some(spread) => Kind::Spread(Box::new(spread)),
            None => Kind::Rows(Box::new(Rows::new(
                accelerator,
                config,
                &fields,
                &matrix,
                pixel_type,
                batch_limit,
            )?)),
        };
        Ok(Self {
            radial: matrix.radial.centers(),
            edges: matrix.radial.edges(),
            azimuthal: matrix.azimuthal.map(|bins| bins.centers()),
            kind,
            unit,
            outputs,
        })
    }

    /// Centres of the radial bins in [`AzimuthalEngine::unit`].
    pub fn radial(&self) -> &[f64] {
        &self.radial
    }

    /// Edges between radial bins, one more than bins, in the same unit.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Centres of the azimuthal bins of a 2-D integration, degrees.
    pub fn azimuthal(&self) -> Option<&[f64]> {
        self.azimuthal.as_deref()
    }

    /// Name of the radial unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Number of values of an output: radial bins, times azimuthal ones; the radius runs fastest.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Integrates a batch and hands each frame's intensity, sigma and count to `put`, in the batch's order; allocates
    /// nothing.
    pub fn integrate_with(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        put: impl FnMut(usize, &[f32], &[f32], &[f32]),
    ) -> Result<(), AcceleratorError> {
        match &mut self.kind {
            Kind::Histogram(integrator) => integrator.integrate_with(queue, batch, put),
            Kind::Spread(spread) => spread.integrate_with(queue, batch, put),
            Kind::Rows(rows) => rows.integrate_with(queue, batch, put),
        }
    }
}
