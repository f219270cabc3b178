use super::*;
use crate::{AddressProbe, testing};
use frame::PixelType;
use std::convert::Infallible;

const FRAME_BYTES: usize = 70_000;
const PIXELS: usize = FRAME_BYTES / 2;

fn ring(frames: usize) -> (Arc<dyn HostRegion>, Vec<usize>, Vec<Vec<f64>>) {
    let values: Vec<Vec<f64>> = (0..frames as u64)
        .map(|seed| testing::frame(PixelType::U16, PIXELS, seed))
        .collect();
    let (region, offsets) = testing::pages(PixelType::U16, &values);
    (region, offsets, values)
}

/// What the device reads of a batch, summed with the operation that every run uses.
fn sums(accelerator: &Accelerator, queue: &Queue, batch: &DeviceBatch) -> Vec<f64> {
    use crate::{FrameStatistics, Statistics, StatisticsConfig};
    let shape = frame::Shape::new(1, PIXELS);
    let (config, mask) = (StatisticsConfig::default(), frame::PixelMask::none(shape));
    let mut statistics = Statistics::new(accelerator, &config, shape, PixelType::U16, &mask, 8).unwrap();
    let mut found = vec![FrameStatistics::default(); batch.frames()];
    statistics.run(queue, batch, &mut found).unwrap();
    found.iter().map(|found| found.frame.sum).collect()
}

fn expected(values: &[Vec<f64>]) -> Vec<f64> {
    values.iter().map(|frame| frame.iter().sum()).collect()
}

#[test]
fn zero_copy_reads_the_slot_itself() {
    let (accelerator, queue) = testing::with_memory(MemoryMode::ZeroCopy);
    let (region, offsets, values) = ring(5);
    let mut stager = Stager::new(&accelerator, region.clone(), FRAME_BYTES, 8, false).unwrap();
    let mut probe = AddressProbe::new(&accelerator, 8).unwrap();
    assert_eq!(stager.memory(), MemoryMode::ZeroCopy);
    for order in [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]] {
        stager.begin().unwrap();
        order
            .iter()
            .for_each(|slot| stager.add_in_region(offsets[*slot]).unwrap());
        let batch = stager.finish(&queue).unwrap();
        let slots: Vec<u64> = order
            .iter()
            .map(|slot| (region.address() + offsets[*slot]) as u64)
            .collect();
        assert_eq!(probe.addresses(&queue, batch).unwrap(), slots);
        let expected = expected(&values);
        assert_eq!(sums(&accelerator, &queue, batch), order.map(|slot| expected[slot]));
    }
    assert_eq!(stager.copies(), 0);
}

#[test]
fn copy_mode_copies_each_frame_once() {
    let (accelerator, queue) = testing::with_memory(MemoryMode::Copy);
    let (region, offsets, values) = ring(5);
    let mut stager = Stager::new(&accelerator, region.clone(), FRAME_BYTES, 8, false).unwrap();
    assert_eq!(stager.memory_reason(), Some("memory = \"copy\" is configured"));
    stager.begin().unwrap();
    offsets.iter().for_each(|offset| stager.add_in_region(*offset).unwrap());
    let batch = stager.finish(&queue).unwrap();
    let inside = region.address() as u64..(region.address() + region.bytes()) as u64;
    let mut probe = AddressProbe::new(&accelerator, 8).unwrap();
    assert!(
        probe
            .addresses(&queue, batch)
            .unwrap()
            .iter()
            .all(|address| !inside.contains(address))
    );
    assert_eq!(sums(&accelerator, &queue, batch), expected(&values));
    assert_eq!(stager.copies(), 5);
}

