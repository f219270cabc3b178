//! Messages made and decoded again, real ones, and bytes that are none.

use super::encode::{CHANNEL, SeriesEncoder, unique_name};
use super::message::{Message, Packing, SeriesKey, Short};
use super::{Found, Version, v1, v2};
use frame::stream::DetectorDescription;
use frame::{Compression, FrameHeader, PixelMask, PixelType, Shape, StreamDescription, codec};
use proptest::prelude::*;
use std::io::Read;
use std::path::PathBuf;

fn stream(pixel_type: PixelType) -> StreamDescription {
    let shape = Shape::new(6, 8);
    let mut mask = PixelMask::none(shape);
    mask.bits_mut()[5] = 1;
    StreamDescription {
        origin: "test".into(),
        shape,
        pixel_type,
        compression: Compression::BitshuffleLz4,
        payload_bytes_max: 1024,
        frames_expected: 7,
        darks: 0,
        flats: 0,
        angles_deg: (0..7).map(|i| 10.0 + 0.5 * f64::from(i)).collect(),
        kinds: Vec::new(),
        pausable: false,
        parts: 0,
        saturation_value: Some(60_000.0),
        mask: Some(mask),
        detector: DetectorDescription {
            name: Some("EIGER2 X 1M".into()),
            serial_number: Some("E-32-0100".into()),
            pixel_size_slow_m: Some(75e-6),
            pixel_size_fast_m: Some(75e-6),
            sensor_material: Some("Si".into()),
            sensor_thickness_m: Some(450e-6),
            distance_m: Some(0.25),
            wavelength_m: Some(1e-10),
            beam_center_x_px: Some(3.5),
            beam_center_y_px: Some(2.5),
            count_time_s: Some(0.001),
            frame_time_s: Some(0.0011),
            threshold_energy_ev: Some(6200.0),
            flatfield: Some((0..48).map(|i| 1.0 + i as f32 / 100.0).collect()),
            countrate_table: Some(vec![0.0, 1.0, 2.0, 4.0]),
            ..DetectorDescription::default()
        },
        metadata: [("user_data".to_string(), "{\"sample\": 3}".to_string())].into(),
    }
}

fn encoder(version: Version, stream: &StreamDescription) -> SeriesEncoder {
    let unique = if version == Version::V1 {
        Short::new("")
    } else {
        unique_name(1, 2)
    };
    SeriesEncoder::new(SeriesKey { id: 9, unique }, version, "2026-11-23T12:00:00Z", stream)
}

fn decoded<'m>(version: Version, parts: &'m [Vec<u8>]) -> Message<'m> {
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    match version {
        Version::V1 => v1::decode(&slices),
        _ => v2::decode(slices[0], None),
    }
    .unwrap()
}

#[test]
fn what_is_sent_is_what_is_read_in_both_versions() {
    for version in [Version::V2, Version::V1] {
        let stream = stream(PixelType::U16);
        let encoder = encoder(version, &stream);
        let parts = encoder.start(&stream);
        let Message::Start(key, start) = decoded(version, &parts) else {
            panic!("a start");
        };
        let name = if version == Version::V1 { "" } else { CHANNEL };
        assert_eq!(key.id, 9);
        assert_eq!(
            (start.shape, start.pixel_type, start.images),
            (Some(stream.shape), Some(PixelType::U16), Some(7))
        );
        assert_eq!(start.saturation_value, Some(60_000.0));
        assert_eq!(start.masks[name], stream.mask.as_ref().unwrap().bits());
        assert_eq!(Some(&start.flatfields[name]), stream.detector.flatfield.as_ref());
        assert_eq!(Some(&start.countrate_table), stream.detector.countrate_table.as_ref());
        assert_eq!(start.axes["omega"], (10.0, 0.5));
        assert_eq!(start.thresholds_ev[name], 6200.0);
        let (mut told, said) = (start.detector.clone(), stream.detector.clone());
        assert!((told.wavelength_m.unwrap() - said.wavelength_m.unwrap()).abs() < 1e-22);
        told.wavelength_m = said.wavelength_m;
        (told.threshold_energy_ev, told.flatfield) = (said.threshold_energy_ev, said.flatfield.clone());
        told.countrate_table = said.countrate_table.clone();
        assert_eq!(told, said);
        let parts = encoder.end();
        assert_eq!(decoded(version, &parts), Message::End(key));
    }
}

