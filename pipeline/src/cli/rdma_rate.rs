//! `fluxline rdma-rate`: receives by RDMA and does nothing with the frames. What the source alone costs, beside
//! `ib_write_bw`.

use super::Failure;
use clap::Args;
use driver::clock::monotonic_ns;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::rdma::{Counters, Polling, RdmaConfig, RdmaSource};
use driver::source::{Arrival, FrameSource, WhenFull};
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// `fluxline rdma-rate`
#[derive(Args)]
pub(crate) struct RdmaRateArgs {
    /// address and port to listen on; `fluxline emulate --rdma` is the sender
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: String,
    /// frames that may be in memory at once
    #[arg(long, default_value_t = 16)]
    slots: usize,
    /// sleep until the device has something, instead of asking it all the time
    #[arg(long)]
    event: bool,
    /// file with the token that the sender must know; without it any sender is taken
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// print the figures as JSON
    #[arg(long)]
    json: bool,
}

fn work(error: impl std::fmt::Display) -> Failure {
    Failure::Work(error.to_string())
}

/// Seconds of processor that this process has used.
fn processor_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 are ticks of 10 ms in user and kernel mode; the program's name before has no blank.
    let ticks = line
        .split(' ')
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

pub(crate) fn rdma_rate(args: &RdmaRateArgs) -> Result<(), Failure> {
    if !(4..=1024).contains(&args.slots) {
        return Err(Failure::Usage(format!("--slots {}: allowed is 4 to 1024", args.slots)));
    }
    let config = RdmaConfig {
        listen: args.listen.clone(),
        open_to_network: args.token_file.is_none(),
        token_file: args.token_file.clone(),
        polling: if args.event { Polling::Event } else { Polling::Busy },
        ..RdmaConfig::default()
    };
    let mut source = RdmaSource::new(&config, Arc::new(Counters::default())).map_err(work)?;
    source.arm(1).map_err(work)?;
    let payload_bytes = source.stream().payload_bytes_max;
    let pages = HugePages::reserve(&PagesConfig {
        bytes: FrameRing::bytes_needed(args.slots, payload_bytes),
        page_size: PageSize::Huge2MiB,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    })
    .map_err(work)?;
    let ring = FrameRing::new(pages, args.slots, payload_bytes).map_err(work)?;
    source.prepare(&ring).map_err(work)?;
    let (mut frames, mut bytes, mut begin, mut end) = (0u64, 0u64, None, Instant::now());
    let mut processor = 0.0;
    // 1 us to 100 s with three digits.
    let mut latency = Histogram::<u64>::new_with_bounds(1, 100_000_000, 3).map_err(work)?;
    loop {
        match source.next(&ring, WhenFull::Wait).map_err(work)? {
            Arrival::Frame(lease) => {
                // The first frame starts the clocks, so it is not counted.
                if begin.is_none() {
                    begin = Some(Instant::now());
                    processor = processor_seconds();
                } else {
                    frames += 1;
                    bytes += lease.payload().len() as u64;
                }
                end = Instant::now();
                // On one machine: the simulator's stamp, after which a frame is only posted, to the lease in hand.
                let stamp_ns = lease.header().detector_time_ns.get();
                latency.saturating_record(monotonic_ns().saturating_sub(stamp_ns) / 1000);
            }
            Arrival::End => break,
            Arrival::Idle | Arrival::Dropped { .. } => {}
        }
    }
    let seconds = begin.map_or(0.0, |begin| (end - begin).as_secs_f64()).max(1e-9);
    let per_gb = (processor_seconds() - processor) / (bytes as f64 / 1e9).max(1e-9);
    let mib_per_s = bytes as f64 / seconds / 1_048_576.0;
    let (p50, p99) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
    if args.json {
        let figures = serde_json::json!({ "frames": frames, "seconds": seconds, "mib_per_s": mib_per_s,
            "processor_s_per_gb": per_gb, "latency_us": { "p50": p50, "p99": p99 } });
        println!("{figures}");
    } else {
        println!(
            "{mib_per_s:.2} MB/s (2^20) of {frames} frames in {seconds:.2} s, {per_gb:.2} processor seconds per GB, \
             latency {p50} us median, {p99} us 99 %"
        );
    }
    Ok(())
}
