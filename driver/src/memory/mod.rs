//! All raw memory of the driver: huge pages, and the frame ring over them.
//!
//! Rules, for everything in this folder:
//! 1. A [`HugePages`] owns its mapping; nothing outlives it, because everything else holds it in an `Arc`.
//! 2. The bytes of a slot are reached only through a token for that slot. A [`FrameSlot`] is the only token of its
//!    slot and may write; [`FrameLease`]s share a slot and may only read. Tokens of one slot never mix.
//! 3. A device may read a slot while leases of it exist; it never writes.

#![allow(unsafe_code)]

mod counting;
mod free;
mod pages;
mod ring;

pub use counting::SlotCounts;
pub use pages::{HugePages, MemoryError, PageSize, PagesConfig, free_pages};
pub use ring::{FrameLease, FrameRing, FrameSlot, PARTS_BYTES, RingError, warm};
