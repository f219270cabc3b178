//! Streams of DECTRIS detectors over ZeroMQ: V2 (CBOR) and V1 (JSON and bytes).
//!
//! ```text
//!   PUSH ──TCP──▶ PULL ─▶ message ─▶ decode in place ─▶ series: is it of the run? ─▶ one copy ─▶ slot of the ring
//! ```
//!
//! - [`v2`], [`v1`]: what a message says; limits are checked before anything is allocated
//! - [`series`]: the state machine that keeps old series out of a run
//! - [`DectrisSource`]: the [`crate::source::FrameSource`]
//! - [`encode`], [`Emulator`]: the other end

mod config;
mod counters;
mod describe;
mod emulate;
pub mod encode;
mod error;
pub mod message;
mod push;
mod reader;
pub mod series;
mod source;
mod station;
pub mod v1;
pub mod v2;

#[cfg(test)]
mod tests;

pub use config::{DectrisConfig, Version};
pub use counters::Counters;
pub use emulate::{Emulator, EmulatorConfig, EmulatorReport};
pub use error::{DecodeError, DectrisError, Found};
pub use push::Publisher;
pub use source::DectrisSource;
pub use station::Parked;
