//! Datagrams, many per system call, scattered over buffers that somebody else owns.
//!
//! Rules: no pointer outlives the call that it is made for; every place is checked against the length of its buffer
//! before the kernel sees it.

#![allow(unsafe_code)]

mod receive;
mod send;
mod socket;

pub use receive::{Buffers, HEAD_BYTES, Message, Receiver, Target};
pub use send::{Packet, Sender};
pub use socket::{Poller, bind, drops, interface_of, wake_at};
