//! HDF5: the chunk index is read once, when the file is opened; frames are then read from the file itself, so that
//! only the writer calls libhdf5 while a run records. What cannot be read that way is read into memory when opened.

use super::stack::{MEMORY_BYTES_MAX, Place, Stack, Store, blank};
use super::tiff::too_large;
use super::words::{angles, collect, number, text, text_attribute};
use super::{Content, Planned};
use crate::source::SourceError;
use crate::tracker::FrameState;
use frame::codec::Beneath;
use frame::{Compression, FrameKind, PixelMask, PixelType, Shape, StreamDescription, codec};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, File, Group};
use std::path::Path;
use std::sync::Arc;

/// HDF5's registered number of bitshuffle.
const BITSHUFFLE: i32 = 32008;

/// Opens a file: DXchange, NXtomo, NXmx, a named dataset, or the only one that can be frames.
pub(super) fn open(path: &Path, dataset: Option<&str>, range_deg: Option<f64>) -> Result<Content, SourceError> {
    hdf5::silence_errors(true);
    let file = File::open(path).map_err(|_| SourceError::Content {
        path: path.into(),
        found: "the file is truncated or not HDF5".into(),
        expected: "a whole HDF5 file; copy it again, or wait until it is closed".into(),
    })?;
    let reader = Reader {
        path,
        file: &file,
        range_deg,
    };
    if let Some(name) = dataset {
        return reader.plain(name);
    }
    if file.dataset("exchange/data").is_ok() {
        return reader.dxchange();
    }
    if let Some(tomo) = reader.find_nxtomo()? {
        return reader.nxtomo(tomo);
    }
    if let Some(entry) = reader.entry()
        && entry.group("data").is_ok()
    {
        return reader.nxmx(&entry);
    }
    let name = reader.only_candidate()?;
    reader.plain(&name)
}

pub(super) struct Reader<'a> {
    path: &'a Path,
    pub(super) file: &'a File,
    range_deg: Option<f64>,
}

/// Where an NXtomo's parts are.
struct Tomo {
    data: Dataset,
    image_key: Vec<i64>,
    angles_deg: Vec<f64>,
    detector: Group,
}

