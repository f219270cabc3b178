//! The BLAKE3 hash of a file whose first bytes are known last.
//!
//! BLAKE3 is a tree: the hash of a whole follows from the chaining values of its parts. A data file is
//! `[head: 2^k bytes][everything else, written in order]`; the ranges `[2^j, 2^(j+1))` behind the head are subtrees of
//! their own, hashed as they are written, and joined with the head's when that is known.
//!
//! [`TailHash`] takes the bytes in their order. Where frames lie on whole blocks [`Subtrees`] takes them in any order, so that
//! every thread hashes its own frame, under no lock: a frame is some twenty subtrees, of which the joining is little work.

use super::io::BLOCK_BYTES;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Name of the hash in `run.json`.
pub(super) const ALGORITHM: &str = "blake3";
/// Ranges of a file that a 64-bit length can have.
const RANGES_MAX: usize = 64;
/// Subtrees of a frame, which has 32 bits of length: two of every size from a block on.
pub(super) const SUBTREES_MAX: usize = 48;
/// Bytes that stay in a core's cache between two looks at them, and fill all lanes of the hash: a power of two.
const PIECE_BYTES: usize = 128 << 10;
/// Subtrees that wait for another: two of every size for each thread, and so many again; more make the list longer.
const WAITING_USUAL: usize = 256;

/// Everything behind the head, so far.
#[derive(Debug)]
pub(super) struct TailHash {
    /// chaining values of the ranges that are whole
    whole: Vec<ChainingValue>,
    /// the range that is being written
    range: Hasher,
    range_start: u64,
    at: u64,
}

impl TailHash {
    /// Nothing behind a head of `head_bytes`: a power of two, 1024 at least.
    pub(super) fn behind(head_bytes: u64) -> Self {
        assert!(head_bytes.is_power_of_two() && head_bytes >= 1024, "{head_bytes}");
        Self {
            whole: Vec::with_capacity(RANGES_MAX),
            range: range_from(head_bytes),
            range_start: head_bytes,
            at: head_bytes,
        }
    }

    /// The next bytes of the file. Allocates nothing.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = 2 * self.range_start - self.at;
            let taken = room.min(bytes.len() as u64) as usize;
            self.range.update(&bytes[..taken]);
            self.at += taken as u64;
            bytes = &bytes[taken..];
            if self.at == 2 * self.range_start {
                self.whole.push(self.range.finalize_non_root());
                self.range_start = self.at;
                self.range = range_from(self.at);
            }
        }
    }

    /// Length of the file so far, its head included.
    pub(super) fn bytes(&self) -> u64 {
        self.at
    }

    /// The hash of the file with this head; more bytes may follow all the same.
    pub(super) fn with_head(&self, head: &[u8]) -> Hash {
        let last = (self.at > self.range_start).then(|| self.range.finalize_non_root());
        let mut ranges = self.whole.iter().copied().chain(last).peekable();
        if ranges.peek().is_none() {
            return blake3::hash(head);
        }
        let mut left = Hasher::new().update(head).finalize_non_root();
        while let Some(right) = ranges.next() {
            if ranges.peek().is_none() {
                return merge_subtrees_root(&left, &right, Mode::Hash);
            }
            left = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        unreachable!("the last range ends the loop")
    }
}

/// A whole subtree of a file: `bytes`, a power of two, from a multiple of that on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subtree {
    start: u64,
    bytes: u64,
    value: ChainingValue,
}

/// The subtrees that `bytes`, filled up with zeros to whole blocks, make up at `offset`, a block's: the larger part of the
/// work, for which nobody has to know what lies around them. Returns the CRC32C of `bytes`, made on the way, so that they are read
/// from memory once. Allocates nothing where `found` has room for [`SUBTREES_MAX`].
pub(super) fn subtrees(bytes: &[u8], offset: u64, found: &mut Vec<Subtree>) -> u32 {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    assert!(offset > 0 && offset.is_multiple_of(BLOCK_BYTES as u64), "{offset}");
    found.clear();
    let end = offset + (bytes.len() as u64).next_multiple_of(BLOCK_BYTES as u64);
    let (mut at, mut rest, mut crc) = (offset, bytes, 0);
    while at < end {
        let length = (1 << at.trailing_zeros()).min(1 << (end - at).ilog2());
        let (part, behind) = rest.split_at(rest.len().min(length as usize));
        let mut hasher = range_from(at);
        for piece in part.chunks(PIECE_BYTES) {
            crc = crc32c::crc32c_append(crc, piece);
            hasher.update(piece);
        }
        hasher.update(&ZEROS[..length as usize - part.len()]);
        found.push(Subtree {
            start: at,
            bytes: length,
            value: hasher.finalize_non_root(),
        });
        (at, rest) = (at + length, behind);
    }
    crc
}

/// Everything behind the head, where frames end in any order: subtrees that still lack the other half of theirs.
#[derive(Debug)]
pub(super) struct Subtrees {
    head_bytes: u64,
    waiting: Vec<Subtree>,
    bytes: u64,
}

