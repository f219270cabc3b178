//! How it flows: the run, recipes, pinned workers, the ledger, storage, feedback, metrics, and the
//! `fluxline` command. Begin with [`run`].

pub mod active_run;
pub mod appliance;
pub mod calibrations;
pub mod cli;
pub mod config;
pub mod cores;
pub mod data_plane;
pub mod describe;
pub mod emit;
pub mod feedback;
pub mod frame_metadata;
pub mod ledger;
pub mod metrics;
pub mod recipes;
pub mod run;
#[allow(missing_docs)]
pub mod storage;
pub mod watchdog;
pub mod worker;
pub mod writer;
