//! Any bytes into the assembly of packets, for a fuzzer and for the tests: nothing may panic, grow or be miscounted.

use super::assembly::{Assembly, BATCH, Out};
use super::config::{Detector, UdpConfig};
use super::counters::Counters;
use super::layout::Layout;
use super::wire::HEADER_BYTES;
use crate::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use crate::net::{Buffers, Message};
use crate::source::WhenFull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A receiver that is fed from memory.
pub struct Harness {
    assembly: Assembly,
    counters: Arc<Counters>,
    ring: FrameRing,
}

impl Harness {
    /// One EIGER module of 8-bit pixels and four parts, an eighth as high and wide as it is: whole, most of the time went into
    /// pixels. `None` where there is no memory.
    pub fn new() -> Option<Self> {
        let config = UdpConfig {
            detector: Detector::Eiger,
            bits: 8,
            frames: 300,
            window: 4,
            gap: [3, 5],
            addresses: vec!["127.0.0.1:1".into()],
            ..UdpConfig::default()
        };
        let layout = Layout::scaled(&config, 8).ok()?;
        Self::over(layout, &config, 16)
    }

    /// A configuration that was checked, over `slots` slots.
    pub fn with(config: &UdpConfig, slots: usize) -> Option<Self> {
        Self::over(Layout::new(config).ok()?, config, slots)
    }

    fn over(layout: Layout, config: &UdpConfig, slots: usize) -> Option<Self> {
        let counters = Arc::new(Counters::default());
        let assembly = Assembly::over(layout, config, counters.clone(), 1);
        let frame_bytes = assembly.layout().frame_bytes();
        let pages = HugePages::reserve(&PagesConfig {
            bytes: FrameRing::bytes_needed(slots, frame_bytes),
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        });
        let ring = FrameRing::new(pages.ok()?, slots, frame_bytes).ok()?;
        let mut harness = Self {
            assembly,
            counters,
            ring,
        };
        harness.assembly.prepare(&harness.ring).ok()?;
        harness.begin();
        Some(harness)
    }

    /// Begins a run.
    pub fn begin(&mut self) {
        self.assembly.begin(1);
    }

    /// The ring.
    pub fn ring(&self) -> &FrameRing {
        &self.ring
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The state machine.
    pub fn assembly(&mut self) -> &mut Assembly {
        &mut self.assembly
    }

    /// Receives packets as the kernel would put them, at most [`BATCH`] at once; frames go to `out`.
    pub fn receive(&mut self, packets: &[Vec<u8>], when_full: WhenFull, now_ns: u64, out: &mut dyn FnMut(Out)) {
        for batch in packets.chunks(BATCH) {
            let (targets, memory) = self.assembly.aim(0, &self.ring);
            let mut messages = Vec::with_capacity(BATCH);
            for (packet, target) in batch.iter().zip(targets) {
                let (head, mut rest) = packet.split_at(packet.len().min(HEADER_BYTES));
                let mut message = Message {
                    head: [0; HEADER_BYTES],
                    bytes: packet.len(),
                    cut: false,
                };
                message.head[..head.len()].copy_from_slice(head);
                let buffer = memory.buffer(target.buffer);
                for start in target.starts() {
                    let (now, later) = rest.split_at(rest.len().min(target.piece_bytes));
                    buffer[start..start + now.len()].copy_from_slice(now);
                    rest = later;
                }
                message.cut = !rest.is_empty();
                message.bytes -= rest.len();
                messages.push(message);
            }
            self.assembly
                .settle(messages.len(), |index| messages[index], &self.ring, when_full, now_ns);
            while let Some(ready) = self.assembly.pop() {
                out(ready);
            }
        }
    }
}

/// Takes arbitrary bytes apart into packets: a length byte says how much of a packet is there, the next bytes are its
/// header. Panics where a promise is broken: every packet is counted once, and every slot comes back.
pub fn arbitrary(harness: &mut Harness, mut bytes: &[u8]) {
    harness.begin();
    let before: u64 = outcomes(harness.counters());
    let packets_before = harness.counters().packets.load(Relaxed);
    let full = HEADER_BYTES + harness.assembly().layout().payload_bytes;
    let (mut now_ns, mut batch) = (1_000_000u64, Vec::new());
    while let Some((how, rest)) = bytes.split_first() {
        let (head, rest) = rest.split_at(rest.len().min(HEADER_BYTES));
        bytes = rest;
        let mut packet = head.to_vec();
        packet.resize(
            if how % 8 == 0 {
                packet.len()
            } else {
                full + usize::from(how % 8 == 1)
            },
            *how,
        );
        batch.push(packet);
        if how % 16 < 3 || bytes.is_empty() {
            let when_full = if how & 128 == 0 { WhenFull::Wait } else { WhenFull::Drop };
            harness.receive(&batch, when_full, now_ns, &mut drop);
            batch.clear();
            now_ns += u64::from(*how) * 10_000_000;
            harness.assembly().expire(now_ns, 250_000_000);
            while harness.assembly().pop().is_some() {}
        }
    }
    harness.assembly().end(now_ns);
    while harness.assembly().pop().is_some() {}
    assert!(!harness.assembly().waiting());
    assert_eq!(harness.ring().free(), harness.ring().slots(), "every slot comes back");
    let counted = outcomes(harness.counters()) - before;
    let came = harness.counters().packets.load(Relaxed) - packets_before;
    assert_eq!(counted, came, "every packet has one outcome");
}

/// Packets by everything that can become of one.
fn outcomes(counters: &Counters) -> u64 {
    let other = ["packets", "moved", "missing", "socket_drops"];
    let counted = counters.all().filter(|(name, ..)| !other.contains(name));
    counted.map(|(_, _, value)| value).sum()
}
