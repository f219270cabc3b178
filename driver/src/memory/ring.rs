//! The frame ring: slots in one region of huge pages, handed round as owned tokens.
//!
//! ```text
//!   region  ┌────────┬──────────────────────┬────────┬──────────────────────┬─
//!           │ header │ payload              │ header │ payload              │ …
//!           └────────┴──────────────────────┴────────┴──────────────────────┴─
//!           0        4096                   stride   stride + 4096
//! ```
//!
//! 1. [`FrameRing::slot_within`] takes a free slot: a [`FrameSlot`], the only token of that slot, which may write.
//! 2. [`FrameSlot::publish`] turns it into a [`FrameLease`]: from now on the slot is only read.
//! 3. Clones of the lease share the slot. 4. The last one's drop gives the slot back.
//!
//! Misuse does not compile. A slot is published once:
//!
//! ```compile_fail,E0382
//! fn twice(slot: driver::memory::FrameSlot) {
//!     slot.publish();
//!     slot.publish();
//! }
//! ```
//!
//! and not written any more afterwards:
//!
//! ```compile_fail,E0382
//! fn late(mut slot: driver::memory::FrameSlot) {
//!     let _lease = slot.publish();
//!     slot.payload_mut()[0] = 1;
//! }
//! ```
//!
//! A lease only reads:
//!
//! ```compile_fail,E0594
//! fn write(lease: &driver::memory::FrameLease) {
//!     lease.payload()[0] = 1;
//! }
//! ```
//!
//! its bytes do not outlive it:
//!
//! ```compile_fail,E0515
//! fn keep(lease: driver::memory::FrameLease) -> &'static [u8] {
//!     lease.payload()
//! }
//! ```
//!
//! and a slot cannot be made from nothing, nor copied:
//!
//! ```compile_fail,E0599
//! fn copy(slot: driver::memory::FrameSlot) -> (driver::memory::FrameSlot, driver::memory::FrameSlot) {
//!     (slot.clone(), slot)
//! }
//! ```
//!
//! Invariant: a slot is in the free list, or has one `FrameSlot`, or has at least one `FrameLease`; never two of these.

use super::counting::SlotCounts;
use super::free::FreeSlots;
use super::pages::{HugePages, PageSize};
use crossbeam_channel::Receiver;
use frame::header::{FLAG_DAMAGED, FLAG_PAYLOAD_CRC, HEADER_PAGE_BYTES};
use frame::note::{NOTES_END, NOTES_MAX, NOTES_OFFSET};
use frame::{Compression, FrameHeader, HostRegion, Note, PixelType, Shape};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// Why a ring cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// the memory is too small
    #[error("{slots} slots of {payload_bytes} payload bytes need {needed} bytes, the memory has {found}")]
    MemoryTooSmall {
        /// slots asked for
        slots: usize,
        /// payload of each
        payload_bytes: usize,
        /// bytes needed
        needed: usize,
        /// bytes there
        found: usize,
    },
    /// a ring needs slots
    #[error("a ring needs at least 1 slot, {slots} were asked for")]
    NoSlots {
        /// slots asked for
        slots: usize,
    },
}

/// Bytes at the end of a header's page, behind the notes: a bit for each part that a frame may come in.
pub const PARTS_BYTES: usize = HEADER_PAGE_BYTES - NOTES_END;

struct Inner {
    pages: Arc<HugePages>,
    stride: usize,
    payload_bytes: usize,
    counts: SlotCounts,
    free: FreeSlots,
}

impl Inner {
    fn header(&self, slot: usize) -> NonNull<FrameHeader> {
        // SAFETY: `slot` is below the number of slots, so the header page lies in the mapping.
        unsafe { self.pages.start().add(slot * self.stride).cast() }
    }

    fn notes(&self, slot: usize) -> NonNull<Note> {
        // SAFETY: as in `header`; the notes lie in the same page.
        unsafe { self.pages.start().add(slot * self.stride + NOTES_OFFSET).cast() }
    }

    fn payload(&self, slot: usize) -> NonNull<u8> {
        // SAFETY: as in `header`; the payload lies behind the header page, in the same stride.
        unsafe { self.pages.start().add(slot * self.stride + HEADER_PAGE_BYTES) }
    }

    fn parts(&self, slot: usize) -> NonNull<u8> {
        // SAFETY: as in `header`; the bytes lie in the same page.
        unsafe { self.pages.start().add(slot * self.stride + NOTES_END) }
    }

