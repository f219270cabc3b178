//! The NeXus writer beside the same bytes written raw, past the page cache, the disk's best way; both end when the bytes are
//! on the disk, and both write from where the frames lie in the ring.

use super::{Measurement, Result};
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use frame::{Compression, FrameHeader, PixelType, ResultLayout, Shape, StreamDescription};
use pipeline::storage::{LedgerColumns, RunEnd, RunInfo, RunWriter, Store, WriterConfig};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Slots of the ring.
const SLOTS: usize = 24;

/// Counts with so many bits that bitshuffle-LZ4 leaves about the wanted percentage.
fn pixels(shape: Shape, percent: usize, seed: u64) -> Vec<u8> {
    let bits = (16 * percent / 100).clamp(1, 16);
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed;
    (0..shape.pixels())
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 20) as u16 >> (16 - bits)).to_le_bytes()
        })
        .collect()
}

/// Chunks as a detector sends them.
fn chunks(shape: Shape, percent: usize) -> Result<Vec<Vec<u8>>> {
    let mut scratch = frame::codec::Scratch::default();
    let mut chunks = Vec::new();
    for seed in 0..8 {
        let raw = pixels(shape, percent, seed);
        let mut chunk = vec![0; frame::codec::compress_bound(raw.len(), 2)];
        let used = frame::codec::compress(&raw, 2, &mut chunk, &mut scratch)?;
        chunk.truncate(used);
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn stream(shape: Shape, frames: usize, payload_bytes_max: usize) -> StreamDescription {
    StreamDescription {
        origin: "bench".into(),
        shape,
        pixel_type: PixelType::U16,
        compression: Compression::BitshuffleLz4,
        payload_bytes_max,
        frames_expected: frames as u64,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: true,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: Default::default(),
        metadata: Default::default(),
    }
}

fn info(id: String) -> Result<RunInfo> {
    Ok(RunInfo {
        id,
        proposal: "bench".into(),
        sample: "noise".into(),
        technique: "diffraction".into(),
        definition: "NXmx".into(),
        start_time: "2026-01-01T00:00:00Z".parse()?,
        title: "bench".into(),
        instrument: "bench".into(),
        source: "bench".into(),
        metadata: Default::default(),
        parameters: serde_json::Value::Null,
        software: "fluxline-benches".into(),
        configuration_sha256: "00".repeat(32),
        host: "bench".into(),
        device: "none".into(),
    })
}

pub(crate) fn prepare(
    nexus: bool,
    folder: PathBuf,
    rows: usize,
    columns: usize,
    frames: usize,
    percent: usize,
) -> Result<Measurement> {
    let shape = Shape::new(rows, columns);
    let chunks = chunks(shape, percent)?;
    let largest = chunks.iter().map(Vec::len).max().unwrap_or(0);
    let ring = filled(&chunks, largest)?;
    if !nexus {
        return Ok(Box::new(move || raw(&folder, &ring, &chunks, frames)));
    }
    let stream = stream(shape, frames, largest);
    let store = Store::open(&folder)?;
    let mut number = 0;
    Ok(Box::new(move || {
        number += 1;
        let info = info(format!("bench_{}_{number}", std::process::id()))?;
        let started = Instant::now();
        let left = nexus_run(&store, &info, &stream, &ring, &chunks)?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(run) = left.first().and_then(|file| file.parent()) {
            std::fs::remove_dir_all(run)?;
        }
        Ok(seconds)
    }))
}

/// A ring whose slots hold the chunks in turn, as a source would have left them there.
fn filled(chunks: &[Vec<u8>], largest: usize) -> Result<FrameRing> {
    let pages = PagesConfig {
        bytes: FrameRing::bytes_needed(SLOTS, largest),
        page_size: PageSize::Transparent,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    };
    let ring = FrameRing::new(HugePages::reserve(&pages)?, SLOTS, largest)?;
    let mut slots: Vec<_> = std::iter::from_fn(|| ring.try_slot()).collect();
    for slot in &mut slots {
        let chunk = &chunks[slot.index() % chunks.len()];
        slot.payload_mut()[..chunk.len()].copy_from_slice(chunk);
    }
    drop(slots);
    Ok(ring)
}

/// A whole run: files created, written, closed, verified, hashed and synced, `run.json` published.
fn nexus_run(
    store: &Store,
    info: &RunInfo,
    stream: &StreamDescription,
    ring: &FrameRing,
    chunks: &[Vec<u8>],
) -> Result<Vec<PathBuf>> {
    let config = WriterConfig {
        compress: false,
        frames_per_file: 1000,
        store_frames: true,
        threads: 0,
        geometry: None,
    };
    let mut writer = RunWriter::create(store, info, stream, &ResultLayout::default(), &[], &config)?;
    let frames = stream.frames_expected as usize;
    for frame in 0..frames {
        let mut slot = ring
            .slot_within(Duration::from_secs(60))
            .ok_or("the writer stands still")?;
        let chunk = &chunks[slot.index() % chunks.len()];
        let header = slot.header_mut();
        *header = FrameHeader::new(stream.shape, stream.pixel_type, Compression::BitshuffleLz4);
        header.frame_number.set(frame as u64);
        header.payload_bytes.set(chunk.len() as u64);
        writer.store(slot.publish())?;
    }
    writer.drain()?;
    let (ones, zeros, latency) = (vec![1u8; frames], vec![1u64; frames], vec![1u32; frames]);
    let (missing, on_device) = (vec![0u32; frames], vec![0u8; frames]);
    let ledger = LedgerColumns {
        frame_state: &ones,
        analysis: &ones,
        storage: &ones,
        arrival_ns: &zeros,
        result_latency_ns: &latency,
        parts_missing: &missing,
        missing_bytes: &missing,
        device_failed: &on_device,
    };
    let end = RunEnd {
        grid: None,
        state: "complete".into(),
        end_time: "2026-01-01T00:01:00Z".parse()?,
        counts: serde_json::Value::Null,
        summary: serde_json::Value::Null,
        metadata: Vec::new(),
    };
    Ok(writer.finish(&ledger, &[], &[], end)?)
}

fn raw(folder: &std::path::Path, ring: &FrameRing, chunks: &[Vec<u8>], frames: usize) -> Result<f64> {
    let path = folder.join(format!("raw_{}", std::process::id()));
    let mut slots: Vec<_> = std::iter::from_fn(|| ring.try_slot()).collect();
    let started = Instant::now();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let file = options
        .clone()
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .or_else(|_| options.open(&path))?;
    let mut offset = 0;
    for frame in 0..frames {
        let count = slots.len();
        let slot = &mut slots[frame % count];
        let bytes = chunks[slot.index() % chunks.len()].len().next_multiple_of(4096);
        file.write_all_at(&slot.payload_mut()[..bytes], offset)?;
        offset += bytes as u64;
    }
    file.sync_all()?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(seconds)
}
