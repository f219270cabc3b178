//! What is fuzzed. A target takes any bytes and answers with what kind of answer it was: an input with a new kind of answer
//! is kept as a parent of others, which stands in for coverage on a stable compiler.

use driver::dectris::encode::{SeriesEncoder, unique_name};
use driver::dectris::message::{Message, Pixels, SeriesKey, Short};
use driver::dectris::zmtp::{self, Item, Peer};
use driver::dectris::{Version, v1, v2};
use driver::udp::fuzz::Harness;
use driver::udp::{Detector, fuzz as packets, wire::PacketHeader};
use frame::codec::{self, Beneath, Scratch};
use frame::stream::DetectorDescription;
use frame::{Compression, FrameHeader, FrameKind, PixelMask, PixelType, Shape, StreamDescription};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Largest frame that a target decodes into.
const FRAME_BYTES: usize = 1 << 15;

/// Memory that a target keeps.
pub struct Memory {
    out: Vec<u8>,
    scratch: Scratch,
    receiver: Option<Harness>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            out: vec![0; 2 * FRAME_BYTES],
            scratch: Scratch::warmed(Compression::BitshuffleZstd),
            receiver: None,
        }
    }
}

/// One thing that is fuzzed.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8], &mut Memory) -> u64,
    /// inputs of our own making
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// longest input
    pub most: usize,
}

pub const TARGETS: [Target; 8] = [
    Target {
        name: "dectris-v2",
        run: dectris_v2,
        seeds: seeds_v2,
        most: 4096,
    },
    Target {
        name: "dectris-v1",
        run: dectris_v1,
        seeds: seeds_v1,
        most: 4096,
    },
    Target {
        name: "zmtp",
        run: zmtp,
        seeds: seeds_zmtp,
        most: 2048,
    },
    Target {
        name: "bitshuffle-lz4",
        run: |input, memory| chunk(Beneath::Lz4, input, memory),
        seeds: seeds_lz4,
        most: 2048,
    },
    Target {
        name: "bitshuffle-zstd",
        run: |input, memory| chunk(Beneath::Zstd, input, memory),
        seeds: seeds_zstd,
        most: 2048,
    },
    Target {
        name: "lz4",
        run: lz4,
        seeds: seeds_lz4,
        most: 2048,
    },
    Target {
        name: "udp-packets",
        run: udp,
        seeds: seeds_udp,
        most: 4096,
    },
    Target {
        name: "http-json",
        run: http_json,
        seeds: seeds_json,
        most: 2048,
    },
];

fn kind(answer: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    answer.hash(&mut hasher);
    hasher.finish()
}

/// What a complaint says, without its numbers.
fn words(complaint: &str) -> u64 {
    kind(
        complaint
            .bytes()
            .filter(|byte| !byte.is_ascii_digit())
            .take(60)
            .collect::<Vec<u8>>(),
    )
}

fn message(decoded: Result<Message<'_>, impl std::fmt::Display>, memory: &mut Memory) -> u64 {
    match decoded {
        Ok(Message::Start(_, start)) => kind((
            "start",
            start.masks.len(),
            start.flatfields.len(),
            start.metadata.len().min(4),
        )),
        Ok(Message::Image(image)) => kind(("image", image.notes.values().len(), pixels(&image.pixels, memory))),
        Ok(Message::End(_)) => kind("end"),
        Err(error) => words(&error.to_string()),
    }
}

fn pixels(pixels: &Pixels<'_>, memory: &mut Memory) -> bool {
    use driver::dectris::message::Packing;
    if pixels.check(pixels.shape, pixels.pixel_type).is_err() {
        return false;
    }
    let Some(out) = memory.out.get_mut(..pixels.shape.pixels() * pixels.pixel_type.bytes()) else {
        return false;
    };
    let beneath = match pixels.packing {
        Packing::BitshuffleZstd => Beneath::Zstd,
        _ => Beneath::Lz4,
    };
    codec::decompress(
        beneath,
        pixels.bytes,
        pixels.pixel_type.bytes(),
        out,
        &mut memory.scratch,
    )
    .is_ok()
}

