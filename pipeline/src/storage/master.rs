//! `RUN_master.h5`: the NeXus file that people open.

use super::data_files::{FRAMES, FRAMES_PER_FILE, FrameFormat, Piece, file_name, planned};
use super::error::{At, StoreError};
use super::facts::Facts;
use super::ledger::Ledger;
use super::nexus::{self, Nx};
use super::results::{self, Results};
use super::run_json::rfc3339;
use super::start::Start;
use super::{CurveAxis, LedgerColumns, RunEnd, RunInfo, azint, nxmx, nxtomo, open};
use crate::frame_metadata::{ANGLE, MetadataColumn, MetadataValues};
use driver::clock::monotonic_ns;
use frame::{FrameKind, FrameResult, Image, ResultLayout, StreamDescription};
use hdf5::{Dataset, File};
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};

/// What happened to the frames, as the writer saw it; one value per expected frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    /// whether the frame is safe
    pub(super) stored: Vec<bool>,
    /// [`FrameKind`] codes
    pub(super) kinds: Vec<u8>,
    /// NaN where there is none
    pub(super) angles_deg: Vec<f64>,
}

/// What is known of a master file when it has been made.
#[derive(Debug)]
pub(super) struct Made {
    /// names of the datasets that a run which ends early makes shorter
    pub(super) per_frame: Vec<String>,
    /// whether the end was foreseen, so that the estimate stands
    pub(super) end_estimated: bool,
    /// values that a definition requires and that nobody told
    pub(super) warnings: Vec<String>,
}

/// Creates the file with everything that is known before frame 0, and closes it.
pub(super) fn create(
    path: &Path,
    info: &RunInfo,
    stream: &StreamDescription,
    layout: &ResultLayout,
    axes: &[CurveAxis],
    facts: &Facts,
    format: FrameFormat,
) -> Result<Made, StoreError> {
    let doing = "creating";
    let file = open::create_v110(path).at(doing, path)?;
    let entry = begin(&file, path, info).at(doing, path)?;
    let mut per_frame = Results::create(&entry, path, layout, axes, format.frames as usize)?;
    let mut warnings = Vec::new();
    let mut build = || -> Result<bool, hdf5::Error> {
        let end_estimated = times(&entry, info, stream)?;
        let data = data_group(&entry, info, &format)?;
        let instrument = instrument(&entry, info)?;
        let detector = detector(&instrument, stream, facts)?;
        let sample = entry.group("sample", "NXsample")?;
        sample.text("name", &info.sample)?;
        if info.definition == "NXtomo" {
            let columns = nxtomo::write(&detector, &sample, &data, info, stream)?;
            per_frame.extend([columns.image_key, columns.rotation_angle]);
            sample.text("depends_on", ".")?;
        } else {
            nxmx::write(&instrument, &detector, stream, facts, info, &mut warnings)?;
            per_frame.extend(goniometer(&sample, stream)?);
        }
        process(&entry, info)?;
        azint::write(&entry, info, layout, axes, facts)?;
        Ledger::create(&entry, format.frames as usize, stream.parts as usize)?;
        virtual_frames(&entry, &planned(&info.id, &format), format.frames as usize, &format)?;
        file.flush()?;
        Ok(end_estimated)
    };
    let end_estimated = build().at(doing, path)?;
    Ok(Made {
        per_frame: per_frame.iter().map(|dataset| dataset.name()).collect(),
        end_estimated,
        warnings,
    })
}

/// The open master file.
#[derive(Debug)]
pub(super) struct Master {
    path: PathBuf,
    start: Start,
    file: File,
    entry: Nx,
    format: FrameFormat,
    results: Results,
    ledger: Ledger,
    tomography: Option<nxtomo::Columns>,
    /// goniometer angle of every frame, for NXmx
    omega: Option<Dataset>,
    /// datasets with one row per frame, which a run that ends early makes shorter
    per_frame: Vec<Dataset>,
    axes: Vec<CurveAxis>,
    /// whether readers may have it open, as SWMR: nothing may be added to it then
    live: bool,
    /// whether something was written that they do not see yet, and since when they see what they see
    changed: bool,
    shown_ns: u64,
}

