//! `fluxline emulate`: a sender, from a file or from a simulation.

use super::Failure;
use crate::config::ConfigError;
use clap::{Args, ValueEnum};
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::rdma::{Fault, FreeSender, RdmaSender, SenderConfig, Service};
use driver::replay::{Replay, ReplayConfig};
use driver::simulate::{Simulate, SimulateConfig};
use driver::source::{FrameSource, SourceError, WhenFull};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `fluxline emulate`
#[derive(Args)]
pub(crate) struct EmulateArgs {
    /// the receiver: its [[source]] has kind = "rdma"
    #[arg(long, value_name = "HOST:PORT")]
    rdma: String,
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
    /// file with the token that the receiver wants to hear
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// RDMA device; the first unless given
    #[arg(long)]
    device: Option<String>,
    /// run freely, for a receiver in detector mode: "uc" or "rc"
    #[arg(long, value_enum, value_name = "SERVICE")]
    free: Option<ServiceName>,
    /// connections, or streams
    #[arg(long, default_value_t = 1)]
    queue_pairs: u16,
    /// frames that may be on their way
    #[arg(long, default_value_t = 64)]
    slots: usize,
    /// let frames go that find no slot, as a detector that cannot wait
    #[arg(long)]
    drop: bool,
    /// seconds to look for the receiver, each time
    #[arg(long, default_value_t = 30.0)]
    connect_timeout: f64,
    /// do something that a sender must not do, for tests
    #[arg(long, value_enum, default_value_t = FaultName::None)]
    fault: FaultName,
    /// after how many frames the fault comes
    #[arg(long, default_value_t = 100)]
    fault_after: u64,
    /// print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Services by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceName {
    Rc,
    Uc,
}

/// Faults by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FaultName {
    None,
    WrongToken,
    AskTooMuch,
    FrameTooLarge,
    StaleHello,
    StaleEpoch,
    QueuePairError,
    HalfAFrame,
}

impl FaultName {
    fn fault(self, after: u64) -> Fault {
        match self {
            FaultName::None => Fault::None,
            FaultName::WrongToken => Fault::WrongToken,
            FaultName::AskTooMuch => Fault::AskTooMuch,
            FaultName::FrameTooLarge => Fault::FrameTooLarge,
            FaultName::StaleHello => Fault::StaleHello,
            FaultName::StaleEpoch => Fault::StaleEpoch(after),
            FaultName::QueuePairError => Fault::QueuePairError(after),
            FaultName::HalfAFrame => Fault::HalfAFrame(after),
        }
    }
}

fn work(error: SourceError) -> Failure {
    match error {
        SourceError::Parameter { .. } => Failure::Usage(error.to_string()),
        other => Failure::Work(other.to_string()),
    }
}

pub(crate) fn emulate(args: &EmulateArgs) -> Result<(), Failure> {
    let address = address(&args.rdma)?;
    if !(args.connect_timeout > 0.0 && args.connect_timeout <= 86_400.0) {
        let text = format!("--connect-timeout {}: above 0, up to 86400", args.connect_timeout);
        return Err(Failure::Usage(text));
    }
    for (name, value, limit) in [
        ("queue-pairs", usize::from(args.queue_pairs), 16),
        ("slots", args.slots, 4096),
    ] {
        if value < 1 || value > limit {
            return Err(Failure::Usage(format!("--{name} {value}: allowed is 1 to {limit}")));
        }
    }
    let (mut source, checksums) = source(args)?;
    let payload_bytes = source.stream().payload_bytes_max.max(1);
    let pages = HugePages::reserve(&PagesConfig {
        bytes: FrameRing::bytes_needed(args.slots, payload_bytes),
        page_size: PageSize::Huge2MiB,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    })
    .map_err(|error| Failure::Work(error.to_string()))?;
    let ring = FrameRing::new(pages, args.slots, payload_bytes).map_err(|error| Failure::Work(error.to_string()))?;
    let token = match &args.token_file {
        Some(path) => Some(driver::rdma::read_token(path).map_err(work)?),
        None => None,
    };
    let config = SenderConfig {
        address,
        token,
        queue_pairs: args.queue_pairs,
        connect_timeout: Duration::from_secs_f64(args.connect_timeout),
        when_full: if args.drop { WhenFull::Drop } else { WhenFull::Wait },
        checksums,
        fault: args.fault.fault(args.fault_after),
    };
    let expected = source.stream().frames_expected;
    let bar = super::progress::bar(args.json);
    bar.set_length(expected);
    let shown = |frames| {
        bar.set_position(frames);
        true
    };
    let device = args.device.as_deref();
    let sent = match args.free {
        None => RdmaSender::new(config, device, &ring, source.as_ref())
            .and_then(|mut sender| sender.send(source.as_mut(), &ring, shown)),
        Some(name) => {
            let service = match name {
                ServiceName::Rc => Service::Rc,
                ServiceName::Uc => Service::Uc,
            };
            FreeSender::connect(&config, service, device, &ring, source.as_ref())
                .map_err(SourceError::from)
                .and_then(|sender| sender.send(source.as_mut(), &ring, shown))
        }
    };
    bar.finish_and_clear();
    let report = sent.map_err(work)?;
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!(
            "frames    {} taken  {} acknowledged  {} dropped  {} in doubt\n\
             breaks    {} connections\n\
             rate      {:.1} frames/s  {:.1} MB/s",
            report.frames,
            report.acknowledged,
            report.dropped,
            report.in_doubt,
            report.broken,
            report.acknowledged as f64 / report.seconds.max(1e-9),
            report.bytes as f64 / report.seconds.max(1e-9) / 1e6,
        );
    }
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "--rdma {text}: an address and a port, for example 10.0.0.5:18515"
            ))
        })
}

/// The source, and whether it puts checksums into its headers.
fn source(args: &EmulateArgs) -> Result<(Box<dyn FrameSource>, bool), Failure> {
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
