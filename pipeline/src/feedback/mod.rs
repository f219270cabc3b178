//! Feedback: results, state and pictures for the experiment's control and for people. Control plane only:
//! whatever happens here, the data plane goes on.

pub mod access;
pub mod calibrations;
mod connections;
pub mod decisions;
pub mod delivery;
pub mod error;
pub mod events;
mod extract;
pub mod files;
pub mod frames;
mod guard;
pub mod h5;
pub mod hub;
mod idempotency;
mod lasting;
pub mod listen;
pub mod metadata;
mod named_files;
mod paced;
pub mod page;
pub mod parameters;
pub mod pictures;
mod publish;
pub mod runs;
pub mod server;
pub mod spots;
pub mod status;
pub mod stored;
pub mod tokens;