    fn give_back(&self, slot: usize) {
        self.free.give(slot);
    }
}

/// The ring; clones are the same ring.
#[derive(Clone)]
pub struct FrameRing(Arc<Inner>);

impl std::fmt::Debug for FrameRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FrameRing({} slots of {} bytes)",
            self.slots(),
            self.slot_payload_bytes()
        )
    }
}

impl FrameRing {
    /// A ring of `slots` slots for payloads of up to `payload_bytes`.
    pub fn new(pages: HugePages, slots: usize, payload_bytes: usize) -> Result<FrameRing, RingError> {
        if slots == 0 {
            return Err(RingError::NoSlots { slots });
        }
        let (needed, found) = (Self::bytes_needed(slots, payload_bytes), pages.bytes());
        if needed > found {
            return Err(RingError::MemoryTooSmall {
                slots,
                payload_bytes,
                needed,
                found,
            });
        }
        let inner = Inner {
            stride: stride(payload_bytes),
            payload_bytes: stride(payload_bytes) - HEADER_PAGE_BYTES,
            counts: SlotCounts::new(slots),
            pages: Arc::new(pages),
            free: FreeSlots::new(slots),
        };
        let blank = FrameHeader::new(Shape::new(0, 0), PixelType::U8, Compression::None);
        for slot in 0..slots {
            // SAFETY: no token of the slot exists yet.
            unsafe { inner.header(slot).write(blank) };
        }
        for slot in (0..slots).rev() {
            inner.give_back(slot);
        }
        Ok(FrameRing(Arc::new(inner)))
    }

    /// Bytes that a ring needs.
    pub fn bytes_needed(slots: usize, payload_bytes: usize) -> usize {
        slots.saturating_mul(stride(payload_bytes))
    }

    /// A free slot, if there is one.
    pub fn try_slot(&self) -> Option<FrameSlot> {
        let slot = self.0.free.take()?;
        Some(FrameSlot {
            ring: self.0.clone(),
            slot,
        })
    }

    /// A free slot; waits for one without spinning.
    pub fn slot_within(&self, wait: Duration) -> Option<FrameSlot> {
        let slot = self.0.free.take_within(wait)?;
        Some(FrameSlot {
            ring: self.0.clone(),
            slot,
        })
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.0.counts.slots()
    }

    /// Slots that are free now.
    pub fn free(&self) -> usize {
        self.0.free.len()
    }

    /// Largest payload, bytes.
    pub fn slot_payload_bytes(&self) -> usize {
        self.0.payload_bytes
    }

    /// Bytes from one slot's start to the next's in [`FrameRing::region`].
    pub fn stride_bytes(&self) -> usize {
        self.0.stride
    }

    /// What kind of pages it lies on.
    pub fn page_size(&self) -> PageSize {
        self.0.pages.page_size()
    }

    /// Whether it is locked into memory.
    pub fn locked(&self) -> bool {
        self.0.pages.locked()
    }

    /// The memory, for a device to be shown.
    pub fn region(&self) -> Arc<dyn HostRegion> {
        Arc::new(Region(self.0.pages.clone()))
    }
}

fn stride(payload_bytes: usize) -> usize {
    HEADER_PAGE_BYTES + payload_bytes.next_multiple_of(HEADER_PAGE_BYTES)
}

struct Region(Arc<HugePages>);

