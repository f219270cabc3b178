//! Reading stretches of files at the disk's rate: past the page cache, several reads on their way at once, handed on in
//! their order.
//!
//! ```text
//! threads:  take an empty piece of memory, then the next stretch, read it ──┐
//! caller:   waits for the stretch that is due, looks at it, gives the memory back ──> threads
//! ```
//!
//! A thread takes memory first and a stretch second, so the stretch that is due always has memory: nobody waits in a ring.

use super::io::{Aligned, BLOCK_BYTES, Source};
use crossbeam_channel::bounded;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Reads that are on their way at once.
const READERS: usize = 4;
/// Pieces of memory beside those that are being filled.
const SPARE: usize = 2;
/// Bytes of one read of a file that is read as a whole.
const PIECE_BYTES: u64 = 4 << 20;

/// What is to be read: bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// index among the files
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Reads all stretches and hands them on one after the other. `each` may end it with an error of its own; a file that
/// cannot be read, or ends too early, ends it with its path.
pub(super) fn in_order<E: From<Unreadable>>(
    files: &[PathBuf],
    stretches: &[Stretch],
    mut each: impl FnMut(&Stretch, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let open = |path: &PathBuf| Source::open(path).map_err(|source| Unreadable::new(path, source));
    let sources = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let largest = stretches.iter().map(|stretch| stretch.bytes).max().unwrap_or(0) as usize;
    let readers = READERS.min(stretches.len());
    let (free, empty) = bounded::<Aligned>(readers + SPARE);
    let (filled, full) = bounded::<(usize, Aligned, io::Result<usize>)>(readers + SPARE);
    for _ in 0..readers + SPARE {
        // Blocks around the stretch are read with it.
        let _ = free.send(Aligned::new(largest + 2 * BLOCK_BYTES));
    }
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let read = || {
        for mut memory in &empty {
            let at = next.fetch_add(1, Relaxed);
            let Some(stretch) = stretches.get(at).filter(|_| !ended.load(Relaxed)) else {
                return;
            };
            let found = sources[stretch.file].read(stretch.offset, stretch.bytes as usize, &mut memory);
            if filled.send((at, memory, found)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(read);
        }
        let mut early: BTreeMap<usize, (Aligned, io::Result<usize>)> = BTreeMap::new();
        let mut hand_on = || {
            for (due, stretch) in stretches.iter().enumerate() {
                let (memory, found) = loop {
                    if let Some(found) = early.remove(&due) {
                        break found;
                    }
                    match full.recv() {
                        Ok((at, memory, found)) => early.insert(at, (memory, found)),
                        Err(_) => {
                            return Err(Unreadable::new(&files[stretch.file], io::ErrorKind::BrokenPipe.into()).into());
                        }
                    };
                };
                let start = found.map_err(|source| Unreadable::new(&files[stretch.file], source))?;
                each(stretch, &memory.bytes()[start..start + stretch.bytes as usize])?;
                let _ = free.send(memory);
            }
            Ok(())
        };
        let done = hand_on();
        ended.store(true, Relaxed);
        // Threads that wait for memory are woken: there is one piece for each.
        for _ in 0..readers {
            let _ = free.try_send(Aligned::new(1));
        }
        done
    })
}

/// A file that cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

impl Unreadable {
    fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// The stretches that bytes `from..to` of a file are read in.
pub(super) fn pieces(file: usize, from: u64, to: u64) -> Vec<Stretch> {
    let mut pieces = Vec::new();
    let mut at = from;
    while at < to {
        // Borders are the same wherever one begins.
        let end = ((at / PIECE_BYTES + 1) * PIECE_BYTES).min(to);
        pieces.push(Stretch {
            file,
            offset: at,
            bytes: end - at,
        });
        at = end;
    }
    pieces
}
