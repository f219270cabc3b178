//! Verbs, wrapped once: every object owns what it was made from, so that nothing is freed while something else needs
//! it, and frees itself.
//!
//! ```text
//!   Devices ── Device ─┬─ ProtectionDomain ─┬─ MemoryRegion ── the memory itself (a frame ring, a Buffer)
//!                      │                    └─ QueuePair ─┬─ CompletionQueue
//!                      └─ CompletionQueue ── Channel      └─ CmId ── EventChannel
//! ```
//!
//! Rules, for everything that uses this folder:
//! 1. Memory that a device may write (a posted receive, a granted slot) has a token with its owner, and the token is
//!    kept until the completion has come or the queue pair is destroyed. Calls that rely on it are `unsafe`.
//! 2. A queue pair is destroyed before its tokens are given back: from then on nothing can arrive from it.
//! 3. Every status of the hardware has a value here, unknown ones too.

mod completion;
mod connection;
mod device;
mod memory;
mod queue_pair;
mod status;

pub use completion::{Channel, Completion, CompletionQueue};
pub use connection::{CmEvent, CmId, EventChannel, PrivateData};
pub use device::{Device, Gid, Mtu, Port, ProtectionDomain, device_names};
pub use memory::{Access, Buffer, MemoryRegion};
pub use queue_pair::{Path, QueuePair, QueuePairSize, Transport, Work};
pub use status::{Opcode, Status};

use std::io;

/// Why something of RDMA cannot be had or went wrong.
#[derive(Debug, thiserror::Error)]
pub enum VerbsError {
    /// the kernel or the machine has none
    #[error(
        "there is no RDMA device on this machine ({reason}): install an RDMA network card with rdma-core, or for \
         tests `modprobe rdma_rxe` and `rdma link add rxe0 type rxe netdev DEVICE`"
    )]
    NoDevice {
        /// the system's words
        reason: String,
    },
    /// there are others
    #[error("there is no RDMA device {wanted}; there are: {found}")]
    OtherDevices {
        /// the name asked for
        wanted: String,
        /// the names found
        found: String,
    },
    /// memory cannot be registered
    #[error(
        "{bytes} bytes cannot be registered with the RDMA device ({reason}): raise the limit of locked memory with \
         LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`"
    )]
    Register {
        /// bytes
        bytes: usize,
        /// the system's words
        reason: io::Error,
    },
    /// a call failed
    #[error("{call} failed: {reason}")]
    Call {
        /// name of the call
        call: &'static str,
        /// the system's words
        reason: io::Error,
    },
    /// something that was asked for lies outside
    #[error("{what} is {value}, allowed is up to {limit}")]
    Limit {
        /// what
        what: &'static str,
        /// asked for
        value: usize,
        /// largest
        limit: usize,
    },
}

/// The error of a call that sets `errno`.
fn errno(call: &'static str) -> VerbsError {
    VerbsError::Call {
        call,
        reason: io::Error::last_os_error(),
    }
}

/// The outcome of a call that returns an error number or -1 with `errno`.
fn check(call: &'static str, result: i32) -> Result<(), VerbsError> {
    match result {
        0 => Ok(()),
        -1 => Err(errno(call)),
        number => Err(VerbsError::Call {
            call,
            reason: io::Error::from_raw_os_error(number.abs()),
        }),
    }
}

/// Waits until the file descriptor is readable; false after `wait`.
fn readable(fd: i32, wait: std::time::Duration) -> Result<bool, VerbsError> {
    let mut one = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // Rounded up, so that a short wait does not become a spin.
    let timeout_ms = wait.as_micros().div_ceil(1000).min(60_000) as i32;
    // SAFETY: one initialised pollfd, which lives for the call.
    match unsafe { libc::poll(&raw mut one, 1, timeout_ms) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match errno("poll") {
            VerbsError::Call { reason, .. } if reason.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}
