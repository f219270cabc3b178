//! What is computed: OpenCL operations, each in a folder of its own with its `.cl`, its host side and a plain
//! reference of the same name, tested against each other over every pixel type.
//!
//! `unsafe` lives in [`host_memory`] alone.

pub mod accelerator;
pub mod axis;
pub mod azimuthal;
pub mod backprojector;
pub mod correction;
pub mod countrate;
mod deadline;
mod fft;
pub mod flats;
pub mod fused;
pub mod gain;
pub mod gridrec;
pub mod half_acquisition;
pub mod host_memory;
mod image;
mod invalid;
pub mod iterative;
mod limits;
pub mod lit;
mod parallel;
#[cfg(test)]
mod phantom;
pub mod phase;
mod probe;
mod program;
pub mod sloped;
pub mod spots;
pub mod stager;
pub mod statistics;
mod status;
pub mod stripes;
#[cfg(test)]
mod testing;
pub mod tuning;
pub mod zingers;

pub use accelerator::{Accelerator, AcceleratorConfig, AcceleratorError, DeviceInfo, DeviceKind, MemoryMode};
pub use axis::{AxisEstimate, AxisFinder, AxisFinderConfig, AxisScan, TRUSTED};
pub use azimuthal::{
    AzimuthalConfig, AzimuthalEngine, AzimuthalGeometry, AzimuthalIntegrator, AzimuthalOutput, Bins, ErrorModel,
    SigmaClip, Splitting,
};
pub use backprojector::{
    Arrangement, BATCH_ANGLES, Backprojector, BackprojectorConfig, Filter, Plane, STRIPE_COLUMNS_MAX, SlabConfig,
    SlabReconstructor, SlidingWindow,
};
pub use correction::{CorrectedBatch, Correction, CorrectionConfig};
pub use countrate::{CountRate, CountRateConfig, DeadTime};
pub use deadline::{each_within, within};
pub use flats::TimedFlats;
pub use fused::{FusedConfig, FusedFrame, FusedReducer, Payload};
pub use gain::{AdaptiveGain, GainConfig, GainCounts};
pub use gridrec::{Gridrec, GridrecConfig};
pub use half_acquisition::{HalfAcquisition, Stitching};
pub use host_memory::{Buffer, HostPages, Mapped, Queue};
pub use invalid::Invalid;
pub use iterative::{Iteration, Iterative, IterativeConfig};
pub use lit::{LitConfig, LitPixels};
pub use phase::{Padding, Paganin, PaganinConfig};
pub use probe::AddressProbe;
pub use sloped::{Sloped, SlopedConfig, equally_sloped_angles_deg};
pub use spots::{FrameSpots, Spot, SpotAlgorithm, SpotConfig, SpotFinder};
pub use stager::{AddError, DeviceBatch, Stager};
pub use statistics::{FrameStatistics, Region, RegionStatistics, Statistics, StatisticsConfig};
pub use stripes::{LargeStripes, StripeMethod, Wavelet, WaveletFourier};
pub use tuning::{Tuned, Tuning, TuningOrigin};
pub use zingers::{ZingerMethod, Zingers};
