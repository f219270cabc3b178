//! A free-running sender of the detector mode: what an FPGA does, in software. It asks for nothing after its streams stand.

use super::description::Description;
use super::free::{
    FreeAnswer, FreeEnd, FreeHello, Heard, Line, PORT, Place, Service, StreamEnd, address, common_mtu, hex,
};
use super::sender::{ARMING, Fault, SendReport, SenderConfig};
use super::verbs::{
    Access, Completion, CompletionQueue, Device, Gid, MemoryRegion, Path, ProtectionDomain, QueuePair, QueuePairSize,
    Status, VerbsError, Work,
};
use super::{RdmaError, VERSION, wire};
use crate::memory::{FrameLease, FrameRing};
use crate::source::{Arrival, FrameSource, SourceError};
use frame::FrameHeader;
use frame::header::HEADER_PAGE_BYTES;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that a stream has on their way at most.
const FLYING_MAX: usize = 256;
/// Longest wait for the own device at the end.
const FAREWELL: Duration = Duration::from_secs(5);

struct Stream {
    /// dropped first: then the device reads nothing any more
    queue_pair: QueuePair,
    queue: Arc<CompletionQueue>,
    flying: Vec<Option<FrameLease>>,
    waiting: usize,
    sequence: u32,
}

/// See the module.
pub struct FreeSender {
    streams: Vec<Stream>,
    frames: MemoryRegion,
    line: Line,
    epoch: u32,
    fault: Fault,
}

fn unreachable(config: &SenderConfig, reason: impl ToString) -> RdmaError {
    RdmaError::Unreachable {
        address: config.address.to_string(),
        seconds: config.connect_timeout.as_secs_f64(),
        reason: reason.to_string(),
    }
}

impl FreeSender {
    /// Sets up the streams; tries again until somebody listens.
    pub fn connect(
        config: &SenderConfig,
        service: Service,
        device: Option<&str>,
        ring: &FrameRing,
        source: &dyn FrameSource,
    ) -> Result<Self, RdmaError> {
        let device = Device::open(device)?;
        let domain = ProtectionDomain::new(&device)?;
        let frames = MemoryRegion::register(&domain, ring.region(), Access::LocalRead)?;
        let own = address(&device, None)?;
        let mut streams = Vec::new();
        for _ in 0..config.queue_pairs {
            let queue = Arc::new(CompletionQueue::new(&device, FLYING_MAX + 16, None)?);
            let size = QueuePairSize {
                sends: FLYING_MAX,
                receives: 1,
            };
            streams.push(Stream {
                queue_pair: QueuePair::unconnected(&domain, &queue, service.into(), size, PORT)?,
                queue,
                flying: (0..ring.slots()).map(|_| None).collect(),
                waiting: 0,
                sequence: 0,
            });
        }
        let port = device.port(PORT)?;
        let token = match config.fault {
            Fault::WrongToken => Some("not the token"),
            _ => config.token.as_deref(),
        };
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut stream = Description::of(source.stream());
        if config.fault == Fault::FrameTooLarge {
            stream.payload_bytes_max = 1 << 40;
        }
        let hello = FreeHello {
            fluxline_rdma: VERSION,
            token: hex(&wire::token_digest(token)),
            sender: clock.map_or(0, |now| now.as_micros() as u64) ^ u64::from(std::process::id()),
            service,
            place: Place {
                gid: own.1.0.into(),
                lid: port.lid,
                mtu: port.mtu.bytes(),
                streams: streams
                    .iter()
                    .map(|stream| StreamEnd {
                        queue_pair: stream.queue_pair.number(),
                        psn: 0,
                    })
                    .collect(),
            },
            stream,
        };
        let (mut line, text) = Self::ask(config, &hello)?;
        let answer = serde_json::from_slice(&text).map_err(|error| unreachable(config, error))?;
        let (epoch, place) = match answer {
            FreeAnswer::Welcome { epoch, place, .. } => (epoch, place),
            FreeAnswer::Refused { reason, .. } => return Err(RdmaError::Refused { reason }),
        };
        if place.streams.len() != streams.len() {
            return Err(unreachable(config, "it answers with another number of streams"));
        }
        let mtu = common_mtu(&device, place.mtu)?;
        for (stream, theirs) in streams.iter().zip(&place.streams) {
            stream.queue_pair.connect(&Path {
                port: PORT,
                gid_index: own.0,
                gid: Gid(place.gid.octets()),
                lid: place.lid,
                queue_pair: theirs.queue_pair,
                receive_psn: theirs.psn,
                send_psn: 0,
                mtu,
                traffic_class: 0,
            })?;
        }
        line.take_your_time();
        Ok(Self {
            streams,
            frames,
            line,
            epoch,
            fault: config.fault,
        })
    }