#[test]
fn images_of_every_pixel_type_come_back_and_are_not_copied() {
    for pixel_type in PixelType::ALL {
        for version in [Version::V2, Version::V1] {
            let stream = stream(pixel_type);
            for packed in [false, true] {
                let raw: Vec<u8> = (0..stream.frame_bytes()).map(|i| (i % 5) as u8).collect();
                let mut payload = vec![0; codec::compress_bound(raw.len(), pixel_type.bytes())];
                let compression = if packed {
                    Compression::BitshuffleLz4
                } else {
                    Compression::None
                };
                if packed {
                    let scratch = &mut codec::Scratch::default();
                    let used = codec::compress(&raw, pixel_type.bytes(), &mut payload, scratch).unwrap();
                    payload.truncate(used);
                } else {
                    payload = raw;
                }
                let mut header = FrameHeader::new(stream.shape, pixel_type, compression);
                header.frame_number.set(3);
                header.detector_time_ns.set(77);
                let parts = encoder(version, &stream).image(&header, &payload, &stream);
                let Message::Image(image) = decoded(version, &parts) else {
                    panic!("an image");
                };
                assert_eq!((image.image_id, image.start_time_ns), (3, 77));
                assert_eq!(image.pixels.bytes, payload);
                assert_eq!(
                    image.pixels.packing,
                    if packed { Packing::BitshuffleLz4 } else { Packing::None }
                );
                image.pixels.check(stream.shape, pixel_type).unwrap();
                let within = parts
                    .iter()
                    .any(|part| part.as_ptr_range().contains(&image.pixels.bytes.as_ptr()));
                assert!(within, "the bytes stay in the message");
                let other = Shape::new(8, 6);
                assert_eq!(
                    image.pixels.check(other, pixel_type).unwrap_err().found,
                    Found::Pair(6, 8)
                );
            }
        }
    }
}

/// From the byte on where its pixels begin, the head of an image is known, wherever the message is cut; before, nothing is.
#[test]
fn the_head_of_an_image_says_what_the_whole_says() {
    for pixel_type in PixelType::ALL {
        for (bytes, compression) in [
            (7, Compression::None),
            (700, Compression::BitshuffleLz4),
            (70_000, Compression::None),
        ] {
            let stream = stream(pixel_type);
            let payload: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            let mut header = FrameHeader::new(stream.shape, pixel_type, compression);
            header.frame_number.set(5);
            let parts = encoder(Version::V2, &stream).image(&header, &payload, &stream);
            let message = parts[0].as_slice();
            let head_bytes = message.len() - bytes;
            for cut in (0..head_bytes + 10.min(bytes)).chain([message.len()]) {
                let decoded = v2::decode_head(&message[..cut], message.len() - cut, Some(CHANNEL));
                if cut < head_bytes {
                    assert!(decoded.is_err(), "cut at {cut} of {head_bytes}");
                    continue;
                }
                let Ok(Message::Image(image)) = decoded else {
                    panic!("cut at {cut} of {head_bytes}: {decoded:?}");
                };
                assert_eq!((image.image_id, image.pixels.beyond), (5, message.len() - cut));
                assert_eq!(image.pixels.bytes, &payload[..cut - head_bytes]);
                assert_eq!(image.pixels.total_bytes(), bytes);
            }
            // With anything behind the pixels, or another number of bytes on their way, it is no head.
            for beyond in [bytes - 1, bytes + 1] {
                assert!(v2::decode_head(&message[..head_bytes], beyond, None).is_err());
            }
        }
    }
    // Another channel's bytes are not the wanted one's.
    let first = b"\xa1\x64data\xa2\x61a\xd8\x28\x82\x82\x02\x02\xd8\x40\x44abcd\x61b\x44ef";
    assert!(v2::decode_head(first, 2, Some("a")).is_err());
}

