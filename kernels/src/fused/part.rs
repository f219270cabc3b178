//! One thread's share: a range of blocks of up to sixteen frames.

use super::Payload;
use super::loops::{AddNarrow, AddWide, Any, Count, Odd, last_word};
use super::tables::{BinSums, Tables};
use frame::codec::{Block, CodecError, Cursor, LANES, Scratch, byte_of_elements, interleave, vectorised};
use frame::{Compression, PixelType};

/// Bytes that bitshuffle gives a block, and what is made ready for.
const BLOCK_BYTES: usize = 8192;

/// What a rectangle of a frame has in a range of blocks.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) sum: i64,
    pub(super) max: i64,
    pub(super) saturated: u64,
    pub(super) invalid: u64,
}

impl Counted {
    const NOTHING: Self = Self {
        sum: 0,
        max: i64::MIN,
        saturated: 0,
        invalid: 0,
    };
}

/// Sums and numbers of zeros of a bin, of every frame: sum(max(1, raw)) = sum(raw) + zeros.
pub(super) type Row = [[u32; LANES]; 2];

/// See the module.
pub(super) struct Part<P> {
    payloads: Vec<P>,
    number: usize,
    threads: usize,
    errors: [Option<CodecError>; LANES],
    counted: Vec<Vec<Counted>>,
    /// of frames side by side, by bin; the last takes what takes no part
    rows: Vec<Row>,
    /// of a single frame: sum, and zeros from bit 40 on; twice, so that neighbours do not wait for each other
    packed: Vec<[u64; 2]>,
    /// what went pixel by pixel, and what did not fit any more, `[bins][LANES]`
    extra: Vec<BinSums>,
    extra_touched: bool,
    /// what `rows` may have grown by at most
    grown: u64,
    /// `None` while it decodes
    scratch: Option<Scratch>,
    buffers: Buffers,
}

struct Buffers {
    /// lower and upper bytes of a block, `[LANES][pixels of a block]`
    low: Vec<u8>,
    high: Vec<u8>,
    low_lanes: Vec<[u8; LANES]>,
    high_lanes: Vec<[u8; LANES]>,
    /// all bytes of one block's pixels, for those that go one by one
    bytes: [Vec<u8>; 4],
    candidates: Vec<u64>,
    /// a bit per pixel of a block: those that go one by one, those that do not, and of these a rectangle's
    odd: Vec<u8>,
    even: Vec<u8>,
    counted: Vec<u8>,
}

impl Buffers {
    fn new(pixels: usize) -> Self {
        let mut buffers = Self {
            low: Vec::new(),
            high: Vec::new(),
            low_lanes: Vec::new(),
            high_lanes: Vec::new(),
            bytes: Default::default(),
            candidates: Vec::new(),
            odd: Vec::new(),
            even: Vec::new(),
            counted: Vec::new(),
        };
        buffers.grow(pixels);
        buffers
    }

    /// Makes room for blocks of so many pixels, where there is less.
    fn grow(&mut self, pixels: usize) {
        if self.low_lanes.len() < pixels {
            self.low.resize(pixels * LANES, 0);
            self.high.resize(pixels * LANES, 0);
            self.low_lanes.resize(pixels, [0; LANES]);
            self.high_lanes.resize(pixels, [0; LANES]);
            self.bytes.iter_mut().for_each(|bytes| bytes.resize(pixels, 0));
            self.candidates.resize(pixels.div_ceil(64), 0);
            for bits in [&mut self.odd, &mut self.even, &mut self.counted] {
                bits.resize(pixels.div_ceil(8), 0);
            }
        }
    }
}

/// How a block of a frame is added: but for the odd ones,
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    /// the lowest byte is all that pixels have
    One,
    /// the lower two are
    Two,
}

