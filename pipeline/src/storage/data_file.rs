//! One data file: where the next frame goes, what lies where, and what of it a reader sees.

use super::hash::{self, SUBTREES_MAX, Subtree, Subtrees, TailHash, subtrees};
use super::head::{self, Head, Place};
use super::io::{Aligned, BLOCK_BYTES, Disk};
use super::run_json::{FileRecord, hex};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of frames for each byte of indexes that only a reader of the running run needs, but for the first megabyte.
const BYTES_PER_INDEX_BYTE: u64 = 64;
const INDEX_BYTES_FREE: u64 = 1 << 20;
/// Frames that are smaller than this go through the page cache: whole blocks would waste too much of the disk.
const DIRECT_BYTES_MIN: usize = 256 << 10;
/// What offsets are multiples of where the page cache is in between.
const BUFFERED_ALIGN: u64 = 8;

/// The open file; closed while nothing is written to it. Many write at once, each at its own offset.
pub(super) type Shared = Arc<RwLock<Option<Disk>>>;

/// A data file while the run is written.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// which data file of the run it is, from 0 on
    pub(super) slot: u64,
    /// 1; more for those that took over from one that the disk refused
    pub(super) generation: u32,
    /// first frame, and how many there may be
    pub(super) first: u64,
    pub(super) frames: u64,
    /// the disk has refused something here: nothing more is written
    pub(super) failed: bool,
    /// frames that lie in it
    pub(super) stored: u64,
    head: Head,
    disk: Shared,
    /// bytes of a frame before compression
    frame_bytes: usize,
    direct: bool,
    end: u64,
    tail: Tail,
    /// whether everything behind the head is as `tail` has it
    hash_holds: bool,
    places: Box<[Place]>,
    /// frames of the newest index
    indexed: u64,
    index_bytes: u64,
    /// where the newest index ends
    index_end: u64,
    /// writes that were begun, and those whose end is known
    placed: u64,
    settled: u64,
    sealed: bool,
}

/// The hash of everything behind the head.
#[derive(Debug)]
enum Tail {
    /// made under the lock, where frames are small and lie where there is room
    InOrder(Box<TailHash>),
    /// made by the threads that write, where frames lie on whole blocks
    AnyOrder(Subtrees),
}

impl Tail {
    fn behind(head_bytes: u64, direct: bool) -> Self {
        if direct {
            Self::AnyOrder(Subtrees::behind(head_bytes))
        } else {
            Self::InOrder(Box::new(TailHash::behind(head_bytes)))
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::InOrder(tail) => tail.bytes(),
            Self::AnyOrder(trees) => trees.bytes(),
        }
    }

    fn with_head(&self, head: &[u8]) -> Option<blake3::Hash> {
        match self {
            Self::InOrder(tail) => Some(tail.with_head(head)),
            Self::AnyOrder(trees) => trees.with_head(head),
        }
    }
}

/// An index on its way to the disk: the nodes first, then the head that points at them.
#[derive(Debug)]
pub(super) struct NewIndex {
    disk: Shared,
    offset: u64,
    nodes: Vec<u8>,
    head: Vec<u8>,
    end: u64,
}

impl NewIndex {
    /// Length of the file that this index ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes both. After a power cut one may be there without the other: heads are made anew then.
    pub(super) fn write(&self, spare: &mut Aligned) -> io::Result<()> {
        let disk = self.disk.read().unwrap_or_else(PoisonError::into_inner);
        let disk = disk.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if !self.nodes.is_empty() {
            disk.write(&self.nodes, self.offset, spare)?;
        }
        disk.write(&self.head, 0, spare)
    }

    /// Waits for the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let disk = self.disk.read().unwrap_or_else(PoisonError::into_inner);
        disk.as_ref().ok_or(io::ErrorKind::NotFound)?.sync()
    }
}

