//! `[[source]]` with `kind = "udp"`.

use super::layout::Layout;
use crate::source::SourceError;
use frame::PixelType;
use frame::stream::DetectorDescription;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Which detector sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detector {
    /// JUNGFRAU: a module of 512 × 1024 pixels is one part, or two of 256 × 1024 by two interfaces
    Jungfrau,
    /// EIGER: a module of 512 × 1024 pixels is four parts of 256 × 512, one per port
    Eiger,
}

impl Detector {
    /// `detType` of its packets.
    pub fn code(self) -> u8 {
        match self {
            Self::Eiger => 1,
            Self::Jungfrau => 3,
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eiger => "EIGER",
            Self::Jungfrau => "JUNGFRAU",
        }
    }
}

/// What says which part of the detector a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartBy {
    /// row and column of the packet's header
    Position,
    /// the address that it came to: one per part
    Port,
}

/// `[[source.part]]`: a part of the detector whose place does not follow from the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    /// Row that its packets carry.
    pub header_row: u16,
    /// Column that its packets carry.
    pub header_column: u16,
    /// First row of the frame, pixels.
    pub row: usize,
    /// First column of the frame, pixels.
    pub column: usize,
    /// Its first row is the lowest one.
    #[serde(default)]
    pub flip_rows: bool,
}

/// `[[source]]` with `kind = "udp"`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UdpConfig {
    /// "jungfrau" or "eiger".
    pub detector: Detector,
    /// Addresses of this machine that the detector sends to, for example ["10.0.1.1:50001", "10.0.2.1:50002"]: one for
    /// everything, or one per part.
    pub addresses: Vec<String>,
    /// "position": row and column of its header say which part a packet belongs to. "port": the address does.
    pub part_by: PartBy,
    /// Frames of a run (1 to 100000000).
    pub frames: u64,
    /// Number of a run's first frame, as the detector counts.
    pub first_frame: u64,
    /// Take the number of the first packet after arming as `first_frame` instead.
    pub learn_first_frame: bool,
    /// Rows and columns of modules, of 512 × 1024 pixels each (1 to 64).
    pub modules: [usize; 2],
    /// Pixels between modules, between rows and between columns (0 to 1024).
    pub gap: [usize; 2],
    /// Interfaces of a JUNGFRAU module: 1, or 2 with half of its rows each.
    pub interfaces: usize,
    /// Bits of an EIGER pixel: 8, 16 or 32. JUNGFRAU has 16.
    pub bits: usize,
    /// Bytes of pixels in an EIGER packet: 4096 (10 GbE) or 1024 (1 GbE). JUNGFRAU has 8192.
    pub packet_bytes: usize,
    /// The lower half of every module comes with its lowest row first (EIGER; JUNGFRAU by two interfaces).
    pub flip_lower: bool,
    /// Parts in a place of their own; the regular grid unless given.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub part: Vec<PartConfig>,
    /// Bytes that the kernel may keep for each address (65536 to 2147483647); less is a warning of the run.
    pub receive_buffer_bytes: usize,
    /// A frame is handed on when the one that is this many numbers further is complete (2 to 64, and 4 less than half of
    /// ring.slots).
    pub window: usize,
    /// Seconds after its last packet that a frame is handed on without the missing ones (0.001 to 60).
    pub frame_timeout_s: f64,
    /// Seconds without any packet after which a run ends that has begun (0.1 to 86400).
    pub silence_timeout_s: f64,
    /// Seconds without any packet that arming waits for, so that what an earlier acquisition still sends is gone
    /// (0 to 10).
    pub settle_s: f64,
    /// Seconds from frame to frame, if known.
    pub frame_time_s: Option<f64>,
    /// Wavelength in metres, if known.
    pub wavelength_m: Option<f64>,
    /// Sample to detector in metres, if known.
    pub distance_m: Option<f64>,
    /// Beam centre along the fast axis in pixels from the outer edge of column 0, if known.
    pub beam_center_x_px: Option<f64>,
    /// Beam centre along the slow axis in pixels from the outer edge of row 0, if known.
    pub beam_center_y_px: Option<f64>,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            detector: Detector::Jungfrau,
            addresses: Vec::new(),
            part_by: PartBy::Position,
            frames: 1000,
            first_frame: 1,
            learn_first_frame: false,
            modules: [1, 1],
            gap: [0, 0],
            interfaces: 1,
            bits: 16,
            packet_bytes: 4096,
            flip_lower: false,
            part: Vec::new(),
            receive_buffer_bytes: 128 << 20,
            window: 64,
            frame_timeout_s: 0.25,
            silence_timeout_s: 4.0,
            settle_s: 0.02,
            frame_time_s: None,
            wavelength_m: None,
            distance_m: None,
            beam_center_x_px: None,
            beam_center_y_px: None,
        }
    }
}

