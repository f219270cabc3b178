//! A [`StreamDescription`] as JSON: what a sender says about its frames before the first.

use frame::stream::DetectorDescription;
use frame::{Compression, FrameKind, PixelMask, PixelType, Shape, StreamDescription};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most frames of a run.
const FRAMES_MAX: u64 = 100_000_000;
/// Most pixels of a frame.
const PIXELS_MAX: usize = 1 << 28;

/// See `driver/PROTOCOL.md`. Unknown keys are refused, so that a typing error is not a silent default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// where the frames come from, for people
    pub origin: String,
    /// slow axis
    pub rows: usize,
    /// fast axis
    pub columns: usize,
    /// `"u8"`, `"u16"`, `"u32"`, `"i16"`, `"i32"`, `"f32"`
    pub pixel_type: PixelType,
    /// `"none"` or `"bitshufflelz4"`
    #[serde(default = "none")]
    pub compression: Compression,
    /// largest payload, bytes
    pub payload_bytes_max: u64,
    /// frames of the run, darks and flats included
    pub frames_expected: u64,
    /// runs of `[kind, count]` in the order of frames; none: all of the sample
    #[serde(default)]
    pub kinds: Vec<(FrameKind, u64)>,
    /// rotation angle of every frame, degrees; `null` where it has none
    #[serde(default)]
    pub angles_deg: Vec<Option<f64>>,
    /// whether the sender waits when it has no slot; otherwise it lets frames go
    #[serde(default)]
    pub pausable: bool,
    /// pixels at or above are saturated
    #[serde(default)]
    pub saturation_value: Option<f64>,
    /// runs of `[NXmx bits, count]`, row by row; none: no mask
    #[serde(default)]
    pub mask: Vec<(u32, u64)>,
    /// detector facts
    #[serde(default)]
    pub detector: DetectorDescription,
    /// anything else, for the run's record
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn none() -> Compression {
    Compression::None
}

fn runs<T: Copy + PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<(T, u64)> {
    let mut runs: Vec<(T, u64)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    runs
}

/// The values of runs; `None` where they are not `expected` many.
fn values<T: Copy>(runs: &[(T, u64)], expected: u64) -> Option<Vec<T>> {
    let total = runs.iter().try_fold(0u64, |sum, (_, count)| sum.checked_add(*count))?;
    let spread = |(value, count): &(T, u64)| std::iter::repeat_n(*value, *count as usize);
    (total == expected).then(|| runs.iter().flat_map(spread).collect())
}

impl Description {
    /// What a source knows.
    pub fn of(stream: &StreamDescription) -> Description {
        Description {
            origin: stream.origin.clone(),
            rows: stream.shape.rows,
            columns: stream.shape.columns,
            pixel_type: stream.pixel_type,
            compression: stream.compression,
            payload_bytes_max: stream.payload_bytes_max as u64,
            frames_expected: stream.frames_expected,
            kinds: runs(stream.kinds.iter().copied()),
            angles_deg: stream
                .angles_deg
                .iter()
                .map(|angle| angle.is_finite().then_some(*angle))
                .collect(),
            pausable: stream.pausable,
            saturation_value: stream.saturation_value,
            mask: stream
                .mask
                .as_ref()
                .map(|mask| runs(mask.bits().iter().copied()))
                .unwrap_or_default(),
            detector: stream.detector.clone(),
            metadata: stream.metadata.clone(),
        }
    }

    /// Reads and checks what came over the network; the error is a sentence for the receiver's operator.
    pub fn parse(json: &[u8], payload_bytes_limit: u64) -> Result<Description, String> {
        let this: Description = serde_json::from_slice(json).map_err(|error| format!("the description: {error}"))?;
        let pixels = this
            .rows
            .checked_mul(this.columns)
            .filter(|pixels| (1..=PIXELS_MAX).contains(pixels));
        let Some(pixels) = pixels else {
            return Err(format!(
                "{}x{} pixels: allowed is 1 to {PIXELS_MAX}",
                this.rows, this.columns
            ));
        };
        if !(1..=FRAMES_MAX).contains(&this.frames_expected) {
            return Err(format!("{} frames: allowed is 1 to {FRAMES_MAX}", this.frames_expected));
        }
        let plain = (pixels * this.pixel_type.bytes()) as u64;
        let wrong_size = this.compression == Compression::None && this.payload_bytes_max != plain;
        if this.payload_bytes_max == 0 || this.payload_bytes_max > payload_bytes_limit || wrong_size {
            return Err(format!(
                "payloads of {} bytes: {pixels} pixels are {plain} bytes uncompressed, the limit is {payload_bytes_limit}",
                this.payload_bytes_max
            ));
        }
        if !this.kinds.is_empty() && values(&this.kinds, this.frames_expected).is_none() {
            return Err(format!(
                "kinds: their counts do not add up to {} frames",
                this.frames_expected
            ));
        }
        if !this.angles_deg.is_empty() && this.angles_deg.len() as u64 != this.frames_expected {
            return Err(format!(
                "{} angles for {} frames",
                this.angles_deg.len(),
                this.frames_expected
            ));
        }
        if !this.mask.is_empty() && values(&this.mask, pixels as u64).is_none() {
            return Err(format!("mask: its counts do not add up to {pixels} pixels"));
        }
        Ok(this)
    }