impl<P: Payload> Part<P> {
    pub(super) fn new(tables: &Tables) -> Self {
        let rows = if tables.lookup.is_some() { tables.bins + 1 } else { 0 };
        Self {
            payloads: Vec::with_capacity(LANES),
            number: 0,
            threads: 1,
            errors: [const { None }; LANES],
            counted: vec![vec![Counted::NOTHING; tables.spans.len()]; LANES],
            rows: vec![[[0; LANES]; 2]; rows],
            packed: vec![[0; 2]; rows],
            extra: vec![BinSums::default(); rows * LANES],
            extra_touched: false,
            grown: 0,
            scratch: Some(Scratch::warmed(Compression::BitshuffleZstd)),
            buffers: Buffers::new(BLOCK_BYTES / tables.pixel_bytes),
        }
    }

    /// Takes a share of a group.
    pub(super) fn prepare(&mut self, payloads: &[P], number: usize, threads: usize) {
        self.payloads.clear();
        self.payloads.extend_from_slice(payloads);
        (self.number, self.threads) = (number, threads);
    }

    pub(super) fn error(&self, lane: usize) -> Option<&CodecError> {
        self.errors[lane].as_ref()
    }

    pub(super) fn counted(&self, lane: usize) -> &[Counted] {
        &self.counted[lane]
    }

    /// Sums its share.
    pub(super) fn sum(&mut self, tables: &Tables) {
        self.errors.fill(None);
        for counted in &mut self.counted {
            counted.fill(Counted::NOTHING);
        }
        self.rows.fill([[0; LANES]; 2]);
        self.packed.fill([0; 2]);
        if self.extra_touched {
            self.extra.fill(BinSums::default());
        }
        (self.extra_touched, self.grown) = (false, 0);
        let payloads = std::mem::take(&mut self.payloads);
        match payloads.first().map(Payload::beneath) {
            Some(None) => self.plain(tables, payloads[0].bytes()),
            Some(Some(_)) => self.coded(tables, &payloads),
            None => {}
        }
        // What was summed is kept, the frames are not.
        self.payloads = payloads;
        self.payloads.clear();
    }

    /// A frame that came as pixels.
    fn plain(&mut self, tables: &Tables, raw: &[u8]) {
        if raw.len() != tables.frame_bytes {
            self.errors[0] = Some(CodecError::Size {
                declared: raw.len() as u64,
                expected: tables.frame_bytes as u64,
            });
            return;
        }
        let size = tables.pixel_bytes;
        let block = BLOCK_BYTES / size;
        let blocks = tables.pixels.div_ceil(block);
        let share = share(blocks, self.number, self.threads);
        for first in share.map(|number| number * block) {
            let pixels = &raw[first * size..tables.frame_bytes.min((first + block) * size)];
            self.one_by_one(tables, 0, first, pixels);
        }
    }