pub(super) fn wrong(key: &'static str, value: impl std::fmt::Display, expected: impl Into<String>) -> SourceError {
    SourceError::Parameter {
        key,
        value: value.to_string(),
        expected: expected.into(),
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &'static str, value: T, low: T, high: T) -> Result<(), SourceError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(wrong(key, value, format!("allowed is {low} to {high}")))
}

impl UdpConfig {
    /// Checks every value, and that the parts make a frame.
    pub fn check(&self) -> Result<(), SourceError> {
        within("frames", self.frames, 1, 100_000_000)?;
        within("first_frame", self.first_frame, 0, 1 << 48)?;
        within(
            "receive_buffer_bytes",
            self.receive_buffer_bytes,
            65_536,
            i32::MAX as usize,
        )?;
        within("window", self.window, 2, 64)?;
        within("frame_timeout_s", self.frame_timeout_s, 0.001, 60.0)?;
        within("silence_timeout_s", self.silence_timeout_s, 0.1, 86_400.0)?;
        within("settle_s", self.settle_s, 0.0, 10.0)?;
        let parts = Layout::new(self)?.parts.len();
        let addresses = self.socket_addresses()?;
        let one_each = addresses.len() == parts;
        if !(one_each || (addresses.len() == 1 && self.part_by == PartBy::Position)) {
            let expected = match self.part_by {
                PartBy::Position => format!("1 address, or {parts}: one per part"),
                PartBy::Port => format!("{parts} addresses: one per part"),
            };
            return Err(wrong("addresses", format!("{} of them", addresses.len()), expected));
        }
        Ok(())
    }

    /// The addresses, read.
    pub fn socket_addresses(&self) -> Result<Vec<SocketAddr>, SourceError> {
        let read = |address: &String| {
            address.parse::<SocketAddr>().map_err(|_| {
                let expected = "an address of this machine and a port, for example \"10.0.1.1:50001\"";
                wrong("addresses", format!("{address:?}"), expected)
            })
        };
        self.addresses.iter().map(read).collect()
    }

    /// Type of a pixel.
    pub(super) fn pixel_type(&self) -> Result<PixelType, SourceError> {
        match (self.detector, self.bits) {
            (_, 16) => Ok(PixelType::U16),
            (Detector::Eiger, 8) => Ok(PixelType::U8),
            (Detector::Eiger, 32) => Ok(PixelType::U32),
            (Detector::Eiger, bits) => Err(wrong("bits", bits, "allowed is 8, 16 or 32")),
            (Detector::Jungfrau, bits) => Err(wrong("bits", bits, "a JUNGFRAU has 16")),
        }
    }

    /// What is known of detector and sample.
    pub(super) fn description(&self) -> DetectorDescription {
        DetectorDescription {
            name: Some(self.detector.name().into()),
            pixel_size_slow_m: Some(75e-6),
            pixel_size_fast_m: Some(75e-6),
            sensor_material: Some("Si".into()),
            distance_m: self.distance_m,
            wavelength_m: self.wavelength_m,
            beam_center_x_px: self.beam_center_x_px,
            beam_center_y_px: self.beam_center_y_px,
            frame_time_s: self.frame_time_s,
            ..DetectorDescription::default()
        }
    }
}
