//! A JUNGFRAU or EIGER without a detector: frames of any source cut into packets, sent with seeded faults.

use super::config::{UdpConfig, wrong};
use super::layout::Layout;
use super::source::UdpError;
use super::wire::{HEADER_BYTES, PacketHeader};
use crate::memory::{FrameLease, FrameRing};
use crate::net::{Packet, Sender, Target};
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::Compression;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Packets per system call.
const BATCH: usize = 64;
/// Lost packets that a report names one by one.
const NAMED_MAX: usize = 1 << 20;

/// What is sent, and what goes wrong on the way.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// detector, geometry and the receiver's addresses
    pub detector: UdpConfig,
    /// acquisitions one after the other; each begins with `first_frame`
    pub series: u64,
    /// time between two acquisitions
    pub pause: Duration,
    /// time over which the packets of a frame are spread; 0 is as fast as possible
    pub spread: Duration,
    /// share of packets that vanish
    pub lose: f64,
    /// share of packets that are sent twice
    pub duplicate: f64,
    /// share of packets that others overtake
    pub reorder: f64,
    /// most packets that overtake one
    pub reorder_depth: u64,
    /// share of packets that are cut short or whose header is forged
    pub corrupt: f64,
    /// first frames that are not sent, of every acquisition
    pub late_start: u64,
    /// frames after which an acquisition is aborted, in the midst of the next one
    pub abort_after: Option<u64>,
    /// packets of the acquisition before that are sent in the midst of each
    pub stray: u64,
    /// seed of everything that is random
    pub seed: u64,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EmulatorReport {
    /// acquisitions
    pub series: u64,
    /// frames begun
    pub frames: u64,
    /// packets sent, whatever their state
    pub packets: u64,
    /// packets that were not sent
    pub lost: u64,
    /// packets sent twice
    pub duplicated: u64,
    /// packets held back
    pub reordered: u64,
    /// packets cut short
    pub truncated: u64,
    /// packets with a version, detector, part, number or frame that does not exist
    pub forged: u64,
    /// packets of an acquisition before
    pub stray: u64,
    /// packets of the last acquisition that no receiver can have as they were: frame number, part, packet number
    pub missing: Vec<[u64; 3]>,
    /// bytes of pixels
    pub bytes: u64,
    /// from the first packet to the last
    pub seconds: f64,
}

/// A packet that is to be sent.
#[derive(Clone)]
struct Planned {
    lease: FrameLease,
    head: [u8; HEADER_BYTES],
    place: Target,
    /// bytes of pixels that are sent
    bytes: usize,
    port: usize,
}

impl Packet for Planned {
    fn head(&self) -> &[u8; HEADER_BYTES] {
        &self.head
    }

    fn pieces<'a>(&'a self, take: &mut dyn FnMut(&'a [u8])) {
        let mut left = self.bytes;
        for start in self.place.starts() {
            let bytes = left.min(self.place.piece_bytes);
            take(&self.lease.payload()[start..start + bytes]);
            left -= bytes;
        }
    }
}

/// A detector that is none.
pub struct Emulator {
    config: EmulatorConfig,
    layout: Layout,
    sockets: Vec<UdpSocket>,
    waiting: Vec<Vec<Planned>>,
    /// packets held back, with the number of those that still overtake each
    held: VecDeque<(u64, Planned)>,
    /// packets of this acquisition that are kept for the next one, as strays
    kept: Vec<Planned>,
    sender: Sender,
    random: Pcg64Mcg,
    report: EmulatorReport,
    began: Instant,
}

