//! Assembly under any order, loss and duplication; sockets on loopback.

use super::assembly::Out;
use super::fuzz::{self, Harness};
use super::wire::{HEADER_BYTES, PacketHeader};
use super::*;
use crate::memory::FrameLease;
use crate::source::{Arrival, FrameSource, WhenFull};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

/// A small detector: two JUNGFRAU-like halves would be 1 MB a frame; an EIGER module of 8 bits has 4 × 32 packets.
fn config() -> UdpConfig {
    UdpConfig {
        detector: Detector::Eiger,
        bits: 8,
        frames: 100,
        gap: [3, 5],
        modules: [1, 2],
        flip_lower: true,
        addresses: vec!["127.0.0.1:1".into()],
        ..UdpConfig::default()
    }
}

/// The value of a pixel of a packet: never the mask's.
fn value(frame: u64, part: usize, packet: usize) -> u8 {
    ((frame * 31 + part as u64 * 7 + packet as u64 * 13) % 255) as u8
}

fn packet(layout: &Layout, frame: u64, part: usize, number: usize) -> Vec<u8> {
    let mut header = PacketHeader::new(layout.detector);
    header.frame_number.set(frame + 1);
    header.packet_number.set(number as u32);
    header.timestamp.set(1000 + frame);
    header.module.set(part as u16);
    header.row.set(layout.parts[part].header_row);
    header.column.set(layout.parts[part].header_column);
    let mut bytes = header.encode().to_vec();
    bytes.resize(HEADER_BYTES + layout.payload_bytes, value(frame, part, number));
    bytes
}

