//! The monotonic clock that stamps arrivals and results.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds of the monotonic clock since this process first asked, plus one second, so that 0 is never a time.
pub fn monotonic_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    const ONE_SECOND_NS: u64 = 1_000_000_000;
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64 + ONE_SECOND_NS
}
