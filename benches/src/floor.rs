//! The memory floor: frames read once by every core, and nothing done with them.

use super::{Measurement, Result};
use std::hint::black_box;
use std::num::NonZero;
use std::time::Instant;

/// Frames that are read, together larger than a processor's caches.
const BYTES: usize = 256 << 20;

/// Many sums side by side, so that the memory's rate is the limit and not one addition after the other.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for block in words.chunks_exact(32) {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let rest = words.chunks_exact(32).remainder();
    sums.iter().chain(rest).fold(0, |all, one| all.wrapping_add(*one))
}

/// What this thread has had of a processor, seconds.
fn spent() -> Result<f64> {
    // The kernel adds up what a thread has had when another one's turn comes.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(first.parse::<f64>()? * 1e-9)
}

/// Per frame of so many bytes; with `cpu` the processor time of all threads.
pub(crate) fn read(frame_bytes: usize, cpu: bool) -> Result<Measurement> {
    let frames = BYTES.div_ceil(frame_bytes);
    let words: Vec<u64> = (0..(frames * frame_bytes / 8) as u64).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = words.len().div_ceil(threads);
    let read = |part: &[u64]| -> std::result::Result<f64, String> {
        let before = spent().map_err(|error| error.to_string())?;
        black_box(sum(part));
        Ok(spent().map_err(|error| error.to_string())? - before)
    };
    Ok(Box::new(move || {
        let started = Instant::now();
        let all: f64 = std::thread::scope(|scope| -> Result<f64> {
            let threads: Vec<_> = words.chunks(part).map(|part| scope.spawn(move || read(part))).collect();
            let mut all = 0.0;
            for thread in threads {
                all += thread.join().map_err(|_| "a reader panicked")??;
            }
            Ok(all)
        })?;
        let seconds = if cpu { all } else { started.elapsed().as_secs_f64() };
        Ok(seconds / frames as f64)
    }))
}
