//! How frames get in: huge pages, the frame ring, sources, the tracker.
//!
//! `unsafe` lives in [`memory`], [`net`] and [`rdma`] only.

pub mod assembly;
pub mod clock;
pub mod dectris;
pub mod faults;
pub mod memory;
pub mod net;
pub mod rdma;
pub mod replay;
pub mod simulate;
pub mod source;
pub mod tracker;
pub mod udp;
