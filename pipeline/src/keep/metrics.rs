//! What the keeper shows to Prometheus.

use super::life::State;
use super::retention::Level;
use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The keeper's metrics.
#[derive(Clone)]
pub struct KeepMetrics {
    /// runs by state
    pub runs: IntGaugeVec,
    /// bytes of runs by state
    pub bytes: GaugeVec,
    /// share of the store that is taken, 0 to 1
    pub fill: Gauge,
    /// 1 for the level of the fill
    pub level: IntGaugeVec,
    /// hours until no run is armed
    pub hours_left: Gauge,
    /// bytes per second that runs added
    pub rate: Gauge,
    /// seconds since the oldest run was closed that is not verified
    pub oldest_unverified: Gauge,
    /// runs whose files are not what they should be
    pub damaged: IntGauge,
    /// interrupted runs that cannot be closed
    pub unclosed: IntGauge,
    /// bytes sent
    pub pushed_bytes: IntCounter,
    /// pushes by outcome
    pub pushes: IntCounterVec,
    /// seconds until the central store is tried again
    pub push_wait: Gauge,
    /// seconds since the central store first did not answer
    pub push_away: Gauge,
    /// files looked over by what was found
    pub scrubbed: IntCounterVec,
    /// runs deleted
    pub deleted: IntCounter,
    /// tries to show a closed run in the export, by outcome
    pub exported: IntCounterVec,
    /// tries to tell the facility, by outcome
    pub announced: IntCounterVec,
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> prometheus::Result<C> {
    let collector = made?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, name: &str, help: &str, values: &[&str]) -> prometheus::Result<IntCounterVec> {
    let counters = add(registry, IntCounterVec::new(Opts::new(name, help), &["outcome"]))?;
    for value in values {
        counters.get_metric_with_label_values(&[value])?;
    }
    Ok(counters)
}

impl KeepMetrics {
    /// All at zero, in `registry`.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| add(registry, Gauge::new(name, help));
        let metrics = Self {
            runs: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("fluxline_store_runs", "Runs of the store by state"),
                    &["state"],
                ),
            )?,
            bytes: add(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "fluxline_store_run_bytes",
                        "Bytes of the files of runs by state; deleted ones are at the central store only",
                    ),
                    &["state"],
                ),
            )?,
            fill: gauge(
                "fluxline_store_fill_ratio",
                "Share of the store's room that runs take, 0 to 1",
            )?,
            level: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "fluxline_store_level_info",
                        "1 for what the fill means: normal, filling (safe runs are deleted), urgent, refusing (no run is armed)",
                    ),
                    &["level"],
                ),
            )?,
            hours_left: gauge(
                "fluxline_store_left_hours",
                "Hours until no run is armed at the rate of the last hour or day, if nothing is deleted; infinite where nothing is recorded",
            )?,
            rate: gauge(
                "fluxline_store_fill_bytes_per_second",
                "Bytes per second that runs added over the last hour or day",
            )?,
            oldest_unverified: gauge(
                "fluxline_store_oldest_unverified_seconds",
                "Time since the oldest run that has no verified copy was closed; 0 where all have one",
            )?,
            damaged: add(
                registry,
                IntGauge::new(
                    "fluxline_store_damaged_runs",
                    "Runs with files that are not what was written and could not be repaired",
                ),
            )?,
            unclosed: add(
                registry,
                IntGauge::new(
                    "fluxline_store_unclosed_runs",
                    "Interrupted runs that cannot be closed; each is tried again after a wait",
                ),
            )?,
            pushed_bytes: add(
                registry,
                IntCounter::new("fluxline_push_bytes_total", "Bytes sent to the central store"),
            )?,
            pushes: counters(
                registry,
                "fluxline_push_total",
                "Tries to push a run; differs: the copy was not what was sent, damaged: a file here was not what was written",
                &["verified", "away", "differs", "damaged", "local"],
            )?,
            push_wait: gauge(
                "fluxline_push_wait_seconds",
                "Time until the central store is tried again; 0 where it answers",
            )?,
            push_away: gauge(
                "fluxline_push_away_seconds",
                "Time since the central store first did not answer, however often it was tried since; 0 while it does",
            )?,
            scrubbed: counters(
                registry,
                "fluxline_scrub_files_total",
                "Files read and compared with their hashes",
                &["good", "repaired", "damaged"],
            )?,
            deleted: add(
                registry,
                IntCounter::new("fluxline_store_deleted_runs_total", "Runs whose data were deleted here"),
            )?,
            exported: counters(
                registry,
                "fluxline_export_total",
                "Tries to give a closed run its owner and to show it in the export",
                &["done", "failed"],
            )?,
            announced: counters(
                registry,
                "fluxline_announce_total",
                "Tries to tell the facility's catalogues of a run",
                &["done", "failed"],
            )?,
        };
        for state in State::ALL {
            metrics.runs.get_metric_with_label_values(&[state.name()])?;
            metrics.bytes.get_metric_with_label_values(&[state.name()])?;
        }
        for level in Level::NAMES {
            metrics.level.get_metric_with_label_values(&[level])?;
        }
        metrics.hours_left.set(f64::INFINITY);
        Ok(metrics)
    }
}
