//! Frames as packets of a JUNGFRAU or EIGER.

use super::{EmulateArgs, Failure, work};
use clap::{Args, ValueEnum};
use driver::udp::{Detector, Emulator, EmulatorConfig, Layout, UdpConfig};
use std::time::Duration;

/// Options of `--udp`
#[derive(Args)]
#[command(next_help_heading = "With --udp")]
pub(super) struct PacketArgs {
    /// which detector
    #[arg(long, value_enum, default_value_t = DetectorName::Jungfrau)]
    detector: DetectorName,
    /// rows and columns of modules
    #[arg(long, value_name = "ROWSxCOLUMNS", default_value = "1x1", value_parser = pair)]
    modules: [usize; 2],
    /// pixels between modules
    #[arg(long, value_name = "ROWSxCOLUMNS", default_value = "0x0", value_parser = pair)]
    gap: [usize; 2],
    /// interfaces of a JUNGFRAU module
    #[arg(long, default_value_t = 1)]
    interfaces: usize,
    /// bits of an EIGER pixel: 8, 16 or 32
    #[arg(long, default_value_t = 16)]
    bits: usize,
    /// bytes of pixels in an EIGER packet: 4096 or 1024
    #[arg(long, default_value_t = 4096)]
    packet_bytes: usize,
    /// the lower half of every module comes with its lowest row first
    #[arg(long)]
    flip_lower: bool,
    /// number of the first frame
    #[arg(long, default_value_t = 1)]
    first_frame: u64,
    /// most packets that overtake one
    #[arg(long, default_value_t = 64)]
    reorder_depth: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DetectorName {
    Jungfrau,
    Eiger,
}

/// Two numbers with an `x` between them.
fn pair(text: &str) -> Result<[usize; 2], String> {
    let wrong = || format!("{text}: two numbers, for example 2x4");
    let (rows, columns) = text.split_once('x').ok_or_else(wrong)?;
    Ok([
        rows.parse().map_err(|_| wrong())?,
        columns.parse().map_err(|_| wrong())?,
    ])
}

/// What a simulation must be to be sent, where nobody said otherwise.
fn fit(options: &mut toml::Table, layout: &Layout) {
    let mut default = |key: &str, value: toml::Value| {
        options.entry(key).or_insert(value);
    };
    default("detector", "custom".into());
    default("rows", (layout.shape.rows as i64).into());
    default("columns", (layout.shape.columns as i64).into());
    default("pixel_type", layout.pixel_type.numpy_name().replace("uint", "u").into());
    default("distinct", 4.into());
}

pub(super) fn emulate(args: &EmulateArgs, addresses: &str) -> Result<(), Failure> {
    let (options, faults) = (&args.packets, &args.stream);
    if !(0.0..=86_400.0).contains(&faults.pause) {
        return Err(Failure::Usage(format!(
            "--pause {}: allowed is 0 to 86400",
            faults.pause
        )));
    }
    let detector = UdpConfig {
        detector: match options.detector {
            DetectorName::Jungfrau => Detector::Jungfrau,
            DetectorName::Eiger => Detector::Eiger,
        },
        addresses: addresses.split(',').map(|one| one.trim().to_string()).collect(),
        modules: options.modules,
        gap: options.gap,
        interfaces: options.interfaces,
        bits: options.bits,
        packet_bytes: options.packet_bytes,
        flip_lower: options.flip_lower,
        first_frame: options.first_frame,
        ..UdpConfig::default()
    };
    let layout = Layout::new(&detector).map_err(work)?;
    let (mut source, _) = super::source_that(args, |options| fit(options, &layout))?;
    let ring = super::ring(args, source.as_ref())?;
    let mut emulator = Emulator::new(EmulatorConfig {
        detector,
        series: faults.series,
        pause: Duration::from_secs_f64(faults.pause),
        // A detector sends all the time, not in bursts.
        spread: Duration::from_secs_f64(args.rate.filter(|rate| *rate >= 0.1).map_or(0.0, |rate| 0.8 / rate)),
        lose: faults.lose,
        duplicate: faults.duplicate,
        reorder: faults.reorder,
        reorder_depth: options.reorder_depth,
        corrupt: faults.corrupt,
        late_start: faults.late_start,
        abort_after: faults.abort_after,
        stray: faults.stray,
        seed: faults.seed,
    })
    .map_err(work)?;
    eprintln!("fluxline: packets of {} to {addresses}", source.stream().origin);
    let bar = super::super::progress::bar(args.json);
    bar.set_length(source.stream().frames_expected * faults.series);
    let sent = emulator.send(source.as_mut(), &ring, |frames| {
        bar.set_position(frames);
        true
    });
    bar.finish_and_clear();
    let report = sent.map_err(work)?;
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!(
            "sent      {} series  {} frames  {} packets  {} stray\n\
             faults    {} lost  {} twice  {} overtaken  {} cut short  {} forged\n\
             rate      {:.1} frames/s  {:.1} MB/s",
            report.series,
            report.frames,
            report.packets,
            report.stray,
            report.lost,
            report.duplicated,
            report.reordered,
            report.truncated,
            report.forged,
            report.frames as f64 / report.seconds.max(1e-9),
            report.bytes as f64 / report.seconds.max(1e-9) / 1e6,
        );
    }
    Ok(())
}
