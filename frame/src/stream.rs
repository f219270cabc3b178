//! What a source knows about its frames before the first one arrives.

use crate::mask::PixelMask;
use crate::pixel::{Compression, PixelType, Shape};
use std::collections::BTreeMap;

/// Everything that is known about a source's frames when it is armed. Optional values are what the
/// detector, the file or the configuration says; nothing is guessed.
#[derive(Clone, Debug)]
pub struct StreamDescription {
    /// where the frames come from, for people: a file name, a detector
    pub origin: String,
    /// shape of every frame
    pub shape: Shape,
    /// type of every pixel
    pub pixel_type: PixelType,
    /// compression of payloads as they arrive
    pub compression: Compression,
    /// largest payload in bytes, as it arrives
    pub payload_bytes_max: usize,
    /// number of frames of the run, darks and flats included
    pub frames_expected: u64,
    /// of these, darks
    pub darks: u64,
    /// of these, flats
    pub flats: u64,
    /// rotation angle of every frame in degrees by frame number (NaN for darks and flats); empty where there is none
    pub angles_deg: Vec<f64>,
    /// what every frame was taken for, by frame number; empty: all of them the sample
    pub kinds: Vec<crate::FrameKind>,
    /// whether the source can be made to wait (a file, a simulator) or frames are lost when the ring is full
    pub pausable: bool,
    /// packets or modules that make a frame; 0 where frames come as one
    pub parts: u32,
    /// pixels at or above this value are saturated
    pub saturation_value: Option<f64>,
    /// the source's own mask
    pub mask: Option<PixelMask>,
    /// detector facts for the NeXus file
    pub detector: DetectorDescription,
    /// anything else that the origin says, for the run's record
    pub metadata: BTreeMap<String, String>,
}

/// Facts about detector, beam and sample position, as NeXus wants them; `None` where unknown.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct DetectorDescription {
    /// model, for example `EIGER2 X 1M`
    pub name: Option<String>,
    /// serial number
    pub serial_number: Option<String>,
    /// pixel size along the slow axis, metres
    pub pixel_size_slow_m: Option<f64>,
    /// pixel size along the fast axis, metres
    pub pixel_size_fast_m: Option<f64>,
    /// sensor material, for example `Si`
    pub sensor_material: Option<String>,
    /// sensor thickness, metres
    pub sensor_thickness_m: Option<f64>,
    /// sample to detector, metres
    pub distance_m: Option<f64>,
    /// wavelength, metres
    pub wavelength_m: Option<f64>,
    /// beam centre along the fast axis, pixels from the outer edge of column 0, as NXmx and detectors count
    pub beam_center_x_px: Option<f64>,
    /// beam centre along the slow axis, pixels from the outer edge of row 0
    pub beam_center_y_px: Option<f64>,
    /// exposure of one frame, seconds
    pub count_time_s: Option<f64>,
    /// time from frame to frame, seconds
    pub frame_time_s: Option<f64>,
    /// rotation axis: column position in pixels, from the centre of column 0
    pub rotation_axis_px: Option<f64>,
    /// threshold energy, electronvolts
    pub threshold_energy_ev: Option<f64>,
    /// the flat field that the detector applies or would apply, row by row; not sent on by [`serde`]
    #[serde(skip)]
    pub flatfield: Option<Vec<f32>>,
    /// corrected counts by measured ones; not sent on by [`serde`]
    #[serde(skip)]
    pub countrate_table: Option<Vec<f64>>,
}

impl StreamDescription {
    /// Bytes of one frame once decompressed.
    pub fn frame_bytes(&self) -> usize {
        self.shape.pixels() * self.pixel_type.bytes()
    }

    /// Number of frames of the sample.
    pub fn samples(&self) -> u64 {
        self.frames_expected - self.darks - self.flats
    }
}