    /// As the pipeline knows it. Call it on what [`Description::parse`] has checked.
    pub fn stream(&self) -> StreamDescription {
        let kinds = values(&self.kinds, self.frames_expected).unwrap_or_default();
        let count = |kind| kinds.iter().filter(|one| **one == kind).count() as u64;
        let shape = Shape::new(self.rows, self.columns);
        StreamDescription {
            origin: self.origin.clone(),
            shape,
            pixel_type: self.pixel_type,
            compression: self.compression,
            payload_bytes_max: self.payload_bytes_max as usize,
            frames_expected: self.frames_expected,
            darks: count(FrameKind::Dark),
            flats: count(FrameKind::Flat),
            angles_deg: self.angles_deg.iter().map(|angle| angle.unwrap_or(f64::NAN)).collect(),
            kinds,
            pausable: self.pausable,
            parts: 0,
            saturation_value: self.saturation_value,
            mask: values(&self.mask, shape.pixels() as u64).and_then(|bits| PixelMask::from_bits(shape, bits).ok()),
            detector: self.detector.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// Whether frames of both belong into one run.
    pub fn agrees(&self, other: &Description) -> bool {
        let facts = |d: &Description| (d.rows, d.columns, d.pixel_type, d.compression, d.frames_expected);
        facts(self) == facts(other) && other.payload_bytes_max <= self.payload_bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Scene, Simulate, SimulateConfig};
    use crate::source::FrameSource;

    #[test]
    fn a_description_survives_the_journey() {
        for scene in [Scene::Tomography, Scene::Diffraction] {
            let source = Simulate::new(SimulateConfig {
                scene,
                frames: 30,
                distinct: 1,
                rows: 16,
                columns: 16,
                ..SimulateConfig::default()
            })
            .unwrap();
            let sent = source.stream();
            let json = serde_json::to_vec(&Description::of(sent)).unwrap();
            let description = Description::parse(&json, 1 << 30).unwrap();
            let got = description.stream();
            assert_eq!(got.kinds, sent.kinds);
            assert_eq!(got.mask, sent.mask);
            assert_eq!(
                (got.darks, got.flats, got.detector.clone()),
                (sent.darks, sent.flats, sent.detector.clone())
            );
            assert!(
                got.angles_deg
                    .iter()
                    .map(|a| a.to_bits())
                    .eq(sent.angles_deg.iter().map(|a| a.to_bits()))
            );
            assert!(description.agrees(&Description::of(&got)));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_sentence() {
        let good =
            r#"{"origin":"x","rows":4,"columns":4,"pixel_type":"u16","payload_bytes_max":32,"frames_expected":3}"#;
        assert!(Description::parse(good.as_bytes(), 100).is_ok());
        let says = |from: &str, to: &str| Description::parse(good.replace(from, to).as_bytes(), 100).unwrap_err();
        assert!(says("\"rows\":4", "\"rows\":40000000000").contains("allowed is 1 to"));
        assert!(says("\"frames_expected\":3", "\"frames_expected\":100000001").contains("100000001 frames"));
        assert!(says("\"payload_bytes_max\":32", "\"payload_bytes_max\":31").contains("32 bytes uncompressed"));
        assert!(says("\"origin\":\"x\"", "\"origin\":\"x\",\"kinds\":[[\"dark\",4]]").contains("add up"));
        assert!(
            says(
                "\"origin\":\"x\"",
                "\"origin\":\"x\",\"mask\":[[1,18446744073709551615],[1,17]]"
            )
            .contains("add up")
        );
        assert!(says("\"origin\":\"x\"", "\"origin\":\"x\",\"angles_deg\":[1.0]").contains("1 angles for 3"));
        assert!(says("origin", "orign").contains("orign"));
    }
}