// SAFETY: the pages stay mapped at their place while the value holds them, and their start is page-aligned.
unsafe impl HostRegion for Region {
    fn address(&self) -> usize {
        self.0.start().as_ptr() as usize
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// A free slot that is being written: the only token of it. Dropping it gives the slot back unused.
pub struct FrameSlot {
    ring: Arc<Inner>,
    slot: usize,
}

impl FrameSlot {
    /// Number of the slot.
    pub fn index(&self) -> usize {
        self.slot
    }

    /// The header, to be written.
    pub fn header_mut(&mut self) -> &mut FrameHeader {
        // SAFETY: rule 2: this is the only token of the slot, and it is borrowed uniquely.
        unsafe { self.ring.header(self.slot).as_mut() }
    }

    /// Adds a note to the header as it is now; false where there is no room.
    pub fn note(&mut self, note: Note) -> bool {
        let used = self.header_mut().notes.get() as usize;
        if used >= NOTES_MAX {
            return false;
        }
        // SAFETY: rule 2, as in `header_mut`; the notes lie behind the header in its page, which has room for NOTES_MAX.
        unsafe { self.ring.notes(self.slot).add(used).write_unaligned(note) };
        self.header_mut().notes.set(used as u32 + 1);
        true
    }

    /// The payload, to be written: the slot's whole capacity.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        // SAFETY: rule 2, as in `header_mut`; the pages were touched when they were mapped.
        unsafe { std::slice::from_raw_parts_mut(self.ring.payload(self.slot).as_ptr(), self.ring.payload_bytes) }
    }

    /// Room for one bit per part of the frame, in the header's page; see [`FrameLease::parts_missing`].
    pub fn parts_mut(&mut self) -> &mut [u8] {
        // SAFETY: rule 2, as in `header_mut`; PARTS_BYTES end with the page, which was zeroed when mapped.
        unsafe { std::slice::from_raw_parts_mut(self.ring.parts(self.slot).as_ptr(), PARTS_BYTES) }
    }

    /// Ends writing: the frame can be read and shared from now on.
    pub fn publish(self) -> FrameLease {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again, so the reference count moves on unchanged.
        let ring = unsafe { std::ptr::read(&raw const this.ring) };
        ring.counts.publish(this.slot);
        FrameLease { ring, slot: this.slot }
    }
}

impl Drop for FrameSlot {
    fn drop(&mut self) {
        self.ring.give_back(self.slot);
    }
}

impl std::fmt::Debug for FrameSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameSlot({})", self.slot)
    }
}

/// A frame in the ring. Clones share it; the last drop gives the slot back.
pub struct FrameLease {
    ring: Arc<Inner>,
    slot: usize,
}

impl FrameLease {
    /// Number of the slot.
    pub fn index(&self) -> usize {
        self.slot
    }

    /// The header.
    pub fn header(&self) -> &FrameHeader {
        // SAFETY: rule 2: while a lease exists nobody writes the slot.
        unsafe { self.ring.header(self.slot).as_ref() }
    }

    /// The notes of the frame.
    pub fn notes(&self) -> &[Note] {
        let used = (self.header().notes.get() as usize).min(NOTES_MAX);
        // SAFETY: rule 2, as in `header`; any bytes are a Note, which needs no alignment, and the page was mapped with zeros.
        unsafe { std::slice::from_raw_parts(self.ring.notes(self.slot).as_ptr(), used) }
    }

    /// The payload: as many bytes as the header says, at most the slot's capacity.
    pub fn payload(&self) -> &[u8] {
        let bytes = (self.header().payload_bytes.get() as usize).min(self.ring.payload_bytes);
        // SAFETY: rule 2, as in `header`; `bytes` stays in the slot.
        unsafe { std::slice::from_raw_parts(self.ring.payload(self.slot).as_ptr(), bytes) }
    }

    /// One bit per part of the frame, lowest first: 1 where it never came. Empty where the frame is whole.
    pub fn parts_missing(&self) -> &[u8] {
        let header = self.header();
        let bytes = (header.parts_expected.get() as usize).div_ceil(8).min(PARTS_BYTES);
        let bytes = if header.parts_missing.get() == 0 { 0 } else { bytes };
        // SAFETY: rule 2, as in `header`; `bytes` stays in the header's page.
        unsafe { std::slice::from_raw_parts(self.ring.parts(self.slot).as_ptr(), bytes) }
    }

    /// Offset of the payload in [`FrameRing::region`].
    pub fn payload_offset(&self) -> usize {
        self.slot * self.ring.stride + HEADER_PAGE_BYTES
    }

    /// Whether the header is well-formed and the payload is what was sent, as far as the sender lets us know.
    pub fn intact(&self) -> bool {
        let header = self.header();
        header.flags & FLAG_DAMAGED == 0
            && header.check(self.ring.payload_bytes).is_ok()
            && (header.flags & FLAG_PAYLOAD_CRC == 0 || crc32c::crc32c(self.payload()) == header.payload_crc32c.get())
    }
}

impl Clone for FrameLease {
    fn clone(&self) -> Self {
        self.ring.counts.share(self.slot);
        Self {
            ring: self.ring.clone(),
            slot: self.slot,
        }
    }
}

impl Drop for FrameLease {
    fn drop(&mut self) {
        if self.ring.counts.release(self.slot) {
            self.ring.give_back(self.slot);
        }
    }
}

