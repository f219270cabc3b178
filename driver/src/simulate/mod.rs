//! A seeded simulation of a detector: the same seed gives the same bytes on every machine. Frames are made when
//! the source is armed; the copy of a prepared frame into a slot stands for the network card's write.

mod diffraction;
mod noise;
mod phantom;
mod tomography;

pub use phantom::phantom_slice;

use crate::clock::monotonic_ns;
use crate::memory::FrameRing;
use crate::source::{Arrival, FrameSource, Pace, SourceError, WhenFull};
use frame::header::FLAG_PAYLOAD_CRC;
use frame::{Compression, FrameHeader, FrameKind, PixelType, Shape, StreamDescription, codec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most memory that prepared frames may take.
const PREPARED_BYTES_MAX: usize = 8 << 30;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scene {
    /// powder rings, Bragg spots that differ from frame to frame, background, gaps
    Diffraction,
    /// darks, flats and projections of an analytic phantom
    Tomography,
    /// small frames with a pattern, for counting
    Pattern,
}

/// Which detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// 1065×1030
    Eiger1m,
    /// 2167×2070
    Eiger4m,
    /// 4371×4150
    Eiger16m,
    /// 1064×1030
    Jungfrau1m,
    /// 2164×2068
    Jungfrau4m,
    /// `rows` and `columns` of 75 µm
    Custom,
}

/// `[[source]]` with `kind = "simulate"`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SimulateConfig {
    /// "diffraction", "tomography" or "pattern".
    pub scene: Scene,
    /// Detector of a diffraction scene.
    pub detector: Model,
    /// Rows of a custom detector, a tomography or a pattern scene.
    pub rows: usize,
    /// Columns, likewise.
    pub columns: usize,
    /// "u16" or "u32".
    #[schemars(with = "String")]
    pub pixel_type: PixelType,
    /// Frames of a run; of a tomography scene its projections.
    pub frames: u64,
    /// Frames per second; 0 is as fast as the ring allows.
    pub rate_hz: f64,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Different frames of a diffraction scene; they come again in turn.
    pub distinct: usize,
    /// Send frames compressed with bitshuffle-LZ4, as DECTRIS detectors do.
    pub compressed: bool,
    /// Send a checksum with every frame.
    pub checksum: bool,
    /// Dark frames before a tomography's projections.
    pub darks: u64,
    /// Flat frames before a tomography's projections.
    pub flats: u64,
    /// Rotation axis of a tomography, pixels from the centre of column 0; the middle unless given.
    pub rotation_axis_px: Option<f64>,
    /// Counts of the open beam per pixel in a tomography.
    pub open_beam_counts: f64,
    /// Angle that a tomography covers, degrees; the end is not included.
    pub range_deg: f64,
}

impl Default for SimulateConfig {
    fn default() -> Self {
        Self {
            scene: Scene::Diffraction,
            detector: Model::Eiger1m,
            rows: 256,
            columns: 256,
            pixel_type: PixelType::U16,
            frames: 1000,
            rate_hz: 100.0,
            seed: 1,
            distinct: 64,
            compressed: false,
            checksum: false,
            darks: 10,
            flats: 10,
            rotation_axis_px: None,
            open_beam_counts: 20_000.0,
            range_deg: 180.0,
        }
    }
}

