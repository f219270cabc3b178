//! A seeded mutator: bits, bytes, numbers of interest, pieces moved, doubled, cut out, and taken from another input.

/// xorshift64*: fast, repeatable, and good enough to choose places.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

/// Values at which lengths and numbers go wrong.
const NUMBERS: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    u64::MAX >> 1,
    u64::MAX,
];
/// Heads of CBOR and pieces of JSON that nest or announce.
const PIECES: [&[u8]; 14] = [
    b"\x9f",
    b"\xbf",
    b"\xff",
    b"\xd9\xdb\xc4",
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
    b"\x81\x81\x81\x81\x81\x81\x81\x81",
    b"\xa1\x61a",
    b"\xf9\x7e\x00",
    b"[[[[[[[[",
    b"{\"\":",
    b"1e999",
    b"null",
    b"-",
];

/// Changes `input` in one to four ways; never longer than `most`.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], most: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let length = input.len();
        let at = random.below(length);
        match random.below(10) {
            _ if length == 0 => input.push(random.next() as u8),
            0 | 1 => input[at] ^= 1 << random.below(8),
            2 => input[at] = random.next() as u8,
            3 => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                let width = 1 << random.below(4);
                let bytes = number.to_be_bytes();
                let end = (at + width).min(length);
                input[at..end].copy_from_slice(&bytes[8 - width..][..end - at]);
            }
            4 => input[at] = input[at].wrapping_add(random.below(35) as u8).wrapping_sub(17),
            5 => input.truncate(at),
            6 => {
                let end = at + random.below(length - at + 1).min(64);
                input.drain(at..end);
            }
            7 => {
                let end = at + random.below(length - at + 1).min(64);
                let piece = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            8 => {
                let piece = PIECES[random.below(PIECES.len())];
                input.splice(at..at, piece.iter().copied());
            }
            _ => {
                let from = random.below(other.len());
                let end = from + random.below(other.len() - from + 1).min(64);
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
        input.truncate(most);
    }
}
