//! Prometheus metrics. Every name begins with `fluxline_`, units are base units, labels are few and never
//! a run, proposal or user. Counters are of the process, summed over runs.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bounds of the latency histograms, seconds.
const LATENCY_BOUNDS: [f64; 16] = [
    25e-6, 50e-6, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// Name, labels and meaning of a metric, for `docs/metrics.md`.
pub struct Described {
    /// name
    pub name: String,
    /// label names
    pub labels: Vec<String>,
    /// meaning
    pub help: String,
}

/// Every metric of the process. Handles are looked up once; counting is one atomic operation.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// frames by the tracker's verdict: complete, partial, corrupt, lost, duplicate, late, stale, unexpected
    pub frames: IntCounterVec,
    /// frames by analysis outcome: done, shed, failed
    pub analysed: IntCounterVec,
    /// frames by storage outcome: synced, vetoed, failed
    pub stored: IntCounterVec,
    /// payload bytes received
    pub received_bytes: IntCounter,
    /// bytes of frames written to the store
    pub written_bytes: IntCounter,
    /// results that a power cut does not cost any more
    pub results_synced: IntCounter,
    /// slots of the ring: total, used
    pub ring_slots: IntGaugeVec,
    /// 1 for the kind of pages that the ring lies on
    pub ring_pages: IntGaugeVec,
    /// frames waiting by queue: analysis, storage
    pub queue_depth: IntGaugeVec,
    /// arrival to result
    pub result_latency: Histogram,
    /// arrival of the deciding frame to the decision
    pub decision_latency: Histogram,
    /// one micro-batch through its recipe
    pub batch_seconds: Histogram,
    /// one frame through compression and chunk write
    pub write_seconds: Histogram,
    /// one sync of data files and journal
    pub sync_seconds: Histogram,
    /// frames by the level that they have reached: L0 in memory, L1 analysed, L2 synced, L3 verified at the central store
    pub acknowledged: IntCounterVec,
    /// results that the feedback hub was too slow for
    pub results_missed: IntCounter,
    /// results that consumers who wanted all of them lost, being slow
    pub results_lost: IntCounter,
    /// requests and connections that were refused, by reason
    pub http_refused: IntCounterVec,
    /// 1 for the device in use, by name and memory
    pub device_info: GaugeVec,
    /// 1 for the state that the appliance is in
    pub state: IntGaugeVec,
    /// free bytes of the store's file system
    pub store_free_bytes: Gauge,
    /// runs that ended, by state
    pub runs: IntCounterVec,
    /// payload-sized copies between ring and device
    pub device_copies: IntCounter,
    /// what recipes count: spots, hits, misses and the like
    pub recipe: IntCounterVec,
    /// numbers of the recipe of the run in memory that go up and down
    pub recipe_levels: GaugeVec,
    /// how far the last dark or pedestal moved, in sigmas of one frame
    pub calibration_drift: GaugeVec,
    /// what RDMA sources count
    pub rdma: RdmaMetrics,
    /// what DECTRIS sources count
    pub dectris: DectrisMetrics,
    /// what UDP sources count
    pub udp: UdpMetrics,
    /// what happens to closed runs
    pub keep: crate::keep::KeepMetrics,
    /// frames sent on to other programs
    pub emitted: IntCounterVec,
    build: IntGauge,
}

/// What DECTRIS sources count, shown as it is when somebody looks.
#[derive(Clone)]
pub struct DectrisMetrics {
    counters: Arc<driver::dectris::Counters>,
    values: IntGaugeVec,
}

impl DectrisMetrics {
    fn new(m: &Maker) -> prometheus::Result<Self> {
        let counters = Arc::new(driver::dectris::Counters::default());
        let names: Vec<&str> = counters.all().map(|(name, ..)| name).collect();
        Ok(Self {
            values: m.gauges(
                "fluxline_dectris",
                "DECTRIS streams, counted: messages, images received straight into their slots, connections that ended, malformed messages, damaged images, series, stray images, starts and ends of \
                 other series, images before their start, missing ends, series with images missing, superseded series",
                "what",
                &names,
            )?,
            counters,
        })
    }