    /// Frames whose blocks have the same size.
    fn coded(&mut self, tables: &Tables, payloads: &[P]) {
        let mut cursors: [Option<Cursor<'_>>; LANES] = [const { None }; LANES];
        let mut share = 0..0;
        let mut scratch = self.scratch.take().unwrap_or_default();
        for (lane, payload) in payloads.iter().enumerate() {
            let Some(beneath) = payload.beneath() else { continue };
            let cursor = Cursor::new(beneath, payload.bytes(), tables.pixel_bytes, tables.frame_bytes);
            let skipped = cursor.and_then(|mut cursor| {
                share = self::share(cursor.blocks(), self.number, self.threads);
                self.buffers.grow(cursor.block_bytes() / tables.pixel_bytes);
                cursor.skip(share.start)?;
                Ok(cursor)
            });
            match skipped {
                Ok(cursor) => cursors[lane] = Some(cursor),
                Err(error) => self.errors[lane] = Some(error),
            }
        }
        let side_by_side = payloads.len() > 1;
        for _ in share {
            let (mut start, mut pixels, mut widest) = (0, 0, Width::One);
            for (lane, cursor) in cursors.iter_mut().enumerate().take(payloads.len()) {
                let Some(walk) = cursor else { continue };
                match walk.next(&mut scratch) {
                    Ok(Some((at, Block::Planes(planes)))) => {
                        (start, pixels) = (at / tables.pixel_bytes, planes.len() / tables.pixel_bytes);
                        if self.block(tables, lane, side_by_side, start, planes) == Width::Two {
                            widest = Width::Two;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.errors[lane] = Some(error);
                        *cursor = None;
                    }
                }
            }
            if side_by_side && tables.lookup.is_some() && pixels > 0 {
                self.add_lanes(tables, start, pixels, widest);
            }
        }
        if self.number + 1 == self.threads {
            for (lane, cursor) in cursors.iter_mut().enumerate() {
                let Some(walk) = cursor else { continue };
                match walk.next(&mut scratch) {
                    Ok(Some((at, Block::Rest(rest)))) => self.one_by_one(tables, lane, at / tables.pixel_bytes, rest),
                    Ok(_) => {}
                    Err(error) => self.errors[lane] = Some(error),
                }
            }
        }
        self.scratch = Some(scratch);
    }

    /// One block of one frame: its numbers, and its pixels into the sums or beside those of the other frames.
    fn block(&mut self, tables: &Tables, lane: usize, side_by_side: bool, start: usize, planes: &[u8]) -> Width {
        let (size, pixels) = (tables.pixel_bytes, planes.len() / tables.pixel_bytes);
        let (width, has_odd) = self.width(tables, start, planes);
        let stride = self.buffers.low_lanes.len();
        let bytes = if width == Width::One { 1 } else { 2 };
        let groups = pixels / 8;
        let odd = &self.buffers.odd[..groups];
        for (span, counted) in tables.spans.iter().zip(&mut self.counted[lane]) {
            let place = start / 8..start / 8 + groups;
            if place.start < span.bytes.end && span.bytes.start < place.end {
                let (mut bits, candidates) = (&span.bits[place], &mut self.buffers.candidates);
                if has_odd {
                    let left = &mut self.buffers.counted[..groups];
                    without(bits, odd, left);
                    bits = left;
                }
                let planes = &planes[..8 * bytes * groups];
                vectorised(Count {
                    planes,
                    bits,
                    candidates,
                    counted,
                });
            }
        }
        let low = &mut self.buffers.low[lane * stride..][..pixels];
        let high = &mut self.buffers.high[lane * stride..][..pixels];
        if tables.lookup.is_some() {
            byte_of_elements(planes, 0, low);
            if width == Width::Two {
                byte_of_elements(planes, 1, high);
            } else if side_by_side {
                high.fill(0);
            }
        }
        if has_odd {
            for (k, bytes) in self.buffers.bytes.iter_mut().enumerate().take(size) {
                byte_of_elements(planes, k, &mut bytes[..pixels]);
            }
            // An odd pixel adds 1 below, in the place of what it really adds.
            for pixel in ones(odd) {
                (low[pixel], high[pixel]) = (1, 0);
            }
            let (odd, bytes) = (
                std::mem::take(&mut self.buffers.odd),
                std::mem::take(&mut self.buffers.bytes),
            );
            let value = |pixel: usize| {
                let of = |k: usize| if k < size { bytes[k][pixel] } else { 0 };
                widen(tables.pixel_type, [of(0), of(1), of(2), of(3)])
            };
            self.each(tables, lane, start, ones(&odd[..groups]), 1, value);
            (self.buffers.odd, self.buffers.bytes) = (odd, bytes);
        }
        let low = &self.buffers.low[lane * stride..][..pixels];
        let high = &self.buffers.high[lane * stride..][..pixels];
        if let (false, Some(lookup)) = (side_by_side, &tables.lookup) {
            let index = &lookup.index[start..start + pixels];
            let high = (width == Width::Two).then_some(high);
            add_single(index, low, high, &mut self.packed);
        }
        width
    }

    /// What the pixels of a block that take part need, and whether some are odd: negative, beyond 16 bits, saturated, or a
    /// dummy perhaps. Gaps that nobody masked put such pixels into every block.
    fn width(&mut self, tables: &Tables, start: usize, planes: &[u8]) -> (Width, bool) {
        let groups = planes.len() / tables.pixel_bytes / 8;
        let used = &tables.used[start / 8..start / 8 + groups];
        let narrow = |used: &[u8], planes: &[u8]| planes.is_empty() || !vectorised(Any { planes, used });
        if tables.odd_from > 255 && narrow(used, &planes[8 * groups..]) {
            return (Width::One, false);
        }
        let plain = match tables.pixel_type {
            PixelType::U8 => 8,
            PixelType::I16 => 15,
            _ => 16,
        };
        let second = &planes[8 * groups..planes.len().min(16 * groups)];
        let Buffers {
            candidates, odd, even, ..
        } = &mut self.buffers;
        let has_odd = vectorised(Odd {
            planes,
            used,
            plain,
            from: u64::try_from(tables.odd_from).unwrap_or(0),
            candidates,
            odd: &mut odd[..groups],
        });
        let mut rest = used;
        if has_odd {
            let even = &mut even[..groups];
            without(used, &odd[..groups], even);
            rest = even;
        }
        let width = if narrow(rest, second) { Width::One } else { Width::Two };
        (width, has_odd)
    }

    /// Adds a block of all frames at once.
    fn add_lanes(&mut self, tables: &Tables, start: usize, pixels: usize, widest: Width) {
        let Some(lookup) = &tables.lookup else { return };
        let most = if widest == Width::Two { 65535 } else { 255 } * pixels as u64;
        if self.grown + most > u64::from(u32::MAX) {
            self.extra_touched = true;
            for (row, extra) in self.rows.iter_mut().zip(self.extra.chunks_exact_mut(LANES)) {
                for (sum, extra) in row[0].iter_mut().zip(extra) {
                    extra.signal += i64::from(*sum);
                    extra.variance += i64::from(*sum);
                    *sum = 0;
                }
            }
            self.grown = 0;
        }
        self.grown += most;
        let Buffers {
            low,
            high,
            low_lanes,
            high_lanes,
            ..
        } = &mut self.buffers;
        let stride = low_lanes.len();
        let index = &lookup.index[start..start + pixels];
        interleave(low, stride, pixels, low_lanes);
        let rows = &mut self.rows[..];
        if widest == Width::Two {
            interleave(high, stride, pixels, high_lanes);
            let (low, high) = (&low_lanes[..pixels], &high_lanes[..pixels]);
            vectorised(AddWide { index, low, high, rows });
        } else {
            let pixels = &low_lanes[..pixels];
            match tables.poisson {
                true => vectorised(AddNarrow::<true> { index, pixels, rows }),
                false => vectorised(AddNarrow::<false> { index, pixels, rows }),
            }
        }
    }

    /// Pixels as they are.
    fn one_by_one(&mut self, tables: &Tables, lane: usize, start: usize, raw: &[u8]) {
        let size = tables.pixel_bytes;
        let value = |pixel: usize| {
            let mut bytes = [0; 4];
            bytes[..size].copy_from_slice(&raw[pixel * size..][..size]);
            widen(tables.pixel_type, bytes)
        };
        self.each(tables, lane, start, 0..raw.len() / size, 0, value);
    }

    /// These pixels of a block one by one, with everything that a pixel can be. `filled`: what each has already been
    /// added as.
    fn each(
        &mut self,
        tables: &Tables,
        lane: usize,
        start: usize,
        pixels: impl Iterator<Item = usize> + Clone,
        filled: i64,
        value: impl Fn(usize) -> i64,
    ) {
        for (span, counted) in tables.spans.iter().zip(&mut self.counted[lane]) {
            for pixel in pixels.clone() {
                let at = start + pixel;
                if span.bits[at / 8] >> (at % 8) & 1 == 0 {
                    continue;
                }
                let value = value(pixel);
                if tables.invalid == Some(value) {
                    counted.invalid += 1;
                } else if tables.bright.is_some_and(|bright| value >= bright) {
                    counted.saturated += 1;
                } else {
                    counted.sum += value;
                    counted.max = counted.max.max(value);
                }
            }
        }
        let Some(lookup) = &tables.lookup else { return };
        self.extra_touched = true;
        for pixel in pixels {
            let bin = usize::from(lookup.index[start + pixel]);
            if bin == tables.bins {
                continue;
            }
            let value = value(pixel);
            let extra = &mut self.extra[bin * LANES + lane];
            let left_out = tables.saturation.is_some_and(|limit| value >= limit)
                || tables.dummy.is_some_and(|(low, high)| (low..=high).contains(&value));
            if left_out {
                extra.signal -= filled;
                extra.variance -= filled;
                extra.out_count += 1;
                // The same rounding as the table's, so that bin minus left-out pixels is exact.
                extra.out_norm += (lookup.norm[start + pixel] * tables.norm_scale).round_ties_even() as u64;
                extra.out_dark += (lookup.dark[start + pixel] * tables.dark_scale).round_ties_even() as i64;
            } else {
                extra.signal += value - filled;
                extra.variance += value.max(1) - filled;
            }
        }
    }
}

/// Where `bits` has ones and `odd` has none.
fn without(bits: &[u8], odd: &[u8], left: &mut [u8]) {
    for ((left, bits), odd) in left.iter_mut().zip(bits).zip(odd) {
        *left = bits & !odd;
    }
}

/// Places of the ones.
fn ones(bits: &[u8]) -> impl Iterator<Item = usize> + Clone {
    let words = bits.chunks(8).enumerate();
    words.flat_map(|(number, bytes)| {
        let mut word = last_word(bytes);
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros();
            (word != 0).then(|| {
                word &= word - 1;
                number * 64 + bit as usize
            })
        })
    })
}