impl Master {
    /// Opens a file that [`create`] has made, as `start` says, before frame 0 or to finish it.
    pub(super) fn open(path: &Path, format: FrameFormat, start: &Start) -> Result<Self, StoreError> {
        let layout = start.layout();
        let open = || -> Result<Self, hdf5::Error> {
            let file = open::write(path)?;
            let entry = Nx::root(&file)?.child("entry").ok_or("/entry is missing")?;
            let dataset = |name: &str| entry.group_ref().dataset(name);
            let tomography = match (
                dataset("instrument/detector/image_key"),
                dataset("sample/rotation_angle"),
            ) {
                (Ok(image_key), Ok(rotation_angle)) => Some(nxtomo::Columns {
                    image_key,
                    rotation_angle,
                }),
                _ => None,
            };
            let per_frame = start.per_frame.iter().map(|name| file.dataset(name));
            Ok(Self {
                path: path.to_path_buf(),
                start: start.clone(),
                ledger: Ledger::open(&entry)?,
                omega: dataset("sample/transformations/omega").ok(),
                per_frame: per_frame.collect::<Result<_, _>>()?,
                results: Results::open(&entry, path, &layout, format.frames as usize)?,
                axes: Vec::new(),
                live: false,
                changed: false,
                shown_ns: 0,
                tomography,
                format,
                entry,
                file,
            })
        };
        open().at("opening", path)
    }

    /// The same for a run that begins: readers may open it, too (SWMR), and see its results and frames come.
    pub(super) fn begin(
        path: &Path,
        format: FrameFormat,
        start: &Start,
        axes: &[CurveAxis],
    ) -> Result<Self, StoreError> {
        let mut master = Self::open(path, format, start)?;
        master.file.start_swmr().at("letting readers see", path)?;
        master.axes = axes.to_vec();
        master.live = true;
        Ok(master)
    }

    /// Writes rows of the ledger from row `first` on.
    pub(super) fn write_ledger(&mut self, first: u64, rows: &LedgerColumns<'_>) -> Result<(), StoreError> {
        self.changed = true;
        let written = self.ledger.write_rows(first, rows);
        written.at("writing the ledger to", &self.path)
    }

    /// Whether readers were shown something within the last `after_ns`.
    pub(super) fn shown_within(&self, after_ns: u64) -> bool {
        monotonic_ns().saturating_sub(self.shown_ns) < after_ns
    }

    /// Whether something was written that readers do not see yet.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Lets readers see what was written, where that is longer ago than `after_ns`.
    pub(super) fn show(&mut self, after_ns: u64) -> Result<(), StoreError> {
        let now = monotonic_ns();
        if !self.changed || now.saturating_sub(self.shown_ns) < after_ns {
            return Ok(());
        }
        (self.changed, self.shown_ns) = (false, now);
        self.results.show()?;
        let flushed = self.file.flush();
        flushed.map_err(|error| StoreError::hdf5("writing results to", &self.path, &error, 0))
    }

    /// Rows in a chunk of a result curve.
    pub(super) fn block_rows(&self) -> u64 {
        self.results.block_rows()
    }

    /// Which packets a frame lacks, one bit each.
    pub(super) fn write_missing(&mut self, frame: u64, bits: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        let written = self.ledger.write_missing(frame, bits);
        written.at("writing the missing packets to", &self.path)
    }

    /// One more row of reduced data.
    pub(super) fn write_result(&mut self, result: &FrameResult) -> Result<(), StoreError> {
        self.changed = true;
        self.results.write(result)
    }

    /// One past the highest frame that has a result.
    pub(super) fn results_end(&self) -> u64 {
        self.results.end()
    }

    /// Says that results are not all there, and why.
    pub(super) fn results_are_partial(&self, frames: u64) -> Result<(), StoreError> {
        let Some(results) = self.entry.child("results") else {
            return Ok(());
        };
        let text =
            "partial: the run was interrupted; frames without a result, and what belongs to the whole run, are missing";
        let say = || -> Result<(), hdf5::Error> {
            nexus::attr_text(results.group_ref(), "state", text)?;
            nexus::attr(results.group_ref(), "frames_with_result", &frames)
        };
        say().at("completing", &self.path)
    }