    /// Where sources count.
    pub fn counters(&self) -> &Arc<driver::dectris::Counters> {
        &self.counters
    }

    /// Every value by name.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let all = self.counters.all();
        all.map(|(name, _, value)| (name.to_string(), value)).collect()
    }

    /// What was counted since, where it is not 0.
    pub fn since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut values = self.values();
        for (name, value) in &mut values {
            *value = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        }
        values.retain(|_, value| *value > 0);
        values
    }

    fn show(&self) {
        for (name, _, value) in self.counters.all() {
            self.values.with_label_values(&[name]).set(value as i64);
        }
    }
}

/// What UDP sources count, shown as it is when somebody looks.
#[derive(Clone)]
pub struct UdpMetrics {
    counters: Arc<driver::udp::Counters>,
    values: IntGaugeVec,
}

impl UdpMetrics {
    fn new(m: &Maker) -> prometheus::Result<Self> {
        let counters = Arc::new(driver::udp::Counters::default());
        let names: Vec<&str> = counters.all().map(|(name, ..)| name).collect();
        Ok(Self {
            values: m.gauges(
                "fluxline_udp",
                "Packets of UDP sources, counted: received, placed, of these moved; missing from frames, duplicate, late, without \
                 room, stray, beyond the run; bad by size, version, detector, part or number; dropped by the kernel",
                "what",
                &names,
            )?,
            counters,
        })
    }

    /// Where sources count.
    pub fn counters(&self) -> &Arc<driver::udp::Counters> {
        &self.counters
    }

    /// Every value by name.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let all = self.counters.all();
        all.map(|(name, _, value)| (name.to_string(), value)).collect()
    }

    /// What was counted since, where it is not 0.
    pub fn since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut values = self.values();
        for (name, value) in &mut values {
            *value = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        }
        values.retain(|_, value| *value > 0);
        values
    }

    fn show(&self) {
        for (name, _, value) in self.counters.all() {
            self.values.with_label_values(&[name]).set(value as i64);
        }
    }
}

/// What RDMA sources count, shown as it is when somebody looks.
#[derive(Clone)]
pub struct RdmaMetrics {
    counters: Arc<driver::rdma::Counters>,
    values: IntGaugeVec,
    refused: IntGaugeVec,
}

impl RdmaMetrics {
    fn new(m: &Maker) -> prometheus::Result<Self> {
        let counters = Arc::new(driver::rdma::Counters::default());
        let names: Vec<&str> = counters.all().map(|(name, ..)| name).collect();
        let reasons: Vec<&str> = counters.refused().map(|(reason, _)| reason.name()).collect();
        Ok(Self {
            values: m.gauges(
                "fluxline_rdma",
                "RDMA sources. connections, granted: now; all others count: epochs (connections made), broken, \
                 announced and stale frames, violations, gaps, overruns, not_ready (an alarm in reliable mode)",
                "what",
                &names,
            )?,
            refused: m.gauges(
                "fluxline_rdma_refused",
                "RDMA senders that were refused, by reason",
                "reason",
                &reasons,
            )?,
            counters,
        })
    }

    /// Where sources count.
    pub fn counters(&self) -> &Arc<driver::rdma::Counters> {
        &self.counters
    }

    /// Every value by name, refusals as `refused_REASON`.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let counted = self.counters.all().map(|(name, _, value)| (name.to_string(), value));
        let refused = self.counters.refused();
        counted
            .chain(refused.map(|(reason, value)| (format!("refused_{}", reason.name()), value)))
            .collect()
    }

    /// What was counted since, where it is not 0.
    pub fn since(&self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut values = self.values();
        for (name, value) in &mut values {
            *value = value.saturating_sub(before.get(name).copied().unwrap_or(0));
        }
        values.retain(|_, value| *value > 0);
        values
    }

    fn show(&self) {
        for (name, _, value) in self.counters.all() {
            self.values.with_label_values(&[name]).set(value as i64);
        }
        for (reason, value) in self.counters.refused() {
            self.refused.with_label_values(&[reason.name()]).set(value as i64);
        }
    }
}

struct Maker {
    registry: Registry,
}