fn complaint(message: &[u8]) -> String {
    v2::decode(message, None).unwrap_err().to_string()
}

/// A message from a map of small pieces of CBOR.
fn message(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xa0 | entries.len() as u8];
    for (key, value) in entries {
        bytes.push(0x60 | key.len() as u8);
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

#[test]
fn wrong_messages_are_refused_with_field_and_limit() {
    assert!(complaint(&[]).contains("message = something else, at byte 0"));
    assert!(complaint(&[0x01]).contains("a map"));
    assert!(complaint(&message(&[("type", b"\x63end")])).contains("series_id = (missing)"));
    assert!(complaint(&message(&[("type", b"\x65start"), ("series_id", b"\x20")])).contains("series_id"));
    let long = [&[0x78, 65][..], &[b'x'; 65]].concat();
    assert!(complaint(&message(&[("type", b"\x63end"), ("series_unique_id", &long)])).contains("65: expected 1 to 64"));
    let never = message(&[("start_time", b"\x82\x01\x00")]);
    assert!(complaint(&never).contains("start_time = 0: expected a denominator above 0"));
    // A byte string that says 2^62 bytes, and an array that says 2^62 values.
    let bytes = [
        &[0xd8, 40, 0x82, 0x82, 1, 1, 0xd8, 64, 0x5b][..],
        &(1u64 << 62).to_be_bytes(),
    ]
    .concat();
    let data = [&[0xa1, 0x61, b'a'][..], &bytes].concat();
    assert!(complaint(&message(&[("data", &data)])).contains("all of them in the message"));
    let many = [&[0x9b][..], &(1u64 << 62).to_be_bytes()].concat();
    assert!(complaint(&message(&[("channels", &many)])).contains("channels"));
    let giant = [
        &[0xa1, 0x61, b'a', 0xd8, 40, 0x82, 0x82][..],
        &[0x1a, 255, 255, 255, 255].repeat(2),
    ]
    .concat();
    assert!(complaint(&message(&[("data", &giant)])).contains("67108864 pixels"));
    // Depth bombs, of definite and of indefinite length, known or unknown field.
    for bomb in [
        vec![0x81; 100_000],
        vec![0x9f; 100_000],
        vec![0xa1; 100_000],
        vec![0xc1; 100_000],
    ] {
        assert!(v2::decode(&bomb, None).is_err());
        for kind in [&b"\x65start"[..], b"\x65image"] {
            let found = complaint(&message(&[("type", kind), ("else", &bomb)]));
            assert!(
                found.contains("16 levels") || found.contains("a text as key"),
                "{found}"
            );
        }
    }
    let behind = [
        message(&[
            ("type", b"\x63end"),
            ("series_id", b"\x01"),
            ("series_unique_id", b"\x61u"),
        ]),
        vec![0],
    ];
    assert!(complaint(&behind.concat()).contains("nothing behind the map"));
    let bad = |packed: &[u8]| {
        let array = [
            &[0xa1, 0x61, b'a', 0xd8, 40, 0x82, 0x82, 2, 2, 0xd8, 69, 0xd9, 0xdc, 0xb4][..],
            packed,
        ]
        .concat();
        complaint(&message(&[("data", &array)]))
    };
    assert!(bad(b"\x83\x64trpx\x02\x40").contains("\"trpx\": expected \"bslz4\", \"bszstd\" or \"lz4\""));
    assert!(bad(b"\x83\x66bszstd\x04\x40").contains("that of a pixel"));
    assert!(bad(b"\x83\x65bslz4\x04\x40").contains("that of a pixel"));
    assert!(bad(b"\x82\x65bslz4\x02").contains("[algorithm, element size, bytes]"));
}

#[test]
fn a_start_larger_than_its_images_explain_is_refused() {
    let mut entries: Vec<(&str, &[u8])> = vec![
        ("type", b"\x65start"),
        ("series_id", b"\x01"),
        ("series_unique_id", b"\x61u"),
        ("image_size_x", b"\x04"),
        ("image_size_y", b"\x04"),
    ];
    assert!(v2::decode(&message(&entries), None).is_ok());
    let large = [&[0x5a][..], &(2u32 << 20).to_be_bytes(), &vec![0; 2 << 20]].concat();
    entries.push(("user_data", &large));
    assert!(complaint(&message(&entries)).contains("16 bytes per pixel and channel"));
    // A mask that declares more than it has is refused before anything is unpacked.
    let forged = [
        &[
            0xa1, 0x61, b'a', 0xd8, 40, 0x82, 0x82, 4, 4, 0xd8, 70, 0xd9, 0xdc, 0xb4, 0x83,
        ][..],
        b"\x65bslz4\x04\x4c",
        &(1u64 << 40).to_be_bytes(),
        &[0; 4],
    ]
    .concat();
    entries.pop();
    entries.push(("pixel_mask", &forged));
    assert!(complaint(&message(&entries)).contains("pixel_mask = 1099511627776"));
}

#[test]
fn wrong_json_is_refused_with_its_part() {
    let says = |parts: &[&[u8]]| v1::decode(parts).unwrap_err().to_string();
    assert!(says(&[]).contains("part 1"));
    assert!(says(&[b"{\"htype\":\"dimage-1.0\",\"series\":1}"]).contains("frame = (missing)"));
    assert!(says(&[b"{\"htype\":\"dsomething\",\"series\":1}"]).contains("dseries_end-1.0"));
    assert!(says(&[b"{\"htype\":\"dheader-1.0\",\"series\":1,\"header_detail\":\"more\"}"]).contains("\"more\""));
    let head = b"{\"htype\":\"dimage-1.0\",\"series\":1,\"frame\":0}";
    let image = |text: &'static [u8]| says(&[head, text, b""]);
    assert!(image(b"{\"htype\":\"dimage_d-1.0\",\"shape\":[0,9],\"type\":\"uint16\"}").contains("0x9"));
    assert!(image(b"{\"htype\":\"dimage_d-1.0\",\"shape\":[9,9],\"type\":\"uint64\"}").contains("\"uint64\""));
    let wrong = b"{\"htype\":\"dimage_d-1.0\",\"shape\":[9,9],\"type\":\"uint16\",\"encoding\":\"bs32-lz4<\"}";
    assert!(image(wrong).contains("as the pixel type is"));
    assert!(says(&[head]).contains("at least 3 parts"));
    let none = b"{\"htype\":\"dheader-1.0\",\"series\":4,\"header_detail\":\"none\"}";
    let Ok(Message::Start(key, start)) = v1::decode(&[none]) else {
        panic!("a start without detail");
    };
    assert_eq!((key.id, start.images, start.shape), (4, None, None));
}

#[test]
fn lz4_with_and_without_a_frame() {
    // "aaaaaaaaaaaaaaaa" as one LZ4 block: a literal, a match of 10 at distance 1, five literals.
    let block = [0x16, b'a', 1, 0, 0x50, b'a', b'a', b'a', b'a', b'a'];
    let mut out = [0; 16];
    codec::lz4_block_into(&block, &mut out).unwrap();
    assert_eq!(out, [b'a'; 16]);
    let framed = |declared: u64, block_bytes: u32| {
        [
            &declared.to_be_bytes()[..],
            &block_bytes.to_be_bytes(),
            &10u32.to_be_bytes(),
            &block,
        ]
        .concat()
    };
    let mut out = [0; 16];
    codec::lz4_framed_into(&framed(16, 16), &mut out).unwrap();
    assert_eq!(out, [b'a'; 16]);
    assert!(codec::lz4_framed_into(&framed(17, 16), &mut out).is_err());
    assert!(codec::lz4_framed_into(&framed(16, 0), &mut out).is_err());
    assert!(codec::lz4_framed_into(&framed(16, 8), &mut out).is_err());
}

fn real(test: &str, number: usize) -> Option<Vec<u8>> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var_os("FLUXLINE_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = data.join(format!("wire-dectris-v2/msgs/msg_{number:03}.cbor.gz"));
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED {test}: there is no {}", path.display());
        return None;
    };
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn real_messages_of_an_eiger_1m() {
    let Some(bytes) = real("real_messages_of_an_eiger_1m", 0) else {
        return;
    };
    let Message::Start(key, start) = v2::decode(&bytes, None).unwrap() else {
        panic!("a start");
    };
    assert_eq!((key.id, key.unique.as_str()), (16, "01HRCJF83SA63WH8M5X1VBKFJM"));
    assert_eq!(
        (start.shape, start.pixel_type, start.images),
        (Some(Shape::new(1065, 1030)), None, Some(10))
    );
    assert_eq!(start.channels, ["threshold_1"]);
    assert_eq!(start.detector.serial_number.as_deref(), Some("E-02-0154"));
    assert_eq!(start.saturation_value, Some(2_943_293.0));
    assert_eq!(start.masks["threshold_1"].len(), 1065 * 1030);
    assert_eq!(start.flatfields["threshold_1"].len(), 1065 * 1030);
    assert_eq!((start.countrate_table.len(), start.countrate_table[49]), (65_536, 50.0));
    assert_eq!(start.metadata["flatfield_applied"], "true");
    assert!(start.metadata["user_data"].contains("attenuator_transmission"));
    for number in 1..11 {
        let bytes = real("real_messages_of_an_eiger_1m", number).unwrap();
        let Message::Image(image) = v2::decode(&bytes, Some("threshold_1")).unwrap() else {
            panic!("an image");
        };
        assert_eq!((image.series, image.image_id), (key, number as u64 - 1));
        image.pixels.check(Shape::new(1065, 1030), PixelType::U32).unwrap();
        let mut out = vec![0; 4 * 1065 * 1030];
        codec::decompress_into(image.pixels.bytes, 4, &mut out).unwrap();
        assert!(
            v2::decode(&bytes, Some("threshold_2"))
                .unwrap_err()
                .to_string()
                .contains("the configured channel")
        );
        for cut in [0, 1, 17, 100, 300, bytes.len() - 1] {
            assert!(v2::decode(&bytes[..cut], None).is_err());
        }
    }
    let bytes = real("real_messages_of_an_eiger_1m", 11).unwrap();
    assert_eq!(v2::decode(&bytes, None), Ok(Message::End(key)));
}

proptest! {
    /// Bytes that are no message, and messages with bytes changed: an answer, never a panic.
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = v2::decode(&bytes, None);
        let _ = v2::decode(&[&[0xd9, 0xd9, 0xf7, 0xbf][..], &bytes].concat(), Some("a"));
        let _ = v1::decode(&[&bytes]);
    }

    #[test]
    fn changed_messages_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), which in 0usize..3, v1 in any::<bool>()
    ) {
        let stream = stream(PixelType::U16);
        let version = if v1 { Version::V1 } else { Version::V2 };
        let encoder = encoder(version, &stream);
        let header = FrameHeader::new(stream.shape, stream.pixel_type, Compression::None);
        let mut parts = match which {
            0 => encoder.start(&stream),
            1 => encoder.image(&header, &vec![7; stream.frame_bytes()], &stream),
            _ => encoder.end(),
        };
        for (place, value) in changes {
            let count = parts.len();
            let part = &mut parts[place.index(count)];
            if !part.is_empty() {
                let at = place.index(part.len());
                part[at] = value;
            }
        }
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let message = if v1 { v1::decode(&slices) } else { v2::decode(slices[0], None) };
        if let Ok(Message::Image(image)) = message
            && image.pixels.check(stream.shape, stream.pixel_type).is_ok()
        {
            let mut out = vec![0; stream.frame_bytes()];
            let _ = codec::decompress_into(image.pixels.bytes, 2, &mut out);
            let _ = codec::lz4_framed_into(image.pixels.bytes, &mut out);
            let _ = codec::lz4_block_into(image.pixels.bytes, &mut out);
        }
    }
}
