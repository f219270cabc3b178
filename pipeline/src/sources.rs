//! The sources of a configuration, opened.

use crate::appliance::ApplianceError;
use crate::config::{AlignBy, Config, SourceConfig};
use crate::metrics::Metrics;
use driver::assembly::{Align, Assembly, AssemblyConfig, Part};
use driver::dectris::{DectrisSource, Parked};
use driver::faults::Faulty;
use driver::rdma::RdmaSource;
use driver::replay::Replay;
use driver::simulate::Simulate;
use driver::source::FrameSource;
use driver::udp::UdpSource;
use std::sync::Arc;
use std::time::Duration;

/// The source of a configuration, opened: its one source, or its several ones together. The socket of a DECTRIS stream is
/// the one in `parked`.
pub fn open_source(
    config: &Config,
    metrics: &Metrics,
    parked: &[Parked],
) -> Result<Box<dyn FrameSource>, ApplianceError> {
    let open = |index: usize| open_part(config, index, metrics, &parked[index]);
    let Some(section) = &config.assembly else {
        return open(0);
    };
    let parts = config.source.iter().enumerate().map(|(index, entry)| {
        let place = entry.place.as_ref();
        Ok(Part {
            source: open(index)?,
            row: place.map_or(0, |place| place.row),
            column: place.map_or(0, |place| place.column),
            clock_offset_ns: place.and_then(|place| place.clock_offset_ns),
        })
    });
    let parts = parts.collect::<Result<Vec<_>, ApplianceError>>()?;
    let align = match section.align {
        AlignBy::FrameNumber => Align::Number,
        AlignBy::HardwareTime => Align::Time {
            tolerance_ns: (section.tolerance_us * 1e3) as u64,
        },
    };
    let assembly = AssemblyConfig {
        shape: frame::Shape::new(section.rows, section.columns),
        wait: Duration::from_millis(section.wait_ms),
        align,
        part_slots: section.part_slots,
        when_full: config.ring.when_full.into(),
    };
    Ok(Box::new(Assembly::new(parts, assembly)?))
}

/// One source of a configuration, opened. What it counts goes to `metrics`.
fn open_part(
    config: &Config,
    index: usize,
    metrics: &Metrics,
    parked: &Parked,
) -> Result<Box<dyn FrameSource>, ApplianceError> {
    let (source, faults): (Box<dyn FrameSource>, _) = match &config.source[index].source {
        SourceConfig::Simulate(s) => (Box::new(Simulate::new(s.simulate.clone())?), &s.faults),
        SourceConfig::Replay(r) => {
            let path = config.resolve(&r.path);
            crate::storage::decode_bitshuffle(&path)?;
            (Box::new(Replay::open(&path, &r.replay)?), &r.faults)
        }
        SourceConfig::Rdma(r) => {
            let mut options = r.rdma.clone();
            options.token_file = options.token_file.map(|path| config.resolve(&path));
            let source = RdmaSource::new(&options, metrics.rdma.counters().clone())?;
            tracing::info!(target: "fluxline", "{}", source.way());
            (Box::new(source), &r.faults)
        }
        SourceConfig::Dectris(d) => {
            // Of several streams the first one's counts are the process's: they are totals, and cannot be added up.
            let counters = match index {
                0 => metrics.dectris.counters().clone(),
                _ => Arc::default(),
            };
            (Box::new(DectrisSource::new(&d.dectris, counters, parked)?), &d.faults)
        }
        SourceConfig::Udp(u) => {
            let counters = metrics.udp.counters().clone();
            (Box::new(UdpSource::new(&u.udp, counters)?), &u.faults)
        }
    };
    Ok(match faults {
        Some(faults) => Box::new(Faulty::new(source, faults.clone())?),
        None => source,
    })
}