    /// Adds what is known at the end, shortens the run to `kept` frames, which lie in these pieces, and closes the file.
    pub(super) fn finish(
        mut self,
        (kept, pieces): (u64, &[Piece]),
        frames: &Frames,
        ledger: &LedgerColumns<'_>,
        images: &[Image],
        finals: &[(String, Vec<f32>, String)],
        end: &RunEnd,
    ) -> Result<(), StoreError> {
        let doing = "completing";
        let (angles_deg, turned) = merged_angles(&frames.angles_deg, &end.metadata);
        self.results.show()?;
        if self.live {
            // Nothing can be added to a file that readers follow: it is closed, and opened as any other.
            let (path, start, axes, format) = (self.path.clone(), self.start.clone(), self.axes.clone(), self.format);
            self.file.flush().at(doing, &path)?;
            drop(self);
            self = Self::open(&path, format, &start)?;
            self.axes = axes;
        }
        self.ledger.write(ledger, self.format.frames, &self.path)?;
        let complete = || -> Result<(), hdf5::Error> {
            for dataset in self.per_frame.iter().filter(|_| kept < self.format.frames) {
                let mut shape = dataset.shape();
                shape[0] = kept as usize;
                dataset.resize(shape)?;
            }
            let kept = kept as usize;
            if let Some(columns) = &self.tomography {
                // A frame that is not there must not be taken for a projection.
                let image_key = frames.kinds.iter().zip(&frames.stored).map(|(kind, stored)| {
                    if *stored {
                        i32::from(*kind)
                    } else {
                        FrameKind::Invalid as i32
                    }
                });
                columns.image_key.write_raw(&image_key.take(kept).collect::<Vec<_>>())?;
                columns.rotation_angle.write_raw(&angles_deg[..kept])?;
            } else if self.omega.is_some() || turned {
                let omega = match (&self.omega, self.entry.child("sample")) {
                    (Some(omega), _) => omega.clone(),
                    (None, Some(sample)) => turning(&sample, kept)?,
                    (None, None) => return Err("/entry/sample is missing".into()),
                };
                omega.write_raw(&angles_deg[..kept])?;
            }
            metadata(&self.entry, &end.metadata, kept)?;
            if pieces != planned(&self.start.record.id, &self.format) {
                unlink_frames(&self.entry, kept, &self.format)?;
                virtual_frames(&self.entry, pieces, kept, &self.format)?;
            }
            if let Some(results) = self.entry.child("results") {
                results::write_finals(&results, finals, images, &self.axes)?;
                if let Some(answer) = &end.grid {
                    results::write_grid(&results, answer)?;
                }
            }
            let end_time = rfc3339(end.end_time);
            self.entry.replace_text("end_time", &end_time)?;
            if !self.start.end_estimated {
                self.entry.replace_text("end_time_estimated", &end_time)?;
            }
            self.entry.text("run_state", &end.state)?;
            self.file.flush()
        };
        complete().at(doing, &self.path)
    }
}

/// Root and entry, with who and what.
fn begin(file: &File, path: &Path, info: &RunInfo) -> Result<Nx, hdf5::Error> {
    let root = Nx::root(file)?;
    let at = root.group_ref();
    nexus::attr_text(at, "NX_class", "NXroot")?;
    nexus::attr_text(at, "default", "entry")?;
    nexus::attr_text(at, "file_name", &path.file_name().unwrap_or_default().to_string_lossy())?;
    nexus::attr_text(at, "file_time", &rfc3339(info.start_time))?;
    nexus::attr_text(at, "creator", &info.software)?;
    let (major, minor, micro) = hdf5::library_version();
    nexus::attr_text(at, "HDF5_Version", &format!("{major}.{minor}.{micro}"))?;
    let entry = root.group("entry", "NXentry")?;
    nexus::attr_text(entry.group_ref(), "default", "data")?;
    entry.text("definition", &info.definition)?;
    entry.text("title", &info.title)?;
    entry.text("experiment_identifier", &info.proposal)?;
    entry.text("entry_identifier", &info.id)?;
    let program = entry.text("program_name", info.software.split(' ').next().unwrap_or_default())?;
    nexus::attr_text(
        &program,
        "version",
        info.software.split_once(' ').map_or("", |(_, version)| version),
    )?;
    nexus::attr_text(
        &program,
        "configuration",
        &format!("sha256:{}", info.configuration_sha256),
    )?;
    let metadata = entry.group("metadata", "NXcollection")?;
    for (key, value) in [
        ("host", &info.host),
        ("device", &info.device),
        ("technique", &info.technique),
    ] {
        metadata.text(key, value)?;
    }
    for (key, value) in &info.metadata {
        let name = nexus::valid_name(key);
        if !metadata.has(&name) {
            let field = metadata.text(&name, value)?;
            nexus::attr_text(&field, "name", key)?;
        }
    }
    Ok(entry)
}