/// Every pixel of a frame is what was sent, or the mask's; the header and the bits say which.
fn check(layout: &Layout, lease: &FrameLease, lost: &BTreeSet<(u64, usize, usize)>) {
    let (header, frame) = (lease.header(), lease.header().frame_number.get());
    let payload = lease.payload();
    assert_eq!(payload.len(), layout.frame_bytes());
    let mut missing = 0;
    for part in 0..layout.parts.len() {
        for number in 0..layout.packets {
            let gone = lost.contains(&(frame, part, number));
            missing += u32::from(gone);
            let wanted = if gone { 0xff } else { value(frame, part, number) };
            let place = layout.place(0, part, number);
            for start in place.starts() {
                let piece = &payload[start..start + place.piece_bytes];
                let found = piece[0];
                assert!(
                    piece.iter().all(|b| *b == wanted),
                    "frame {frame} part {part} packet {number}: {found}, not {wanted}"
                );
            }
            let bit = part * layout.packets + number;
            let said = lease
                .parts_missing()
                .get(bit / 8)
                .is_some_and(|byte| byte & (1 << (bit % 8)) != 0);
            assert_eq!(said, gone);
        }
    }
    let mask = layout.mask();
    let gaps = (0..payload.len()).filter(|pixel| mask.rejects(*pixel));
    assert!(
        gaps.into_iter().all(|pixel| payload[pixel] == 0xff),
        "gaps hold the mask value"
    );
    assert_eq!(
        (header.parts_missing.get(), header.is_partial()),
        (missing, missing > 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_order_loss_and_duplication_leaves_sent_or_masked_pixels(
        seed in any::<u64>(), lose in 0u64..30, twice in 0u64..60, depth in 1usize..1700, batch in 1usize..64,
    ) {
        use rand::{Rng, SeedableRng};
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
        let config = UdpConfig { frames: 12, window: 8, ..config() };
        let mut harness = Harness::with(&config, 32).unwrap();
        let layout = harness.assembly().layout().clone();
        let (mut lost, mut sent, mut duplicates) = (BTreeSet::new(), Vec::new(), 0u64);
        for frame in 0..config.frames {
            for number in 0..layout.packets {
                for part in 0..layout.parts.len() {
                    // The first packet of a frame stays, so that every frame is seen.
                    if (part, number) != (0, 0) && random.next_u64() % 100 < lose {
                        lost.insert((frame, part, number));
                        continue;
                    }
                    let copies = 1 + u64::from(random.next_u64() % 100 < twice);
                    duplicates += copies - 1;
                    (0..copies).for_each(|_| sent.push(packet(&layout, frame, part, number)));
                }
            }
        }
        for block in sent.chunks_mut(depth) {
            for i in (1..block.len()).rev() {
                block.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
            }
        }
        let mut frames = Vec::new();
        for packets in sent.chunks(batch) {
            harness.receive(packets, WhenFull::Wait, 1, &mut |out| {
                if let Out::Frame(lease) = out {
                    check(&layout, &lease, &lost);
                    frames.push(lease.header().frame_number.get());
                }
            });
        }
        harness.assembly().end(2);
        while let Some(Out::Frame(lease)) = harness.assembly().pop() {
            check(&layout, &lease, &lost);
            frames.push(lease.header().frame_number.get());
        }
        frames.sort_unstable();
        prop_assert_eq!(frames, (0..config.frames).collect::<Vec<_>>());
        let counters = harness.counters();
        prop_assert_eq!(counters.missing.load(Relaxed), lost.len() as u64);
        // A copy that comes after its frame was handed on is late.
        prop_assert_eq!(counters.duplicate.load(Relaxed) + counters.late.load(Relaxed), duplicates);
        prop_assert_eq!(counters.placed.load(Relaxed), sent.len() as u64 - duplicates);
        prop_assert_eq!(harness.ring().free(), 32);
    }

    #[test]
    fn arbitrary_bytes_break_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        packets in prop::collection::vec((any::<u8>(), 0u64..320, 0u32..40, 0u16..3, 0u16..3), 0..200),
    ) {
        let mut harness = Harness::new().unwrap();
        fuzz::arbitrary(&mut harness, &bytes);
        let mut nearly = Vec::new();
        for (how, frame, number, row, column) in packets {
            let mut header = PacketHeader::new(Detector::Eiger);
            header.frame_number.set(frame);
            header.packet_number.set(number);
            header.row.set(row);
            header.column.set(column);
            nearly.push(how);
            nearly.extend_from_slice(&header.encode());
        }
        fuzz::arbitrary(&mut harness, &nearly);
    }
}

fn run(harness: &mut Harness, packets: &[Vec<u8>]) -> Vec<u64> {
    let mut frames = Vec::new();
    harness.receive(packets, WhenFull::Wait, 1, &mut |out| {
        if let Out::Frame(lease) = out {
            frames.push(lease.header().frame_number.get());
        }
    });
    frames
}

fn whole(layout: &Layout, frame: u64) -> Vec<Vec<u8>> {
    let all = (0..layout.packets).flat_map(|number| (0..layout.parts.len()).map(move |part| (part, number)));
    all.map(|(part, number)| packet(layout, frame, part, number)).collect()
}

/// Whoever takes frames was held up for longer than a frame may wait: its last packets lie in the socket.
#[test]
fn a_receiver_that_was_held_up_takes_what_waits_before_it_misses_anything() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = UdpConfig {
        addresses: vec![free.to_string()],
        frame_timeout_s: 0.2,
        ..config()
    };
    let mut source = UdpSource::new(&config, Default::default()).unwrap();
    source.arm(1).unwrap();
    let harness = Harness::with(&config, 32).unwrap();
    source.prepare(harness.ring()).unwrap();
    let layout = Layout::new(&config).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let all: Vec<(usize, usize)> = (0..layout.parts.len())
        .flat_map(|part| (0..layout.packets).map(move |number| (part, number)))
        .collect();
    let (first, last) = all.split_at(all.len() - 4);
    for packets in [first, last] {
        for (part, number) in packets {
            sender.send_to(&packet(&layout, 0, *part, *number), free).unwrap();
            if packets.len() > 4 {
                // What a socket holds may be less than a frame.
                assert!(matches!(
                    source.next(harness.ring(), WhenFull::Wait).unwrap(),
                    Arrival::Idle
                ));
            }
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let Arrival::Frame(lease) = source.next(harness.ring(), WhenFull::Wait).unwrap() else {
        panic!("no frame");
    };
    check(&layout, &lease, &BTreeSet::new());
}

#[test]
fn packets_in_order_of_one_part_are_never_moved() {
    let config = UdpConfig {
        frames: 20,
        ..UdpConfig::default()
    };
    let mut harness = Harness::with(&config, 64).unwrap();
    let layout = harness.assembly().layout().clone();
    let mut done = 0;
    for frame in 0..20 {
        done += run(&mut harness, &whole(&layout, frame)).len();
    }
    let counters = harness.counters();
    assert_eq!((done, counters.placed.load(Relaxed)), (20, 20 * 128));
    assert_eq!(counters.moved.load(Relaxed), 64, "only the first batch is not foreseen");
}

#[test]
fn a_duplicate_never_stands_in_for_a_packet_that_is_lost() {
    let mut harness = Harness::with(&config(), 32).unwrap();
    let layout = harness.assembly().layout().clone();
    let mut packets = whole(&layout, 0);
    packets[7] = packets[6].clone();
    assert!(
        run(&mut harness, &packets).is_empty(),
        "one is missing: the frame is not whole"
    );
    harness.assembly().expire(300_000_000, 250_000_000);
    let Some(Out::Frame(lease)) = harness.assembly().pop() else {
        panic!("a frame")
    };
    assert_eq!(lease.header().parts_missing.get(), 1);
}

#[test]
fn a_frame_is_handed_on_when_the_window_has_passed() {
    let config = UdpConfig { window: 4, ..config() };
    let mut harness = Harness::with(&config, 32).unwrap();
    let layout = harness.assembly().layout().clone();
    assert!(run(&mut harness, &whole(&layout, 0)[1..]).is_empty());
    for frame in 1..4 {
        assert_eq!(run(&mut harness, &whole(&layout, frame)), [frame]);
    }
    assert_eq!(run(&mut harness, &whole(&layout, 4)), [0, 4], "the older one first");
    run(&mut harness, &whole(&layout, 0)[..1]);
    assert_eq!(harness.counters().late.load(Relaxed), 1, "and it stays closed");
}

#[test]
fn strays_and_forged_numbers_stay_outside() {
    let mut harness = Harness::with(
        &UdpConfig {
            frames: 5000,
            ..config()
        },
        200,
    )
    .unwrap();
    let layout = harness.assembly().layout().clone();
    // Before the run's first frame: the end of an acquisition before.
    assert!(run(&mut harness, &whole(&layout, 400)).is_empty());
    assert_eq!(run(&mut harness, &whole(&layout, 0)), [0]);
    // A forged number far ahead.
    run(&mut harness, &[packet(&layout, 4000, 0, 0)]);
    assert_eq!(run(&mut harness, &whole(&layout, 1)), [1]);
    // A number that is due, but from before the run began.
    let mut old = PacketHeader::decode(packet(&layout, 2, 0, 0).first_chunk().unwrap());
    old.timestamp.set(500);
    let mut stray = packet(&layout, 2, 0, 0);
    stray[..HEADER_BYTES].copy_from_slice(&old.encode());
    run(&mut harness, &[stray]);
    let packets = layout.packets() as u64;
    assert_eq!(harness.counters().stray.load(Relaxed), packets + 2);
    // Frames that many packets vouch for are believed: the link was down for a while.
    assert_eq!(run(&mut harness, &whole(&layout, 3000)).len(), 0);
    assert_eq!(run(&mut harness, &whole(&layout, 3001)), [3001]);
}

#[test]
fn a_full_ring_lets_whole_frames_go_or_waits() {
    let mut harness = Harness::with(&config(), 4).unwrap();
    let layout = harness.assembly().layout().clone();
    let mut held = Vec::new();
    let mut dropped = Vec::new();
    for frame in 0..6 {
        harness.receive(&whole(&layout, frame), WhenFull::Drop, 1, &mut |out| match out {
            Out::Frame(lease) => held.push(lease),
            Out::Dropped(frame) => dropped.push(frame),
        });
    }
    assert_eq!((held.len(), dropped), (4, vec![4, 5]));
    held.clear();
    assert_eq!(run(&mut harness, &whole(&layout, 6)), [6]);
}
