//! The source that the pipeline sees.

use super::config::{DectrisConfig, Version};
use super::counters::{Counters, count};
use super::describe::{self, FirstImage};
use super::error::DectrisError;
use super::line::{Filling, Place};
use super::message::{Image, Message, Packing, SeriesKey, Start};
use super::series::{OnImage, OnStart, Over, Series};
use super::station::{Came, Parked, Station};
use super::v2;
use crate::clock::monotonic_ns;
use crate::memory::{FrameRing, FrameSlot};
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::header::FLAG_DAMAGED;
use frame::{Compression, FrameHeader, Note, PixelType, Shape, StreamDescription, codec};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames of a DECTRIS detector's stream.
pub struct DectrisSource {
    config: DectrisConfig,
    pixel_type: Option<PixelType>,
    counters: Arc<Counters>,
    parked: Parked,
    station: Option<Station>,
    stream: StreamDescription,
    channel: Option<String>,
    epoch: u32,
    /// the last message is an image that found no slot
    waiting: bool,
    over: Option<Over>,
    scratch: codec::Scratch,
}

impl DectrisSource {
    /// Checks the configuration. The socket is the one of `parked`, or is made when the source is armed.
    pub fn new(config: &DectrisConfig, counters: Arc<Counters>, parked: &Parked) -> Result<Self, SourceError> {
        config.check()?;
        Ok(Self {
            pixel_type: config.pixel_type()?,
            config: config.clone(),
            counters,
            parked: parked.clone(),
            station: None,
            stream: unknown(config),
            channel: None,
            epoch: 0,
            waiting: false,
            over: None,
            scratch: codec::Scratch::warmed(Compression::BitshuffleZstd),
        })
    }

    /// Waits for a series to begin, and for its first image where its start does not say enough.
    fn wait_for_start(&mut self, station: &mut Station) -> Result<(), SourceError> {
        let until = Instant::now() + Duration::from_secs_f64(self.config.start_timeout_s);
        let mut begun: Option<(SeriesKey, Box<Start>)> = None;
        let (mut first, mut complaint) = (None, None);
        loop {
            if begun.is_some() && first.is_some() {
                break;
            }
            if let Some((_, start)) = &begun
                && !describe::needs_image(start, &self.config)
            {
                break;
            }
            if !station.receive(&self.counters)? {
                if Instant::now() > until {
                    self.counters.show(&station.series.counts());
                    let complaint = complaint.or_else(|| station.refusal());
                    return Err(self.no_start(begun.is_some(), complaint).into());
                }
                continue;
            }
            let now = monotonic_ns();
            match station.now.decode(self.config.version, self.config.channel.as_deref()) {
                Ok(Message::Start(key, start)) => match station.series.on_start(key) {
                    OnStart::Begin => {
                        if let Some((older, _)) = begun.replace((key, start)) {
                            station.series.refuse(older);
                        }
                    }
                    OnStart::Stray => {}
                    OnStart::Next => station.keep_for_next(),
                },
                Ok(Message::Image(image)) => {
                    let (series, pixels) = (image.series, image.pixels);
                    let facts = FirstImage {
                        shape: pixels.shape,
                        pixel_type: pixels.pixel_type,
                    };
                    if station.series.on_image(&series, image.image_id, now) == OnImage::Early {
                        if begun.as_ref().is_some_and(|(key, _)| *key == series) {
                            first = Some(facts);
                        } else {
                            station.series.on_early();
                        }
                        if !station.keep_early() {
                            station.series.on_early_lost();
                        }
                    }
                }
                Ok(Message::End(key)) => {
                    station.series.on_end(&key, now);
                    if begun.as_ref().is_some_and(|(begun, _)| *begun == key) {
                        begun = None;
                        complaint = Some(format!("series {} ended before its first image", key.id));
                    }
                }
                Err(error) => {
                    count(&self.counters.malformed);
                    complaint = Some(error.to_string());
                }
            }
        }
        let Some((key, start)) = begun else {
            return Err(self.no_start(false, complaint).into());
        };
        match describe::describe(&key, *start, first, &self.config, self.pixel_type) {
            Ok(described) => {
                self.stream = described.stream;
                self.channel = described.channel;
            }
            Err(reason) => {
                station.series.refuse(key);
                return Err(DectrisError::Start { series: key.id, reason }.into());
            }
        }
        let patience = self.config.patience(self.stream.detector.frame_time_s);
        station.series.arm(patience);
        station.series.begin(key, self.stream.frames_expected, monotonic_ns());
        station.reserve(self.stream.payload_bytes_max);
        station.replay_early();
        Ok(())
    }

