//! Runs to write, and the Python that looks at what was written.
#![allow(clippy::unwrap_used, missing_docs)]

use frame::stream::DetectorDescription;
use frame::{
    Compression, FrameHeader, FrameKind, FrameResult, Image, PixelMask, PixelType, ResultLayout, Shape,
    StreamDescription,
};
use pipeline::storage::{CurveAxis, LedgerColumns, RunEnd, RunInfo, RunWriter, Store, WriterConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed at the end of the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fluxline-{name}-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn stream(shape: Shape, pixel_type: PixelType, frames: u64) -> StreamDescription {
    StreamDescription {
        origin: "a test".into(),
        shape,
        pixel_type,
        compression: Compression::None,
        payload_bytes_max: shape.pixels() * pixel_type.bytes(),
        frames_expected: frames,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: true,
        parts: 0,
        saturation_value: Some(60000.0),
        mask: Some(PixelMask::from_nonzero(shape, (0..shape.pixels()).map(|i| i % 97 == 0)).unwrap()),
        detector: DetectorDescription {
            name: Some("TEST 1M".into()),
            serial_number: Some("E-02-0000".into()),
            pixel_size_slow_m: Some(75e-6),
            pixel_size_fast_m: Some(75e-6),
            sensor_material: Some("Si".into()),
            sensor_thickness_m: Some(450e-6),
            distance_m: Some(0.2),
            wavelength_m: Some(1e-10),
            beam_center_x_px: Some(14.5),
            beam_center_y_px: Some(20.25),
            count_time_s: Some(0.01),
            frame_time_s: Some(0.0101),
            rotation_axis_px: Some(16.25),
            ..DetectorDescription::default()
        },
        metadata: Default::default(),
    }
}

pub fn info(id: &str, definition: &str) -> RunInfo {
    RunInfo {
        id: id.into(),
        proposal: "mx1234".into(),
        sample: "thaumatin 3".into(),
        technique: "diffraction".into(),
        definition: definition.into(),
        start_time: "2026-11-22T23:30:00.5Z".parse().unwrap(),
        title: "a test run".into(),
        instrument: "TEST BEAMLINE I99".into(),
        source: "Test Source".into(),
        metadata: [
            ("operator / shift".into(), "é night".into()),
            ("flatfield_applied".into(), "true".into()),
        ]
        .into(),
        parameters: serde_json::json!({ "recipe": "powder", "azimuthal": { "bins": 7, "solid_angle": true } }),
        software: "fluxline 0.1.0".into(),
        configuration_sha256: "00".repeat(32),
        host: "host".into(),
        device: "a device".into(),
    }
}

pub fn config(compress: bool, frames_per_file: u64) -> WriterConfig {
    WriterConfig {
        compress,
        frames_per_file,
        store_frames: true,
        threads: 0,
        geometry: None,
    }
}

pub fn layout() -> (ResultLayout, Vec<CurveAxis>) {
    let mut layout = ResultLayout::default();
    layout.scalar("sum", "counts");
    layout.scalar("max", "counts");
    layout.curve("intensity", "", 7);
    layout.curve("intensity_errors", "", 7);
    layout.curve("profile", "counts", 3);
    let values: Vec<f64> = (0..7).map(|i| 0.5 + f64::from(i)).collect();
    let axis = CurveAxis {
        curve: "intensity".into(),
        name: "q".into(),
        unit: "1/nm".into(),
        values,
    };
    (layout, vec![axis])
}

/// Pixels that any reader can make again: `(7 * frame + 3 * row + column) % 251`, row 0 holding the type's largest value.
pub fn pixels(shape: Shape, pixel_type: PixelType, frame: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shape.pixels() * pixel_type.bytes());
    for row in 0..shape.rows {
        for column in 0..shape.columns {
            let value = ((7 * frame as usize + 3 * row + column) % 251) as u8;
            let top = row == 0 && column == 0;
            match pixel_type {
                PixelType::U8 => bytes.push(if top { u8::MAX } else { value }),
                PixelType::U16 => bytes.extend(if top { u16::MAX } else { value.into() }.to_le_bytes()),
                PixelType::U32 => bytes.extend(if top { u32::MAX } else { value.into() }.to_le_bytes()),
                PixelType::I16 => bytes.extend(if top { i16::MIN } else { value.into() }.to_le_bytes()),
                PixelType::I32 => bytes.extend(if top { i32::MIN } else { value.into() }.to_le_bytes()),
                PixelType::F32 => bytes.extend(if top { -1.5e30f32 } else { f32::from(value) }.to_le_bytes()),
            }
        }
    }
    bytes
}

pub fn header(stream: &StreamDescription, frame: u64) -> FrameHeader {
    let mut header = FrameHeader::new(stream.shape, stream.pixel_type, Compression::None);
    header.frame_number.set(frame);
    header
}

pub fn result(layout: &ResultLayout, frame: u64) -> FrameResult {
    let mut result = FrameResult::empty(layout);
    fill_result(&mut result, frame);
    result
}

