//! Assembled frames against the whole that their modules were cut from.

use super::*;
use crate::memory::{HugePages, PageSize, PagesConfig};
use std::collections::VecDeque;

const WHOLE: Shape = Shape::new(12, 20);

fn pixel(frame: u64, row: usize, column: usize) -> u16 {
    (frame as usize * 1000 + row * 31 + column) as u16
}

/// One module of a script.
#[derive(Clone, Copy)]
struct Step {
    /// pause before it, ms
    after_ms: u64,
    /// its number
    number: u64,
    /// the frame whose pixels it has
    frame: u64,
    time_ns: u64,
    damaged: bool,
}

fn step(number: u64) -> Step {
    Step {
        after_ms: 0,
        number,
        frame: number,
        time_ns: 0,
        damaged: false,
    }
}

/// A part that plays a script.
struct Scripted {
    stream: StreamDescription,
    row: usize,
    column: usize,
    packed: bool,
    epoch: u32,
    steps: VecDeque<Step>,
}

impl FrameSource for Scripted {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.epoch = epoch;
        Ok(())
    }

    fn next(&mut self, ring: &FrameRing, _when_full: WhenFull) -> Result<Arrival, SourceError> {
        let Some(mut slot) = ring.slot_within(Duration::from_millis(20)) else {
            return Ok(Arrival::Idle);
        };
        let Some(step) = self.steps.pop_front() else {
            return Ok(Arrival::End);
        };
        std::thread::sleep(Duration::from_millis(step.after_ms));
        let shape = self.stream.shape;
        let pixels: Vec<u8> = (0..shape.pixels())
            .flat_map(|i| {
                pixel(
                    step.frame,
                    self.row + i / shape.columns,
                    self.column + i % shape.columns,
                )
                .to_le_bytes()
            })
            .collect();
        let (used, compression) = if self.packed {
            let mut out = vec![0; codec::compress_bound(pixels.len(), 2)];
            let used = codec::compress(&pixels, 2, &mut out, &mut codec::Scratch::default()).unwrap();
            slot.payload_mut()[..used].copy_from_slice(&out[..used]);
            (used, Compression::BitshuffleLz4)
        } else {
            slot.payload_mut()[..pixels.len()].copy_from_slice(&pixels);
            (pixels.len(), Compression::None)
        };
        let mut header = FrameHeader::new(shape, PixelType::U16, compression);
        header.epoch.set(self.epoch);
        header.frame_number.set(step.number);
        header.detector_time_ns.set(step.time_ns);
        header.payload_bytes.set(used as u64);
        if step.damaged {
            header.flags |= frame::header::FLAG_DAMAGED;
        }
        *slot.header_mut() = header;
        Ok(Arrival::Frame(slot.publish()))
    }
}

fn part(row: usize, column: usize, shape: Shape, packed: bool, frames: u64, steps: Vec<Step>) -> Part {
    let config = AssemblyConfig {
        shape,
        wait: Duration::ZERO,
        align: Align::Number,
        part_slots: 8,
        when_full: WhenFull::Wait,
    };
    let stream = StreamDescription {
        payload_bytes_max: codec::compress_bound(shape.pixels() * 2, 2),
        frames_expected: frames,
        pausable: true,
        ..merge::unknown(&config)
    };
    Part {
        source: Box::new(Scripted {
            stream,
            row,
            column,
            packed,
            epoch: 0,
            steps: steps.into(),
        }),
        row,
        column,
        clock_offset_ns: None,
    }
}

fn ring(slots: usize) -> FrameRing {
    let payload_bytes = WHOLE.pixels() * 2;
    let pages = PagesConfig {
        bytes: FrameRing::bytes_needed(slots, payload_bytes),
        page_size: PageSize::Transparent,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    };
    FrameRing::new(HugePages::reserve(&pages).unwrap(), slots, payload_bytes).unwrap()
}

/// A frame as it was handed on: its number, missing bytes, and pixels.
type Seen = (u64, u32, Vec<u16>);

fn assemble(parts: Vec<Part>, align: Align, wait_ms: u64) -> (Vec<Seen>, AssemblyCounts, StreamDescription) {
    assemble_pausing(parts, align, wait_ms, Duration::ZERO)
}

