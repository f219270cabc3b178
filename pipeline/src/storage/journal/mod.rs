//! The journal of a run: which frames are on the disk, and where.
//!
//! HDF5 alone cannot say that after a crash. So every frame has a record beside the data, which is written only
//! when the frame itself is on the disk, and the frame counts as stored (level L2) only when its record is on
//! the disk, too. From the records the files are finished at the next start.
//!
//! This is a state machine without file, clock or thread: it is told what was written, asked whether it is time, and
//! told how a sync went. One sync is
//!
//! 1. `fdatasync` of every data file in [`Sync::files`],
//! 2. [`Journal::records`] of those that succeeded, written at [`Journal::place`],
//! 3. `fdatasync` of the journal,
//!
//! in this order. A sync that failed is never repeated on the same file: what it was to cover in a data file has
//! failed ([`Journal::data_failed`]); a segment of the journal that failed is given up, and the records go into the
//! next one ([`Journal::journal_failed`]), because the frames themselves are safe.

mod record;

pub use record::{Chunk, RECORD_BYTES, Record, Replayed, replay};

/// The oldest frame that is not yet safe waits no longer than this before a sync begins. With the sync itself it stays
/// within half a second on a disk that works.
pub const SYNC_AFTER_NS: u64 = 200_000_000;
/// A segment that has grown to this many bytes is followed by the next.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPlace {
    /// number of the segment, from 1 on
    pub segment: u32,
    /// offset within it
    pub offset: u64,
}

/// What a sync covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// data files to sync, each once
    pub files: Vec<u32>,
}

/// The state machine.
#[derive(Debug)]
pub struct Journal {
    tag: u64,
    segment_bytes: u64,
    place: JournalPlace,
    sequence: u64,
    /// written, but not covered by a sync
    waiting: Vec<Record>,
    oldest_ns: Option<u64>,
    /// covered by the sync that goes on
    syncing: Vec<Record>,
    begun: bool,
    /// files that a sync has failed on: nothing more is written to them or asked of them
    failed: Vec<u32>,
}

impl Journal {
    /// An empty journal of the run with this tag; `room`: records that may wait for a sync without allocation.
    pub fn new(tag: u64, room: usize) -> Self {
        Self::with_segments(tag, room, SEGMENT_BYTES)
    }

    /// The same with segments of another size.
    pub fn with_segments(tag: u64, room: usize, segment_bytes: u64) -> Self {
        Self {
            tag,
            segment_bytes,
            place: JournalPlace { segment: 1, offset: 0 },
            sequence: 0,
            waiting: Vec::with_capacity(room),
            oldest_ns: None,
            syncing: Vec::with_capacity(room),
            begun: false,
            failed: Vec::new(),
        }
    }

    /// A chunk lies in its file as far as the operating system is concerned, or a file was sealed or replaced. A chunk
    /// of a file that has failed is refused: `false`.
    #[must_use]
    pub fn written(&mut self, record: Record, now_ns: u64) -> bool {
        if matches!(record, Record::Chunk(chunk) if self.failed.contains(&chunk.file)) {
            return false;
        }
        self.waiting.push(record);
        self.oldest_ns.get_or_insert(now_ns);
        true
    }

    /// Records that no sync covers yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.syncing.len()
    }

    /// Time at which a sync must begin; none while nothing waits or one goes on.
    pub fn due_ns(&self) -> Option<u64> {
        self.oldest_ns
            .filter(|_| !self.begun)
            .map(|oldest| oldest + SYNC_AFTER_NS)
    }

    /// Begins a sync of everything that waits; `None` while there is nothing or one goes on.
    pub fn begin(&mut self) -> Option<Sync> {
        if self.begun || self.waiting.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.waiting, &mut self.syncing);
        self.oldest_ns = None;
        self.begun = true;
        let mut files: Vec<u32> = self.syncing.iter().filter_map(chunk_file).collect();
        files.sort_unstable();
        files.dedup();
        Some(Sync { files })
    }

    /// The sync of this data file failed. Returns the chunks that are lost by it: those of the sync that goes on and
    /// those written since. Earlier ones are safe.
    pub fn data_failed(&mut self, file: u32) -> Vec<Chunk> {
        if !self.failed.contains(&file) {
            self.failed.push(file);
        }
        let mut lost = Vec::new();
        for records in [&mut self.syncing, &mut self.waiting] {
            lost.extend(records.iter().filter_map(|record| match record {
                Record::Chunk(chunk) if chunk.file == file => Some(*chunk),
                _ => None,
            }));
            records.retain(|record| chunk_file(record) != Some(file));
        }
        self.oldest_ns = self.oldest_ns.filter(|_| !self.waiting.is_empty());
        lost
    }

    /// Whether a sync of this file has failed.
    pub fn has_failed(&self, file: u32) -> bool {
        self.failed.contains(&file)
    }

    /// Where the records of the sync that goes on are to be written.
    pub fn place(&self) -> JournalPlace {
        self.place
    }

    /// The records of the sync that goes on, as bytes.
    pub fn records(&self) -> Vec<u8> {
        let numbered = self.syncing.iter().zip(self.sequence + 1..);
        numbered
            .flat_map(|(record, sequence)| record.encode(sequence, self.tag))
            .collect()
    }

    /// The segment could not be written or synced: it is given up, and the same records are to be written to the next.
    pub fn journal_failed(&mut self) {
        // The numbers go on, so that records which lie in both segments are told apart.
        self.sequence += self.syncing.len() as u64;
        self.next_segment();
    }

    /// The records are on the disk: these chunks are safe now.
    pub fn synced(&mut self) -> impl Iterator<Item = Chunk> + '_ {
        let records = self.syncing.len() as u64;
        self.sequence += records;
        self.place.offset += records * RECORD_BYTES as u64;
        if self.place.offset >= self.segment_bytes {
            self.next_segment();
        }
        self.begun = false;
        self.syncing.drain(..).filter_map(|record| match record {
            Record::Chunk(chunk) => Some(chunk),
            _ => None,
        })
    }

    /// The records can be written nowhere: these chunks are on the disk, but no later start would know. Gives them back.
    pub fn abandoned(&mut self) -> Vec<Chunk> {
        self.next_segment();
        self.begun = false;
        let chunks = self.syncing.drain(..).filter_map(|record| match record {
            Record::Chunk(chunk) => Some(chunk),
            _ => None,
        });
        chunks.collect()
    }

    fn next_segment(&mut self) {
        self.place = JournalPlace {
            segment: self.place.segment + 1,
            offset: 0,
        };
    }
}

fn chunk_file(record: &Record) -> Option<u32> {
    match record {
        Record::Chunk(chunk) => Some(chunk.file),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
