//! Packets of JUNGFRAU and EIGER detectors over UDP.
//!
//! ```text
//!   detector ──UDP──▶ sockets ─▶ recvmmsg straight into slots ─▶ assembly: which packet is it? ─▶ frame of the ring
//! ```
//!
//! - [`wire`]: the header of a packet
//! - [`layout`]: where the pixels of each packet lie in the frame
//! - [`assembly`]: the state machine that makes frames of packets
//! - [`UdpSource`]: the [`crate::source::FrameSource`]
//! - [`Emulator`]: the other end
//! - [`fuzz`]: any bytes in
//!
//! One thread receives from every socket in turn. A thread per socket would have to share the open frames, and
//! `recvmmsg` alone takes most of the time.

pub mod assembly;
mod config;
mod counters;
mod emulate;
pub mod fuzz;
pub mod layout;
mod numbers;
mod source;
#[cfg(test)]
mod tests;
pub mod wire;

pub use config::{Detector, PartBy, PartConfig, UdpConfig};
pub use counters::Counters;
pub use emulate::{Emulator, EmulatorConfig, EmulatorReport};
pub use layout::Layout;
pub use source::{UdpError, UdpSource};
