//! Shared by this crate's tests: devices, pixels of every type, staged frames.

use crate::{Accelerator, AcceleratorConfig, HostPages, MemoryMode, Queue, Stager};
use frame::{HostRegion, PixelType};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// The CPU's device and a queue on it.
pub(crate) fn cpu() -> (Accelerator, Queue) {
    with_memory(MemoryMode::Auto)
}

/// The CPU's device in a memory mode.
pub(crate) fn with_memory(memory: MemoryMode) -> (Accelerator, Queue) {
    let config = AcceleratorConfig {
        device: "cpu".into(),
        memory,
        ..Default::default()
    };
    let accelerator = Accelerator::open(&config).unwrap();
    let queue = accelerator.queue().unwrap();
    (accelerator, queue)
}

/// A seeded generator.
pub(crate) fn random(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// Pixels as bytes of their type, little-endian; each value must be one that the type can hold.
pub(crate) fn bytes(pixel_type: PixelType, values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * pixel_type.bytes());
    for value in values {
        match pixel_type {
            PixelType::U8 => bytes.push(*value as u8),
            PixelType::U16 => bytes.extend((*value as u16).to_le_bytes()),
            PixelType::U32 => bytes.extend((*value as u32).to_le_bytes()),
            PixelType::I16 => bytes.extend((*value as i16).to_le_bytes()),
            PixelType::I32 => bytes.extend((*value as i32).to_le_bytes()),
            PixelType::F32 => bytes.extend((*value as f32).to_le_bytes()),
        }
    }
    bytes
}

/// A random frame with everything that its type can hold: zeros, small counts, the ends of its range, for signed
/// types negatives, for `f32` fractions and what is not a number.
pub(crate) fn frame(pixel_type: PixelType, pixels: usize, seed: u64) -> Vec<f64> {
    let mut random = random(seed ^ 0x5eed);
    let smallest = match pixel_type {
        PixelType::I16 => f64::from(i16::MIN),
        PixelType::I32 => f64::from(i32::MIN),
        PixelType::F32 => f64::NEG_INFINITY,
        _ => 0.0,
    };
    let signed = smallest < 0.0;
    let pixel = |_| match random.random_range(0..100) {
        0 => pixel_type.max_value(),
        1 => smallest,
        2 => pixel_type.max_value().min(3e9) - 1.0,
        3 if pixel_type == PixelType::F32 => f64::NAN,
        4..=30 => 0.0,
        31..=40 if signed => -f64::from(random.random_range(0..50)),
        _ if pixel_type == PixelType::F32 => f64::from(random.random_range(0.0f32..80.0)),
        _ => f64::from(random.random_range(0..100)),
    };
    let held = |value: f64| {
        if pixel_type == PixelType::F32 {
            f64::from(value as f32)
        } else {
            value
        }
    };
    (0..pixels).map(pixel).map(held).collect()
}

/// Host pages that hold `frames` one after the other, each at a page, and where each starts.
pub(crate) fn pages(pixel_type: PixelType, frames: &[Vec<f64>]) -> (Arc<dyn HostRegion>, Vec<usize>) {
    let encoded: Vec<Vec<u8>> = frames.iter().map(|frame| bytes(pixel_type, frame)).collect();
    let slot = encoded[0].len().next_multiple_of(4096);
    let pages = HostPages::new(slot * frames.len()).unwrap();
    for (number, frame) in encoded.iter().enumerate() {
        pages.fill(number * slot, frame).unwrap();
    }
    (Arc::new(pages), (0..frames.len()).map(|number| number * slot).collect())
}

/// A stager whose batch holds `frames`, not yet finished.
pub(crate) fn staged(accelerator: &Accelerator, pixel_type: PixelType, frames: &[Vec<f64>]) -> Stager {
    let (region, offsets) = pages(pixel_type, frames);
    let frame_bytes = frames[0].len() * pixel_type.bytes();
    let mut stager = Stager::new(accelerator, region, frame_bytes, frames.len(), false).unwrap();
    stager.begin().unwrap();
    for offset in offsets {
        stager.add_in_region(offset).unwrap();
    }
    stager
}