impl std::fmt::Debug for FrameLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FrameLease(slot {}, frame {})",
            self.slot,
            self.header().frame_number.get()
        )
    }
}

/// Waits on an empty queue for a moment: the channel makes this thread's place in its list of waiters at the first wait.
///
/// A wait with a deadline may pass it while it still spins, on a busy machine, and then makes no place.
pub fn warm<T>(queue: &Receiver<T>) {
    let moment = crossbeam_channel::after(Duration::from_millis(20));
    let mut either = crossbeam_channel::Select::new();
    either.recv(queue);
    let end = either.recv(&moment);
    let ready = either.select();
    if ready.index() == end {
        let _ = ready.recv(&moment);
    } else {
        let _ = ready.recv(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::super::PagesConfig;
    use super::*;

    fn ring(slots: usize, payload_bytes: usize) -> FrameRing {
        let pages = HugePages::reserve(&PagesConfig {
            bytes: FrameRing::bytes_needed(slots, payload_bytes),
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        });
        FrameRing::new(pages.unwrap(), slots, payload_bytes).unwrap()
    }

    #[test]
    fn slots_go_round_and_the_last_lease_gives_back() {
        let ring = ring(3, 5000);
        assert_eq!((ring.slots(), ring.free(), ring.slot_payload_bytes()), (3, 3, 8192));
        let mut slot = ring.try_slot().unwrap();
        slot.payload_mut().fill(7);
        *slot.header_mut() = FrameHeader::new(Shape::new(10, 10), PixelType::U16, Compression::None);
        let lease = slot.publish();
        assert_eq!(lease.payload().len(), 200);
        assert!(lease.payload().iter().all(|b| *b == 7) && lease.intact());
        let address = lease.payload().as_ptr() as usize;
        assert_eq!(address % 4096, 0);
        assert_eq!(address, ring.region().address() + lease.payload_offset());
        let other = lease.clone();
        drop(lease);
        assert_eq!(ring.free(), 2);
        drop(other);
        assert_eq!(ring.free(), 3);
        drop(ring.try_slot());
        assert_eq!(ring.free(), 3);
    }

    #[test]
    fn an_empty_ring_makes_the_source_wait_and_a_drop_wakes_it() {
        let ring = ring(1, 100);
        let lease = ring.try_slot().unwrap().publish();
        assert!(ring.try_slot().is_none() && ring.slot_within(Duration::from_millis(5)).is_none());
        let waiting = ring.clone();
        let waiter = std::thread::spawn(move || waiting.slot_within(Duration::from_secs(10)).is_some());
        std::thread::sleep(Duration::from_millis(20));
        drop(lease);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_wrong_checksum_or_header_is_noticed() {
        let ring = ring(1, 4096);
        let mut slot = ring.try_slot().unwrap();
        *slot.header_mut() = FrameHeader::new(Shape::new(4, 4), PixelType::U8, Compression::None);
        slot.payload_mut()[..16].fill(1);
        let crc = crc32c::crc32c(&slot.payload_mut()[..16]);
        slot.header_mut().payload_crc32c.set(crc);
        slot.header_mut().flags = FLAG_PAYLOAD_CRC;
        let lease = slot.publish();
        assert!(lease.intact());
        drop(lease);
        let mut slot = ring.try_slot().unwrap();
        slot.payload_mut()[3] ^= 0x10;
        assert!(!slot.publish().intact());
        let mut slot = ring.try_slot().unwrap();
        slot.header_mut().payload_bytes.set(1 << 40);
        let lease = slot.publish();
        assert!(!lease.intact() && lease.payload().len() <= 4096);
    }

    #[test]
    fn many_threads_share_and_release() {
        let ring = ring(8, 64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(slot) = ring.slot_within(Duration::from_secs(5)) {
                            let lease = slot.publish();
                            let copies: Vec<_> = (0..3).map(|_| lease.clone()).collect();
                            drop(lease);
                            drop(copies);
                        }
                    }
                });
            }
        });
        assert_eq!(ring.free(), 8);
    }

    #[test]
    fn memory_too_small_is_refused_with_both_numbers() {
        let pages = HugePages::reserve(&PagesConfig {
            bytes: 1 << 20,
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        });
        let error = FrameRing::new(pages.unwrap(), 4096, 1 << 20).unwrap_err().to_string();
        assert!(
            error.contains("4096 slots of 1048576 payload bytes need 4311744512 bytes, the memory has 2097152"),
            "{error}"
        );
    }
}
