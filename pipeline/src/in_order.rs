//! Frames in their order, for a recipe whose results rest on the frames before.

use crate::run::REORDER_WINDOW;
use driver::memory::FrameLease;

/// Puts frames that overtook each other back in order. Holds leases, not copies. `gone` says of a frame that it will not come.
pub(crate) struct InOrder {
    next: u64,
    /// by frame number modulo the window
    held: Vec<Option<FrameLease>>,
}

impl InOrder {
    /// Before the first frame.
    pub(crate) fn new() -> Self {
        // The tracker lets a frame be overtaken by REORDER_WINDOW others before it is lost.
        Self {
            next: 0,
            held: (0..2 * REORDER_WINDOW).map(|_| None).collect(),
        }
    }

    fn slot(&mut self, frame: u64) -> &mut Option<FrameLease> {
        let window = self.held.len() as u64;
        &mut self.held[(frame % window) as usize]
    }

    /// Takes a frame in; call [`InOrder::take`] first, which steps over what has gone since.
    pub(crate) fn put(&mut self, lease: FrameLease) {
        let frame = lease.header().frame_number.get();
        if frame >= self.next {
            debug_assert!(
                frame - self.next < self.held.len() as u64,
                "frame {frame} comes too early"
            );
            *self.slot(frame) = Some(lease);
        }
    }

    /// The next frame, once it is there and all before it are taken or gone.
    pub(crate) fn take(&mut self, gone: impl Fn(u64) -> bool) -> Option<FrameLease> {
        loop {
            let next = self.next;
            let held = self.slot(next).take();
            if held.is_none() && !gone(next) {
                return None;
            }
            self.next += 1;
            if held.is_some() {
                return held;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
    use frame::{Compression, FrameHeader, PixelType, Shape};

    fn leases(numbers: &[u64]) -> Vec<FrameLease> {
        let bytes = FrameRing::bytes_needed(numbers.len(), 64);
        let config = PagesConfig {
            bytes,
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        };
        let ring = FrameRing::new(HugePages::reserve(&config).unwrap(), numbers.len(), 64).unwrap();
        let lease = |number: &u64| {
            let mut slot = ring.try_slot().unwrap();
            *slot.header_mut() = FrameHeader::new(Shape::new(8, 8), PixelType::U8, Compression::None);
            slot.header_mut().frame_number.set(*number);
            slot.publish()
        };
        numbers.iter().map(lease).collect()
    }

    #[test]
    fn frames_come_out_in_order_and_lost_ones_are_stepped_over() {
        let mut order = InOrder::new();
        let mut out = Vec::new();
        let mut take = |order: &mut InOrder, gone: &[u64]| {
            let taken = std::iter::from_fn(|| order.take(|frame| gone.contains(&frame)));
            out.extend(taken.map(|lease| lease.header().frame_number.get()));
            out.clone()
        };
        for lease in leases(&[2, 0, 1, 5, 4]) {
            take(&mut order, &[]);
            order.put(lease);
        }
        assert_eq!(take(&mut order, &[]), [0, 1, 2]);
        assert_eq!(take(&mut order, &[3]), [0, 1, 2, 4, 5]);
        // So many as went may be more than are ever held.
        let gone: Vec<u64> = (6..1000).collect();
        for lease in leases(&[1001, 1000]) {
            take(&mut order, &gone);
            order.put(lease);
        }
        assert_eq!(take(&mut order, &gone), [0, 1, 2, 4, 5, 1000, 1001]);
    }
}
