//! Records of the journal: 64 bytes each, little-endian, every one with a checksum of its own.
//!
//! ```text
//!  0  kind          1 chunk, 2 sealed file, 3 replacement
//!  1  3 bytes       of a chunk: frame kind, receipt (1 complete, 2 partial), filters skipped
//!  4  CRC32C        of the other 60 bytes, begun with the run's tag
//!  8  sequence      one more than that of the record before
//! 16  chunk: frame             sealed: bytes of the file     replacement: data file (0-based) that it continues
//! 24  file
//! 28  chunk: bytes             replacement: which one, from 2 on
//! 32  chunk: offset            sealed: BLAKE3 of the file, 32 bytes
//! 40  chunk: CRC32C of its bytes, parts missing
//! 48  chunk: angle, degrees (f64), missing bytes (u32)
//! ```

/// Bytes of a record. A sector holds eight: a torn write leaves whole records.
pub const RECORD_BYTES: usize = 64;

/// Where a stored frame lies, and what is known of it besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chunk {
    /// number within the run
    pub frame: u64,
    /// which file of the run
    pub file: u32,
    /// from the start of the file
    pub offset: u64,
    /// as stored
    pub bytes: u32,
    /// CRC32C of the stored bytes
    pub crc32c: u32,
    /// bit `i`: filter `i` was not applied
    pub filters_skipped: u8,
    /// [`frame::FrameKind`] code
    pub kind: u8,
    /// 1 complete, 2 partial
    pub receipt: u8,
    /// packets or modules that never came
    pub parts_missing: u32,
    /// bytes of the frame that never came
    pub missing_bytes: u32,
    /// rotation angle; NaN where there is none
    pub angle_deg: f64,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record {
    /// a frame was written, and synced before this record was
    Chunk(Chunk),
    /// a file was closed: its length and BLAKE3 hash
    Sealed {
        /// which file
        file: u32,
        /// length
        bytes: u64,
        /// BLAKE3
        hash: [u8; 32],
    },
    /// the disk refused a file: what else belongs into it goes to this one
    Replaced {
        /// the new file
        file: u32,
        /// number of the data file, from 0 on
        slot: u64,
        /// which one of that data file, from 2 on
        generation: u32,
    },
}

fn put<const N: usize>(out: &mut [u8; RECORD_BYTES], at: usize, value: [u8; N]) {
    out[at..at + N].copy_from_slice(&value);
}

fn get<const N: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn checksum(bytes: &[u8; RECORD_BYTES], tag: u64) -> u32 {
    let seed = crc32c::crc32c(&tag.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..4]), &bytes[8..])
}

impl Record {
    /// The record's bytes in the journal of the run with this tag.
    pub fn encode(&self, sequence: u64, tag: u64) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        put(&mut out, 8, sequence.to_le_bytes());
        match self {
            Record::Chunk(chunk) => {
                put(&mut out, 0, [1, chunk.kind, chunk.receipt, chunk.filters_skipped]);
                put(&mut out, 16, chunk.frame.to_le_bytes());
                put(&mut out, 24, chunk.file.to_le_bytes());
                put(&mut out, 28, chunk.bytes.to_le_bytes());
                put(&mut out, 32, chunk.offset.to_le_bytes());
                put(&mut out, 40, chunk.crc32c.to_le_bytes());
                put(&mut out, 44, chunk.parts_missing.to_le_bytes());
                put(&mut out, 48, chunk.angle_deg.to_le_bytes());
                put(&mut out, 56, chunk.missing_bytes.to_le_bytes());
            }
            Record::Sealed { file, bytes, hash } => {
                put(&mut out, 0, [2]);
                put(&mut out, 16, bytes.to_le_bytes());
                put(&mut out, 24, file.to_le_bytes());
                put(&mut out, 32, *hash);
            }
            Record::Replaced { file, slot, generation } => {
                put(&mut out, 0, [3]);
                put(&mut out, 16, slot.to_le_bytes());
                put(&mut out, 24, file.to_le_bytes());
                put(&mut out, 28, generation.to_le_bytes());
            }
        }
        let crc = checksum(&out, tag);
        put(&mut out, 4, crc.to_le_bytes());
        out
    }

    /// The record in these bytes and its sequence number; `None` where they are not what was written.
    pub fn decode(bytes: &[u8; RECORD_BYTES], tag: u64) -> Option<(u64, Record)> {
        if u32::from_le_bytes(get(bytes, 4)) != checksum(bytes, tag) {
            return None;
        }
        let file = u32::from_le_bytes(get(bytes, 24));
        let first = u64::from_le_bytes(get(bytes, 16));
        let record = match bytes[0] {
            1 => Record::Chunk(Chunk {
                frame: first,
                file,
                offset: u64::from_le_bytes(get(bytes, 32)),
                bytes: u32::from_le_bytes(get(bytes, 28)),
                crc32c: u32::from_le_bytes(get(bytes, 40)),
                filters_skipped: bytes[3],
                kind: bytes[1],
                receipt: bytes[2],
                parts_missing: u32::from_le_bytes(get(bytes, 44)),
                missing_bytes: u32::from_le_bytes(get(bytes, 56)),
                angle_deg: f64::from_le_bytes(get(bytes, 48)),
            }),
            2 => Record::Sealed {
                file,
                bytes: first,
                hash: get(bytes, 32),
            },
            3 => Record::Replaced {
                file,
                slot: first,
                generation: u32::from_le_bytes(get(bytes, 28)),
            },
            _ => return None,
        };
        Some((u64::from_le_bytes(get(bytes, 8)), record))
    }
}

/// What a segment of the journal says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// sequence numbers and records, as far as they are as written, in order
    pub records: Vec<(u64, Record)>,
    /// records that are not as written although later ones are: bit rot
    pub damaged: u64,
    /// bytes at the end that are no records: a write that was cut off
    pub torn_bytes: u64,
}

/// Reads a segment. What was cut off at its end was never acknowledged and is left out; a record that is damaged is
/// counted and the ones behind it still count.
pub fn replay(segment: &[u8], tag: u64) -> Replayed {
    let mut replayed = Replayed::default();
    let mut behind = 0;
    let mut bad = 0;
    for (index, bytes) in segment.as_chunks::<RECORD_BYTES>().0.iter().enumerate() {
        let newest = replayed.records.last().map(|(sequence, _)| *sequence);
        match Record::decode(bytes, tag).filter(|(sequence, _)| newest.is_none_or(|newest| *sequence > newest)) {
            Some(found) => {
                replayed.records.push(found);
                replayed.damaged += bad;
                bad = 0;
                behind = (index + 1) * RECORD_BYTES;
            }
            None => bad += 1,
        }
    }
    replayed.torn_bytes = (segment.len() - behind) as u64;
    replayed
}
