//! The threads that bring frames to the disk: they compress where the run says so, find a place, and write.
//!
//! One lock is held while a place is found, and while the hashes of a frame's parts are put with those of its file; nothing else
//! happens under it, but for small frames, whose bytes are hashed in the order of the file. There are more threads than
//! cores may be: most of the time they wait for the disk, and while some wait others check, hash and compress.

use super::codec::Compressor;
use super::data_file::Shared;
use super::data_files::{DataFiles, FrameFormat, Placed};
use super::disk_watch::Asked;
use super::error::{At, StoreError};
use super::hash::{self, SUBTREES_MAX, Subtree};
use super::io::{Aligned, BLOCK_BYTES};
use super::journal::Chunk;
use crate::data_plane;
use crossbeam_channel::{Receiver, Sender};
use driver::clock::monotonic_ns;
use driver::memory::FrameLease;
use frame::Compression;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

/// Bit 0: filter 32008, the only one, was not applied.
const UNFILTERED: u8 = 1;

/// What the threads share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) format: FrameFormat,
    /// frames that come unpacked are packed
    pub(super) compress: bool,
    files: Mutex<DataFiles>,
    /// the disk is full: nothing is tried until there is room again
    pub(super) full: AtomicBool,
    /// frames taken and not written
    pub(super) writes: Asked,
    /// syncs that go on
    pub(super) syncs: Asked,
}

impl Common {
    pub(super) fn new(files: DataFiles, compress: bool) -> Self {
        Self {
            format: files.format,
            compress,
            files: Mutex::new(files),
            full: AtomicBool::new(false),
            writes: Asked::default(),
            syncs: Asked::default(),
        }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, DataFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a frame.
#[derive(Debug)]
pub(super) enum Payload {
    /// where the source has put them
    Lease(FrameLease),
    /// a copy, and its length
    Copy(Aligned, usize),
}

impl Payload {
    fn bytes(&self) -> &[u8] {
        match self {
            Payload::Lease(lease) => lease.payload(),
            Payload::Copy(memory, bytes) => &memory.bytes()[..*bytes],
        }
    }
}

/// A frame to store; what is known of it is in `chunk`, what is not yet known there is 0.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) chunk: Chunk,
    pub(super) packed: bool,
    pub(super) payload: Payload,
    /// who waits for it to be written
    pub(super) reply: Option<Sender<Result<(), StoreError>>>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) chunk: Chunk,
    pub(super) result: Result<(), StoreError>,
    pub(super) reply: Option<Sender<Result<(), StoreError>>>,
    /// payload bytes
    pub(super) bytes: u64,
    /// from taking to written, ns
    pub(super) took_ns: u64,
}

/// One thread's work, until there are no more frames.
pub(super) fn serve(common: &Common, jobs: &Receiver<Job>, done: &Sender<Done>, ready: &Arc<Barrier>) {
    let format = common.format;
    let mut hand = Hand {
        common,
        compressor: common
            .compress
            .then(|| Compressor::new(format.frame_bytes(), format.pixel_type)),
        spare: Aligned::new(BLOCK_BYTES),
        hashed: Vec::with_capacity(SUBTREES_MAX),
    };
    driver::memory::warm(jobs);
    ready.wait();
    let guard = data_plane::enter();
    for Job {
        mut chunk,
        packed,
        payload,
        reply,
    } in jobs
    {
        let begun = monotonic_ns();
        let result = hand.store(&mut chunk, packed, payload.bytes());
        let bytes = payload.bytes().len() as u64;
        drop(payload); // the slot is free before anybody is told
        let took_ns = monotonic_ns() - begun;
        common.writes.end();
        let _ = done.send(Done {
            chunk,
            result,
            reply,
            bytes,
            took_ns,
        });
    }
    drop(guard);
}

struct Hand<'a> {
    common: &'a Common,
    compressor: Option<Compressor>,
    spare: Aligned,
    /// of the frame at hand
    hashed: Vec<Subtree>,
}

