//! How frames get in: huge pages, the frame ring, sources, the tracker.
//!
//! `unsafe` lives in [`memory`] only.

pub mod clock;
pub mod faults;
pub mod memory;
pub mod replay;
pub mod simulate;
pub mod source;
pub mod tracker;