impl Emulator {
    /// Makes a socket for every address.
    pub fn new(config: EmulatorConfig) -> Result<Self, SourceError> {
        config.detector.check()?;
        let shares = [
            ("lose", config.lose),
            ("duplicate", config.duplicate),
            ("reorder", config.reorder),
            ("corrupt", config.corrupt),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(key, share, "a share of packets from 0 to 1"));
            }
        }
        let mut sockets = Vec::new();
        for address in config.detector.socket_addresses()? {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let connected = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
            sockets.push(connected.map_err(|reason| UdpError::Send { address, reason })?);
        }
        Ok(Self {
            layout: Layout::new(&config.detector)?,
            waiting: sockets.iter().map(|_| Vec::with_capacity(BATCH)).collect(),
            held: VecDeque::new(),
            kept: Vec::new(),
            sender: Sender::default(),
            random: Pcg64Mcg::seed_from_u64(config.seed),
            report: EmulatorReport::default(),
            began: Instant::now(),
            sockets,
            config,
        })
    }

    /// The geometry that frames must have.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sends every acquisition; `shown` is told the number of frames begun and may end it by saying false.
    pub fn send(
        &mut self,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        mut shown: impl FnMut(u64) -> bool,
    ) -> Result<EmulatorReport, SourceError> {
        let stream = source.stream();
        if (stream.shape, stream.pixel_type) != (self.layout.shape, self.layout.pixel_type) {
            let value = format!("{} {}", stream.shape, stream.pixel_type.numpy_name());
            let expected = format!(
                "the detector's frames are {} {}",
                self.layout.shape,
                self.layout.pixel_type.numpy_name()
            );
            return Err(wrong("frames to send", value, expected));
        }
        self.began = Instant::now();
        for series in 1..=self.config.series {
            if series > 1 {
                std::thread::sleep(self.config.pause);
            }
            self.report.missing.clear();
            let strays = std::mem::take(&mut self.kept);
            let going_on = self.acquire(series, strays, source, ring, &mut shown)?;
            while let Some((_, packet)) = self.held.pop_front() {
                self.queue(packet)?;
            }
            self.flush()?;
            self.report.series += 1;
            self.report.seconds = self.began.elapsed().as_secs_f64();
            if !going_on {
                break;
            }
        }
        Ok(self.report.clone())
    }

    fn acquire(
        &mut self,
        series: u64,
        mut strays: Vec<Planned>,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        shown: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, SourceError> {
        source.arm(series as u32)?;
        loop {
            match source.next(ring, WhenFull::Wait)? {
                Arrival::Frame(lease) => {
                    let number = lease.header().frame_number.get();
                    if number < self.config.late_start {
                        continue;
                    }
                    if self.config.abort_after.is_some_and(|frames| number >= frames) {
                        self.keep(&lease, number);
                        return Ok(true);
                    }
                    self.frame(&lease, number)?;
                    // In the midst: after the second frame, so that the run has begun.
                    if number == self.config.late_start + 1 {
                        for packet in strays.drain(..) {
                            self.report.stray += 1;
                            self.queue(packet)?;
                        }
                    }
                    self.flush()?;
                }
                Arrival::End => return Ok(true),
                Arrival::Dropped { .. } | Arrival::Idle => {}
            }
            if !shown(self.report.frames) {
                return Ok(false);
            }
        }
    }

    /// Every packet of a frame, the parts side by side.
    fn packets(&self, lease: &FrameLease, number: u64) -> impl Iterator<Item = (usize, usize, Planned)> + use<> {
        let time = self.began.elapsed().as_nanos() as u64 / 100 + 1;
        let (layout, lease) = (self.layout.clone(), lease.clone());
        let (frame_number, ports) = (number + self.config.detector.first_frame, self.sockets.len());
        (0..layout.packets()).map(move |index| {
            let (packet, part) = (index / layout.parts.len(), index % layout.parts.len());
            let mut header = PacketHeader::new(layout.detector);
            header.frame_number.set(frame_number);
            header.exp_length.set(100);
            header.packet_number.set(packet as u32);
            header.timestamp.set(time);
            header.module.set(part as u16);
            header.row.set(layout.parts[part].header_row);
            header.column.set(layout.parts[part].header_column);
            let planned = Planned {
                lease: lease.clone(),
                head: header.encode(),
                place: layout.place(0, part, packet),
                bytes: layout.payload_bytes,
                port: if ports == 1 { 0 } else { part },
            };
            (part, packet, planned)
        })
    }

    /// Keeps packets of a frame that is not sent, for the next acquisition.
    fn keep(&mut self, lease: &FrameLease, number: u64) {
        let packets = self.packets(lease, number).take(self.config.stray as usize);
        // A copy in memory of its own would do as well; the slot is taken until the next acquisition's second frame.
        self.kept = packets.map(|(_, _, packet)| packet).collect();
    }

    fn happens(&mut self, share: f64) -> bool {
        ((self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    fn frame(&mut self, lease: &FrameLease, number: u64) -> Result<(), SourceError> {
        if lease.header().compression != Compression::None as u8 {
            return Err(wrong(
                "frames to send",
                "compressed",
                "packets carry pixels as they are",
            ));
        }
        self.report.frames += 1;
        let (began, packets) = (Instant::now(), self.layout.packets());
        for (index, (part, packet, planned)) in self.packets(lease, number).enumerate() {
            if index % BATCH == 0 && !self.config.spread.is_zero() {
                self.flush()?;
                let due = self.config.spread * index as u32 / packets as u32;
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            for (left, _) in &mut self.held {
                *left = left.saturating_sub(1);
            }
            while let Some(at) = self.held.iter().position(|(left, _)| *left == 0) {
                if let Some((_, due)) = self.held.remove(at) {
                    self.queue(due)?;
                }
            }
            let name = [number + self.config.detector.first_frame, part as u64, packet as u64];
            if self.happens(self.config.lose) {
                self.report.lost += 1;
                self.miss(name);
                continue;
            }
            if self.happens(self.config.corrupt) {
                self.miss(name);
                self.corrupt(planned)?;
                continue;
            }
            if self.happens(self.config.duplicate) {
                self.report.duplicated += 1;
                self.queue(planned.clone())?;
            }
            if self.happens(self.config.reorder) {
                self.report.reordered += 1;
                let overtaken = 1 + self.random.next_u64() % self.config.reorder_depth.max(1);
                self.held.push_back((overtaken, planned));
                continue;
            }
            self.queue(planned)?;
        }
        Ok(())
    }

    fn miss(&mut self, name: [u64; 3]) {
        if self.report.missing.len() < NAMED_MAX {
            self.report.missing.push(name);
        }
    }

    fn corrupt(&mut self, mut packet: Planned) -> Result<(), SourceError> {
        let kind = self.random.next_u64() % 7;
        if kind < 2 {
            packet.bytes = (self.random.next_u64() % self.layout.payload_bytes as u64) as usize;
            self.report.truncated += 1;
            return self.queue(packet);
        }
        let mut header = PacketHeader::decode(&packet.head);
        match kind {
            2 => header.version = 1,
            3 => header.detector_type = 99,
            4 => header.row.set(u16::MAX),
            5 => header.packet_number.set(self.layout.packets as u32),
            // Far ahead: a receiver that believes it gives every frame before it up.
            _ => header
                .frame_number
                .set(self.config.detector.first_frame + self.config.detector.frames - 1 + (1 << 32)),
        }
        packet.head = header.encode();
        self.report.forged += 1;
        self.queue(packet)
    }

    fn queue(&mut self, packet: Planned) -> Result<(), SourceError> {
        let port = packet.port;
        self.report.packets += 1;
        self.report.bytes += packet.bytes as u64;
        self.waiting[port].push(packet);
        if self.waiting[port].len() == BATCH {
            self.flush_port(port)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SourceError> {
        (0..self.sockets.len()).try_for_each(|port| self.flush_port(port))
    }

    fn flush_port(&mut self, port: usize) -> Result<(), SourceError> {
        let mut sent = 0;
        while sent < self.waiting[port].len() {
            match self.sender.send(&self.sockets[port], &self.waiting[port][sent..]) {
                Ok(count) => sent += count,
                // Nobody listens, or the queue of the interface is full: a detector does not care, and goes on.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(reason) => {
                    let address = self.config.detector.socket_addresses()?[port];
                    return Err(UdpError::Send { address, reason }.into());
                }
            }
        }
        self.waiting[port].clear();
        Ok(())
    }
}
