//! Frames of files: HDF5 (DXchange, NXtomo, NXmx, any dataset), TIFF and CBF, at a given rate or as fast as the ring
//! allows. Where a file's bytes can be used as they are, they are read straight into slots.

mod cbf;
mod facts;
mod hdf5;
mod parts;
mod stack;
mod tiff;
mod words;

use crate::clock::monotonic_ns;
use crate::memory::FrameRing;
use crate::source::{Arrival, FrameSource, Pace, SourceError, WhenFull};
use frame::header::FLAG_PARTIAL;
use frame::{FrameHeader, FrameKind, StreamDescription};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stack::Stack;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// by its name
    #[default]
    Auto,
    /// HDF5
    Hdf5,
    /// TIFF
    Tiff,
    /// CBF with byte-offset compression
    Cbf,
}

/// `[[source]]` with `kind = "replay"`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// Dataset of an HDF5 file, where it is not in a place that a standard names.
    pub dataset: Option<String>,
    /// "auto" (by the file's name), "hdf5", "tiff" or "cbf".
    pub format: Format,
    /// Frames per second; 0 is as fast as the ring allows.
    pub rate_hz: f64,
    /// First frame of the sample, counted from 0.
    pub first: Option<u64>,
    /// Last frame of the sample, itself included.
    pub last: Option<u64>,
    /// How often the frames of the sample come.
    pub repeat: u64,
    /// Angle that a tomography covers, degrees: its projections are spread evenly over it, the end not included, where
    /// the file does not say their angles.
    pub range_deg: Option<f64>,
    /// Darks, flats and projections in the order in which they lie in an NXtomo file; without it darks and flats come first.
    pub as_taken: bool,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            dataset: None,
            format: Format::Auto,
            rate_hz: 0.0,
            first: None,
            last: None,
            repeat: 1,
            range_deg: None,
            as_taken: false,
        }
    }
}

/// One frame of the run: where it comes from and what it is.
#[derive(Clone, Copy, Debug)]
struct Planned {
    stack: usize,
    index: usize,
    kind: FrameKind,
    angle_deg: f64,
    /// whether it lacked parts when it was recorded
    partial: bool,
}

/// What a file holds.
struct Content {
    /// frames by dataset or file
    stacks: Vec<Stack>,
    /// frames in the order in which they are sent: darks, flats, sample
    plan: Vec<Planned>,
    /// mask and facts; numbers of frames are filled in later
    stream: StreamDescription,
}

/// The source.
pub struct Replay {
    content: Content,
    path: PathBuf,
    pace: Pace,
    rate_hz: f64,
    epoch: u32,
    next: usize,
}

impl Replay {
    /// Opens a file and reads what is known about its frames.
    pub fn open(path: &Path, config: &ReplayConfig) -> Result<Self, SourceError> {
        let wrong = |key, value: String, expected: &str| SourceError::Parameter {
            key,
            value,
            expected: expected.into(),
        };
        if !(config.rate_hz >= 0.0 && config.rate_hz <= 1e6) {
            return Err(wrong(
                "rate_hz",
                config.rate_hz.to_string(),
                "allowed is 0 to 1000000; 0 is as fast as possible",
            ));
        }
        if !(1..=1_000_000).contains(&config.repeat) {
            return Err(wrong("repeat", config.repeat.to_string(), "allowed is 1 to 1000000"));
        }
        if let Some(range) = config.range_deg.filter(|range| !(*range > 0.0 && *range <= 3600.0)) {
            return Err(wrong("range_deg", range.to_string(), "allowed is above 0, up to 3600"));
        }
        if !path.exists() {
            return Err(SourceError::Read {
                path: path.into(),
                reason: "there is no such file".into(),
            });
        }
        let mut content = match format(path, config.format)? {
            Format::Tiff => tiff::open(path)?,
            Format::Cbf => cbf::open(path)?,
            Format::Hdf5 | Format::Auto => hdf5::open(path, config.dataset.as_deref(), config.range_deg)?,
        };
        select(&mut content, config)?;
        if config.as_taken {
            content.plan.sort_by_key(|frame| (frame.stack, frame.index));
        }
        describe(&mut content, path)?;
        Ok(Self {
            content,
            path: path.into(),
            pace: Pace::new(config.rate_hz),
            rate_hz: config.rate_hz,
            epoch: 0,
            next: 0,
        })
    }
}

fn format(path: &Path, wanted: Format) -> Result<Format, SourceError> {
    if wanted != Format::Auto {
        return Ok(wanted);
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".bz2");
    match name.rsplit('.').next().unwrap_or_default() {
        "h5" | "hdf5" | "hdf" | "nxs" | "nx" | "nx5" => Ok(Format::Hdf5),
        "tif" | "tiff" => Ok(Format::Tiff),
        "cbf" => Ok(Format::Cbf),
        other => Err(SourceError::Content {
            path: path.into(),
            found: format!("the name ends in .{other}"),
            expected:
                "an HDF5 (.h5, .hdf5, .nxs), TIFF (.tif) or CBF (.cbf) file; name another kind with source.format"
                    .into(),
        }),
    }
}