impl Hand<'_> {
    fn store(&mut self, chunk: &mut Chunk, packed: bool, payload: &[u8]) -> Result<(), StoreError> {
        let frame = chunk.frame;
        let stored = match &mut self.compressor {
            Some(compressor) if !packed => compressor.compress(payload).map_err(|source| StoreError::Codec {
                frame,
                doing: "compressed",
                source,
            })?,
            _ => payload,
        };
        let filtered = packed || self.common.compress;
        chunk.filters_skipped = if self.common.format.filter.is_some() && !filtered {
            UNFILTERED
        } else {
            0
        };
        chunk.bytes = stored.len() as u32;
        if self.common.full.load(Relaxed) {
            return Err(self.no_room(chunk));
        }
        let Placed {
            file,
            offset,
            disk,
            direct,
        } = self.common.files().place(frame, stored)?;
        (chunk.file, chunk.offset) = (file, offset);
        write(&disk, stored, offset, &mut self.spare).map_err(|source| {
            let mut files = self.common.files();
            let file = &mut files.files[file as usize];
            file.unwritable();
            let error = StoreError::io("writing a frame to", &file.path, source, u64::from(chunk.bytes));
            match error {
                StoreError::DiskFull { .. } => self.common.full.store(true, Relaxed),
                _ => file.failed = true,
            }
            error
        })?;
        // The disk has work before the processor has: hashed first, the same frames took 2 to 8 % longer.
        chunk.crc32c = if direct {
            let crc32c = hash::subtrees(stored, offset, &mut self.hashed);
            self.common.files().files[file as usize].hashed(&self.hashed);
            crc32c
        } else {
            crc32c::crc32c(stored)
        };
        Ok(())
    }

    fn no_room(&self, chunk: &Chunk) -> StoreError {
        let files = self.common.files();
        let slot = (chunk.frame / self.common.format.frames_per_file) as usize;
        let path = files.files[slot].path.clone();
        let free_bytes = super::h5::free_bytes(&path).unwrap_or(0);
        StoreError::DiskFull {
            path,
            needed_bytes: u64::from(chunk.bytes),
            free_bytes,
        }
    }
}

fn write(disk: &Shared, bytes: &[u8], offset: u64, spare: &mut Aligned) -> std::io::Result<()> {
    let disk = disk.read().unwrap_or_else(PoisonError::into_inner);
    let disk = disk.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
    disk.make_room(offset + bytes.len() as u64);
    disk.write(bytes, offset, spare)
}

/// The job of a frame in the ring.
pub(super) fn job_of(lease: FrameLease) -> Job {
    let packed = lease.header().compression != Compression::None as u8;
    Job {
        chunk: chunk_of(lease.header()),
        packed,
        payload: Payload::Lease(lease),
        reply: None,
    }
}

/// What a header says of a frame.
pub(super) fn chunk_of(header: &frame::FrameHeader) -> Chunk {
    let (parts_missing, missing_bytes) = (header.parts_missing.get(), header.missing_bytes.get());
    Chunk {
        frame: header.frame_number.get(),
        file: 0,
        offset: 0,
        bytes: 0,
        crc32c: 0,
        filters_skipped: 0,
        kind: header.kind,
        receipt: if parts_missing > 0 || missing_bytes > 0 { 2 } else { 1 },
        parts_missing,
        missing_bytes,
        angle_deg: header.angle_deg.get(),
    }
}

/// Starts `count` threads and returns when they stand ready; they end with `jobs`.
pub(super) fn start(
    common: &Arc<Common>,
    jobs: &Receiver<Job>,
    done: &Sender<Done>,
    count: usize,
    path: &std::path::Path,
) -> Result<Vec<std::thread::JoinHandle<()>>, StoreError> {
    let ready = Arc::new(Barrier::new(count + 1));
    let spawn = |index: usize| {
        let (common, jobs, done, ready) = (common.clone(), jobs.clone(), done.clone(), ready.clone());
        std::thread::Builder::new()
            .name(format!("fluxline-disk-{index}"))
            .spawn(move || serve(&common, &jobs, &done, &ready))
    };
    let threads = (0..count).map(spawn).collect::<std::io::Result<Vec<_>>>();
    let threads = threads.at("starting threads for", path)?;
    ready.wait();
    Ok(threads)
}