impl SimulateConfig {
    fn check(&self) -> Result<(), SourceError> {
        let wrong = |key, value: String, expected: &str| {
            Err(SourceError::Parameter {
                key,
                value,
                expected: expected.into(),
            })
        };
        if !matches!(self.pixel_type, PixelType::U16 | PixelType::U32) {
            return wrong("pixel_type", format!("{:?}", self.pixel_type), "\"u16\" or \"u32\"");
        }
        if self.frames == 0 || self.frames > 100_000_000 {
            return wrong("frames", self.frames.to_string(), "allowed is 1 to 100000000");
        }
        if !(self.rate_hz >= 0.0 && self.rate_hz <= 1e6) {
            return wrong(
                "rate_hz",
                self.rate_hz.to_string(),
                "allowed is 0 to 1000000; 0 is as fast as possible",
            );
        }
        for (key, value) in [("rows", self.rows), ("columns", self.columns)] {
            if !(4..=16384).contains(&value) {
                return wrong(key, value.to_string(), "allowed is 4 to 16384");
            }
        }
        if !(1..=100_000).contains(&self.distinct) {
            return wrong("distinct", self.distinct.to_string(), "allowed is 1 to 100000");
        }
        let top = self.pixel_type.max_value() / 2.0;
        if !(self.open_beam_counts >= 10.0 && self.open_beam_counts <= top) {
            return wrong(
                "open_beam_counts",
                self.open_beam_counts.to_string(),
                "allowed is 10 to half of the type's range",
            );
        }
        if !(self.range_deg > 0.0 && self.range_deg <= 360.0) {
            return wrong("range_deg", self.range_deg.to_string(), "allowed is above 0, up to 360");
        }
        Ok(())
    }
}

/// A scene, made: the different payloads, which frame shows which, and what is known about them.
struct Scenery {
    /// prepared pixels, little-endian
    frames: Vec<Vec<u8>>,
    stream: StreamDescription,
}

/// The source. Clones share the prepared frames.
#[derive(Clone)]
pub struct Simulate {
    config: SimulateConfig,
    stream: StreamDescription,
    payloads: Arc<Vec<Vec<u8>>>,
    checksums: Arc<Vec<u32>>,
    pace: Pace,
    epoch: u32,
    next: u64,
}

impl Simulate {
    /// Makes the scene. The work is done here, once; arming again only begins anew.
    pub fn new(config: SimulateConfig) -> Result<Self, SourceError> {
        config.check()?;
        let scenery = match config.scene {
            Scene::Diffraction => diffraction::make(&config)?,
            Scene::Tomography => tomography::make(&config)?,
            Scene::Pattern => pattern(&config),
        };
        let Scenery { mut frames, mut stream } = scenery;
        if config.compressed {
            let pixel_bytes = stream.pixel_type.bytes();
            let mut out = vec![0; codec::compress_bound(stream.frame_bytes(), pixel_bytes)];
            let mut scratch = codec::Scratch::default();
            for frame in &mut frames {
                let used =
                    codec::compress(frame, pixel_bytes, &mut out, &mut scratch).map_err(|error| SourceError::Read {
                        path: "simulation".into(),
                        reason: error.to_string(),
                    })?;
                *frame = out[..used].to_vec();
            }
            stream.compression = Compression::BitshuffleLz4;
        }
        stream.payload_bytes_max = frames.iter().map(Vec::len).max().unwrap_or(0);
        let checksums = if config.checksum {
            frames.iter().map(|f| crc32c::crc32c(f)).collect()
        } else {
            Vec::new()
        };
        let (payloads, checksums) = (Arc::new(frames), Arc::new(checksums));
        Ok(Self {
            pace: Pace::new(config.rate_hz),
            stream,
            payloads,
            checksums,
            epoch: 0,
            next: 0,
            config,
        })
    }
}

impl FrameSource for Simulate {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.epoch = epoch;
        self.next = 0;
        self.pace = Pace::new(self.config.rate_hz);
        Ok(())
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        if self.next >= self.stream.frames_expected {
            return Ok(Arrival::End);
        }
        if !self.pace.due() {
            return Ok(Arrival::Idle);
        }
        let number = self.next;
        let slot = match when_full {
            WhenFull::Wait => ring.slot_within(Duration::from_millis(20)),
            WhenFull::Drop => ring.try_slot(),
        };
        let Some(mut slot) = slot else {
            if when_full == WhenFull::Wait {
                return Ok(Arrival::Idle);
            }
            self.next += 1;
            self.pace.done();
            return Ok(Arrival::Dropped { frame_number: number });
        };
        let which = (number % self.payloads.len() as u64) as usize;
        let payload = &self.payloads[which];
        let room = slot.payload_mut();
        let slot_bytes = room.len();
        room.get_mut(..payload.len())
            .ok_or(SourceError::SlotTooSmall {
                frame_bytes: payload.len(),
                slot_bytes,
            })?
            .copy_from_slice(payload);
        let mut header = FrameHeader::new(self.stream.shape, self.stream.pixel_type, self.stream.compression);
        header.epoch.set(self.epoch);
        header.frame_number.set(number);
        header.origin_index.set(number);
        header.payload_bytes.set(payload.len() as u64);
        header.kind = self
            .stream
            .kinds
            .get(number as usize)
            .copied()
            .unwrap_or(FrameKind::Sample) as u8;
        header
            .angle_deg
            .set(self.stream.angles_deg.get(number as usize).copied().unwrap_or(f64::NAN));
        if let Some(checksum) = self.checksums.get(which) {
            header.payload_crc32c.set(*checksum);
            header.flags |= FLAG_PAYLOAD_CRC;
        }
        let now = monotonic_ns();
        header.detector_time_ns.set(now);
        header.arrival_time_ns.set(now);
        *slot.header_mut() = header;
        self.next += 1;
        self.pace.done();
        Ok(Arrival::Frame(slot.publish()))
    }
}

