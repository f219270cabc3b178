//! The BLAKE3 hash of a file whose first bytes are known last.
//!
//! BLAKE3 is a tree: the hash of a whole follows from the chaining values of its parts. A data file is
//! `[head: 2^k bytes][everything else, written in order]`; the ranges `[2^j, 2^(j+1))` behind the head are subtrees of
//! their own, hashed as they are written, and joined with the head's when that is known.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Name of the hash in `run.json`.
pub(super) const ALGORITHM: &str = "blake3";
/// Ranges of a file that a 64-bit length can have.
const RANGES_MAX: usize = 64;

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
}