    fn ask(config: &SenderConfig, hello: &FreeHello) -> Result<(Line, Vec<u8>), RdmaError> {
        let until = Instant::now() + config.connect_timeout;
        loop {
            let tried = TcpStream::connect_timeout(&config.address, Duration::from_secs(2)).and_then(|stream| {
                let mut line = Line::new(stream, ARMING)?;
                line.say(hello)?;
                Ok(line)
            });
            let why = match tried {
                Ok(mut line) => loop {
                    match line.hear() {
                        Heard::Line(text) => return Ok((line, text)),
                        Heard::Gone => break "it hung up".to_string(),
                        Heard::Nothing => std::thread::sleep(Duration::from_millis(1)),
                    }
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                return Err(unreachable(config, why));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends every frame of the source at its own rate, and says that it is done. It never waits for the receiver; a
    /// device that has no room for more work lets the frame go.
    pub fn send(
        mut self,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<SendReport, SourceError> {
        let mut report = SendReport {
            epoch: self.epoch,
            ..SendReport::default()
        };
        let stale = match self.fault {
            Fault::StaleEpoch(first) => first,
            _ => 0,
        };
        source.arm(self.epoch)?;
        let started = Instant::now();
        loop {
            self.reap(&mut report)?;
            match source.next(ring, crate::source::WhenFull::Wait)? {
                Arrival::Frame(lease) => {
                    report.frames += 1;
                    if report.frames <= stale {
                        // A frame that belongs to nobody's run: the number of its stream is not used for it.
                        report.dropped += 1;
                        continue;
                    }
                    self.one(&lease, &mut report)?;
                    if !progress(report.frames) {
                        break;
                    }
                }
                Arrival::Dropped { .. } => report.frames += 1,
                Arrival::Idle => {}
                Arrival::End => break,
            }
        }
        let until = Instant::now() + FAREWELL;
        while self.streams.iter().any(|stream| stream.waiting > 0) && Instant::now() < until {
            self.reap(&mut report)?;
            std::thread::sleep(Duration::from_micros(100));
        }
        report.in_doubt = self.streams.iter().map(|stream| stream.waiting as u64).sum();
        report.seconds = started.elapsed().as_secs_f64();
        // The receiver may be gone: then nobody wants to know.
        let _ = self.line.say(&FreeEnd { end: report.frames });
        Ok(report)
    }

    fn one(&mut self, lease: &FrameLease, report: &mut SendReport) -> Result<(), SourceError> {
        let number = lease.header().frame_number.get();
        let count = self.streams.len() as u64;
        let stream = &mut self.streams[(number % count) as usize];
        // The number of the message follows from that of the frame, so that what is let go here is a gap there.
        stream.sequence = (number / count) as u32;
        if stream.waiting >= FLYING_MAX {
            report.dropped += 1;
            return Ok(());
        }
        let header = lease.payload_offset() - HEADER_PAGE_BYTES;
        let pieces = [
            (&self.frames, header, size_of::<FrameHeader>()),
            (&self.frames, lease.payload_offset(), lease.payload().len()),
        ];
        let work = Work {
            id: lease.index() as u64,
            pieces: &pieces,
            target: None,
            immediate: Some(stream.sequence),
            signaled: true,
        };
        // SAFETY: the lease is kept until the completion, or until the queue pair is destroyed.
        unsafe { stream.queue_pair.post(&work, None).map_err(RdmaError::from)? };
        stream.flying[lease.index()] = Some(lease.clone());
        stream.waiting += 1;
        Ok(())
    }

    fn reap(&mut self, report: &mut SendReport) -> Result<(), SourceError> {
        for stream in &mut self.streams {
            let mut one = [Completion::default()];
            while stream.queue.poll(&mut one).map_err(RdmaError::from)? == 1 {
                let [done] = one;
                if done.status != Status::Success {
                    return Err(RdmaError::from(VerbsError::Call {
                        call: "sending",
                        reason: std::io::Error::other(done.status.to_string()),
                    })
                    .into());
                }
                if let Some(lease) = stream.flying.get_mut(done.id as usize).and_then(Option::take) {
                    stream.waiting -= 1;
                    report.acknowledged += 1;
                    report.bytes += lease.payload().len() as u64;
                }
            }
        }
        Ok(())
    }
}
