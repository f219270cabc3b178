//! Statistics and curves on the host, without OpenCL: of compressed frames decoded and reduced at once where the device is
//! the host's own processor, and in a failing device's place. Bit for bit what the kernels give.

use super::super::{HostOperation, Leased, RecipeError, Setup, Snapshot};
use super::azimuthal::{AzimuthalPlan, CurvePlace};
use super::correct::Corrections;
use super::statistics::{StatisticsPlan, fill};
use frame::codec::CodecError;
use frame::{FrameResult, PixelType};
use kernels::{FusedConfig, FusedFrame, FusedReducer};
use std::sync::Arc;

/// The operation.
pub(super) struct Host {
    reducer: FusedReducer<Leased>,
    /// first result and number of regions
    statistics: Option<(usize, usize)>,
    curve: Option<CurvePlace>,
}

impl Host {
    /// `None` where the frames' pixels are no whole numbers, whose sums would depend on their order.
    pub(super) fn new(
        setup: &Setup<'_>,
        statistics: Option<&StatisticsPlan>,
        azimuthal: Option<&AzimuthalPlan>,
        corrections: &Corrections,
        (worker, workers): (usize, usize),
    ) -> Result<Option<Self>, RecipeError> {
        if setup.stream.pixel_type == PixelType::F32 {
            return Ok(None);
        }
        let config = FusedConfig {
            statistics: statistics.map(|plan| plan.config.clone()),
            azimuthal: azimuthal.and_then(|plan| plan.plain().cloned()),
        };
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let threads = (cores / workers).max(1);
        let (shape, pixel_type) = (setup.stream.shape, setup.stream.pixel_type);
        let reducer = FusedReducer::new(&config, shape, pixel_type, &corrections.mask, threads)
            .map_err(RecipeError::device("fused"))?;
        Ok(Some(Self {
            reducer,
            statistics: statistics.map(|plan| (plan.first, plan.config.regions.len())),
            curve: azimuthal.and_then(|plan| plan.place(worker)),
        }))
    }
}

impl HostOperation for Host {
    fn push(
        &mut self,
        frames: &[Leased],
        results: &mut [Arc<FrameResult>],
        broken: &mut Vec<(usize, String)>,
    ) -> Result<(), RecipeError> {
        let (statistics, curve) = (self.statistics, &self.curve);
        let put = |index: usize, found: Result<FusedFrame<'_>, CodecError>| match found {
            Err(reason) => broken.push((index, reason.to_string())),
            Ok(found) => {
                let result = results.get_mut(index).and_then(Arc::get_mut);
                let curves = [found.intensity, found.sigma, found.count];
                if let Some(result) = result {
                    if let Some((first, regions)) = statistics {
                        fill(result, first, regions, &found.statistics);
                    }
                    if let Some(curve) = curve {
                        curve.put(result, curves);
                        curve.add(result);
                    }
                }
            }
        };
        self.reducer.run(frames, put).map_err(RecipeError::device("fused"))
    }

    fn warm(&mut self) {
        self.reducer.warm();
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) {
        if let Some(curve) = &self.curve {
            curve.snapshot_curve(snapshot);
        }
    }
}