/// As [`assemble`], by somebody who does nothing for so long before each of the first two frames.
fn assemble_pausing(
    parts: Vec<Part>,
    align: Align,
    wait_ms: u64,
    pause: Duration,
) -> (Vec<Seen>, AssemblyCounts, StreamDescription) {
    let config = AssemblyConfig {
        shape: WHOLE,
        wait: Duration::from_millis(wait_ms),
        align,
        part_slots: 8,
        when_full: WhenFull::Wait,
    };
    let mut assembly = Assembly::new(parts, config).unwrap();
    assembly.arm(7).unwrap();
    let ring = ring(16);
    assembly.prepare(&ring).unwrap();
    let mut seen = Vec::new();
    loop {
        if seen.len() < 2 {
            std::thread::sleep(pause);
        }
        match assembly.next(&ring, WhenFull::Wait).unwrap() {
            Arrival::Frame(lease) => {
                let header = lease.header();
                assert_eq!(header.epoch.get(), 7);
                assert_eq!(header.is_partial(), header.missing_bytes.get() > 0);
                let pixels = lease
                    .payload()
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|pixel| u16::from_le_bytes(*pixel));
                seen.push((header.frame_number.get(), header.missing_bytes.get(), pixels.collect()));
            }
            Arrival::End => break,
            _ => {}
        }
    }
    assert_eq!(ring.free(), 16, "every slot has come back");
    seen.sort_by_key(|(frame, ..)| *frame);
    (seen, assembly.assembly_counts(), assembly.stream().clone())
}

/// What frame `frame` is where the parts of `there` (first row, rows, first column, columns) have come.
fn expected(frame: u64, there: &[(usize, usize, usize, usize)]) -> Vec<u16> {
    (0..WHOLE.pixels())
        .map(|i| {
            let (row, column) = (i / WHOLE.columns, i % WHOLE.columns);
            let inside = there.iter().any(|(first_row, rows, first_column, columns)| {
                (*first_row..first_row + rows).contains(&row)
                    && (*first_column..first_column + columns).contains(&column)
            });
            if inside { pixel(frame, row, column) } else { u16::MAX }
        })
        .collect()
}

fn left(steps: Vec<Step>) -> Part {
    part(0, 0, Shape::new(12, 9), true, 40, steps)
}

fn right(steps: Vec<Step>) -> Part {
    part(1, 11, Shape::new(10, 9), false, 40, steps)
}

const LEFT: (usize, usize, usize, usize) = (0, 12, 0, 9);
const RIGHT: (usize, usize, usize, usize) = (1, 10, 11, 9);

#[test]
fn modules_in_any_order_make_the_whole_bit_for_bit() {
    // Every two frames of one part swapped, three of the other turned round; one part packed.
    let swapped = (0..40).map(|i| step(i ^ 1)).collect();
    let turned = (0..40)
        .map(|i| step(if i < 39 { i / 3 * 3 + 2 - i % 3 } else { i }))
        .collect();
    let (seen, counts, stream) = assemble(vec![left(swapped), right(turned)], Align::Number, 60_000);
    assert_eq!(seen.len(), 40);
    for (frame, missing, pixels) in &seen {
        assert_eq!(
            (*missing, pixels),
            (0, &expected(*frame, &[LEFT, RIGHT])),
            "frame {frame}"
        );
    }
    let expected = AssemblyCounts {
        placed: 80,
        copied_bytes: 40 * 2 * (12 * 9 + 10 * 9),
        ..AssemblyCounts::default()
    };
    assert_eq!(counts, expected);
    let mask = stream.mask.unwrap();
    assert_eq!(mask.rejected_count(), WHOLE.pixels() - 12 * 9 - 10 * 9);
    assert!(mask.rejects(9) && !mask.rejects(8) && mask.rejects(11) && !mask.rejects(20 + 11));
    assert_eq!(
        stream.saturation_value,
        Some(65535.0),
        "the mask value is never measured"
    );
}