/// A description with what every scene has in common.
fn describe(config: &SimulateConfig, origin: &str, shape: Shape, frames_expected: u64) -> StreamDescription {
    StreamDescription {
        origin: origin.into(),
        shape,
        pixel_type: config.pixel_type,
        compression: Compression::None,
        payload_bytes_max: shape.pixels() * config.pixel_type.bytes(),
        frames_expected,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: true,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: frame::stream::DetectorDescription::default(),
        metadata: BTreeMap::from([("simulation_seed".into(), config.seed.to_string())]),
    }
}

/// Refuses a scene that does not fit into memory.
fn check_memory(frames: u64, frame_bytes: usize) -> Result<(), SourceError> {
    let bytes = frames.saturating_mul(frame_bytes as u64);
    if bytes > PREPARED_BYTES_MAX as u64 {
        return Err(SourceError::Parameter {
            key: "distinct",
            value: frames.to_string(),
            expected: format!(
                "{frames} different frames of {frame_bytes} bytes need {bytes} bytes of memory, the limit is \
                 {PREPARED_BYTES_MAX}: ask for fewer or smaller ones"
            ),
        });
    }
    Ok(())
}

/// Counts as pixels of the configured type.
fn to_bytes(counts: impl Iterator<Item = u32>, pixel_type: PixelType) -> Vec<u8> {
    match pixel_type {
        PixelType::U16 => counts
            .flat_map(|c| (c.min(u32::from(u16::MAX)) as u16).to_le_bytes())
            .collect(),
        _ => counts.flat_map(|c| c.to_le_bytes()).collect(),
    }
}

