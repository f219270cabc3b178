//! Frames as the stream of a DECTRIS detector.

use super::{EmulateArgs, Failure, source, work};
use clap::{Args, ValueEnum};
use driver::dectris::{Emulator, EmulatorConfig, Version};
use driver::faults::{FaultConfig, Faulty};
use driver::source::FrameSource;
use std::time::Duration;

/// Options of `--dectris`
#[derive(Args)]
#[command(next_help_heading = "With --dectris or --udp")]
pub(super) struct StreamArgs {
    /// version of the stream
    #[arg(long, value_enum, default_value_t = StreamVersion::V2)]
    stream: StreamVersion,
    /// series or acquisitions, one after the other
    #[arg(long, default_value_t = 1)]
    pub(super) series: u64,
    /// seconds between two series
    #[arg(long, default_value_t = 0.0)]
    pub(super) pause: f64,
    /// images that are sent before the start of their series; with --udp first frames that are not sent
    #[arg(long, default_value_t = 0)]
    pub(super) late_start: u64,
    /// images after which every series is aborted, without an end
    #[arg(long)]
    pub(super) abort_after: Option<u64>,
    /// leave out the message that ends a series
    #[arg(long)]
    no_end: bool,
    /// images, or packets, of the series before that are sent in the midst of each
    #[arg(long, default_value_t = 0)]
    pub(super) stray: u64,
    /// share of images, or packets, that vanish
    #[arg(long, default_value_t = 0.0)]
    pub(super) lose: f64,
    /// share of images, or packets, that are sent twice
    #[arg(long, default_value_t = 0.0)]
    pub(super) duplicate: f64,
    /// share of images, or packets, that are overtaken by others
    #[arg(long, default_value_t = 0.0)]
    pub(super) reorder: f64,
    /// share of images, or packets, that are cut short or forged
    #[arg(long, default_value_t = 0.0)]
    pub(super) corrupt: f64,
    /// seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

/// Versions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StreamVersion {
    V2,
    V1,
}

pub(super) fn emulate(args: &EmulateArgs, address: &str) -> Result<(), Failure> {
    let options = &args.stream;
    if !(0.0..=86_400.0).contains(&options.pause) {
        return Err(Failure::Usage(format!(
            "--pause {}: allowed is 0 to 86400",
            options.pause
        )));
    }
    let (source, _) = source(args)?;
    let faults = FaultConfig {
        seed: options.seed,
        drop: options.lose,
        duplicate: options.duplicate,
        reorder: options.reorder,
        ..FaultConfig::default()
    };
    let mut source = Faulty::new(source, faults).map_err(work)?;
    let ring = super::ring(args, &source)?;
    let mut emulator = Emulator::bind(EmulatorConfig {
        address: address.into(),
        version: match options.stream {
            StreamVersion::V2 => Version::V2,
            StreamVersion::V1 => Version::V1,
        },
        series: options.series,
        pause: Duration::from_secs_f64(options.pause),
        timeout: super::connect_timeout(args),
        drop: args.drop,
        late_start: options.late_start,
        abort_after: options.abort_after,
        no_end: options.no_end,
        stray: options.stray,
        corrupt: options.corrupt,
        seed: options.seed,
    })
    .map_err(work)?;
    eprintln!(
        "fluxline: a stream of {} at {}",
        source.stream().origin,
        emulator.address()
    );
    let bar = super::super::progress::bar(args.json);
    bar.set_length(source.stream().frames_expected * options.series);
    let sent = emulator.send(&mut source, &ring, |images| {
        bar.set_position(images);
        true
    });
    bar.finish_and_clear();
    let report = sent.map_err(work)?;
    let injected = source.injected();
    if args.json {
        let mut json = serde_json::json!(report);
        json["lost"] = injected.dropped.into();
        json["duplicated"] = injected.duplicated.into();
        json["reordered"] = injected.reordered.into();
        println!("{json}");
    } else {
        println!(
            "series    {}  images {}  dropped {}  stray {}\n\
             faults    {} lost  {} twice  {} overtaken  {} cut short  {} forged\n\
             rate      {:.1} images/s  {:.1} MB/s",
            report.series,
            report.images,
            report.dropped,
            report.stray,
            injected.dropped,
            injected.duplicated,
            injected.reordered,
            report.truncated,
            report.forged,
            report.images as f64 / report.seconds.max(1e-9),
            report.bytes as f64 / report.seconds.max(1e-9) / 1e6,
        );
    }
    Ok(())
}
