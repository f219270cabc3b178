//! The head of a data file: everything of HDF5 in it but the index of the frames.
//!
//! ```text
//! 0            head: made by libhdf5 before frame 0, one dataset without frames; a power of two long
//! head bytes   frames, each where the disk takes it, in the order in which they were written
//! …            index: a version 1 B-tree of chunks, made here when it is asked for, then more frames, then …
//! ```
//!
//! libhdf5's own driver writes through the page cache under one lock. So Fluxline writes frames itself and
//! tells HDF5 afterwards where they are: four numbers in the head (end of the file, root of the B-tree, number of
//! frames, number of the last frame) are all that changes. A file is therefore consistent at any time: it shows the
//! frames of its newest index, and none before the first.
//!
//! Formats: HDF5 File Format Specification 3.0, sections II.A (superblock 0), III.A.1 (B-tree 1, node type 1),
//! IV.A.1.a (object header 1), IV.A.2.b, i and m (dataspace, layout 3, attribute 1 to 3).

/// Offset of "end of file address" in a superblock of version 0 with 8-byte offsets.
const END_AT: usize = 40;
const MESSAGE_DATASPACE: u16 = 0x01;
const MESSAGE_LAYOUT: u16 = 0x08;
const MESSAGE_ATTRIBUTE: u16 = 0x0c;
const MESSAGE_CONTINUATION: u16 = 0x10;
/// Half of the most chunks that a node lists: the library's default, which a superblock of version 0 implies.
const CHUNKS_HALF: usize = 32;
const CHUNKS_MAX: usize = 2 * CHUNKS_HALF;
/// Bytes, filter mask, and four offsets: three dimensions and the element's own.
const KEY_BYTES: usize = 8 + 4 * 8;
const NODE_BYTES: usize = 24 + CHUNKS_MAX * (8 + KEY_BYTES) + KEY_BYTES;
/// Pieces that an object header may be in.
const PARTS_MAX: usize = 64;
const UNDEFINED: u64 = u64::MAX;
/// Least bytes of a head: what the disk and the hash want.
const HEAD_BYTES_MIN: usize = 4096;

/// Where the stored bytes of a frame lie in its file; none where `bytes` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    /// bit `i`: filter `i` was not applied
    pub(super) filters_skipped: u32,
}

/// The head's bytes, and where its numbers are.
#[derive(Clone, Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    btree_at: usize,
    frames_at: usize,
    last_at: usize,
}