pub fn fill_result(result: &mut FrameResult, frame: u64) {
    result.frame_number = frame;
    result.parameters_version = 1;
    for (index, scalar) in result.scalars.iter_mut().enumerate() {
        *scalar = frame as f64 + 1000.0 * index as f64;
    }
    for (index, curve) in result.curves.iter_mut().enumerate() {
        for (point, value) in curve.iter_mut().enumerate() {
            *value = frame as f32 + 0.125 * point as f32 + 10000.0 * index as f32;
        }
    }
}

#[derive(Default)]
pub struct Books {
    frame_state: Vec<u8>,
    analysis: Vec<u8>,
    storage: Vec<u8>,
    arrival_ns: Vec<u64>,
    latency_ns: Vec<u32>,
    parts_missing: Vec<u32>,
    device_failed: Vec<u8>,
    missing_bytes: Vec<u32>,
}

impl Books {
    /// Every frame complete, but for those in `lost`.
    pub fn new(frames: u64, lost: &[u64]) -> Self {
        let code = |there: u8, gone: u8| {
            (0..frames)
                .map(|f| if lost.contains(&f) { gone } else { there })
                .collect()
        };
        let there = |f: &u64| !lost.contains(f);
        Self {
            frame_state: code(1, 4),
            analysis: code(1, 0),
            storage: code(1, 0),
            arrival_ns: (0..frames)
                .map(|f| if there(&f) { 1000 * (f + 1) } else { 0 })
                .collect(),
            latency_ns: (0..frames).map(|f| if there(&f) { 500 } else { 0 }).collect(),
            parts_missing: vec![0; frames as usize],
            device_failed: vec![0; frames as usize],
            missing_bytes: vec![0; frames as usize],
        }
    }

    pub fn columns(&self) -> LedgerColumns<'_> {
        LedgerColumns {
            frame_state: &self.frame_state,
            analysis: &self.analysis,
            storage: &self.storage,
            arrival_ns: &self.arrival_ns,
            result_latency_ns: &self.latency_ns,
            parts_missing: &self.parts_missing,
            missing_bytes: &self.missing_bytes,
            device_failed: &self.device_failed,
        }
    }
}

pub fn end(state: &str) -> RunEnd {
    RunEnd {
        grid: None,
        state: state.into(),
        end_time: "2026-11-22T23:31:00Z".parse().unwrap(),
        counts: serde_json::json!({ "expected": 1 }),
        summary: serde_json::json!({ "state": state }),
        metadata: Vec::new(),
    }
}

/// Writes a run of all frames but the `lost` ones, with results, and closes it.
pub fn write_run(
    store: &Store,
    info: &RunInfo,
    stream: &StreamDescription,
    config: &WriterConfig,
    lost: &[u64],
    state: &str,
) -> Vec<PathBuf> {
    let (layout, axes) = layout();
    let mut writer = RunWriter::create(store, info, stream, &layout, &axes, config).unwrap();
    for frame in (0..stream.frames_expected).filter(|f| !lost.contains(f)) {
        let mut header = header(stream, frame);
        if let Some(kind) = stream.kinds.get(frame as usize) {
            header.kind = *kind as u8;
        }
        header
            .angle_deg
            .set(stream.angles_deg.get(frame as usize).copied().unwrap_or(f64::NAN));
        writer
            .write_frame(&header, &pixels(stream.shape, stream.pixel_type, frame))
            .unwrap();
        writer.write_result(&result(&layout, frame)).unwrap();
    }
    let books = Books::new(stream.frames_expected, lost);
    let image = Image {
        name: "slice_xy".into(),
        shape: Shape::new(2, 3),
        unit: "1/m".into(),
        values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        frames_used: 9,
        frames_expected: 10,
    };
    let finals = [(
        "intensity".to_string(),
        (0..7).map(|i| i as f32).collect(),
        String::new(),
    )];
    writer.finish(&books.columns(), &[image], &finals, end(state)).unwrap()
}

/// The Python of the checks, or `None` and a loud word.
pub fn python(test: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let named = std::env::var_os("FLUXLINE_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| root.join(".venv/bin/python"));
    if python.is_file() {
        return Some(python);
    }
    eprintln!(
        "SKIPPED {test}: no Python at {} (set FLUXLINE_PYTHON, or run `make test`)",
        python.display()
    );
    None
}

/// Runs `tests/python/check_nexus.py` with these arguments; what it finds wrong fails the test.
pub fn check_nexus(python: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(python)
        .arg(root.join("tests/python/check_nexus.py"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "check_nexus.py {arguments:?}:\n{text}");
}

/// A dark, a flat, seven projections, a flat.
pub fn tomography_stream() -> StreamDescription {
    let mut stream = stream(Shape::new(20, 30), PixelType::U16, 10);
    stream.darks = 1;
    stream.flats = 2;
    stream.kinds = vec![FrameKind::Sample; 10];
    stream.kinds[0] = FrameKind::Dark;
    stream.kinds[1] = FrameKind::Flat;
    stream.kinds[9] = FrameKind::Flat;
    stream.angles_deg = (0..10)
        .map(|i| {
            if (2..9).contains(&i) {
                f64::from(i - 2) * 30.0
            } else {
                f64::NAN
            }
        })
        .collect();
    stream
}
