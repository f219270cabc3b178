//! The appliance: one device, one ring, one store, one run at a time. The command line and the HTTP
//! interface both drive this.

use crate::active_run::{ActiveRun, Summary};
use crate::config::{AlignBy, Config, ConfigError, SourceConfig};
use crate::cores::Cores;
use crate::emit::Emitter;
use crate::metrics::Metrics;
use crate::recipes::{self, RecipeError, Setup};
use crate::run::{self, Run, RunParts};
use crate::storage::{RunInfo, RunWriter, Store, StoreError, WriterConfig};
use driver::assembly::{Align, Assembly, AssemblyConfig, Part};
use driver::dectris::{DectrisSource, Parked};
use driver::faults::Faulty;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::rdma::RdmaSource;
use driver::replay::Replay;
use driver::simulate::Simulate;
use driver::source::{FrameSource, SourceError};
use driver::udp::UdpSource;
use frame::StreamDescription;
use kernels::{Accelerator, MemoryMode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a run cannot be armed or the appliance not started.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// the configuration
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// the source
    #[error(transparent)]
    Source(#[from] SourceError),
    /// the recipe
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// the store
    #[error(transparent)]
    Store(#[from] StoreError),
    /// the device
    #[error(transparent)]
    Accelerator(#[from] kernels::AcceleratorError),
    /// memory
    #[error(transparent)]
    Memory(#[from] driver::memory::MemoryError),
    /// the ring
    #[error(transparent)]
    Ring(#[from] driver::memory::RingError),
    /// another run is in the way
    #[error("run {run} is {state}: stop it first")]
    Busy {
        /// the run
        run: String,
        /// its state
        state: &'static str,
    },
    /// the run does not fit the store
    #[error(
        "the store {path} has {free_bytes} bytes free, the run may need {needed_bytes} and 10 % more: \
         free some space or store elsewhere"
    )]
    StoreFull {
        /// the store
        path: String,
        /// free
        free_bytes: u64,
        /// upper bound of what the run writes
        needed_bytes: u64,
    },
    /// anything that has no better name
    #[error("{0}")]
    Start(String),
}

/// What `POST /runs` takes. Everything has a default.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunRequest {
    /// name of the run; made from the time where it is not given
    pub name: Option<String>,
    /// proposal, a folder of the store
    pub proposal: Option<String>,
    /// sample name
    pub sample: Option<String>,
    /// recipe of the configuration
    pub recipe: Option<String>,
    /// technique of the recipe: chooses the one recipe that has it, or is checked against the recipe named
    pub technique: Option<String>,
    /// number of frames; tells a simulation or a detector of packets how many there are, and must agree with what any
    /// other source announces
    pub frames_expected: Option<u64>,
    /// anything that belongs into the run's record
    pub metadata: BTreeMap<String, String>,
}

/// Why a run that ended is no longer the current one, or what it is now.
struct Slot {
    current: Option<Arc<ActiveRun>>,
    ring: Option<FrameRing>,
    epoch: u32,
}

/// The appliance.
pub struct Appliance {
    config: Config,
    config_sha256: String,
    accelerator: Accelerator,
    cores: Cores,
    store: Store,
    metrics: Metrics,
    slot: Mutex<Slot>,
    /// held while a run is armed
    arming: Mutex<()>,
    /// the sockets of detectors' streams between runs, one per source
    parked: Vec<Parked>,
    /// where frames are sent on to
    emitter: Mutex<Option<Emitter>>,
}

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

/// Where compiled kernels are kept: what is configured, else the user's folder for such things.
fn cache_dir(config: &Config) -> Option<std::path::PathBuf> {
    match &config.accelerator.cache_dir {
        Some(path) if path.as_os_str().is_empty() => None,
        Some(path) => Some(config.resolve(path)),
        None => {
            let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
            let home = || folder("HOME").map(|home| std::path::Path::new(&home).join(".cache"));
            let caches = folder("XDG_CACHE_HOME").map(std::path::PathBuf::from).or_else(home)?;
            Some(caches.join("fluxline"))
        }
    }
}

impl Appliance {
    /// Opens the device and the store. The device comes first: a CPU device starts threads of its own, which
    /// must not inherit the affinity of a pinned one.
    pub fn start(config: Config) -> Result<Arc<Appliance>, ApplianceError> {
        let accelerator = Accelerator::open(&kernels::AcceleratorConfig {
            device: config.accelerator.device.clone(),
            memory: config.accelerator.memory,
            cache_dir: cache_dir(&config),
            binary_dir: config.accelerator.binary_dir.as_ref().map(|path| config.resolve(path)),
        })?;
        let available = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cores = Cores::assign(&config.cores, available);
        let store = Store::open(&config.resolve(&config.store.path))?;
        let metrics = Metrics::new().map_err(|e| ApplianceError::Start(e.to_string()))?;
        metrics
            .device_info
            .with_label_values(&[&accelerator.info().name, memory_name(accelerator.memory())])
            .set(1.0);
        let emitter = match &config.emit.dectris {
            Some(address) => Some(Emitter::start(address, config.emit.queue_frames, &metrics)?),
            None => None,
        };
        let text = serde_json::to_string(&config).map_err(|e| ApplianceError::Start(e.to_string()))?;
        let parked = config.source.iter().map(|_| Parked::default()).collect();
        let appliance = Appliance {
            parked,
            config_sha256: hex(&Sha256::digest(text.as_bytes())),
            config,
            accelerator,
            cores,
            store,
            metrics,
            slot: Mutex::new(Slot {
                current: None,
                ring: None,
                epoch: 0,
            }),
            arming: Mutex::new(()),
            emitter: Mutex::new(emitter),
        };
        appliance.show_state("idle");
        Ok(Arc::new(appliance))
    }

    /// Connects to a detector's stream, so that a series which begins before a run is armed waits for it.
    pub fn connect(&self) -> Result<(), ApplianceError> {
        for (entry, parked) in self.config.source.iter().zip(&self.parked) {
            if let SourceConfig::Dectris(source) = &entry.source {
                parked.connect(&source.dectris)?;
            }
        }
        Ok(())
    }

    /// Sends what is still to be sent to other programs, within two seconds, and no more.
    pub fn close(&self) {
        drop(self.emitter.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device.
    pub fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// The cores by role.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The run in memory: the current one, or the last until the next is armed.
    pub fn current(&self) -> Option<Arc<ActiveRun>> {
        self.slot().current.clone()
    }

    /// The ring: slots, used slots, page kind, locked. `None` before the first run.
    pub fn ring(&self) -> Option<FrameRing> {
        self.slot().ring.clone()
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_state(&self, state: &str) {
        let states = ["idle", "armed", "recording", "finishing", "error"];
        Metrics::only(&self.metrics.state, &states, state);
    }

    /// Arms a run: source, ring, recipe, files and threads. When it returns they are ready.
    pub fn arm(&self, request: &RunRequest) -> Result<Run, ApplianceError> {
        let source = match request.frames_expected {
            Some(frames) => open_source(&self.config.expecting(frames), &self.metrics, &self.parked)?,
            None => open_source(&self.config, &self.metrics, &self.parked)?,
        };
        self.arm_with(source, request)
    }

    /// Arms a run with a source that is already open.
    pub fn arm_with(&self, mut source: Box<dyn FrameSource>, request: &RunRequest) -> Result<Run, ApplianceError> {
        let _one_at_a_time = self.arming.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = {
            let mut slot = self.slot();
            if let Some(run) = slot.current.as_ref().filter(|run| !run.state().ended()) {
                return Err(ApplianceError::Busy {
                    run: run.info.id.clone(),
                    state: run.state().name(),
                });
            }
            slot.epoch += 1;
            slot.epoch
        };
        let rdma_before = self.metrics.rdma.values();
        let dectris_before = self.metrics.dectris.values();
        let udp_before = self.metrics.udp.values();
        // A source may wait here for its sender, and a device compile its kernels below; whoever asks for the state
        // meanwhile gets it.
        source.arm(epoch)?;
        let stream = source.stream().clone();
        if let Some(frames) = request
            .frames_expected
            .filter(|frames| *frames != stream.frames_expected)
        {
            let expected = format!(
                "{} announces {}: ask it for as many, or leave this out",
                stream.origin, stream.frames_expected
            );
            return Err(ConfigError::value("frames_expected", frames, expected).into());
        }
        self.check_room(&stream, 0)?;
        let mut warnings = Vec::new();
        let ring = self.take_ring(&stream, &mut warnings)?;
        source.prepare(&ring)?;

        let (recipe_name, recipe) = self
            .config
            .recipe(request.recipe.as_deref(), request.technique.as_deref())?;
        let technique = recipes::technique(recipe_name, &recipe.technique)?;
        let workers = if technique.ordered() {
            1
        } else {
            self.cores.worker_count()
        };
        let setup = Setup {
            recipe: recipe_name,
            config: recipe,
            folder: &self.config.folder,
            stream: &stream,
            accelerator: &self.accelerator,
            batch_limit: self.config.accelerator.batch_limit,
        };
        let prepared = technique.prepare(&setup, workers)?;
        self.check_room(&stream, prepared.layout.frame_bytes())?;

        let start_time = jiff::Timestamp::now();
        let id = request.name.clone().unwrap_or_else(|| run_name(start_time, epoch));
        let mut metadata = stream.metadata.clone();
        metadata.extend(request.metadata.clone());
        let info = RunInfo {
            title: format!("{} of {}", technique.name(), stream.origin),
            id,
            proposal: request
                .proposal
                .clone()
                .unwrap_or_else(|| self.config.run.proposal.clone()),
            sample: request.sample.clone().unwrap_or_else(|| self.config.run.sample.clone()),
            technique: technique.name().into(),
            definition: technique.definition().into(),
            start_time,
            instrument: self.config.run.instrument.clone(),
            source: self.config.run.facility.clone(),
            metadata,
            parameters: prepared.parameters.clone(),
            software: format!("fluxline {}", env!("CARGO_PKG_VERSION")),
            configuration_sha256: self.config_sha256.clone(),
            host: host_name(),
            device: self.accelerator.info().name.clone(),
        };
        let mut masked = stream.clone();
        masked.mask = Some(prepared.mask.clone());
        let files = RunWriter::create(
            &self.store,
            &info,
            &masked,
            &prepared.layout,
            &prepared.axes,
            &WriterConfig {
                compress: self.config.store.compress,
                frames_per_file: self.config.store.frames_per_file,
                geometry: prepared.geometry.clone(),
            },
        )?;
        let parts = RunParts {
            folder: files.folder().to_path_buf(),
            info,
            source,
            epoch,
            ring,
            when_full: self.config.ring.when_full.into(),
            accelerator: self.accelerator.clone(),
            technique,
            recipe: prepared,
            batch_limit: self.config.accelerator.batch_limit,
            files,
            cores: self.cores.clone(),
            results_kept: self.config.feedback.results_kept,
            metrics: self.metrics.clone(),
            rdma_before,
            dectris_before,
            udp_before,
            emit: self
                .emitter
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(Emitter::handle),
            metadata_wait: Duration::from_secs_f64(self.config.run.metadata_wait_s),
            warnings,
        };
        let run = run::arm(parts).map_err(ApplianceError::Start)?;
        self.slot().current = Some(run.active.clone());
        self.show_state("armed");
        Ok(run)
    }

    /// Lets an armed run record and returns when it has ended.
    pub fn record(&self, run: Run) -> Summary {
        self.show_state("recording");
        let summary = run.record();
        self.show_state(if summary.state == "failed" { "error" } else { "idle" });
        if let Ok(free) = self.store.free_bytes() {
            self.metrics.store_free_bytes.set(free as f64);
        }
        summary
    }

    /// Whether frames, and results of so many bytes per frame, find room as long as they are; compressed they need less.
    fn check_room(&self, stream: &StreamDescription, result_bytes: u64) -> Result<(), ApplianceError> {
        let frame_bytes = stream.payload_bytes_max as u64 + result_bytes;
        let needed_bytes = stream.frames_expected.saturating_mul(frame_bytes);
        let free_bytes = self.store.free_bytes()?;
        self.metrics.store_free_bytes.set(free_bytes as f64);
        if needed_bytes.saturating_add(needed_bytes / 10) > free_bytes {
            let path = self.store.root().display().to_string();
            return Err(ApplianceError::StoreFull {
                path,
                free_bytes,
                needed_bytes,
            });
        }
        Ok(())
    }

    /// The ring of the last run where its slots are large enough, else a new one in its place.
    fn take_ring(&self, stream: &StreamDescription, warnings: &mut Vec<String>) -> Result<FrameRing, ApplianceError> {
        let config = &self.config.ring;
        let payload_bytes = stream.payload_bytes_max.max(1);
        let last = self.slot().ring.take();
        let ring = match last.filter(|ring| ring.slot_payload_bytes() >= payload_bytes) {
            Some(ring) => ring,
            None => {
                let pages = HugePages::reserve(&PagesConfig {
                    bytes: FrameRing::bytes_needed(config.slots, payload_bytes),
                    page_size: config.page_size.into(),
                    numa_node: config.numa_node,
                    lock: !config.allow_transparent,
                    allow_transparent: config.allow_transparent,
                })?;
                FrameRing::new(pages, config.slots, payload_bytes)?
            }
        };
        let kind = page_kind(ring.page_size());
        Metrics::only(&self.metrics.ring_pages, &["1GiB", "2MiB", "transparent"], kind);
        self.metrics
            .ring_slots
            .with_label_values(&["total"])
            .set(ring.slots() as i64);
        if ring.page_size() == PageSize::Transparent {
            warnings.push("the ring lies on transparent huge pages, not on reserved ones".into());
        }
        self.slot().ring = Some(ring.clone());
        Ok(ring)
    }
}

/// The kind of pages, as status and metrics write it.
pub fn page_kind(size: PageSize) -> &'static str {
    match size {
        PageSize::Huge1GiB => "1GiB",
        PageSize::Huge2MiB => "2MiB",
        PageSize::Transparent => "transparent",
    }
}

/// How the device reads frames, as status and metrics write it.
pub fn memory_name(memory: MemoryMode) -> &'static str {
    match memory {
        MemoryMode::Auto => "auto",
        MemoryMode::ZeroCopy => "zero_copy",
        MemoryMode::Copy => "copy",
    }
}

fn run_name(start: jiff::Timestamp, epoch: u32) -> String {
    format!("run-{}-{epoch:04}", start.strftime("%Y%m%dT%H%M%S%3fZ"))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The machine's name as the kernel gives it.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".into(), |name| name.trim().into())
}