impl DataFile {
    /// The file at `path`, which holds nothing but this head.
    pub(super) fn new(path: PathBuf, slot: u64, first: u64, frames: u64, head: Head, frame_bytes: usize) -> Self {
        let direct = frame_bytes >= DIRECT_BYTES_MIN;
        Self {
            path,
            slot,
            generation: 1,
            first,
            frames,
            failed: false,
            stored: 0,
            end: head.len(),
            tail: Tail::behind(head.len(), direct),
            hash_holds: true,
            places: vec![Place::default(); frames as usize].into(),
            indexed: 0,
            index_bytes: 0,
            index_end: 0,
            placed: 0,
            settled: 0,
            sealed: false,
            disk: Shared::default(),
            head,
            frame_bytes,
            direct,
        }
    }

    /// A new file beside this one, for the frames that this one can no longer take.
    pub(super) fn successor(&self, path: PathBuf) -> io::Result<Self> {
        let mut head = self.head.clone();
        head.point(head.len(), u64::MAX);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(head.bytes())?;
        file.sync_all()?;
        let mut next = Self::new(path, self.slot, self.first, self.frames, head, self.frame_bytes);
        next.generation = self.generation + 1;
        Ok(next)
    }

    /// Finds a place for these bytes, and opens the file where it is closed. Where [`DataFile::direct`], their hash is
    /// to follow by [`DataFile::hashed`].
    pub(super) fn place(&mut self, bytes: &[u8]) -> io::Result<(u64, Shared)> {
        self.open()?;
        self.sealed = false;
        self.placed += 1;
        Ok((self.append(bytes), self.disk.clone()))
    }

    /// Takes the next place in the file, and returns where it begins.
    fn append(&mut self, bytes: &[u8]) -> u64 {
        const ZEROS: [u8; BUFFERED_ALIGN as usize] = [0; BUFFERED_ALIGN as usize];
        let offset = self.end;
        self.end += self.padded(bytes.len());
        if let Tail::InOrder(tail) = &mut self.tail {
            tail.update(bytes);
            tail.update(&ZEROS[..(self.end - offset) as usize - bytes.len()]);
        }
        offset
    }

    fn padded(&self, bytes: usize) -> u64 {
        (bytes as u64).next_multiple_of(self.align())
    }

    fn align(&self) -> u64 {
        if self.direct {
            BLOCK_BYTES as u64
        } else {
            BUFFERED_ALIGN
        }
    }

    /// The subtrees of bytes that have a place, written or not.
    pub(super) fn hashed(&mut self, found: &[Subtree]) {
        if let Tail::AnyOrder(trees) = &mut self.tail {
            trees.insert(found);
        }
    }

    fn open(&self) -> io::Result<()> {
        // To change it means to wait for every write and sync that goes on.
        if self.disk.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut disk = self.disk.write().unwrap_or_else(PoisonError::into_inner);
        if disk.is_none() {
            let bytes_max = self.frames.saturating_mul(self.padded(self.frame_bytes)) + self.head.len();
            *disk = Some(Disk::open(&self.path, self.direct, bytes_max)?);
        }
        Ok(())
    }

    /// Its head as it is now.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Whether it is written past the page cache, frames on whole blocks.
    pub(super) fn direct(&self) -> bool {
        self.direct
    }

    /// Bytes of a frame before compression.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The open file.
    pub(super) fn disk(&self) -> Shared {
        self.disk.clone()
    }

    /// A frame lies where it was to go.
    pub(super) fn written(&mut self, frame: u64, place: Place) {
        self.settled += 1;
        if let Some(known) = self.places.get_mut((frame - self.first) as usize) {
            self.stored += u64::from(known.bytes == 0);
            *known = place;
        }
    }

    /// A frame does not, after all.
    pub(super) fn unwritten(&mut self, frame: u64) {
        self.hash_holds = false;
        let known = self.places.get_mut((frame - self.first) as usize);
        if let Some(known) = known.filter(|known| known.bytes > 0) {
            *known = Place::default();
            self.stored -= 1;
        }
    }

    /// Whether it has this frame.
    pub(super) fn has(&self, frame: u64) -> bool {
        self.places
            .get((frame - self.first) as usize)
            .is_some_and(|place| place.bytes > 0)
    }