/// Start and, for NXmx, the end as far as it can be foreseen; returns whether there is nothing left to correct.
fn times(entry: &Nx, info: &RunInfo, stream: &StreamDescription) -> Result<bool, hdf5::Error> {
    entry.text("start_time", &rfc3339(info.start_time))?;
    if info.definition != "NXmx" {
        return Ok(true);
    }
    let frame_s = stream
        .detector
        .frame_time_s
        .or(stream.detector.count_time_s)
        .filter(|s| s.is_finite() && *s > 0.0);
    let foreseen = frame_s.and_then(|s| {
        let duration = SignedDuration::try_from_secs_f64(s * stream.frames_expected as f64).ok()?;
        info.start_time.checked_add(duration).ok()
    });
    entry.text("end_time_estimated", &rfc3339(foreseen.unwrap_or(info.start_time)))?;
    Ok(foreseen.is_some())
}

/// The frames by reference: an external link to every data file.
fn data_group(entry: &Nx, info: &RunInfo, format: &FrameFormat) -> Result<Nx, hdf5::Error> {
    let data = entry.group("data", "NXdata")?;
    nexus::attr_text(data.group_ref(), "signal", "data")?;
    let missing = nexus::missing_value(format.pixel_type);
    let text = format!(
        "Frame n of the run has index n. A frame that was never stored reads as {missing}; /entry/ledger/storage \
         says which."
    );
    nexus::attr_text(data.group_ref(), "missing_frames", &text)?;
    nexus::attr(data.group_ref(), FRAMES_PER_FILE, &format.frames_per_file)?;
    for index in 0..format.frames.div_ceil(format.frames_per_file) {
        data.group_ref().link_external(
            &file_name(&info.id, index, 1),
            FRAMES,
            &format!("data_{:06}", index + 1),
        )?;
    }
    Ok(data)
}

fn instrument(entry: &Nx, info: &RunInfo) -> Result<Nx, hdf5::Error> {
    let instrument = entry.group("instrument", "NXinstrument")?;
    let name = instrument.text("name", &info.instrument)?;
    nexus::attr_text(&name, "short_name", &info.instrument)?;
    let source = entry.group("source", "NXsource")?;
    source.text("name", &info.source)?;
    source.text("probe", "x-ray")?;
    instrument.link("/entry/source", "source")?;
    Ok(instrument)
}

/// What both definitions know of a detector.
fn detector(instrument: &Nx, stream: &StreamDescription, facts: &Facts) -> Result<Nx, hdf5::Error> {
    let detector = instrument.group("detector", "NXdetector")?;
    let described = &stream.detector;
    detector.text("description", described.name.as_deref().unwrap_or(&stream.origin))?;
    if let Some(serial) = &described.serial_number {
        detector.text("serial_number", serial)?;
    }
    for (name, value, units) in [
        ("distance", facts.distance_m, "m"),
        ("x_pixel_size", facts.pixel_size_fast_m, "m"),
        ("y_pixel_size", facts.pixel_size_slow_m, "m"),
        ("beam_center_x", facts.beam_center_x_px, "pixel"),
        ("beam_center_y", facts.beam_center_y_px, "pixel"),
        ("count_time", described.count_time_s, "s"),
        ("frame_time", described.frame_time_s, "s"),
    ] {
        if let Some(value) = value {
            detector.quantity(name, value, units)?;
        }
    }
    if let Some(saturation) = stream.saturation_value {
        detector.value("saturation_value", saturation)?;
    }
    if let Some(energy_ev) = described.threshold_energy_ev {
        detector.quantity("threshold_energy", energy_ev, "eV")?;
    }
    if let Some(factors) = &described.flatfield {
        detector.image("flatfield", stream.shape, factors)?;
    }
    if let Some(table) = &described.countrate_table {
        detector.array("countrate_correction_lookup_table", table)?;
    }
    if let Some(mask) = &stream.mask {
        let dataset = detector.packed_image("pixel_mask", mask.shape(), mask.bits())?;
        nexus::attr_text(
            &dataset,
            "meaning",
            "NXmx bits; analysis leaves out pixels with mask & 0xFFFF",
        )?;
    }
    Ok(detector)
}

/// The rotation of the sample; `.` where it stands still.
fn goniometer(sample: &Nx, stream: &StreamDescription) -> Result<Option<Dataset>, hdf5::Error> {
    if stream.angles_deg.is_empty() {
        sample.text("depends_on", ".")?;
        return Ok(None);
    }
    turning(sample, stream.frames_expected as usize).map(Some)
}

