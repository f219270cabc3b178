//! What is computed: OpenCL operations, each in a folder of its own with its `.cl`, its host side and a plain
//! reference of the same name, tested against each other over every pixel type.
//!
//! `unsafe` lives in [`host_memory`] alone.

pub mod accelerator;
pub mod azimuthal;
pub mod backprojector;
pub mod correction;
pub mod host_memory;
mod limits;
mod probe;
mod program;
pub mod spots;
pub mod stager;
pub mod statistics;
mod status;
#[cfg(test)]
mod testing;

pub use accelerator::{Accelerator, AcceleratorConfig, AcceleratorError, DeviceInfo, DeviceKind, MemoryMode};
pub use azimuthal::{
    AzimuthalConfig, AzimuthalEngine, AzimuthalGeometry, AzimuthalIntegrator, AzimuthalOutput, Bins, ErrorModel,
    SigmaClip, Splitting,
};
pub use backprojector::{Backprojector, BackprojectorConfig, Filter, Plane};
pub use correction::{CorrectedBatch, Correction, CorrectionConfig};
pub use host_memory::{Buffer, HostPages, Mapped, Queue};
pub use probe::AddressProbe;
pub use spots::{FrameSpots, Spot, SpotAlgorithm, SpotConfig, SpotFinder};
pub use stager::{AddError, DeviceBatch, Stager};
pub use statistics::{FrameStatistics, Region, RegionStatistics, Statistics, StatisticsConfig};