    fn no_start(&self, begun: bool, complaint: Option<String>) -> DectrisError {
        let seen = complaint.map_or_else(String::new, |complaint| {
            format!("; the last message that could not be used: {complaint}")
        });
        let (addresses, seconds) = (self.config.addresses.join(", "), self.config.start_timeout_s);
        if begun {
            return DectrisError::NoImage {
                addresses,
                seconds,
                seen,
            };
        }
        DectrisError::NoStart {
            addresses,
            seconds,
            seen,
        }
    }
}

/// Before a series has begun.
fn unknown(config: &DectrisConfig) -> StreamDescription {
    StreamDescription {
        origin: format!("DECTRIS stream at {}", config.addresses.join(", ")),
        shape: Shape::new(0, 0),
        pixel_type: PixelType::U16,
        compression: Compression::BitshuffleLz4,
        payload_bytes_max: 0,
        frames_expected: 0,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: false,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: Default::default(),
        metadata: Default::default(),
    }
}

/// Puts an image's bytes into a slot, once: as they came where the pipeline reads that, else unpacked on the way. Those that
/// are still on their way are left out, and counted.
/// Returns the bytes used and how they are packed now; `None` where they cannot be a frame of the series.
fn place(
    image: &Image<'_>,
    stream: &StreamDescription,
    slot: &mut FrameSlot,
    scratch: &mut codec::Scratch,
) -> Option<(usize, Compression)> {
    let pixels = &image.pixels;
    pixels.check(stream.shape, stream.pixel_type).ok()?;
    let frame_bytes = stream.frame_bytes();
    let room = slot.payload_mut();
    match pixels.packing {
        Packing::None | Packing::BitshuffleLz4 => {
            let (here, total) = (pixels.bytes.len(), pixels.total_bytes());
            room.get_mut(..total)?[..here].copy_from_slice(pixels.bytes);
            let plain = pixels.packing == Packing::None;
            let compression = if plain {
                Compression::None
            } else {
                Compression::BitshuffleLz4
            };
            Some((total, compression))
        }
        Packing::BitshuffleZstd => {
            // Whether a series is packed so, only its images say: the files are made before, for LZ4.
            let (beneath, out) = (codec::Beneath::Zstd, room.get_mut(..frame_bytes)?);
            codec::decompress(beneath, pixels.bytes, stream.pixel_type.bytes(), out, scratch).ok()?;
            Some((frame_bytes, Compression::None))
        }
        Packing::Lz4Framed => {
            codec::lz4_framed_into(pixels.bytes, room.get_mut(..frame_bytes)?).ok()?;
            Some((frame_bytes, Compression::None))
        }
        Packing::Lz4Block => {
            codec::lz4_block_into(pixels.bytes, room.get_mut(..frame_bytes)?).ok()?;
            Some((frame_bytes, Compression::None))
        }
    }
}

/// Header and payload of an image.
fn fill(
    image: &Image<'_>,
    stream: &StreamDescription,
    epoch: u32,
    slot: &mut FrameSlot,
    scratch: &mut codec::Scratch,
) -> bool {
    let placed = place(image, stream, slot, scratch);
    let (bytes, compression) = placed.unwrap_or_else(|| {
        // The bytes are kept as they came, for a look at them.
        let kept = image.pixels.bytes.len().min(slot.payload_mut().len());
        slot.payload_mut()[..kept].copy_from_slice(&image.pixels.bytes[..kept]);
        (kept, Compression::BitshuffleLz4)
    });
    let mut header = FrameHeader::new(stream.shape, stream.pixel_type, compression);
    header.epoch.set(epoch);
    header.frame_number.set(image.image_id);
    header.origin_index.set(image.image_id);
    header.detector_time_ns.set(image.start_time_ns);
    header.payload_bytes.set(bytes as u64);
    if let Some(angle) = stream.angles_deg.get(image.image_id as usize) {
        header.angle_deg.set(*angle);
    }
    if placed.is_none() {
        header.flags |= FLAG_DAMAGED;
    }
    header.arrival_time_ns.set(monotonic_ns());
    *slot.header_mut() = header;
    for (name, value) in image.notes.values() {
        if let Some(note) = Note::new(name, *value) {
            slot.note(note);
        }
    }
    placed.is_some()
}

/// What decides where an image goes whose first bytes have come.
struct Taking<'a> {
    version: Version,
    channel: Option<&'a str>,
    stream: &'a StreamDescription,
    epoch: u32,
    ring: &'a FrameRing,
    when_full: WhenFull,
}