/// A message, and its head alone: what an image's head says is what the whole says.
fn dectris_v2(input: &[u8], memory: &mut Memory) -> u64 {
    let whole = v2::decode(input, None);
    let cut = input
        .len()
        .saturating_sub(usize::from(input.last().copied().unwrap_or(0)) % 64 + 1);
    let beyond = input.len() - cut;
    if let Ok(Message::Image(head)) = v2::decode_head(&input[..cut], beyond, None)
        && beyond > 0
    {
        assert_eq!(head.pixels.beyond, beyond);
        let Ok(Message::Image(image)) = &whole else {
            panic!("a head of an image that is none: {whole:?}");
        };
        assert_eq!(
            (
                head.series,
                head.image_id,
                head.pixels.total_bytes(),
                head.pixels.packing
            ),
            (
                image.series,
                image.image_id,
                image.pixels.bytes.len(),
                image.pixels.packing
            )
        );
        assert!(image.pixels.bytes.starts_with(head.pixels.bytes));
    }
    message(whole, memory)
}

/// What a peer sends from its greeting on, or from its READY on; the bytes of parts are stepped over.
fn zmtp(input: &[u8], _memory: &mut Memory) -> u64 {
    const BYTES_MAX: u64 = 1 << 16;
    let (mut peer, mut rest, mut seen) = (Peer::new(BYTES_MAX), input, [0u8; 8]);
    if input.first().is_some_and(|first| *first != 0xff) {
        let greeting = zmtp::greeting();
        assert_eq!(peer.take(&greeting), Ok((zmtp::GREETING_BYTES, Item::Greeting)));
    }
    for place in 0.. {
        let (used, item) = match peer.take(rest) {
            Ok((used, item)) => (used, item),
            Err(refusal) => return kind((seen, words(&refusal.to_string()))),
        };
        let (number, bytes) = match item {
            Item::Need => return kind((seen, used)),
            Item::Greeting => (1, 0),
            Item::Ready => (2, 0),
            Item::Ping(context) => {
                let mut out = [0; zmtp::PONG_BYTES_MAX];
                assert!(zmtp::pong(context, &mut out) <= out.len());
                (3, 0)
            }
            Item::Ignored => (4, 0),
            Item::Part { more, bytes } => {
                assert!(peer.ready() && bytes <= BYTES_MAX);
                (5 + u8::from(more), bytes as usize)
            }
        };
        assert!(used > 0, "a peer that stands still");
        seen[place % 8] = number;
        rest = rest[used..].get(bytes..).unwrap_or_default();
    }
    0
}

/// Parts behind their lengths, two bytes each.
fn dectris_v1(input: &[u8], memory: &mut Memory) -> u64 {
    let (mut parts, mut used, mut rest) = ([&[][..]; v1::PARTS_MAX], 0, input);
    while let ([high, low, more @ ..], true) = (rest, used < v1::PARTS_MAX) {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        (parts[used], rest) = more.split_at(length);
        used += 1;
    }
    message(v1::decode(&parts[..used]), memory)
}

/// A chunk for a frame of the size that its first two bytes say, of pixels as the third says.
fn chunk(beneath: Beneath, input: &[u8], memory: &mut Memory) -> u64 {
    let [high, low, width, chunk @ ..] = input else {
        return 0;
    };
    let bytes = usize::from(u16::from_be_bytes([*high, *low])) % FRAME_BYTES;
    let pixel_bytes = 1 << (width % 3);
    let plausible = codec::plausible(beneath, chunk);
    let whole = codec::decompress(
        beneath,
        chunk,
        pixel_bytes,
        &mut memory.out[..bytes],
        &mut memory.scratch,
    );
    let (row_bytes, rows) = (8 * pixel_bytes, bytes / (8 * pixel_bytes));
    let (shape, stride) = ((rows, row_bytes), row_bytes + pixel_bytes);
    let wide = &mut memory.out[..];
    let by_rows = codec::decompress_rows(beneath, chunk, pixel_bytes, shape, wide, stride, &mut memory.scratch);
    if rows * row_bytes == bytes && rows > 0 {
        assert_eq!(whole.is_ok(), by_rows.is_ok(), "{whole:?}, row by row {by_rows:?}");
    }
    assert!(plausible || whole.is_err(), "what is decoded was plausible");
    kind((plausible, whole.map_err(|error| words(&error.to_string()))))
}

fn lz4(input: &[u8], memory: &mut Memory) -> u64 {
    let [high, low, _, chunk @ ..] = input else { return 0 };
    let bytes = usize::from(u16::from_be_bytes([*high, *low])) % FRAME_BYTES;
    let framed = codec::lz4_framed_into(chunk, &mut memory.out[..bytes]);
    let block = codec::lz4_block_into(chunk, &mut memory.out[..bytes]).is_ok();
    kind((block, framed.map_err(|error| words(&error.to_string()))))
}