/// Blocks of one of `threads`.
fn share(blocks: usize, number: usize, threads: usize) -> std::ops::Range<usize> {
    blocks * number / threads..blocks * (number + 1) / threads
}

/// A bin's sums of one frame in all parts.
pub(super) fn merged<'a, P: 'a>(parts: impl Iterator<Item = &'a Box<Part<P>>>, lane: usize, bin: usize) -> BinSums {
    let mut all = BinSums::default();
    for part in parts {
        let [sums, zeros] = &part.rows[bin];
        let packed = part.packed[bin];
        let (sum, zeros) = (i64::from(sums[lane]), i64::from(zeros[lane]));
        all.signal += sum;
        all.variance += sum + zeros;
        if lane == 0 {
            for packed in packed {
                let sum = (packed & ((1 << 40) - 1)) as i64;
                all.signal += sum;
                all.variance += sum + (packed >> 40) as i64;
            }
        }
        if part.extra_touched {
            let extra = &part.extra[bin * LANES + lane];
            all.signal += extra.signal;
            all.variance += extra.variance;
            all.out_count += extra.out_count;
            all.out_norm += extra.out_norm;
            all.out_dark += extra.out_dark;
        }
    }
    all
}

fn widen(pixel_type: PixelType, bytes: [u8; 4]) -> i64 {
    match pixel_type {
        PixelType::I16 => i64::from(i16::from_le_bytes([bytes[0], bytes[1]])),
        PixelType::I32 => i64::from(i32::from_le_bytes(bytes)),
        _ => i64::from(u32::from_le_bytes(bytes)),
    }
}

/// Adds a block of a single frame.
fn add_single(index: &[u16], low: &[u8], high: Option<&[u8]>, packed: &mut [[u64; 2]]) {
    let with_zeros = |pixel: u64| pixel | u64::from(pixel == 0) << 40;
    match high {
        None => {
            for (copy, (bin, low)) in index.iter().zip(low).enumerate() {
                packed[usize::from(*bin)][copy % 2] += with_zeros(u64::from(*low));
            }
        }
        Some(high) => {
            for (copy, ((bin, low), high)) in index.iter().zip(low).zip(high).enumerate() {
                packed[usize::from(*bin)][copy % 2] += with_zeros(u64::from(*low) | u64::from(*high) << 8);
            }
        }
    }
}