impl Reader<'_> {
    pub(super) fn wrong(&self, found: impl Into<String>, expected: impl Into<String>) -> SourceError {
        SourceError::Content {
            path: self.path.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn dataset(&self, name: &str) -> Result<Dataset, SourceError> {
        self.file.dataset(name).map_err(|_| {
            let mut candidates = Vec::new();
            collect(self.file, "", 0, &mut candidates);
            let known: Vec<String> = candidates
                .iter()
                .take(20)
                .map(|(name, shape)| format!("{name} {shape:?}"))
                .collect();
            self.wrong(
                format!("there is no dataset {name}, or the file that it links to is missing"),
                format!("one of its datasets: {}", known.join(", ")),
            )
        })
    }

    fn content(
        &self,
        stacks: Vec<Stack>,
        plan: Vec<Planned>,
        stream: StreamDescription,
    ) -> Result<Content, SourceError> {
        if plan.is_empty() {
            return Err(self.wrong("it holds no frame of the sample", "at least one"));
        }
        Ok(Content { stacks, plan, stream })
    }

    fn plain(&self, name: &str) -> Result<Content, SourceError> {
        let stack = self.stack(&self.dataset(name)?)?;
        let plan = sample(0, stack.frames(), &[]);
        let mut stream = blank(format!("{}::{name}", self.path.display()));
        if let Some(entry) = self.entry() {
            self.detector_facts(&entry, &mut stream);
        }
        // A mask of another shape belongs to other frames.
        stream.mask = stream.mask.filter(|mask| mask.shape() == stack.shape);
        self.content(vec![stack], plan, stream)
    }

    fn dxchange(&self) -> Result<Content, SourceError> {
        let data = self.stack(&self.dataset("exchange/data")?)?;
        let count = data.frames();
        let angles = match self.file.dataset("exchange/theta") {
            Ok(theta) => angles(&theta)?.unwrap_or_default(),
            Err(_) => spread(count, self.range_deg.unwrap_or(180.0)),
        };
        if angles.len() != count {
            return Err(self.wrong(
                format!("{} angles for {count} projections", angles.len()),
                "one angle each",
            ));
        }
        let (mut stacks, mut plan) = (vec![data], Vec::new());
        for (name, kind) in [
            ("exchange/data_dark", FrameKind::Dark),
            ("exchange/data_white", FrameKind::Flat),
        ] {
            if let Ok(dataset) = self.file.dataset(name) {
                let stack = self.stack(&dataset)?;
                let number = stacks.len();
                plan.extend((0..stack.frames()).map(|index| Planned {
                    stack: number,
                    index,
                    kind,
                    angle_deg: f64::NAN,
                    partial: false,
                }));
                stacks.push(stack);
            }
        }
        plan.extend(sample(0, count, &angles));
        self.content(stacks, plan, blank(format!("{} (DXchange)", self.path.display())))
    }

    /// A detector group with an `image_key` and frames of the same number.
    fn find_nxtomo(&self) -> Result<Option<Tomo>, SourceError> {
        for entry in self.file.groups().unwrap_or_default() {
            let Ok(instrument) = entry.group("instrument") else {
                continue;
            };
            for detector in instrument.groups().unwrap_or_default() {
                let Ok(key) = detector.dataset("image_key") else {
                    continue;
                };
                let image_key: Vec<i64> = key.read_raw().unwrap_or_default();
                let name = detector.name().rsplit('/').next().unwrap_or_default().to_string();
                let places = [
                    detector.dataset("data"),
                    entry.dataset(&format!("{name}/data")),
                    entry.dataset("data/data"),
                ];
                let mut failed = false;
                let data = places.into_iter().find_map(|data| match data {
                    Ok(data) if data.ndim() == 3 && data.shape()[0] == image_key.len() => Some(data),
                    Ok(_) => None,
                    Err(_) => {
                        failed = true;
                        None
                    }
                });
                let Some(data) = data else {
                    let linked = entry.group(&name).is_ok_and(|g| g.link_exists("data"));
                    if failed && linked {
                        let found = format!("{}/{name}/data links to a file that is missing", entry.name());
                        return Err(self.wrong(found, "the file that it links to, in the place that the link names"));
                    }
                    continue;
                };
                let angles_deg = self.rotation(&entry, &name, &image_key)?;
                return Ok(Some(Tomo {
                    data,
                    image_key,
                    angles_deg,
                    detector,
                }));
            }
        }
        Ok(None)
    }

    /// Angles of an NXtomo: where the definition has them, else a dataset that is named like an angle beside the frames.
    fn rotation(&self, entry: &Group, name: &str, image_key: &[i64]) -> Result<Vec<f64>, SourceError> {
        let count = image_key.len();
        for place in ["sample/rotation_angle", "data/rotation_angle"] {
            if let Ok(dataset) = entry.dataset(place)
                && let Some(values) = angles(&dataset)?.filter(|values| values.len() == count)
            {
                return Ok(values);
            }
        }
        let beside = entry.group(name).and_then(|group| group.datasets()).unwrap_or_default();
        for dataset in beside {
            let name = dataset.name().to_lowercase();
            if (name.contains("theta") || name.contains("angle") || name.contains("rotation"))
                && dataset.size() == count
                && let Some(values) = angles(&dataset)?
            {
                return Ok(values);
            }
        }
        let Some(range_deg) = self.range_deg else {
            let expected = format!(
                "sample/rotation_angle with {count} values in degrees; where there is none, or the file that it links to \
                 is missing, give source.range_deg"
            );
            return Err(self.wrong("no rotation angles", expected));
        };
        let mut even = spread(image_key.iter().filter(|key| **key == 0).count(), range_deg).into_iter();
        Ok(image_key
            .iter()
            .map(|key| {
                if *key == 0 {
                    even.next().unwrap_or(f64::NAN)
                } else {
                    f64::NAN
                }
            })
            .collect())
    }

    fn nxtomo(&self, tomo: Tomo) -> Result<Content, SourceError> {
        let (stacks, places) = match super::parts::open(self, &tomo.data)? {
            Some(parts) => (parts.stacks, parts.places),
            None => {
                let stack = self.stack(&tomo.data)?;
                let places = (0..stack.frames()).map(|index| (0, index)).collect();
                (vec![stack], places)
            }
        };
        let in_part = self.entry().map_or_else(Vec::new, |entry| partial(&entry));
        let mut plan = Vec::new();
        for (key, kind) in [(2, FrameKind::Dark), (1, FrameKind::Flat), (0, FrameKind::Sample)] {
            for (frame, _) in tomo.image_key.iter().enumerate().filter(|(_, k)| **k == key) {
                let angle_deg = match kind {
                    FrameKind::Sample => tomo.angles_deg[frame],
                    _ => f64::NAN,
                };
                let (stack, index) = places[frame];
                if stacks[stack].bytes(index) == 0 {
                    return Err(self.wrong(format!("frame {frame} was never stored"), "image_key 3 of such a frame"));
                }
                plan.push(Planned {
                    stack,
                    index,
                    kind,
                    angle_deg,
                    partial: in_part.get(frame).copied().unwrap_or(false),
                });
            }
        }
        let mut stream = blank(format!("{} (NXtomo)", self.path.display()));
        let invalid = tomo.image_key.len() - plan.len();
        if invalid > 0 {
            stream
                .metadata
                .insert("frames_marked_invalid_and_left_out".into(), invalid.to_string());
        }
        let number = |names: &[&str]| names.iter().find_map(|name| number(&tomo.detector, name));
        stream.detector.pixel_size_fast_m = number(&["x_pixel_size"]);
        stream.detector.pixel_size_slow_m = number(&["y_pixel_size"]).or(stream.detector.pixel_size_fast_m);
        stream.detector.distance_m = number(&["distance"]);
        stream.detector.rotation_axis_px = number(&["x_rotation_axis_pixel_position"]);
        self.content(stacks, plan, stream)
    }

    /// The first NXentry, or a group of that name.
    fn entry(&self) -> Option<Group> {
        let groups = self.file.groups().unwrap_or_default();
        let is_entry = |group: &Group| text_attribute(group, "NX_class").as_deref() == Some("NXentry");
        groups
            .iter()
            .find(|group| is_entry(group))
            .cloned()
            .or_else(|| self.file.group("entry").ok())
    }

    fn nxmx(&self, entry: &Group) -> Result<Content, SourceError> {
        let data = entry
            .group("data")
            .map_err(|error| self.wrong(error.to_string(), "a group data"))?;
        let mut names: Vec<String> = data.member_names().unwrap_or_default();
        names.retain(|name| {
            name.strip_prefix("data_")
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        });
        names.sort();
        if names.is_empty() {
            names.push("data".into());
        }
        let (mut stacks, mut plan) = (Vec::new(), Vec::new());
        for name in names {
            let dataset = data.dataset(&name).map_err(|_| {
                let found = format!("{}/{name} is missing, or the file that it links to is", data.name());
                self.wrong(found, "every data file beside its master")
            })?;
            let stack = match super::parts::sparse(self, &dataset)? {
                Some(stack) => stack,
                None => self.stack(&dataset)?,
            };
            plan.extend(sample(stacks.len(), stack.frames(), &[]));
            stacks.push(stack);
        }
        for (planned, partial) in plan.iter_mut().zip(partial(entry)) {
            planned.partial = partial;
        }
        let mut stream = blank(format!("{} (NXmx)", self.path.display()));
        self.detector_facts(entry, &mut stream);
        self.content(stacks, plan, stream)
    }

    /// What an NXmx entry says about detector and beam.
    fn detector_facts(&self, entry: &Group, stream: &mut StreamDescription) {
        let Ok(instrument) = entry.group("instrument") else {
            return;
        };
        if let Ok(beam) = instrument.group("beam").or_else(|_| entry.group("sample/beam")) {
            stream.detector.wavelength_m = number(&beam, "incident_wavelength");
            if let Some(value) = stream.detector.wavelength_m.filter(|value| *value > 1e-3) {
                // Without a unit a wavelength is in Å, NXmx's own.
                stream.detector.wavelength_m = Some(value * 1e-10);
            }
        }
        let Ok(group) = instrument.group("detector") else {
            return;
        };
        let detector = &mut stream.detector;
        detector.name = text(&group, "description");
        detector.serial_number = text(&group, "detector_number").or_else(|| text(&group, "serial_number"));
        detector.pixel_size_fast_m = number(&group, "x_pixel_size");
        detector.pixel_size_slow_m = number(&group, "y_pixel_size");
        detector.distance_m = number(&group, "distance").or_else(|| number(&group, "detector_distance"));
        detector.beam_center_x_px = number(&group, "beam_center_x");
        detector.beam_center_y_px = number(&group, "beam_center_y");
        detector.sensor_material = text(&group, "sensor_material");
        detector.sensor_thickness_m = number(&group, "sensor_thickness");
        detector.count_time_s = number(&group, "count_time");
        detector.frame_time_s = number(&group, "frame_time");
        stream.saturation_value = number(&group, "saturation_value");
        let table = group.dataset("countrate_correction_lookup_table").ok();
        stream.detector.countrate_table = table.and_then(|table| table.read_raw().ok());
        for key in ["countrate_correction_applied", "flatfield_applied"] {
            let flag = || group.dataset(key).ok()?.read_scalar::<bool>().ok();
            if let Some(applied) = number(&group, key).map(|value| value != 0.0).or_else(flag) {
                stream.metadata.insert(key.into(), applied.to_string());
            }
        }
        let specific = group.group("detectorSpecific").ok();
        let mask = group
            .dataset("pixel_mask")
            .ok()
            .or_else(|| specific?.dataset("pixel_mask").ok());
        if let Some(mask) = mask
            && let [rows, columns] = mask.shape()[..]
            && let Ok(bits) = mask.read_raw::<u32>()
        {
            stream.mask = PixelMask::from_bits(Shape::new(rows, columns), bits).ok();
        }
    }

    fn only_candidate(&self) -> Result<String, SourceError> {
        let mut candidates = Vec::new();
        collect(self.file, "", 0, &mut candidates);
        let rank = if candidates.iter().any(|(_, shape)| shape.len() >= 3) {
            3
        } else {
            2
        };
        candidates.retain(|(_, shape)| shape.len() >= rank && shape.iter().rev().take(2).all(|n| *n > 1));
        match &candidates[..] {
            [(name, _)] => Ok(name.clone()),
            [] => Err(self.wrong(
                "no dataset that could be frames",
                "a numeric dataset [frames, rows, columns]",
            )),
            several => {
                let named: Vec<String> = several
                    .iter()
                    .map(|(name, shape)| format!("{name} {shape:?}"))
                    .collect();
                Err(self.wrong(
                    format!("several datasets that could be frames: {}", named.join(", ")),
                    "one of them named with source.dataset or --dataset",
                ))
            }
        }
    }

    /// The frames of a dataset.
    fn stack(&self, dataset: &Dataset) -> Result<Stack, SourceError> {
        let dims = dataset.shape();
        let (frames, shape) = match dims[..] {
            [rows, columns] => (1, Shape::new(rows, columns)),
            [.., rows, columns] if dims.len() <= 4 => {
                (dims[..dims.len() - 2].iter().product(), Shape::new(rows, columns))
            }
            _ => return Err(self.wrong(format!("{} has {} dimensions", dataset.name(), dims.len()), "2, 3 or 4")),
        };
        let (pixel_type, same) = self.pixel_type(dataset)?;
        let bytes = (frames as u64).saturating_mul((shape.pixels() * pixel_type.bytes()) as u64);
        if same && let Some(stack) = self.in_place(dataset, frames, shape, pixel_type, false)? {
            return Ok(stack);
        }
        if bytes > MEMORY_BYTES_MAX {
            return Err(too_large(self.path, bytes));
        }
        let unreadable = |error: hdf5::Error| {
            self.wrong(
                format!("{} cannot be read: {error}", dataset.name()),
                "data whose filters are installed here",
            )
        };
        macro_rules! read {
            ($ty:ty) => {
                dataset
                    .read_raw::<$ty>()
                    .map_err(unreadable)?
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect()
            };
        }
        let raw: Vec<u8> = match pixel_type {
            PixelType::U8 => read!(u8),
            PixelType::U16 => read!(u16),
            PixelType::U32 => read!(u32),
            PixelType::I16 => read!(i16),
            PixelType::I32 => read!(i32),
            PixelType::F32 => read!(f32),
        };
        Ok(Stack::in_memory(shape, pixel_type, raw))
    }

    /// The pixel type that frames are replayed as, and whether the file's own bytes are of that type.
    pub(super) fn pixel_type(&self, dataset: &Dataset) -> Result<(PixelType, bool), SourceError> {
        let dtype = dataset
            .dtype()
            .map_err(|error| self.wrong(error.to_string(), "a numeric dataset"))?;
        let little = dtype.byte_order() != hdf5::datatype::ByteOrder::BigEndian;
        let descriptor = dtype
            .to_descriptor()
            .map_err(|error| self.wrong(error.to_string(), "a numeric dataset"))?;
        let (pixel, same) = match descriptor {
            TypeDescriptor::Unsigned(IntSize::U1) => (PixelType::U8, true),
            TypeDescriptor::Unsigned(IntSize::U2) => (PixelType::U16, little),
            TypeDescriptor::Unsigned(IntSize::U4) => (PixelType::U32, little),
            TypeDescriptor::Integer(IntSize::U1) => (PixelType::I16, false),
            TypeDescriptor::Integer(IntSize::U2) => (PixelType::I16, little),
            TypeDescriptor::Integer(IntSize::U4) => (PixelType::I32, little),
            TypeDescriptor::Float(FloatSize::U4) => (PixelType::F32, little),
            TypeDescriptor::Float(FloatSize::U8) => (PixelType::F32, false),
            TypeDescriptor::Unsigned(IntSize::U8) | TypeDescriptor::Integer(IntSize::U8) => {
                let values = dataset
                    .read_raw::<i64>()
                    .map_err(|error| self.wrong(error.to_string(), "readable data"))?;
                if values.iter().any(|value| i32::try_from(*value).is_err()) {
                    let found = format!("{} holds 64-bit values beyond 32 bits", dataset.name());
                    return Err(self.wrong(found, "pixels that fit 32 bits"));
                }
                (PixelType::I32, false)
            }
            other => {
                return Err(self.wrong(
                    format!("{} holds {other}", dataset.name()),
                    "integers or floating-point numbers",
                ));
            }
        };
        Ok((pixel, same))
    }

    /// Frames that can be read from the file as they are; `None` where they cannot.
    pub(super) fn in_place(
        &self,
        dataset: &Dataset,
        frames: usize,
        shape: Shape,
        pixel_type: PixelType,
        sparse: bool,
    ) -> Result<Option<Stack>, SourceError> {
        let frame_bytes = shape.pixels() * pixel_type.bytes();
        // Behind an external link the bytes are in another file.
        let path = dataset.filename();
        let unreadable = |error: std::io::Error| SourceError::Read {
            path: path.clone().into(),
            reason: error.to_string(),
        };
        let stack = |compression, places, file| Stack {
            shape,
            pixel_type,
            compression,
            places,
            store: Store::File(Arc::new(file)),
        };
        let filters = dataset.filters();
        let coded = match &filters[..] {
            [] => None,
            [hdf5::filters::Filter::User(BITSHUFFLE, values)] if values.get(4) == Some(&2) => Some(Beneath::Lz4),
            [hdf5::filters::Filter::User(BITSHUFFLE, values)] if values.get(4) == Some(&3) => Some(Beneath::Zstd),
            _ => return Ok(None),
        };
        let Some(chunk) = dataset.chunk() else {
            let Some(offset) = dataset.offset() else {
                return Ok(None);
            };
            let place = |n: usize| Place {
                offset: offset + (n * frame_bytes) as u64,
                bytes: frame_bytes,
            };
            let file = std::fs::File::open(&path).map_err(unreadable)?;
            return Ok(Some(stack(Compression::None, (0..frames).map(place).collect(), file)));
        };
        let per_frame = chunk.iter().rev().take(2).eq(dataset.shape().iter().rev().take(2))
            && chunk.iter().rev().skip(2).all(|n| *n == 1);
        if !per_frame && coded.is_none() {
            return Ok(None);
        }
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        let chunks: Vec<hdf5::dataset::ChunkInfo> = (0..dataset.num_chunks().unwrap_or(0))
            .filter_map(|n| dataset.chunk_info(n))
            .collect();
        if per_frame && (sparse || chunks.len() == frames) && chunks.iter().all(|c| c.filter_mask == 0) {
            let dims = dataset.shape();
            let number = |c: &hdf5::dataset::ChunkInfo| match c.offset[..] {
                [n, _, _] => n as usize,
                [n, m, _, _] => n as usize * dims[1] + m as usize,
                _ => 0,
            };
            let mut places = vec![Place { offset: 0, bytes: 0 }; frames];
            for chunk in &chunks {
                places[number(chunk)] = Place {
                    offset: chunk.addr,
                    bytes: chunk.size as usize,
                };
            }
            let compression = match coded {
                Some(Beneath::Lz4) => Compression::BitshuffleLz4,
                Some(Beneath::Zstd) => Compression::BitshuffleZstd,
                None => Compression::None,
            };
            return Ok(Some(stack(compression, places, file)));
        }
        let Some(beneath) = coded else { return Ok(None) };
        self.assemble(dataset, &chunk, &chunks, &file, (shape, pixel_type), beneath)
            .map(Some)
    }

    /// Compressed chunks that are not one frame each: decoded and put together in memory. Chunks that were never
    /// written stay zero, as HDF5 reads them.
    fn assemble(
        &self,
        dataset: &Dataset,
        chunk: &[usize],
        chunks: &[hdf5::dataset::ChunkInfo],
        file: &std::fs::File,
        (shape, pixel_type): (Shape, PixelType),
        beneath: Beneath,
    ) -> Result<Stack, SourceError> {
        use std::os::unix::fs::FileExt;
        let (dims, pixel_bytes) = (dataset.shape(), pixel_type.bytes());
        let bytes = dims.iter().product::<usize>() * pixel_bytes;
        if bytes as u64 > MEMORY_BYTES_MAX {
            return Err(too_large(self.path, bytes as u64));
        }
        let (mut all, mut scratch) = (vec![0; bytes], codec::Scratch::default());
        let mut plain = vec![0; chunk.iter().product::<usize>() * pixel_bytes];
        for info in chunks {
            let mut coded = vec![0; info.size as usize];
            file.read_exact_at(&mut coded, info.addr)
                .map_err(|error| self.wrong(error.to_string(), "a whole file"))?;
            codec::decompress(beneath, &coded, pixel_bytes, &mut plain, &mut scratch)
                .map_err(|error| self.wrong(format!("a chunk of {}: {error}", dataset.name()), "bitshuffle"))?;
            copy_chunk(&plain, chunk, &info.offset, &mut all, &dims, pixel_bytes);
        }
        Ok(Stack::in_memory(shape, pixel_type, all))
    }
}

/// Copies a chunk's rows to where they belong; what lies beyond the dataset is left out.
fn copy_chunk(plain: &[u8], chunk: &[usize], offset: &[u64], all: &mut [u8], dims: &[usize], pixel_bytes: usize) {
    let rank = dims.len();
    let (Some(run), Some(last_offset)) = (chunk.last(), offset.last()) else {
        return;
    };
    let width = (*run).min(dims[rank - 1].saturating_sub(*last_offset as usize)) * pixel_bytes;
    let rows: usize = chunk[..rank - 1].iter().product();
    for row in 0..rows {
        let (mut rest, mut inside, mut to, mut step) = (row, true, 0, dims[rank - 1]);
        for d in (0..rank - 1).rev() {
            let place = rest % chunk[d] + offset[d] as usize;
            rest /= chunk[d];
            inside &= place < dims[d];
            to += place * step;
            step *= dims[d];
        }
        if inside {
            let to = (to + *last_offset as usize) * pixel_bytes;
            let from = row * run * pixel_bytes;
            all[to..to + width].copy_from_slice(&plain[from..from + width]);
        }
    }
}

/// Angles spread evenly over a range, its end not included.
fn spread(count: usize, range_deg: f64) -> Vec<f64> {
    (0..count).map(|i| range_deg * i as f64 / count as f64).collect()
}

/// Which frames came in part, by their number, where the file has a ledger that says it: runs of ours.
fn partial(entry: &Group) -> Vec<bool> {
    let states = entry
        .dataset("ledger/frame_state")
        .and_then(|states| states.read_raw::<u8>());
    let states = states.unwrap_or_default();
    states.iter().map(|state| *state == FrameState::Partial as u8).collect()
}

/// Frames of the sample, in order.
fn sample(stack: usize, count: usize, angles: &[f64]) -> Vec<Planned> {
    let planned = |index: usize| Planned {
        stack,
        index,
        kind: FrameKind::Sample,
        angle_deg: angles.get(index).copied().unwrap_or(f64::NAN),
        partial: false,
    };
    (0..count).map(planned).collect()
}