impl Maker {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = made?;
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> prometheus::Result<IntCounterVec> {
        let counters = self.add(IntCounterVec::new(Opts::new(name, help), &[label]))?;
        for value in values {
            counters.get_metric_with_label_values(&[value])?;
        }
        Ok(counters)
    }

    fn gauges(&self, name: &str, help: &str, label: &str, values: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = self.add(IntGaugeVec::new(Opts::new(name, help), &[label]))?;
        for value in values {
            gauges.get_metric_with_label_values(&[value])?;
        }
        Ok(gauges)
    }

    fn latency(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(LATENCY_BOUNDS.into()),
        ))
    }
}

impl Metrics {
    /// Counts the frames that have reached levels L0, L1 and L2 since the last time.
    pub fn acknowledge(&self, reached: [u64; 3], before: [u64; 3]) {
        for ((level, now), before) in ["L0", "L1", "L2"].iter().zip(reached).zip(before) {
            let counter = self.acknowledged.with_label_values(&[level]);
            counter.inc_by(now.saturating_sub(before));
        }
    }

    /// All metrics at zero, in a registry of their own.
    pub fn new() -> prometheus::Result<Self> {
        let m = Maker {
            registry: Registry::new(),
        };
        let frame_states = [
            "expected",
            "complete",
            "partial",
            "corrupt",
            "lost",
            "duplicate",
            "late",
            "stale",
            "unexpected",
        ];
        let metrics = Self {
            frames: m.counters(
                "fluxline_frames_total",
                "Frames by the tracker's verdict; duplicate, late, stale and unexpected count arrivals, not frames",
                "state",
                &frame_states,
            )?,
            analysed: m.counters(
                "fluxline_frames_analysed_total",
                "Received frames by the outcome of analysis",
                "outcome",
                &["done", "shed", "failed"],
            )?,
            stored: m.counters(
                "fluxline_frames_stored_total",
                "Received frames by the outcome of storage",
                "outcome",
                &["synced", "vetoed", "failed"],
            )?,
            recipe: m.counters(
                "fluxline_recipe_total",
                "What recipes count: spots; frames too bright to tell their spots; hits, misses, frames on which neither was decided; misses that were stored all the same; pixels of which nothing can be told, and pixels at their end, of conversions to photons or true counts; words without photons that moved a pedestal",
                "counter",
                &crate::recipes::COUNTERS,
            )?,
            recipe_levels: {
                let levels = m.add(GaugeVec::new(
                    Opts::new(
                        "fluxline_recipe_level",
                        "Numbers of the recipe of the run in memory: how far pedestals of G0 that follow the frames have moved, ADU, on average and furthest; pixels whose pedestal has moved by more than a tenth of a photon",
                    ),
                    &["level"],
                ))?;
                for level in crate::recipes::LEVELS {
                    levels.with_label_values(&[level]).set(0.0);
                }
                levels
            },
            received_bytes: m.add(IntCounter::new(
                "fluxline_received_bytes_total",
                "Payload bytes received",
            ))?,
            written_bytes: m.add(IntCounter::new(
                "fluxline_written_bytes_total",
                "Bytes of frames written to the store",
            ))?,
            results_synced: m.add(IntCounter::new(
                "fluxline_results_synced_total",
                "Results that neither a crash nor a power cut costs any more",
            ))?,
            ring_slots: m.gauges(
                "fluxline_ring_slots",
                "Slots of the frame ring",
                "state",
                &["total", "used"],
            )?,
            ring_pages: m.gauges(
                "fluxline_ring_pages_info",
                "1 for the kind of pages that the frame ring lies on",
                "kind",
                &["1GiB", "2MiB", "transparent"],
            )?,
            queue_depth: m.gauges(
                "fluxline_queue_frames",
                "Frames waiting in a queue",
                "queue",
                &["analysis", "storage"],
            )?,
            result_latency: m.latency("fluxline_result_latency_seconds", "Arrival of a frame to its result")?,
            decision_latency: m.latency(
                "fluxline_decision_latency_seconds",
                "Arrival of the deciding frame to the decision of a rule",
            )?,
            batch_seconds: m.latency("fluxline_batch_seconds", "One micro-batch through its recipe")?,
            write_seconds: m.latency(
                "fluxline_write_seconds",
                "One frame through compression and its write",
            )?,
            sync_seconds: m.latency("fluxline_sync_seconds", "One sync of data files and journal")?,
            acknowledged: m.counters(
                "fluxline_acknowledged_frames_total",
                "Frames that have reached a level: L0 in memory, L1 analysed, L2 synced to the local disk, L3 verified at \
                 the central store",
                "level",
                &["L0", "L1", "L2", "L3"],
            )?,
            results_missed: m.add(IntCounter::new(
                "fluxline_results_missed_total",
                "Results that the feedback hub was too slow to take; they are in the files",
            ))?,
            results_lost: m.add(IntCounter::new(
                "fluxline_results_lost_total",
                "Results that consumers with policy=lossless lost, each for itself, being slower than feedback.results_kept lasts",
            ))?,
            http_refused: m.counters(
                "fluxline_http_refused_total",
                "Requests and connections that were refused: without a token that holds, by a role that may not, too often, or past the limit of connections",
                "reason",
                &["token", "role", "throttled", "rate", "connections"],
            )?,
            device_info: m.add(GaugeVec::new(
                Opts::new("fluxline_device_info", "1 for the device that computes"),
                &["device", "memory"],
            ))?,
            state: m.gauges(
                "fluxline_state_info",
                "1 for the state that the appliance is in",
                "state",
                &["idle", "armed", "recording", "finishing", "error"],
            )?,
            store_free_bytes: m.add(Gauge::new(
                "fluxline_store_free_bytes",
                "Free bytes of the store's file system",
            ))?,
            runs: m.counters(
                "fluxline_runs_total",
                "Runs that ended",
                "state",
                &["complete", "stopped", "aborted", "failed"],
            )?,
            device_copies: m.add(IntCounter::new(
                "fluxline_device_copies_total",
                "Payload-sized copies between ring and device; 0 where memory is shared",
            ))?,
            calibration_drift: {
                let drift = m.add(GaugeVec::new(
                    Opts::new(
                        "fluxline_calibration_drift_sigmas",
                        "How far half of the pixels of the last dark or pedestal moved since the one before, in sigmas of one frame",
                    ),
                    &["kind"],
                ))?;
                for kind in crate::calibrations::DRIFTING {
                    drift.with_label_values(&[kind]).set(0.0);
                }
                drift
            },
            rdma: RdmaMetrics::new(&m)?,
            dectris: DectrisMetrics::new(&m)?,
            udp: UdpMetrics::new(&m)?,
            keep: crate::keep::KeepMetrics::new(&m.registry)?,
            emitted: m.counters(
                "fluxline_emitted_frames_total",
                "Frames sent on to other programs; dropped: nobody took them in time",
                "outcome",
                &["sent", "dropped"],
            )?,
            build: m.add(IntGauge::with_opts(
                Opts::new("fluxline_build_info", "1, with the version of this program")
                    .const_label("version", env!("CARGO_PKG_VERSION")),
            ))?,
            registry: m.registry,
        };
        metrics.build.set(1);
        Ok(metrics)
    }

    /// Sets the gauge of `value` to 1 and of all others to 0.
    pub fn only(gauges: &IntGaugeVec, values: &[&str], value: &str) {
        for candidate in values {
            gauges
                .with_label_values(&[candidate])
                .set(i64::from(*candidate == value));
        }
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        self.rdma.show();
        self.dectris.show();
        self.udp.show();
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Every metric by name.
    pub fn describe(&self) -> Vec<Described> {
        // A label shows only on a family with members; device_info gets one for the description.
        self.device_info.with_label_values(&["", ""]);
        let families = self.registry.gather();
        let described = families
            .iter()
            .map(|family| Described {
                name: family.name().to_string(),
                labels: family
                    .get_metric()
                    .first()
                    .map(|m| m.get_label().iter().map(|l| l.name().to_string()).collect())
                    .unwrap_or_default(),
                help: family.help().to_string(),
            })
            .collect();
        self.device_info.reset();
        described
    }
}
