//! Frames by RDMA.

use super::{EmulateArgs, Failure, source, work};
use clap::{Args, ValueEnum};
use driver::rdma::{Fault, FreeSender, RdmaSender, SenderConfig, Service};
use driver::source::{SourceError, WhenFull};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Options of `--rdma`
#[derive(Args)]
#[command(next_help_heading = "With --rdma")]
pub(super) struct RdmaArgs {
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
    /// do something that a sender must not do, for tests
    #[arg(long, value_enum, default_value_t = FaultName::None)]
    fault: FaultName,
    /// after how many frames the fault comes
    #[arg(long, default_value_t = 100)]
    fault_after: u64,
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

pub(super) fn emulate(args: &EmulateArgs, address: &str) -> Result<(), Failure> {
    let address = resolved(address)?;
    let options = &args.by_rdma;
    super::within("queue-pairs", usize::from(options.queue_pairs), 16)?;
    let (mut source, checksums) = source(args)?;
    let ring = super::ring(args, source.as_ref())?;
    let token = match &options.token_file {
        Some(path) => Some(driver::rdma::read_token(path).map_err(work)?),
        None => None,
    };
    let config = SenderConfig {
        address,
        token,
        queue_pairs: options.queue_pairs,
        connect_timeout: super::connect_timeout(args),
        when_full: if args.drop { WhenFull::Drop } else { WhenFull::Wait },
        checksums,
        fault: options.fault.fault(options.fault_after),
    };
    let expected = source.stream().frames_expected;
    let bar = super::super::progress::bar(args.json);
    bar.set_length(expected);
    let shown = |frames| {
        bar.set_position(frames);
        true
    };
    let device = options.device.as_deref();
    let sent = match options.free {
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

fn resolved(text: &str) -> Result<SocketAddr, Failure> {
    text.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "--rdma {text}: an address and a port, for example 10.0.0.5:18515"
            ))
        })
}