impl Subtrees {
    /// Nothing behind a head of `head_bytes`: a power of two, a block at least.
    pub(super) fn behind(head_bytes: u64) -> Self {
        assert!(
            head_bytes.is_power_of_two() && head_bytes >= BLOCK_BYTES as u64,
            "{head_bytes}"
        );
        Self {
            head_bytes,
            waiting: Vec::with_capacity(WAITING_USUAL),
            bytes: head_bytes,
        }
    }

    /// Puts these subtrees in their places.
    pub(super) fn insert(&mut self, found: &[Subtree]) {
        for new in found {
            self.bytes += new.bytes;
            let mut tree = *new;
            // The other half of the first range is the head, which is never here.
            while let Some(at) = self
                .waiting
                .iter()
                .rposition(|other| other.bytes == tree.bytes && other.start == tree.start ^ tree.bytes)
            {
                let other = self.waiting.swap_remove(at);
                let (left, right) = if other.start < tree.start {
                    (other, tree)
                } else {
                    (tree, other)
                };
                tree = joined(&left, &right);
            }
            self.waiting.push(tree);
        }
    }

    /// Length of the file as far as its bytes are known, its head included: that of the file once none is missing.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hash of the file with this head, when nothing is missing any more.
    pub(super) fn with_head(&self, head: &[u8]) -> Option<Hash> {
        let mut sorted = self.waiting.clone();
        sorted.sort_unstable_by_key(|tree| tree.start);
        let Some(mut right) = sorted.pop() else {
            return Some(blake3::hash(head));
        };
        let mut left = vec![Subtree {
            start: 0,
            bytes: self.head_bytes,
            value: Hasher::new().update(head).finalize_non_root(),
        }];
        for mut tree in sorted.into_iter().chain([right]) {
            let end = left.last().map_or(0, |last| last.start + last.bytes);
            if tree.start != end {
                return None;
            }
            if tree.start == right.start {
                break; // the last one belongs to what is left of the tree, whatever its length
            }
            while let Some(other) =
                left.pop_if(|other| other.bytes == tree.bytes && other.start == tree.start ^ tree.bytes)
            {
                tree = joined(&other, &tree);
            }
            left.push(tree);
        }
        while let Some(other) = left.pop() {
            if left.is_empty() {
                return Some(merge_subtrees_root(&other.value, &right.value, Mode::Hash));
            }
            right.value = merge_subtrees_non_root(&other.value, &right.value, Mode::Hash);
        }
        None
    }
}

fn joined(left: &Subtree, right: &Subtree) -> Subtree {
    Subtree {
        start: left.start,
        bytes: 2 * left.bytes,
        value: merge_subtrees_non_root(&left.value, &right.value, Mode::Hash),
    }
}

fn range_from(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_last_gives_the_hash_of_the_whole_file() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for head in [1024, 4096, 8192] {
            for length in [
                head,
                head + 1,
                2 * head,
                2 * head + 1,
                4 * head,
                65_536,
                65_537,
                131_072,
                300_000,
            ] {
                for piece in [1000, 4096, 100_000] {
                    let mut tail = TailHash::behind(head as u64);
                    bytes[head..length.max(head)]
                        .chunks(piece)
                        .for_each(|piece| tail.update(piece));
                    assert_eq!(
                        tail.with_head(&bytes[..head]),
                        blake3::hash(&bytes[..length]),
                        "{head} {length}"
                    );
                    assert_eq!(tail.bytes(), length as u64);
                }
            }
        }
    }

    #[test]
    fn frames_that_end_in_any_order_give_the_hash_of_the_whole_file() {
        let bytes: Vec<u8> = (0..1_200_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let (mut state, mut found) = (1u32, Vec::new());
        let mut random = move |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for head in [4096, 8192, 65_536] {
            for frames in 0..40 {
                let (mut file, mut pieces) = (bytes[..head].to_vec(), Vec::new());
                for _ in 0..frames {
                    let length = 1 + random(30_000);
                    pieces.push((file.len(), length));
                    file.extend_from_slice(&bytes[file.len()..][..length]);
                    file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
                }
                let mut tail = Subtrees::behind(head as u64);
                while !pieces.is_empty() {
                    let (at, length) = pieces.swap_remove(random(pieces.len()));
                    let crc = subtrees(&file[at..at + length], at as u64, &mut found);
                    assert_eq!(crc, crc32c::crc32c(&file[at..at + length]));
                    tail.insert(&found);
                    let known = tail.with_head(&file[..head]);
                    assert!(
                        pieces.is_empty() || known != Some(blake3::hash(&file)),
                        "{head} {frames}"
                    );
                }
                assert_eq!(tail.bytes(), file.len() as u64);
                assert_eq!(
                    tail.with_head(&file[..head]),
                    Some(blake3::hash(&file)),
                    "{head} {frames}"
                );
            }
        }
    }

    #[test]
    fn the_largest_frame_has_no_more_subtrees_than_there_is_room_for() {
        // Two of every size at most, up to the largest power of two within the frame.
        let (mut count, end) = (0, (1u64 << 33) - 4096);
        let mut at = (1u64 << 32) + 4096;
        while at < end {
            at += (1 << at.trailing_zeros()).min(1 << (end - at).ilog2());
            count += 1;
        }
        assert!(count <= SUBTREES_MAX, "{count}");
    }
}