    /// Something was not written as it was to be: the hash must be made from what the disk has.
    pub(super) fn distrust(&mut self) {
        self.hash_holds = false;
    }

    /// A frame that had a place could not be written.
    pub(super) fn unwritable(&mut self) {
        self.settled += 1;
        self.hash_holds = false;
    }

    /// Whether nothing has come since its newest index and no write goes on.
    pub(super) fn quiet(&self) -> bool {
        self.end == self.index_end && self.placed == self.settled
    }

    /// Whether a reader of the running run should see more, and an index for it is not out of proportion.
    pub(super) fn wants_index(&self) -> bool {
        let next = head::index_bytes(self.stored);
        self.stored != self.indexed
            && self.index_bytes + next <= INDEX_BYTES_FREE + (self.end - self.index_bytes) / BYTES_PER_INDEX_BYTE
    }

    /// The index of all that is stored.
    pub(super) fn next_index(&mut self) -> io::Result<NewIndex> {
        self.open()?;
        let frames: Vec<(u64, Place)> = (0..)
            .zip(&self.places)
            .filter(|(_, place)| place.bytes > 0)
            .map(|(index, place)| (index, *place))
            .collect();
        let offset = self.end;
        let (nodes, root) = head::index(&frames, offset);
        if nodes.is_empty() {
            // What was to lie behind the head may not be there.
            self.head.point(self.head.len(), root);
        } else {
            self.append(&nodes);
            if self.direct {
                let mut found = Vec::with_capacity(SUBTREES_MAX);
                subtrees(&nodes, offset, &mut found);
                self.hashed(&found);
            }
            self.head.point(self.end, root);
        }
        self.index_bytes += self.end - offset;
        self.index_end = self.end;
        self.indexed = self.stored;
        let shown = if nodes.is_empty() { self.head.len() } else { self.end };
        Ok(NewIndex {
            disk: self.disk.clone(),
            offset,
            end: shown,
            nodes,
            head: self.head.bytes().to_vec(),
        })
    }

    /// Whether every frame that can come has come.
    pub(super) fn full(&self) -> bool {
        self.stored == self.frames
    }

    /// Whether it is closed as it is to stay.
    pub(super) fn sealed(&self) -> bool {
        self.sealed
    }

    /// Ends the file behind its newest index, if nothing has come since: what was made ahead for frames is given back.
    pub(super) fn cut(&self) -> io::Result<()> {
        let disk = self.disk.read().unwrap_or_else(PoisonError::into_inner);
        match disk.as_ref().filter(|_| self.quiet()) {
            Some(disk) => disk.cut(self.end),
            None => Ok(()),
        }
    }

    /// Its newest index is on the disk and nothing more is expected.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
        *self.disk.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Shows only the first `frames`.
    pub(super) fn shorten(&mut self, frames: u64) {
        if frames < self.frames {
            self.head.shorten(self.first, frames);
            self.frames = frames;
            self.sealed = false;
        }
    }

    /// Length and hash of the file from what was written; `None` where they must be read back.
    pub(super) fn record(&self) -> Option<FileRecord> {
        let trusted = self.stored > 0 || self.end == self.head.len();
        let (bytes, digest) = self.digest().filter(|_| trusted)?;
        Some(FileRecord {
            name: name_of(&self.path),
            bytes,
            algorithm: hash::ALGORITHM.into(),
            hash: hex(&digest),
        })
    }

    /// Length and hash of the file, where they are known.
    pub(super) fn digest(&self) -> Option<(u64, [u8; 32])> {
        if !self.hash_holds || self.tail.bytes() != self.end {
            return None;
        }
        let digest = self.tail.with_head(self.head.bytes())?;
        Some((self.end, *digest.as_bytes()))
    }

    /// Takes over what a journal says of a file that another process wrote, up to `end`.
    pub(super) fn resume(&mut self, end: u64) {
        self.end = end.max(self.end).next_multiple_of(self.align());
        self.hash_holds = false;
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