impl Head {
    /// The head of a file that libhdf5 made and closed, with one chunked dataset of three dimensions in it.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.get(..9) != Some(b"\x89HDF\r\n\x1a\n\0") || bytes.get(13..15) != Some(&[8, 8]) {
            return Err("it has no superblock of version 0 with offsets and lengths of 8 bytes");
        }
        // Object headers begin at multiples of 8; only one has all that the frames' has.
        let mut found = (0..bytes.len()).step_by(8).filter_map(|object| numbers(&bytes, object));
        let (btree_at, frames_at, last_at) = found.next().ok_or("it has no dataset of frames")?;
        if found.next().is_some() {
            return Err("it has more than one dataset of frames");
        }
        let room = bytes.len().next_power_of_two().max(HEAD_BYTES_MIN);
        bytes.resize(room, 0);
        Ok(Self {
            bytes,
            btree_at,
            frames_at,
            last_at,
        })
    }

    /// Bytes of the head: a power of two.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The head as it is now.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Points to an index: `end` of the file, root of the B-tree.
    pub(super) fn point(&mut self, end: u64, root: u64) {
        self.put(END_AT, end);
        self.put(self.btree_at, root);
    }

    /// Shortens the dataset to `frames`, of which the first is number `first` of the run.
    pub(super) fn shorten(&mut self, first: u64, frames: u64) {
        self.put(self.frames_at, frames);
        self.put(self.last_at, first + frames);
    }

    fn put(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Where root of the index, number of frames and number of the last frame are, if this is the header of a chunked
/// dataset of three dimensions with that attribute.
fn numbers(bytes: &[u8], object: usize) -> Option<(usize, usize, usize)> {
    let (mut btree_at, mut frames_at, mut last_at) = (None, None, None);
    for (kind, at, size) in messages(bytes, object)? {
        let message = &bytes[at..at + size];
        match kind {
            MESSAGE_DATASPACE if message.get(..3) == Some(&[1, 3, 1]) => frames_at = Some(at + 8),
            MESSAGE_LAYOUT if message.get(..3) == Some(&[3, 2, 4]) => btree_at = Some(at + 3),
            MESSAGE_ATTRIBUTE => last_at = last_at.or(value_of(message, "image_nr_high").map(|inside| at + inside)),
            _ => {}
        }
    }
    let found = (btree_at?, frames_at?, last_at?);
    (found.0.max(found.1).max(found.2) + 8 <= bytes.len()).then_some(found)
}

/// Kind, offset and bytes of every message of an object header of version 1.
fn messages(bytes: &[u8], object: usize) -> Option<Vec<(u16, usize, usize)>> {
    if number::<2>(bytes, object)? != 1 {
        return None;
    }
    let mut blocks = vec![(object + 16, number::<4>(bytes, object + 8)? as usize)];
    let (mut found, mut parts) = (Vec::new(), 0);
    while let Some((mut at, size)) = blocks.pop() {
        let end = at.checked_add(size).filter(|end| *end <= bytes.len())?;
        while at + 8 <= end {
            let (kind, size) = (number::<2>(bytes, at)? as u16, number::<2>(bytes, at + 2)? as usize);
            at += 8;
            if at + size > end {
                return None;
            }
            if kind == MESSAGE_CONTINUATION {
                parts += 1;
                blocks.push((number::<8>(bytes, at)? as usize, number::<8>(bytes, at + 8)? as usize));
            }
            if parts > PARTS_MAX {
                return None;
            }
            found.push((kind, at, size));
            at += size;
        }
    }
    Some(found)
}

/// Where the value of an attribute message begins, if it has this name. Version 1 fills its parts up to 8 bytes, version 3
/// says in one more byte how the name is encoded.
fn value_of(message: &[u8], name: &str) -> Option<usize> {
    let size = |at: usize| Some(usize::from(u16::from_le_bytes(*message.get(at..)?.first_chunk()?)));
    let (name_bytes, type_bytes, space_bytes) = (size(2)?, size(4)?, size(6)?);
    let (start, align) = match message.first()? {
        1 => (8, 8),
        2 => (8, 1),
        3 => (9, 1),
        _ => return None,
    };
    let found = message.get(start..start + name_bytes)?;
    let named = found.strip_suffix(&[0]) == Some(name.as_bytes());
    let padded = |bytes: usize| bytes.next_multiple_of(align);
    named.then_some(start + padded(name_bytes) + padded(type_bytes) + padded(space_bytes))
}

/// Key of a chunk, or the bound behind the last.
fn key(node: &mut Vec<u8>, frame: u64, place: Place) {
    node.extend(place.bytes.to_le_bytes());
    node.extend(place.filters_skipped.to_le_bytes());
    for offset in [frame, 0, 0, 0] {
        node.extend(offset.to_le_bytes());
    }
}

/// The B-tree of these frames, by number within the file and ascending, as it lies from offset `at` on; and the address
/// of its root, undefined where there is no frame.
pub(super) fn index(frames: &[(u64, Place)], at: u64) -> (Vec<u8>, u64) {
    if frames.is_empty() {
        return (Vec::new(), UNDEFINED);
    }
    let behind = frames[frames.len() - 1].0 + 1;
    let mut bytes = Vec::new();
    // What the level beneath consists of: first frame, its place for the key, address.
    let mut below: Vec<(u64, Place, u64)> = frames
        .iter()
        .map(|(frame, place)| (*frame, *place, place.offset))
        .collect();
    let mut level = 0u8;
    loop {
        let nodes = below.len().div_ceil(CHUNKS_MAX);
        let address = |node: usize, start: usize| at + (start + node * NODE_BYTES) as u64;
        let (start, mut above) = (bytes.len(), Vec::with_capacity(nodes));
        for (node, children) in below.chunks(CHUNKS_MAX).enumerate() {
            let node_start = bytes.len();
            above.push((children[0].0, children[0].1, address(node, start)));
            bytes.extend(b"TREE");
            bytes.extend([1, level]);
            bytes.extend((children.len() as u16).to_le_bytes());
            let left = node.checked_sub(1).map_or(UNDEFINED, |left| address(left, start));
            let right = if node + 1 < nodes {
                address(node + 1, start)
            } else {
                UNDEFINED
            };
            bytes.extend(left.to_le_bytes());
            bytes.extend(right.to_le_bytes());
            for (frame, place, child) in children {
                key(&mut bytes, *frame, *place);
                bytes.extend(child.to_le_bytes());
            }
            let next = below
                .get((node + 1) * CHUNKS_MAX)
                .map_or((behind, Place::default()), |next| (next.0, next.1));
            key(&mut bytes, next.0, next.1);
            bytes.resize(node_start + NODE_BYTES, 0);
        }
        if nodes == 1 {
            return (bytes, above[0].2);
        }
        below = above;
        level += 1;
    }
}

/// Bytes of the index of so many frames.
pub(super) fn index_bytes(frames: u64) -> u64 {
    let (mut nodes, mut total) = (frames.div_ceil(CHUNKS_MAX as u64), 0);
    while nodes > 1 {
        total += nodes;
        nodes = nodes.div_ceil(CHUNKS_MAX as u64);
    }
    (total + nodes) * NODE_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_as_long_as_foreseen_and_points_at_every_frame_once() {
        for frames in [0u64, 1, 64, 65, 4096, 4097, 10_000] {
            let place = |n: u64| Place {
                offset: 8192 + 100 * n,
                bytes: 100,
                filters_skipped: 0,
            };
            let list: Vec<_> = (0..frames).map(|n| (3 * n, place(n))).collect();
            let (bytes, root) = index(&list, 1 << 20);
            assert_eq!(bytes.len() as u64, index_bytes(frames), "{frames}");
            let mut found = Vec::new();
            let mut visit = vec![root];
            while let Some(address) = visit.pop().filter(|address| *address != UNDEFINED) {
                let node = &bytes[(address - (1 << 20)) as usize..][..NODE_BYTES];
                assert_eq!(&node[..5], b"TREE\x01");
                let children = number::<2>(node, 6).unwrap() as usize;
                for child in (0..children).rev() {
                    let at = 24 + child * (KEY_BYTES + 8);
                    let target = number::<8>(node, at + KEY_BYTES).unwrap();
                    match node[5] {
                        0 => found.push((number::<8>(node, at + 8).unwrap(), target)),
                        _ => visit.push(target),
                    }
                }
            }
            found.sort_unstable();
            assert_eq!(
                found,
                list.iter().map(|(n, place)| (*n, place.offset)).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        assert!(Head::parse(vec![0; 100]).is_err());
        let mut bytes = vec![0; 4096];
        bytes[..8].copy_from_slice(b"\x89HDF\r\n\x1a\n");
        bytes[13..15].copy_from_slice(&[8, 8]);
        assert!(Head::parse(bytes.clone()).is_err());
        bytes[96] = 1;
        bytes[104..108].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Head::parse(bytes).is_err());
    }
}