#[test]
fn full_rows_above_each_other_and_packed_are_decoded_into_place() {
    let all = || (0..10).map(step).collect();
    let parts = vec![
        part(0, 0, Shape::new(5, 20), true, 10, all()),
        part(6, 0, Shape::new(6, 20), true, 10, all()),
    ];
    let (seen, ..) = assemble(parts, Align::Number, 60_000);
    for (frame, _, pixels) in &seen {
        assert_eq!(
            pixels,
            &expected(*frame, &[(0, 5, 0, 20), (6, 6, 0, 20)]),
            "frame {frame}"
        );
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn a_part_that_stops_half_way_is_masked_and_nobody_waits_for_it() {
    let started = std::time::Instant::now();
    let parts = vec![left((0..40).map(step).collect()), right((0..20).map(step).collect())];
    let (seen, counts, _) = assemble(parts, Align::Number, 30_000);
    assert_eq!((seen.len(), counts.missing), (40, 20));
    for (frame, missing, pixels) in &seen {
        let (bytes, there) = match frame {
            0..20 => (0, vec![LEFT, RIGHT]),
            _ => (2 * 10 * 9, vec![LEFT]),
        };
        assert_eq!((*missing, pixels), (bytes, &expected(*frame, &there)), "frame {frame}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_module_that_comes_too_late_is_counted_and_changes_nothing() {
    let mut late: Vec<Step> = (0..10).map(step).collect();
    late[4].after_ms = 4000;
    let mut others: Vec<Step> = (0..10).map(step).collect();
    others[3].damaged = true;
    others.push(step(0)); // once more
    let (seen, counts, _) = assemble(vec![left(others), right(late)], Align::Number, 1000);
    let partial: Vec<u64> = seen
        .iter()
        .filter(|(_, missing, _)| *missing > 0)
        .map(|(frame, ..)| *frame)
        .collect();
    assert_eq!(seen.len(), 10);
    assert_eq!((counts.late + counts.duplicate, counts.damaged), (7, 1), "{counts:?}");
    assert_eq!(partial, [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(seen[3].2, expected(3, &[RIGHT]));
    assert_eq!(seen[4].2, expected(4, &[LEFT]));
    assert_eq!(seen[9].2, expected(9, &[LEFT]));
}

#[test]
fn whoever_takes_frames_late_finds_the_modules_that_came_meanwhile() {
    // Frame 1 is whole while one module each of 0 and 2 has been looked at, and the others lie in their queues.
    let turned = (0..6).map(|i| step(i / 3 * 3 + (i + 1) % 3)).collect();
    let parts = vec![left((0..6).map(step).collect()), right(turned)];
    let pause = Duration::from_millis(800);
    let (seen, counts, _) = assemble_pausing(parts, Align::Number, 400, pause);
    assert_eq!((seen.len(), counts.missing, counts.late), (6, 0, 0), "{counts:?}");
}

#[test]
fn clocks_tell_which_modules_belong_together_where_numbers_do_not() {
    // The right part missed triggers 3 and 4 and counts on; its clock is 5 ms ahead and ticks a little off.
    let time = |frame: u64, part: u64| 1_000_000 * (frame + 1) + part * (5_000_000 + frame % 3);
    let steps = |part: u64, missed: &[u64]| -> Vec<Step> {
        let frames = (0..20).filter(|frame| !missed.contains(frame));
        frames
            .zip(0..)
            .map(|(frame, number)| Step {
                frame,
                time_ns: time(frame, part),
                ..step(number)
            })
            .collect()
    };
    // Whichever of them is ahead.
    for (first, late_ms) in [(0, 0), (0, 100), (1, 100)] {
        let mut both = [steps(0, &[]), steps(1, &[3, 4])];
        both[first][0].after_ms = late_ms;
        let [one, other] = both;
        let parts = vec![left(one), right(other)];
        let (seen, counts, _) = assemble(parts, Align::Time { tolerance_ns: 1000 }, 30_000);
        assert_eq!((seen.len(), counts.missing, counts.unmatched), (20, 2, 0), "{counts:?}");
        for (frame, _, pixels) in &seen {
            let there = if [3, 4].contains(frame) {
                vec![LEFT]
            } else {
                vec![LEFT, RIGHT]
            };
            assert_eq!(pixels, &expected(*frame, &there), "frame {frame}");
        }
    }
}

#[test]
fn parts_that_overlap_or_stick_out_are_refused_with_their_place() {
    let overlap = || part(0, 8, Shape::new(10, 9), false, 1, Vec::new());
    let outside = || part(3, 11, Shape::new(10, 9), false, 1, Vec::new());
    for (second, said) in [
        (overlap(), "does not cover"),
        (outside(), "within the assembly's 12x20"),
    ] {
        let config = AssemblyConfig {
            shape: WHOLE,
            wait: Duration::ZERO,
            align: Align::Number,
            part_slots: 8,
            when_full: WhenFull::Wait,
        };
        let mut assembly = Assembly::new(vec![left(Vec::new()), second], config).unwrap();
        let error = assembly.arm(1).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("source 1"), "{error}");
    }
}