/// An axis that turns the sample, without values yet.
fn turning(sample: &Nx, frames: usize) -> Result<Dataset, hdf5::Error> {
    sample.replace_text("depends_on", "/entry/sample/transformations/omega")?;
    let group = sample.group("transformations", "NXtransformations")?;
    let omega = group.column::<f64>("omega", frames, f64::NAN)?;
    nexus::attr_text(&omega, "units", "deg")?;
    nxmx::describe(&omega, "rotation", [-1.0, 0.0, 0.0], [0.0; 3], None, ".")?;
    Ok(omega)
}

/// The angles that the file tells, degrees, and whether any came as metadata: those go before the source's own.
fn merged_angles(source: &[f64], metadata: &[MetadataColumn]) -> (Vec<f64>, bool) {
    let mut angles_deg = source.to_vec();
    let told = metadata.iter().find_map(|column| match &column.values {
        MetadataValues::Numbers(values) if column.name == ANGLE => Some(values),
        _ => None,
    });
    for (angle, told) in angles_deg.iter_mut().zip(told.into_iter().flatten()) {
        if told.is_finite() {
            *angle = *told;
        }
    }
    (angles_deg, told.is_some())
}

/// `/entry/frame_metadata`: one field per column, one value per frame.
fn metadata(entry: &Nx, columns: &[MetadataColumn], kept: usize) -> Result<(), hdf5::Error> {
    if columns.is_empty() {
        return Ok(());
    }
    let group = entry.group("frame_metadata", "NXcollection")?;
    let text = "values by frame number, as they came with the stream or by HTTP; NaN, and 0 of hardware_time_ns: none";
    nexus::attr_text(group.group_ref(), "description", text)?;
    for column in columns {
        let dataset = match &column.values {
            MetadataValues::Numbers(values) => group.array(&column.name, &values[..kept.min(values.len())])?,
            MetadataValues::Nanoseconds(values) => group.array(&column.name, &values[..kept.min(values.len())])?,
        };
        if let Some(unit) = &column.unit {
            nexus::attr_text(&dataset, "units", unit)?;
        }
    }
    Ok(())
}

/// What the results were made with.
fn process(entry: &Nx, info: &RunInfo) -> Result<(), hdf5::Error> {
    let process = entry.group("process", "NXprocess")?;
    let (program, version) = info.software.split_once(' ').unwrap_or((&info.software, ""));
    process.text("program", program)?;
    process.text("version", version)?;
    process.text("date", &rfc3339(Timestamp::now()))?;
    let parameters = process.group("parameters", "NXcollection")?;
    nexus::attr_text(parameters.group_ref(), "description", "recipe and parameters as used")?;
    parameters.text("json", &info.parameters.to_string()).map(drop)
}

/// Takes away the virtual dataset, and the links to data files that are not there.
fn unlink_frames(entry: &Nx, kept: usize, format: &FrameFormat) -> Result<(), hdf5::Error> {
    let Some(data) = entry.child("data") else {
        return Err("/entry/data is missing".into());
    };
    data.group_ref().unlink("data")?;
    entry.group_ref().unlink("instrument/detector/data")?;
    let files = kept.div_ceil(format.frames_per_file as usize);
    for gone in files.max(1)..format.files() as usize {
        data.group_ref().unlink(&format!("data_{:06}", gone + 1))?;
    }
    Ok(())
}

/// The frames of all data files as one virtual dataset, under both of its NeXus names.
fn virtual_frames(entry: &Nx, pieces: &[Piece], kept: usize, format: &FrameFormat) -> Result<(), hdf5::Error> {
    let (rows, columns) = (format.shape.rows, format.shape.columns);
    let Some(data) = entry.child("data") else {
        return Err("/entry/data is missing".into());
    };
    let mut builder = nexus::empty_pixels(data.group_ref(), format.pixel_type);
    for piece in pieces {
        let (first, frames) = (piece.first as usize, piece.frames as usize);
        let (within, of) = (piece.within as usize, piece.of as usize);
        let source: hdf5::Selection = (within..within + frames, .., ..).into();
        let target: hdf5::Selection = (first..first + frames, .., ..).into();
        let (from, to) = ((of, rows, columns), (kept, rows, columns));
        builder = builder.virtual_map(&piece.name, FRAMES, from, source, to, target);
    }
    let dataset = builder.shape((kept, rows, columns)).create("data")?;
    // NeXus names one of the two places as the dataset's own, the other one is a link to it.
    nexus::attr_text(&dataset, "target", "/entry/instrument/detector/data")?;
    nexus::attr_text(&dataset, "interpretation", "image")?;
    nexus::attr_text(&dataset, "long_name", "frames as they came")?;
    entry.group_ref().link_hard(FRAMES, "instrument/detector/data")
}
