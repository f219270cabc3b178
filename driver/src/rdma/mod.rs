//! Frames by RDMA: the network card places each frame in the ring, where the kernels read it.
//!
//! The protocol, byte by byte: `driver/PROTOCOL.md`.
//!
//! ```text
//!   sender ──connects──▶ acceptor ──link──▶ reliable ──lease──▶ the pipeline
//!     ▲                  (thread             │    ▲
//!     │                  fluxline-rdma)      │    └── last drop: the slot is free
//!     └───────────── grants ─────────────────┘
//! ```
//!
//! State machines that are fed with events and time, without thread, clock or I/O: [`admission`], [`credits`],
//! [`roster`], [`gaps`]. What a device can write to is held by tokens: see [`verbs`].

#![allow(unsafe_code)]

mod acceptor;
pub mod admission;
mod config;
pub mod counters;
pub mod credits;
pub mod description;
mod detector;
pub mod free;
mod free_sender;
pub mod gaps;
mod link;
mod reliable;
pub mod roster;
pub mod sender;
mod source;
pub mod verbs;
pub mod wire;

pub use config::{Mode, Polling, RdmaConfig, read_token};
pub use counters::Counters;
pub use free::Service;
pub use free_sender::FreeSender;
pub use sender::{Fault, RdmaSender, SendReport, SenderConfig};
pub use source::RdmaSource;

use verbs::VerbsError;

/// Version of the protocol that this program speaks.
pub const VERSION: u16 = 1;

/// Why an RDMA source or sender cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RdmaError {
    /// devices and their work
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// the address is not ours, or taken
    #[error("cannot listen at {address} ({reason}): it must be an address of the RDMA device, or 0.0.0.0, and free")]
    Listen {
        /// address and port
        address: String,
        /// the system's words
        reason: String,
    },
    /// nobody came
    #[error("no sender has connected to {address} within {seconds} s{refused}")]
    NoSender {
        /// address and port
        address: String,
        /// patience
        seconds: f64,
        /// who was refused and why, where somebody was
        refused: String,
    },
    /// the receiver does not want us
    #[error("the receiver refuses: {reason}")]
    Refused {
        /// in words
        reason: String,
    },
    /// the receiver cannot be reached
    #[error("cannot connect to {address} within {seconds} s: {reason}")]
    Unreachable {
        /// address and port
        address: String,
        /// patience
        seconds: f64,
        /// what happened last
        reason: String,
    },
    /// a thread
    #[error("the thread fluxline-rdma: {reason}")]
    Thread {
        /// what happened
        reason: String,
    },
}

/// How often a device had no receive for a message, by its own count; 0 where it does not count.
fn not_ready(device: &str) -> u64 {
    let ports = std::fs::read_dir(format!("/sys/class/infiniband/{device}/ports"));
    let read = |port: &std::path::Path, name| {
        let text = std::fs::read_to_string(port.join("hw_counters").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    ports
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|port| read(&port.path(), "send_rnr_err").or_else(|| read(&port.path(), "out_of_buffer")))
        .sum()
}
