//! Streams of DECTRIS detectors over ZeroMQ: V2 (CBOR) and V1 (JSON and bytes).
//!
//! ```text
//!   PUSH ──TCP──▶ head of an image ─▶ decode ─▶ series: is it of the run? ─▶ slot of the ring ◀── the rest of the image
//!            └──▶ any other message, whole ─▶ decode in place ─▶ series ─▶ one copy ─▶ slot of the ring
//! ```
//!
//! - [`v2`], [`v1`]: what a message says; limits are checked before anything is allocated
//! - [`zmtp`]: what ZeroMQ says on a connection, in order and within limits
//! - [`series`]: the state machine that keeps old series out of a run
//! - [`DectrisSource`]: the [`crate::source::FrameSource`]
//! - [`encode`], [`Emulator`]: the other end

mod config;
mod counters;
mod describe;
mod emulate;
pub mod encode;
mod error;
mod incoming;
mod line;
pub mod message;
mod push;
mod reader;
pub mod series;
mod source;
mod station;
pub mod v1;
pub mod v2;
pub mod zmtp;

#[cfg(test)]
mod tests;

pub use config::{DectrisConfig, Version};
pub use counters::Counters;
pub use emulate::{Emulator, EmulatorConfig, EmulatorReport};
pub use error::{DecodeError, DectrisError, Found};
pub use push::Publisher;
pub use source::DectrisSource;
pub use station::Parked;
