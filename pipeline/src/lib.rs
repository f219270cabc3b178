//! How it flows: the run, recipes, pinned workers, the ledger, storage, feedback, metrics, and the
//! `fluxline` command. Begin with [`run`].

pub mod acknowledgements;
pub mod active_run;
pub mod afterwards;
pub mod appliance;
mod books;
pub mod calibrations;
pub mod cli;
pub mod config;
pub mod cores;
pub mod data_plane;
pub mod decisions;
pub mod describe;
mod device;
pub mod emit;
pub mod feedback;
pub mod frame_metadata;
pub mod grid;
mod in_order;
pub mod interrupted;
pub mod keep;
mod late;
pub mod ledger;
pub mod live_ledger;
pub mod metrics;
pub mod recipes;
pub mod reprocess;
pub mod run;
pub mod sources;
#[allow(missing_docs)]
pub mod storage;
pub mod watchdog;
pub mod worker;
pub mod writer;