fn http_json(input: &[u8], _memory: &mut Memory) -> u64 {
    let batch = match pipeline::feedback::metadata::parse(input) {
        Ok(batch) => kind((batch.columns.len().min(4), batch.frames.len().min(4), batch.last)),
        // What was expected, without what was found: that may be anything.
        Err(error) => words(error.message.rsplit("expected").next().unwrap_or_default()),
    };
    let request = serde_json::from_slice::<pipeline::appliance::RunRequest>(input).is_ok();
    kind((batch, request))
}

/// Packets into a receiver that lives on: the answer is which counters moved.
fn udp(input: &[u8], memory: &mut Memory) -> u64 {
    let harness = memory
        .receiver
        .get_or_insert_with(|| Harness::new().expect("memory for a ring"));
    let before: Vec<u64> = harness.counters().all().map(|(_, _, value)| value).collect();
    packets::arbitrary(harness, input);
    let now = harness.counters().all().map(|(_, _, value)| value);
    kind(now.zip(before).map(|(now, before)| now > before).collect::<Vec<_>>())
}

fn stream() -> StreamDescription {
    let shape = Shape::new(6, 8);
    let mut mask = PixelMask::none(shape);
    mask.bits_mut()[5] = 1;
    StreamDescription {
        origin: "ours".into(),
        shape,
        pixel_type: PixelType::U16,
        compression: Compression::BitshuffleLz4,
        payload_bytes_max: codec::compress_bound(96, 2),
        frames_expected: 5,
        darks: 0,
        flats: 0,
        angles_deg: (0..5).map(|i| f64::from(i) * 0.5).collect(),
        kinds: vec![FrameKind::Sample; 5],
        pausable: false,
        saturation_value: Some(60_000.0),
        mask: Some(mask),
        detector: DetectorDescription {
            name: Some("ours".into()),
            wavelength_m: Some(1e-10),
            count_time_s: Some(0.1),
            flatfield: Some(vec![1.0; 48]),
            countrate_table: Some(vec![0.0, 1.0, 2.5]),
            ..DetectorDescription::default()
        },
        metadata: [("user_data".to_string(), "{\"a\": 1}".to_string())].into(),
        parts: 0,
    }
}

/// Messages of a series: start, a packed and a plain image, end.
fn messages(version: Version) -> Vec<Vec<Vec<u8>>> {
    let (stream, unique) = (stream(), unique_name(1, 2));
    let key = SeriesKey {
        id: 9,
        unique: if version == Version::V1 { Short::new("") } else { unique },
    };
    let encoder = SeriesEncoder::new(key, version, "2026-11-23T12:00:00Z", &stream);
    let raw: Vec<u8> = (0..96).collect();
    let mut packed = vec![0; codec::compress_bound(96, 2)];
    let used = codec::compress(&raw, 2, &mut packed, &mut Scratch::default()).expect("a chunk");
    let mut header = FrameHeader::new(stream.shape, stream.pixel_type, Compression::None);
    let plain = encoder.image(&header, &raw, &stream);
    header.compression = Compression::BitshuffleLz4 as u8;
    header.payload_bytes.set(used as u64);
    vec![
        encoder.start(&stream),
        encoder.image(&header, &packed[..used], &stream),
        plain,
        encoder.end(),
    ]
}

fn seeds_v2() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = messages(Version::V2).into_iter().map(|parts| parts.concat()).collect();
    // An image with numbers of its own, and one with nothing but nesting.
    let mut own = b"\xa4dtypeeimageiseries_id\x09puser_data\x00".to_vec();
    own.extend(b"\xbf\x62I0\xfb\x40\x59\x00\x00\x00\x00\x00\x00\xff");
    seeds.push(own);
    seeds.push([b"\xd9\xd9\xf7\xa1\x64deep".to_vec(), vec![0x81; 64]].concat());
    seeds
}