/// Small frames whose pixels are a function of place and number.
fn pattern(config: &SimulateConfig) -> Scenery {
    let shape = Shape::new(config.rows, config.columns);
    let frames = (0..config.distinct as u32)
        .map(|n| {
            to_bytes(
                (0..shape.pixels() as u32).map(|i| (i * 7 + n * 31) % 1000),
                config.pixel_type,
            )
        })
        .collect();
    Scenery {
        frames,
        stream: describe(config, "simulated pattern", shape, config.frames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, PageSize, PagesConfig};

    fn ring(source: &Simulate, slots: usize) -> FrameRing {
        let payload_bytes = source.stream().payload_bytes_max;
        let bytes = FrameRing::bytes_needed(slots, payload_bytes);
        let config = PagesConfig {
            bytes,
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        };
        FrameRing::new(HugePages::reserve(&config).unwrap(), slots, payload_bytes).unwrap()
    }

    fn pixels(source: &mut Simulate, ring: &FrameRing) -> Vec<u16> {
        loop {
            if let Arrival::Frame(lease) = source.next(ring, WhenFull::Wait).unwrap() {
                assert!(lease.intact());
                return lease
                    .payload()
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| u16::from_le_bytes(*b))
                    .collect();
            }
        }
    }

    #[test]
    fn frames_differ_from_each_other_and_repeat_with_the_seed() {
        let config = SimulateConfig {
            distinct: 3,
            frames: 4,
            rate_hz: 0.0,
            checksum: true,
            ..SimulateConfig::default()
        };
        let mut one = Simulate::new(config.clone()).unwrap();
        let mut two = Simulate::new(config).unwrap();
        let ring = ring(&one, 2);
        let frames: Vec<_> = (0..4).map(|_| pixels(&mut one, &ring)).collect();
        let again: Vec<_> = (0..4).map(|_| pixels(&mut two, &ring)).collect();
        assert_eq!(frames, again);
        assert_ne!(frames[0], frames[1]);
        assert_eq!(frames[0], frames[3]);
        assert!(matches!(one.next(&ring, WhenFull::Wait).unwrap(), Arrival::End));
    }

    #[test]
    fn a_diffraction_frame_has_gaps_and_spots() {
        let config = SimulateConfig {
            distinct: 8,
            rate_hz: 0.0,
            ..SimulateConfig::default()
        };
        let mut source = Simulate::new(config).unwrap();
        let ring = ring(&source, 1);
        let mask = source.stream().mask.clone().unwrap();
        assert!(mask.rejected_count() > 37 * 1030);
        let frames: Vec<_> = (0..8).map(|_| pixels(&mut source, &ring)).collect();
        assert!(
            frames[0]
                .iter()
                .enumerate()
                .all(|(i, v)| !mask.rejects(i) || *v == u16::MAX)
        );
        assert!(
            frames
                .iter()
                .any(|f| f.iter().enumerate().any(|(i, v)| !mask.rejects(i) && *v > 1000))
        );
    }

    #[test]
    fn a_full_ring_waits_or_drops() {
        let config = SimulateConfig {
            scene: Scene::Pattern,
            distinct: 4,
            rate_hz: 0.0,
            ..SimulateConfig::default()
        };
        let mut source = Simulate::new(config).unwrap();
        let ring = ring(&source, 1);
        source.arm(3).unwrap();
        let Arrival::Frame(held) = source.next(&ring, WhenFull::Wait).unwrap() else {
            panic!("a frame was due")
        };
        assert!(matches!(source.next(&ring, WhenFull::Wait).unwrap(), Arrival::Idle));
        assert!(matches!(
            source.next(&ring, WhenFull::Drop).unwrap(),
            Arrival::Dropped { frame_number: 1 }
        ));
        drop(held);
        let Arrival::Frame(lease) = source.next(&ring, WhenFull::Drop).unwrap() else {
            panic!("a frame was due")
        };
        assert_eq!((lease.header().frame_number.get(), lease.header().epoch.get()), (2, 3));
    }

    #[test]
    fn compressed_frames_decode_to_the_plain_ones() {
        let plain = SimulateConfig {
            distinct: 1,
            rate_hz: 0.0,
            ..SimulateConfig::default()
        };
        let mut source = Simulate::new(plain.clone()).unwrap();
        let mut packed = Simulate::new(SimulateConfig {
            compressed: true,
            ..plain
        })
        .unwrap();
        let plain_ring = ring(&source, 1);
        let expected = pixels(&mut source, &plain_ring);
        let slots = ring(&packed, 1);
        let Arrival::Frame(lease) = packed.next(&slots, WhenFull::Wait).unwrap() else {
            panic!("a frame was due")
        };
        let mut out = vec![0; expected.len() * 2];
        codec::decompress_into(lease.payload(), 2, &mut out).unwrap();
        assert!(
            out.as_chunks::<2>()
                .0
                .iter()
                .map(|b| u16::from_le_bytes(*b))
                .eq(expected.iter().copied())
        );
        assert!(lease.payload().len() * 3 < out.len());
    }

    #[test]
    fn wrong_parameters_are_named() {
        let error = |config| Simulate::new(config).err().unwrap().to_string();
        let config = SimulateConfig {
            pixel_type: PixelType::F32,
            ..SimulateConfig::default()
        };
        assert_eq!(error(config), "source.pixel_type = F32: \"u16\" or \"u32\"");
        let config = SimulateConfig {
            detector: Model::Eiger16m,
            distinct: 1000,
            ..SimulateConfig::default()
        };
        assert!(error(config).contains("the limit is"));
    }
}
