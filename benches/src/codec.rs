//! Bitshuffle-LZ4 of a file's bytes, on one core.

use super::{Measurement, Result};
use frame::codec::{Scratch, compress, compress_bound, decompress_with};
use std::hint::black_box;
use std::time::Instant;

pub(crate) fn prepare(compressing: bool, path: &str, pixel_bytes: usize) -> Result<Measurement> {
    let raw = std::fs::read(path)?;
    let mut scratch = Scratch::default();
    let mut chunk = vec![0; compress_bound(raw.len(), pixel_bytes)];
    let used = compress(&raw, pixel_bytes, &mut chunk, &mut scratch)?;
    if compressing {
        return Ok(Box::new(move || {
            let started = Instant::now();
            compress(black_box(&raw), pixel_bytes, &mut chunk, &mut scratch)?;
            Ok(started.elapsed().as_secs_f64())
        }));
    }
    chunk.truncate(used);
    let mut out = vec![0; raw.len()];
    Ok(Box::new(move || {
        let started = Instant::now();
        decompress_with(black_box(&chunk), pixel_bytes, &mut out, &mut scratch)?;
        Ok(started.elapsed().as_secs_f64())
    }))
}