/// Takes the part of the sample that is asked for, as often as it is asked for.
fn select(content: &mut Content, config: &ReplayConfig) -> Result<(), SourceError> {
    let sample = content
        .plan
        .iter()
        .filter(|frame| frame.kind == FrameKind::Sample)
        .count() as u64;
    let (first, last) = (
        config.first.unwrap_or(0),
        config.last.unwrap_or(sample.saturating_sub(1)),
    );
    let wrong = |key, value: u64| SourceError::Parameter {
        key,
        value: value.to_string(),
        expected: format!(
            "the file has {sample} frames of the sample, 0 to {}",
            sample.saturating_sub(1)
        ),
    };
    if first >= sample {
        return Err(wrong("first", first));
    }
    if last < first || last >= sample {
        return Err(wrong("last", last));
    }
    let (mut others, frames): (Vec<_>, Vec<_>) = content
        .plan
        .iter()
        .copied()
        .partition(|frame| frame.kind != FrameKind::Sample);
    let frames = &frames[first as usize..=last as usize];
    for _ in 0..config.repeat {
        others.extend_from_slice(frames);
    }
    content.plan = others;
    Ok(())
}

/// Fills in what follows from the plan and checks that all stacks are of one kind.
fn describe(content: &mut Content, path: &Path) -> Result<(), SourceError> {
    let Content { stacks, plan, stream } = content;
    let one = &stacks[plan[0].stack];
    for frame in plan.iter() {
        let other = &stacks[frame.stack];
        if (other.shape, other.pixel_type, other.compression) != (one.shape, one.pixel_type, one.compression) {
            let words = |s: &Stack| format!("{} {}", s.shape, s.pixel_type.numpy_name());
            return Err(SourceError::Content {
                path: path.into(),
                found: format!("some frames are {}, others {}", words(one), words(other)),
                expected: "frames of one shape, pixel type and compression".into(),
            });
        }
    }
    (stream.shape, stream.pixel_type, stream.compression) = (one.shape, one.pixel_type, one.compression);
    stream.payload_bytes_max = plan.iter().map(|f| stacks[f.stack].bytes(f.index)).max().unwrap_or(0);
    stream.frames_expected = plan.len() as u64;
    let count = |kind| plan.iter().filter(|frame| frame.kind == kind).count() as u64;
    (stream.darks, stream.flats) = (count(FrameKind::Dark), count(FrameKind::Flat));
    stream.kinds = plan.iter().map(|frame| frame.kind).collect();
    if plan.iter().any(|frame| frame.angle_deg.is_finite()) {
        stream.angles_deg = plan.iter().map(|frame| frame.angle_deg).collect();
    }
    if let Some(mask) = &stream.mask
        && mask.shape() != stream.shape
    {
        return Err(SourceError::Content {
            path: path.into(),
            found: format!("its pixel mask is {}", mask.shape()),
            expected: format!("the shape of its frames, {}", stream.shape),
        });
    }
    Ok(())
}

impl FrameSource for Replay {
    fn stream(&self) -> &StreamDescription {
        &self.content.stream
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.epoch = epoch;
        self.next = 0;
        self.pace = Pace::new(self.rate_hz);
        Ok(())
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        let Some(planned) = self.content.plan.get(self.next).copied() else {
            return Ok(Arrival::End);
        };
        if !self.pace.due() {
            return Ok(Arrival::Idle);
        }
        let frame_number = self.next as u64;
        let stack = &self.content.stacks[planned.stack];
        let bytes = stack.bytes(planned.index);
        if bytes == 0 {
            // It was never stored: its number stays its own.
            self.next += 1;
            self.pace.done();
            return Ok(Arrival::Dropped { frame_number });
        }
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
            return Ok(Arrival::Dropped { frame_number });
        };
        let slot_bytes = slot.payload_mut().len();
        let room = slot.payload_mut().get_mut(..bytes).ok_or(SourceError::SlotTooSmall {
            frame_bytes: bytes,
            slot_bytes,
        })?;
        stack.read(planned.index, room).map_err(|error| SourceError::Read {
            path: self.path.clone(),
            reason: format!("frame {frame_number} cannot be read: {error}"),
        })?;
        let mut header = FrameHeader::new(stack.shape, stack.pixel_type, stack.compression);
        header.epoch.set(self.epoch);
        header.frame_number.set(frame_number);
        header.origin_index.set(planned.index as u64);
        header.payload_bytes.set(bytes as u64);
        header.kind = planned.kind as u8;
        header.angle_deg.set(planned.angle_deg);
        if planned.partial {
            header.flags |= FLAG_PARTIAL;
        }
        header.arrival_time_ns.set(monotonic_ns());
        *slot.header_mut() = header;
        self.next += 1;
        self.pace.done();
        Ok(Arrival::Frame(slot.publish()))
    }
}
