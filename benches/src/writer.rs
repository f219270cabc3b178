//! The NeXus writer beside the same bytes written raw, past the page cache; both end when the bytes are on the disk, and both
//! write from where the frames lie in the ring. And the read path beside the same bytes read raw, past the page cache.

use super::{Measurement, Result};
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use frame::{Compression, FrameHeader, PixelType, ResultLayout, Shape, StreamDescription};
use pipeline::storage::{LedgerColumns, RunEnd, RunInfo, RunWriter, Store, StoreError, WriterConfig, read_chunks};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
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

/// Payloads as a detector sends them: pixels, or chunks.
fn payloads(shape: Shape, percent: usize, compression: Compression) -> Result<Vec<Vec<u8>>> {
    let mut scratch = frame::codec::Scratch::default();
    let mut chunks = Vec::new();
    for seed in 0..8 {
        let raw = pixels(shape, percent, seed);
        if compression == Compression::None {
            chunks.push(raw);
            continue;
        }
        let mut chunk = vec![0; frame::codec::compress_bound(raw.len(), 2)];
        let used = frame::codec::compress(&raw, 2, &mut chunk, &mut scratch)?;
        chunk.truncate(used);
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn stream(shape: Shape, frames: usize, payload_bytes_max: usize, compression: Compression) -> StreamDescription {
    StreamDescription {
        origin: "bench".into(),
        shape,
        pixel_type: PixelType::U16,
        compression,
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

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// a whole run by the NeXus writer
    Run,
    /// the same bytes by one `pwrite` after the other, into a file that grows
    Raw,
    /// the same bytes by four threads into a file that was made as long before: the best way that was found for this disk
    RawBest,
    /// a whole run of frames that come as pixels and are compressed by the writer
    Packed,
    /// the same frames by the codec alone, on every core
    Codec,
    /// a run's frames in their order by the read path
    Frames,
    /// the same files by one `pread` of 4 MiB after the other
    RawRead,
    /// the same by four threads
    RawReadBest,
}

impl Way {
    pub(crate) fn of(word: &str) -> Option<Way> {
        Some(match word {
            "write" => Way::Run,
            "pwrite" => Way::Raw,
            "pwrite4" => Way::RawBest,
            "packed" => Way::Packed,
            "codec" => Way::Codec,
            "read" => Way::Frames,
            "pread" => Way::RawRead,
            "pread4" => Way::RawReadBest,
            _ => return None,
        })
    }
}

/// A measurement of wall time, or with `cpu` of the processor time of all threads, kernel included, for each GB.
pub(crate) fn prepare(
    way: Way,
    folder: PathBuf,
    (rows, columns): (usize, usize),
    frames: usize,
    percent: usize,
    cpu: bool,
) -> Result<Measurement> {
    let shape = Shape::new(rows, columns);
    let compression = match way {
        Way::Packed | Way::Codec => Compression::None,
        _ => Compression::BitshuffleLz4,
    };
    let chunks = payloads(shape, percent, compression)?;
    let largest = chunks.iter().map(Vec::len).max().unwrap_or(0);
    let ring = filled(&chunks, largest)?;
    let stream = stream(shape, frames, largest, compression);
    let gigabytes = chunks.iter().map(Vec::len).sum::<usize>() as f64 / chunks.len() as f64 * frames as f64 / 1e9;
    let clock = move || -> Result<f64> {
        if cpu {
            Ok(processor_seconds()? / gigabytes)
        } else {
            Ok(wall_seconds())
        }
    };
    if matches!(way, Way::Raw | Way::RawBest) {
        let threads = if way == Way::Raw { 1 } else { 4 };
        return Ok(Box::new(move || {
            let path = folder.join(format!("raw_{}", std::process::id()));
            let begun = clock()?;
            raw(&path, &ring, &chunks, frames, threads)?;
            let seconds = clock()? - begun;
            std::fs::remove_file(&path)?;
            Ok(seconds)
        }));
    }
    if way == Way::Codec {
        return Ok(Box::new(move || {
            let begun = clock()?;
            compressed(&chunks, frames)?;
            Ok(clock()? - begun)
        }));
    }
    let store = Store::open(&folder)?;
    let mut number = 0;
    if matches!(way, Way::Run | Way::Packed) {
        return Ok(Box::new(move || {
            number += 1;
            let info = info(format!("bench_{}_{number}", std::process::id()))?;
            let begun = clock()?;
            let left = nexus_run(&store, &info, &stream, &ring, &chunks)?;
            let seconds = clock()? - begun;
            std::fs::remove_dir_all(run_of(&left)?)?;
            Ok(seconds)
        }));
    }
    let kept = format!("bench_{}_{rows}_{frames}_{cpu}_{}", std::process::id(), way as u8);
    let files = nexus_run(&store, &info(kept)?, &stream, &ring, &chunks)?;
    Ok(Box::new(move || {
        let begun = clock()?;
        match way {
            Way::Frames => {
                let mut bytes = 0;
                let found = read_chunks(run_of(&files)?, 0..frames as u64, |chunk| {
                    bytes += chunk.bytes.len();
                    Ok::<_, StoreError>(())
                })?;
                assert!(found == frames as u64 && bytes > 0);
            }
            _ => raw_read(&files[1..], if way == Way::RawRead { 1 } else { 4 })?,
        }
        Ok(clock()? - begun)
    }))
}

fn run_of(files: &[PathBuf]) -> Result<&Path> {
    Ok(files
        .first()
        .and_then(|file| file.parent())
        .ok_or("a run without files")?)
}

fn wall_seconds() -> f64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Processor time of this process, as `/proc` has it, in hundredths.
fn processor_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let behind = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.collect::<std::result::Result<Vec<_>, _>>()?.iter().sum::<f64>() / 100.0)
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
        compress: stream.compression == Compression::None,
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
        *header = FrameHeader::new(stream.shape, stream.pixel_type, stream.compression);
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

fn raw(path: &Path, ring: &FrameRing, chunks: &[Vec<u8>], frames: usize, threads: usize) -> Result<()> {
    let mut slots: Vec<_> = std::iter::from_fn(|| ring.try_slot()).collect();
    let count = slots.len();
    let payloads: Vec<&[u8]> = slots
        .iter_mut()
        .map(|slot| {
            let bytes = chunks[slot.index() % chunks.len()].len().next_multiple_of(4096);
            &slot.payload_mut()[..bytes]
        })
        .collect();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let file = options
        .clone()
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .or_else(|_| options.open(path))?;
    let mut offsets = vec![0];
    for frame in 0..frames {
        offsets.push(offsets[frame] + payloads[frame % count].len() as u64);
    }
    if threads > 1 {
        let made = Command::new("fallocate")
            .arg("-l")
            .arg(offsets[frames].to_string())
            .arg(path)
            .status()?;
        assert!(made.success(), "no room for {}", path.display());
    }
    let next = AtomicUsize::new(0);
    let write = || -> std::io::Result<()> {
        loop {
            let frame = next.fetch_add(1, Relaxed);
            if frame >= frames {
                return Ok(());
            }
            file.write_all_at(payloads[frame % count], offsets[frame])?;
        }
    };
    together(threads, &write)?;
    Ok(file.sync_all()?)
}

/// Compresses so many frames on every core; nobody takes what comes of it.
fn compressed(frames: &[Vec<u8>], count: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let compress = || -> std::io::Result<()> {
        let largest = frames.iter().map(Vec::len).max().unwrap_or(0);
        let mut scratch = frame::codec::Scratch::default();
        let mut chunk = vec![0; frame::codec::compress_bound(largest, 2)];
        loop {
            let frame = next.fetch_add(1, Relaxed);
            if frame >= count {
                return Ok(());
            }
            let made = frame::codec::compress(&frames[frame % frames.len()], 2, &mut chunk, &mut scratch);
            std::hint::black_box(made.map_err(std::io::Error::other)?);
        }
    };
    together(std::thread::available_parallelism()?.get(), &compress)
}

fn raw_read(files: &[PathBuf], threads: usize) -> Result<()> {
    const PIECE: u64 = 4 << 20;
    for path in files {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        let bytes = file.metadata()?.len();
        let next = AtomicU64::new(0);
        let read = || -> std::io::Result<()> {
            let mut memory = vec![0; PIECE as usize + 4096];
            let start = memory.as_ptr().align_offset(4096);
            loop {
                let at = next.fetch_add(PIECE, Relaxed);
                if at >= bytes {
                    return Ok(());
                }
                let mut filled = 0;
                while at + (filled as u64) < bytes.min(at + PIECE) {
                    filled += file.read_at(&mut memory[start + filled..start + PIECE as usize], at + filled as u64)?;
                }
            }
        };
        together(threads, &read)?;
    }
    Ok(())
}

/// The same on so many threads.
fn together(threads: usize, work: &(dyn Fn() -> std::io::Result<()> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok(())
    })
}