#[test]
fn decoded_frames_lie_where_they_were_written() {
    for (memory, copies) in [(MemoryMode::ZeroCopy, 0), (MemoryMode::Copy, 4)] {
        let (accelerator, queue) = testing::with_memory(memory);
        let (region, offsets, values) = ring(4);
        let mut stager = Stager::new(&accelerator, region, FRAME_BYTES, 4, true).unwrap();
        for _ in 0..2 {
            stager.begin().unwrap();
            let mut written = Vec::new();
            for (number, frame) in values.iter().enumerate() {
                // Every other frame comes compressed.
                if number % 2 == 1 {
                    stager.add_in_region(offsets[number]).unwrap();
                    continue;
                }
                let add = stager.add_decoded(|slot| {
                    slot.copy_from_slice(&testing::bytes(PixelType::U16, frame));
                    written.push((number, slot.as_ptr() as u64));
                    Ok::<(), Infallible>(())
                });
                add.unwrap();
            }
            let batch = stager.finish(&queue).unwrap();
            assert_eq!(sums(&accelerator, &queue, batch), expected(&values), "{memory:?}");
            let mut probe = AddressProbe::new(&accelerator, 4).unwrap();
            let read = probe.addresses(&queue, batch).unwrap();
            let same = written.iter().all(|(number, address)| read[*number] == *address);
            assert_eq!(same, memory == MemoryMode::ZeroCopy);
        }
        assert_eq!(stager.copies(), 2 * copies, "{memory:?}");
    }
}

#[test]
fn a_frame_that_does_not_decode_is_not_added() {
    let (accelerator, _) = testing::cpu();
    let (region, ..) = ring(1);
    let mut stager = Stager::new(&accelerator, region, FRAME_BYTES, 2, true).unwrap();
    stager.begin().unwrap();
    let error = stager
        .add_decoded(|_| Err(std::io::Error::other("short block 3")))
        .unwrap_err();
    assert!(matches!(&error, AddError::Fill(_)));
    assert_eq!(error.to_string(), "short block 3");
    assert_eq!(stager.batch().frames(), 0);
}

#[test]
fn a_ring_larger_than_the_largest_buffer_is_seen_through_windows() {
    let (accelerator, queue) = testing::with_memory(MemoryMode::ZeroCopy);
    // Seven frames end with the third window, eight begin a fourth.
    for (frames, windows) in [(7, 3), (8, 4)] {
        let (region, offsets, values) = ring(frames);
        let limit = 3 * FRAME_BYTES.next_multiple_of(PAGE_BYTES);
        let mut stager = Stager::with_limit(&accelerator, region.clone(), FRAME_BYTES, 8, false, limit).unwrap();
        assert_eq!(stager.ring_windows, windows);
        stager.begin().unwrap();
        offsets.iter().for_each(|offset| stager.add_in_region(*offset).unwrap());
        let batch = stager.finish(&queue).unwrap();
        assert_eq!(sums(&accelerator, &queue, batch), expected(&values));
        let slots: Vec<u64> = offsets
            .iter()
            .map(|offset| (region.address() + offset) as u64)
            .collect();
        let mut probe = AddressProbe::new(&accelerator, 8).unwrap();
        assert_eq!(probe.addresses(&queue, batch).unwrap(), slots);
    }
}

#[test]
fn the_ring_outlives_every_command_and_no_longer() {
    let (accelerator, queue) = testing::cpu();
    let (region, offsets, _) = ring(2);
    let watch = Arc::downgrade(&region);
    let mut stager = Stager::new(&accelerator, region, FRAME_BYTES, 2, false).unwrap();
    stager.begin().unwrap();
    stager.add_in_region(offsets[0]).unwrap();
    stager.finish(&queue).unwrap();
    assert!(watch.upgrade().is_some());
    drop(stager);
    queue.finish().unwrap();
    assert!(watch.upgrade().is_none(), "the ring is still held");
}

#[test]
fn wrong_frames_are_refused_by_name() {
    let (accelerator, _) = testing::cpu();
    let (region, offsets, _) = ring(2);
    let bytes = region.bytes();
    let mut stager = Stager::new(&accelerator, region.clone(), FRAME_BYTES, 1, false).unwrap();
    stager.begin().unwrap();
    let error = stager.add_in_region(bytes - 4096).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "70000 values from {} on are outside the frame ring of {bytes}",
            bytes - 4096
        )
    );
    let error = stager.add_in_region(100).unwrap_err().to_string();
    assert_eq!(error, "the frame at byte 100 of the ring is not aligned to 64 bytes");
    stager.add_in_region(offsets[0]).unwrap();
    let error = stager.add_in_region(offsets[1]).unwrap_err().to_string();
    assert_eq!(error, "the batch holds 1 frames already, its limit");
    let unprepared = Stager::new(&accelerator, region, FRAME_BYTES, 1, false)
        .unwrap()
        .add_decoded(|_| Ok::<_, Infallible>(()));
    assert!(unprepared.unwrap_err().to_string().contains("decoded = false"));
}
