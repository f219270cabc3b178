//! Receives by RDMA and does nothing with the frames: what the source alone costs, beside `ib_write_bw`.
//!
//! `rdma_rate ADDRESS:PORT SLOTS [event]`, with `fluxline emulate --rdma ADDRESS:PORT` as the sender. On one machine the
//! latency is from the simulator's stamp, after which the frame is only posted, to the lease in hand: with a slow sender
//! and small frames that is announce to lease, with large ones the transfer is in it.

use driver::clock::monotonic_ns;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::rdma::{Counters, Polling, RdmaConfig, RdmaSource};
use driver::source::{Arrival, FrameSource, WhenFull};
use std::sync::Arc;
use std::time::Instant;

fn processor_seconds() -> f64 {
    // Fields 14 and 15 of the process's line are its ticks in user and kernel mode; the name before has no blank here.
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: f64 = line
        .split(' ')
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let slots: usize = arguments.get(2).map_or(Ok(16), |text| text.parse())?;
    let event = arguments.iter().any(|argument| argument == "event");
    let config = RdmaConfig {
        listen: arguments.get(1).cloned().unwrap_or_default(),
        open_to_network: true,
        polling: if event { Polling::Event } else { Polling::Busy },
        ..RdmaConfig::default()
    };
    let counters = Arc::new(Counters::default());
    let mut source = RdmaSource::new(&config, counters.clone())?;
    source.arm(1)?;
    let payload_bytes = source.stream().payload_bytes_max;
    let pages = HugePages::reserve(&PagesConfig {
        bytes: FrameRing::bytes_needed(slots, payload_bytes),
        page_size: PageSize::Huge2MiB,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    })?;
    let ring = FrameRing::new(pages, slots, payload_bytes)?;
    source.prepare(&ring)?;
    let (mut frames, mut bytes, mut begin, mut end) = (0u64, 0u64, None, Instant::now());
    let mut processor = 0.0;
    let mut latencies_us: Vec<u64> = Vec::new();
    loop {
        match source.next(&ring, WhenFull::Wait)? {
            Arrival::Frame(lease) => {
                if begin.is_none() {
                    begin = Some(Instant::now());
                    processor = processor_seconds();
                } else {
                    frames += 1;
                    bytes += lease.payload().len() as u64;
                }
                end = Instant::now();
                let stamp_ns = lease.header().detector_time_ns.get();
                latencies_us.push(monotonic_ns().saturating_sub(stamp_ns) / 1000);
            }
            Arrival::End => break,
            Arrival::Idle | Arrival::Dropped { .. } => {}
        }
    }
    let seconds = begin.map_or(0.0, |begin| (end - begin).as_secs_f64());
    let per_gb = (processor_seconds() - processor) / (bytes as f64 / 1e9);
    latencies_us.sort_unstable();
    let quantile = |percent: usize| latencies_us.get(latencies_us.len() * percent / 100).copied().unwrap_or(0);
    println!(
        "{:.2} MB/s (2^20) of {frames} frames in {seconds:.2} s, {per_gb:.2} processor seconds per GB, latency {} us \
         median, {} us 99 %",
        bytes as f64 / seconds / 1_048_576.0,
        quantile(50),
        quantile(99)
    );
    Ok(())
}