impl Taking<'_> {
    /// An image of the running series that stays as it is goes straight into a slot; everything else is received whole first.
    fn place(&self, series: &Series, head: &[u8], beyond: usize, scratch: &mut codec::Scratch) -> Place {
        if self.version == Version::V1 || !v2::looks_like(head) {
            return Place::Memory;
        }
        let Ok(Message::Image(image)) = v2::decode_head(head, beyond, self.channel) else {
            return Place::Memory;
        };
        let (pixels, stream) = (&image.pixels, self.stream);
        let stays = matches!(pixels.packing, Packing::None | Packing::BitshuffleLz4)
            && pixels.check(stream.shape, stream.pixel_type).is_ok();
        if !stays || series.running() != Some(image.series) {
            return Place::Memory;
        }
        let slot = match self.when_full {
            WhenFull::Wait => self.ring.slot_within(Duration::from_millis(20)),
            WhenFull::Drop => self.ring.try_slot(),
        };
        let Some(mut slot) = slot else {
            return match self.when_full {
                WhenFull::Wait => Place::NoSlot,
                // Whole, it asks for a slot again, and is then let go.
                WhenFull::Drop => Place::Memory,
            };
        };
        if !fill(&image, stream, self.epoch, &mut slot, scratch) {
            return Place::Memory;
        }
        Place::Slot(Filling {
            slot,
            series: image.series,
            image_id: image.image_id,
            at: pixels.bytes.len(),
            end: pixels.total_bytes(),
        })
    }
}

impl FrameSource for DectrisSource {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.epoch = epoch;
        self.waiting = false;
        self.over = None;
        let mut station = match self.station.take() {
            Some(station) => station,
            None => self.parked.take(&self.config)?,
        };
        station.give_back();
        station.series.arm(self.config.patience(None));
        let waited = self.wait_for_start(&mut station);
        self.station = Some(station);
        waited
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        let Some(station) = &mut self.station else {
            return Ok(Arrival::End);
        };
        if self.over.is_some() {
            return Ok(Arrival::End);
        }
        let taking = Taking {
            version: self.config.version,
            channel: self.channel.as_deref(),
            stream: &self.stream,
            epoch: self.epoch,
            ring,
            when_full,
        };
        let came = if self.waiting {
            Came::Message
        } else {
            let scratch = &mut self.scratch;
            station.receive_into(&self.counters, false, &mut |series, head, beyond| {
                taking.place(series, head, beyond, scratch)
            })?
        };
        let now = monotonic_ns();
        let mut arrival = Arrival::Idle;
        if let Came::Image(mut image) = came {
            // Its series may have ended while its last bytes were on their way.
            if station.series.on_image(&image.series, image.image_id, now) == OnImage::Take {
                count(&self.counters.placed);
                image.slot.header_mut().arrival_time_ns.set(now);
                arrival = Arrival::Frame(image.slot.publish());
            }
        } else if matches!(came, Came::Message) {
            match station.now.decode(self.config.version, self.channel.as_deref()) {
                Ok(Message::Image(image)) => {
                    if self.waiting || station.series.on_image(&image.series, image.image_id, now) == OnImage::Take {
                        let slot = match when_full {
                            WhenFull::Wait => ring.slot_within(Duration::from_millis(20)),
                            WhenFull::Drop => ring.try_slot(),
                        };
                        self.waiting = slot.is_none() && when_full == WhenFull::Wait;
                        arrival = match slot {
                            Some(mut slot) => {
                                if !fill(&image, &self.stream, self.epoch, &mut slot, &mut self.scratch) {
                                    count(&self.counters.damaged);
                                }
                                Arrival::Frame(slot.publish())
                            }
                            None if self.waiting => return Ok(Arrival::Idle),
                            None => Arrival::Dropped {
                                frame_number: image.image_id,
                            },
                        };
                    }
                }
                Ok(Message::End(key)) => station.series.on_end(&key, now),
                Ok(Message::Start(key, _)) => {
                    if station.series.on_start(key) == OnStart::Next {
                        station.keep_for_next();
                    }
                }
                Err(_) => count(&self.counters.malformed),
            }
        }
        if matches!(arrival, Arrival::Idle) {
            self.over = station.series.over(now);
            if self.over.is_some() {
                arrival = Arrival::End;
            }
            self.counters.show(&station.series.counts());
        }
        Ok(arrival)
    }

    fn remarks(&self) -> Vec<String> {
        let why = match self.over {
            Some(Over::Short) => "the detector ended the series with images missing",
            Some(Over::NoEnd) => "the detector never said that the series has ended",
            Some(Over::Silent) => "the detector fell silent before the series had ended",
            Some(Over::Superseded) => "the detector began another series before this one had ended",
            Some(Over::Whole) | None => return Vec::new(),
        };
        vec![why.into()]
    }
}

impl Drop for DectrisSource {
    fn drop(&mut self) {
        if let Some(mut station) = self.station.take() {
            station.give_back();
            self.counters.show(&station.series.counts());
            self.parked.put(station);
        }
    }
}
