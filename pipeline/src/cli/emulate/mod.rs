//! `fluxline emulate`: a detector, from a file or from a simulation.

mod dectris;
mod rdma;
mod udp;

use super::Failure;
use crate::config::ConfigError;
use clap::Args;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::replay::{Replay, ReplayConfig};
use driver::simulate::{Simulate, SimulateConfig};
use driver::source::{FrameSource, SourceError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `fluxline emulate`
#[derive(Args)]
pub(crate) struct EmulateArgs {
    /// send by RDMA to the receiver at this address: its [[source]] has kind = "rdma"
    #[arg(
        long,
        value_name = "HOST:PORT",
        required_unless_present_any = ["dectris", "udp"],
        conflicts_with_all = ["dectris", "udp"]
    )]
    rdma: Option<String>,
    /// send as the stream of a DECTRIS detector from this address, for example tcp://*:31001: the receiver's [[source]] has
    /// kind = "dectris"
    #[arg(long, value_name = "ADDRESS", conflicts_with = "udp")]
    dectris: Option<String>,
    /// send as packets of a JUNGFRAU or EIGER to these addresses: one for everything, or one per port of the detector; the
    /// receiver's [[source]] has kind = "udp"
    #[arg(long, value_name = "HOST:PORT,…")]
    udp: Option<String>,
    #[command(flatten)]
    stream: dectris::StreamArgs,
    #[command(flatten)]
    packets: udp::PacketArgs,
    #[command(flatten)]
    by_rdma: rdma::RdmaArgs,
    /// the file to send, or the first of a numbered series
    #[arg(long)]
    file: Option<PathBuf>,
    /// TOML file with the options of a [[source]] of kind "simulate", or with --file of kind "replay"
    #[arg(long, value_name = "TOML")]
    simulate: Option<PathBuf>,
    /// dataset of an HDF5 file, where it is not in a place that a standard names
    #[arg(long)]
    dataset: Option<String>,
    /// frames per second; 0 is as fast as the receiver takes them
    #[arg(long)]
    rate: Option<f64>,
    /// frames of a simulation
    #[arg(long)]
    frames: Option<u64>,
    /// frames that may be on their way
    #[arg(long, default_value_t = 64)]
    slots: usize,
    /// let frames go that find no slot, as a detector that cannot wait
    #[arg(long)]
    drop: bool,
    /// seconds to wait for a receiver, each time
    #[arg(long, default_value_t = 30.0)]
    connect_timeout: f64,
    /// print the report as JSON
    #[arg(long)]
    json: bool,
}

fn work(error: SourceError) -> Failure {
    match error {
        SourceError::Parameter { .. } => Failure::Usage(error.to_string()),
        other => Failure::Work(other.to_string()),
    }
}

pub(crate) fn emulate(args: &EmulateArgs) -> Result<(), Failure> {
    if !(args.connect_timeout > 0.0 && args.connect_timeout <= 86_400.0) {
        let text = format!("--connect-timeout {}: above 0, up to 86400", args.connect_timeout);
        return Err(Failure::Usage(text));
    }
    within("slots", args.slots, 4096)?;
    match (&args.dectris, &args.rdma, &args.udp) {
        (Some(address), ..) => dectris::emulate(args, address),
        (_, Some(address), _) => rdma::emulate(args, address),
        (.., Some(addresses)) => udp::emulate(args, addresses),
        (None, None, None) => Err(Failure::Usage("name a protocol: --rdma, --dectris or --udp".into())),
    }
}

fn within(name: &str, value: usize, limit: usize) -> Result<(), Failure> {
    if value < 1 || value > limit {
        return Err(Failure::Usage(format!("--{name} {value}: allowed is 1 to {limit}")));
    }
    Ok(())
}

/// Memory for frames on their way.
fn ring(args: &EmulateArgs, source: &dyn FrameSource) -> Result<FrameRing, Failure> {
    let payload_bytes = source.stream().payload_bytes_max.max(1);
    let pages = HugePages::reserve(&PagesConfig {
        bytes: FrameRing::bytes_needed(args.slots, payload_bytes),
        page_size: PageSize::Huge2MiB,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    })
    .map_err(|error| Failure::Work(error.to_string()))?;
    FrameRing::new(pages, args.slots, payload_bytes).map_err(|error| Failure::Work(error.to_string()))
}

fn connect_timeout(args: &EmulateArgs) -> Duration {
    Duration::from_secs_f64(args.connect_timeout)
}

/// The source, and whether it puts checksums into its headers.
fn source(args: &EmulateArgs) -> Result<(Box<dyn FrameSource>, bool), Failure> {
    source_that(args, |_| ())
}

/// The source; `fit` completes the options of a simulation.
fn source_that(
    args: &EmulateArgs,
    fit: impl FnOnce(&mut toml::Table),
) -> Result<(Box<dyn FrameSource>, bool), Failure> {
    let mut options = match &args.simulate {
        Some(path) => options(path)?,
        None => toml::Table::new(),
    };
    options.remove("kind");
    if let Some(rate) = args.rate {
        options.insert("rate_hz".into(), rate.into());
    }
    let wrong = |error: toml::de::Error| Failure::Usage(format!("the options of the source: {error}"));
    if let Some(file) = &args.file {
        if let Some(dataset) = &args.dataset {
            options.insert("dataset".into(), dataset.clone().into());
        }
        let config: ReplayConfig = toml::Value::Table(options).try_into().map_err(wrong)?;
        return Ok((Box::new(Replay::open(file, &config).map_err(work)?), false));
    }
    if let Some(frames) = args.frames {
        options.insert("frames".into(), (frames as i64).into());
    }
    fit(&mut options);
    let config: SimulateConfig = toml::Value::Table(options).try_into().map_err(wrong)?;
    let checksums = config.checksum;
    Ok((Box::new(Simulate::new(config).map_err(work)?), checksums))
}

/// The options of a file: its whole table, or its first `[[source]]`.
fn options(path: &Path) -> Result<toml::Table, Failure> {
    let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::Read {
        path: path.into(),
        reason,
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        message: error.to_string(),
    })?;
    let source = table.get("source").and_then(|sources| sources.get(0));
    Ok(source.and_then(toml::Value::as_table).cloned().unwrap_or(table))
}