/// Sessions of a PUSH socket: with heartbeats, with a message of two parts, with a long one, with an error.
fn seeds_zmtp() -> Vec<Vec<u8>> {
    const READY: &[u8] = b"\x04\x27\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH\x08Identity\x00\x00\x00\x00";
    let greeting = zmtp::greeting().to_vec();
    let long = [&[2][..], &300u64.to_be_bytes(), &[7; 300]].concat();
    vec![
        [&greeting, READY, b"\x04\x0b\x04PING\x00\x0aabcd\x00\x03end"].concat(),
        [READY, b"\x01\x05first\x00\x06second", &long].concat(),
        [READY, &long, &[6, 0, 0, 0, 0, 0, 0, 0, 5], b"\x04PONG"].concat(),
        [&greeting[..], b"\x04\x0a\x05ERROR\x03not"].concat(),
    ]
}

fn seeds_v1() -> Vec<Vec<u8>> {
    let behind = |part: Vec<u8>| [&(part.len() as u16).to_be_bytes()[..], &part].concat();
    let parts = messages(Version::V1).into_iter();
    parts
        .map(|parts| parts.into_iter().flat_map(behind).collect())
        .collect()
}

fn seeds_lz4() -> Vec<Vec<u8>> {
    let raws: [Vec<u8>; 3] = [
        vec![0; 16_384],
        (0..600).map(|i| (i * i / 7) as u8).collect(),
        (0..=20).collect(),
    ];
    let mut seeds = Vec::new();
    for (raw, width) in raws.iter().zip([1u8, 2, 0]) {
        let pixel_bytes = 1 << width;
        let mut out = vec![0; codec::compress_bound(raw.len(), pixel_bytes)];
        let used = codec::compress(raw, pixel_bytes, &mut out, &mut Scratch::default()).expect("a chunk");
        let mut seed = (raw.len() as u16).to_be_bytes().to_vec();
        seed.push(width);
        seed.extend(&out[..used]);
        seeds.push(seed);
    }
    seeds
}

/// Chunks of stored Zstandard blocks: a frame of one raw, and one of one repeated byte (RFC 8878, 3.1.1).
fn seeds_zstd() -> Vec<Vec<u8>> {
    let frame = |bytes: u16, block_kind: u32, body: &[u8]| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60];
        frame.extend((bytes - 256).to_le_bytes());
        frame.extend(&(1 | block_kind << 1 | u32::from(bytes) << 3).to_le_bytes()[..3]);
        frame.extend(body);
        frame
    };
    let chunk = |bytes: u16, frame: Vec<u8>| {
        let mut chunk = bytes.to_be_bytes().to_vec();
        chunk.push(1);
        chunk.extend(u64::from(bytes).to_be_bytes());
        chunk.extend(8192u32.to_be_bytes());
        chunk.extend((frame.len() as u32).to_be_bytes());
        chunk.extend(frame);
        chunk
    };
    let raw: Vec<u8> = (0..512u32).map(|i| (i * 7) as u8).collect();
    vec![chunk(512, frame(512, 0, &raw)), chunk(8192, frame(8192, 1, &[7]))]
}

fn seeds_json() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"frame_numbers":[0,1,2],"values":{"angle_deg":[0.5,null,-1e3],"hardware_time_ns":[1,2,3]},"units":{"angle_deg":"deg"},"last":true}"#,
        r#"{"name":"scan","proposal":"p1","sample":"s","recipe":"r","metadata":{"a":"b"}}"#,
        r#"{"frame_numbers":[[[[1e999]]]]}"#,
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Two frames of an EIGER module in order, and some packets twice, late or elsewhere.
fn seeds_udp() -> Vec<Vec<u8>> {
    let packet = |how: u8, frame: u64, number: u32, part: u16| {
        let mut header = PacketHeader::new(Detector::Eiger);
        header.frame_number.set(frame);
        header.packet_number.set(number);
        header.row.set(part / 2);
        header.column.set(part % 2);
        [&[how][..], &header.encode()].concat()
    };
    let whole: Vec<u8> = (1..=2u64)
        .flat_map(|frame| (0..4u16).flat_map(move |part| (0..32u32).map(move |number| (frame, part, number))))
        .flat_map(|(frame, part, number)| packet(5, frame, number, part))
        .take(80 * 49)
        .collect();
    let odd = [
        (5, 1, 0, 0),
        (5, 1, 0, 0),
        (0, 1, 1, 1),
        (1, 1, 2, 2),
        (5, 9, 3, 3),
        (5, 2, 99, 0),
        (5, 900, 0, 7),
    ];
    vec![
        whole,
        odd.iter()
            .flat_map(|&(how, frame, number, part)| packet(how, frame, number, part))
            .collect(),
    ]
}
