//! The appliance: one device, one ring, one store, one run at a time. The command line and the HTTP
//! interface both drive this.

use crate::active_run::{ActiveRun, RunState, Summary};
use crate::afterwards::AfterwardsThread;
use crate::calibrations::{CalibrationError, CalibrationRecord, Calibrations, Detector, Proposed};
use crate::config::{Config, ConfigError, SourceConfig};
use crate::cores::Cores;
use crate::decisions::{Rules, RulesInForce};
use crate::device;
use crate::emit::Emitter;
use crate::keep::{Catalogue, KeepError, Keeper, Settings};
use crate::metrics::Metrics;
use crate::recipes::{self, RecipeError, Setup};
use crate::reprocess::{self, DERIVED_FROM, Derivation, RAW_FILE, ReprocessRequest};
use crate::run::{self, Run, RunParts};
use crate::sources::open_source;
use crate::storage::{RunInfo, RunWriter, Store, StoreError, WriterConfig, check_name, hex};
use driver::dectris::Parked;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::source::{FrameSource, SourceError};
use frame::StreamDescription;
use kernels::{Accelerator, MemoryMode, Tuned};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    /// the catalogue, or what looks after closed runs
    #[error(transparent)]
    Keep(#[from] KeepError),
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
    /// the store is too full of runs that may not be deleted
    #[error(
        "the store {path} takes {capacity_bytes} bytes of runs and has {used_bytes}; the run may need {needed_bytes} more, and \
         {kept_bytes} bytes are of runs that are not safe to delete: see `fluxline store status`, or store elsewhere"
    )]
    StoreRefuses {
        /// the store
        path: String,
        /// bytes that it may take
        capacity_bytes: u64,
        /// bytes that it has
        used_bytes: u64,
        /// upper bound of what the run writes
        needed_bytes: u64,
        /// bytes of runs that have to stay
        kept_bytes: u64,
    },
    /// a calibration is taken just now
    #[error("a calibration is being taken: wait until it is done")]
    Taking,
    /// a calibration
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
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
    /// a calibration is taken
    taking: bool,
    /// the detector, once a source has said what it is
    detector: Option<Detector>,
}

/// The appliance.
pub struct Appliance {
    config: Config,
    config_sha256: String,
    accelerator: Accelerator,
    /// how its parameters were chosen, where they were
    tuned: Option<Tuned>,
    cores: Cores,
    store: Store,
    catalogue: Arc<Catalogue>,
    /// what looks after closed runs, where this process does
    keeper: OnceLock<Arc<Keeper>>,
    calibrations: Calibrations,
    metrics: Metrics,
    slot: Mutex<Slot>,
    /// what is decided from results
    rules: RulesInForce,
    /// held while a run is armed
    arming: Mutex<()>,
    /// the sockets of detectors' streams between runs, one per source
    parked: Vec<Parked>,
    /// where frames are sent on to
    emitter: Mutex<Option<Emitter>>,
    /// work that recipes leave for when a run is closed
    afterwards: AfterwardsThread,
}

impl Appliance {
    /// Opens the device and the store. The device comes first: a CPU device starts threads of its own, which
    /// must not inherit the affinity of a pinned one.
    pub fn start(config: Config) -> Result<Arc<Appliance>, ApplianceError> {
        let (accelerator, tuned) = device::open(&config)?;
        let available = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cores = Cores::assign(&config.cores, available);
        let store = Store::open(&config.resolve(&config.store.path))?;
        let catalogue = Arc::new(Catalogue::open(store.root())?);
        crate::interrupted::finish(&store, &catalogue)?;
        let calibrations = Calibrations::open(store.root(), config.calibrations.drift_sigmas)?;
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
        let rules = Rules::new(&config.rule, recipes::results_of(config.recipe.iter())?)
            .map_err(|error| ApplianceError::Start(error.to_string()))?;
        let parked = config.source.iter().map(|_| Parked::default()).collect();
        let appliance = Appliance {
            parked,
            config_sha256: hex(&Sha256::digest(text.as_bytes())),
            config,
            accelerator,
            tuned,
            cores,
            store,
            catalogue,
            keeper: OnceLock::new(),
            calibrations,
            metrics,
            slot: Mutex::new(Slot {
                current: None,
                ring: None,
                epoch: 0,
                taking: false,
                detector: None,
            }),
            rules: Arc::new(rules),
            arming: Mutex::new(()),
            emitter: Mutex::new(emitter),
            afterwards: AfterwardsThread::default(),
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

    /// Looks after closed runs from now on: pushes, deletes, scrubs. Another process may do so already.
    pub fn keep(&self) -> Result<(), ApplianceError> {
        let settings = Settings::of(&self.config);
        let keeper = Keeper::open(
            &self.store,
            self.catalogue.clone(),
            settings,
            self.metrics.keep.clone(),
            true,
        )?;
        let keeper = keeper
            .start()
            .map_err(|error| ApplianceError::Start(error.to_string()))?;
        // Asked twice, the first keeper stays.
        let _ = self.keeper.set(keeper);
        Ok(())
    }

    /// What looks after closed runs, where this process does.
    pub fn keeper(&self) -> Option<&Keeper> {
        self.keeper.get().map(Arc::as_ref)
    }

    /// The catalogue of the store.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Sends what is still to be sent to other programs, within two seconds, and no more.
    pub fn close(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.stop();
        }
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

    /// How the device's parameters were chosen; `None` where `accelerator.tune` is off.
    pub fn tuned(&self) -> Option<&Tuned> {
        self.tuned.as_ref()
    }

    /// The cores by role.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// What recipes left to be done when their runs were closed.
    pub fn afterwards(&self) -> &AfterwardsThread {
        &self.afterwards
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The calibrations.
    pub fn calibrations(&self) -> &Calibrations {
        &self.calibrations
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
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
        self.check_request(request)?;
        let source = match request.frames_expected {
            Some(frames) => open_source(&self.config.expecting(frames), &self.metrics, &self.parked)?,
            None => open_source(&self.config, &self.metrics, &self.parked)?,
        };
        self.arm_with(source, request, None)
    }

    /// What can be known of a request before its source is opened, which may take long.
    fn check_request(&self, request: &RunRequest) -> Result<(), ApplianceError> {
        self.config
            .recipe(request.recipe.as_deref(), request.technique.as_deref())?;
        for (what, name) in [("run name", &request.name), ("proposal", &request.proposal)] {
            name.as_deref().map_or(Ok(()), |name| check_name(what, name))?;
        }
        Ok(())
    }

    /// Arms a stored run again with other parameters, as a new run.
    pub fn reprocess(&self, run: &str, request: &ReprocessRequest) -> Result<Run, ApplianceError> {
        let (source, derivation, request) = reprocess::prepare(&self.store, &self.config, run, request)?;
        self.arm_with(source, &request, Some(derivation))
    }

    /// Arms a run with a source that is already open, its recipe the derivation's where it has one.
    pub fn arm_with(
        &self,
        mut source: Box<dyn FrameSource>,
        request: &RunRequest,
        derivation: Option<Derivation>,
    ) -> Result<Run, ApplianceError> {
        let _one_at_a_time = self.arming.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.next_epoch(false)?;
        let rdma_before = self.metrics.rdma.values();
        let dectris_before = self.metrics.dectris.values();
        let udp_before = self.metrics.udp.values();
        // A source may wait here for its sender, and a device compile its kernels below; whoever asks for the state
        // meanwhile gets it.
        source.arm(epoch)?;
        let stream = source.stream().clone();
        self.slot().detector = Some(Detector::of(&stream));
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
        let store_frames = derivation.is_none();
        let frame_bytes = if store_frames {
            stream.payload_bytes_max as u64
        } else {
            0
        };
        self.check_room(stream.frames_expected, frame_bytes)?;
        let mut warnings = Vec::new();
        let ring = self.take_ring(&stream, &mut warnings)?;
        source.prepare(&ring)?;

        let (recipe_name, recipe) = match &derivation {
            Some(derivation) => (derivation.recipe_name.as_str(), &derivation.recipe),
            None => self
                .config
                .recipe(request.recipe.as_deref(), request.technique.as_deref())?,
        };
        let technique = recipes::technique(recipe_name, &recipe.technique)?;
        let ordered = technique.ordered(recipe_name, recipe)?;
        let workers = if ordered { 1 } else { self.cores.worker_count() };
        let start_time = jiff::Timestamp::now();
        let setup = Setup {
            recipe: recipe_name,
            config: recipe,
            folder: &self.config.folder,
            stream: &stream,
            accelerator: &self.accelerator,
            batch_limit: self.config.accelerator.batch_limit,
            calibrations: &self.calibrations,
            time: start_time,
            derived_busy: self.afterwards.busy(),
        };
        let (mut prepared, accelerator) = device::prepare(technique, &setup, workers)?;
        warnings.append(&mut prepared.warnings);
        // Results are there twice until the run is closed.
        self.check_room(stream.frames_expected, frame_bytes + 2 * prepared.layout.frame_bytes())?;

        let id = request
            .name
            .clone()
            .unwrap_or_else(|| run_name(start_time, Some(epoch)));
        let mut metadata = stream.metadata.clone();
        // What a run is derived from, and so what is opened for it, is not for a detector's stream to say.
        for key in [DERIVED_FROM, RAW_FILE] {
            metadata.remove(key);
        }
        metadata.extend(request.metadata.clone());
        if let Some(derivation) = &derivation {
            metadata.insert(DERIVED_FROM.into(), derivation.of.clone());
            metadata.insert(RAW_FILE.into(), derivation.raw.display().to_string());
        }
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
            device: device::describe(&accelerator, self.tuned.as_ref()),
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
                store_frames,
                threads: self.config.store.threads,
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
            accelerator,
            ordered,
            recipe: prepared,
            batch_limit: self.config.accelerator.batch_limit,
            device_retry: Duration::from_secs_f64(self.config.accelerator.retry_s),
            files,
            cores: self.cores.clone(),
            results_kept: self.config.feedback.results_kept,
            rules: self.rules.clone(),
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
        let mut run = run::arm(parts).map_err(ApplianceError::Start)?;
        run.left.raw = derivation.map(|derivation| derivation.raw);
        self.slot().current = Some(run.active.clone());
        self.show_state("armed");
        Ok(run)
    }

    /// The number of the next arming, if nothing is in the way; `taking`: of a calibration.
    fn next_epoch(&self, taking: bool) -> Result<u32, ApplianceError> {
        let mut slot = self.slot();
        if slot.taking {
            return Err(ApplianceError::Taking);
        }
        if let Some(run) = slot.current.as_ref().filter(|run| !run.state().ended()) {
            return Err(ApplianceError::Busy {
                run: run.info.id.clone(),
                state: run.state().name(),
            });
        }
        slot.taking = taking;
        slot.epoch += 1;
        Ok(slot.epoch)
    }

    /// Hands the armed source and a ring to `body`, while no run is in the way and none is armed.
    pub fn with_source<T>(
        &self,
        body: impl FnOnce(&mut dyn FrameSource, &FrameRing) -> Result<T, ApplianceError>,
    ) -> Result<T, ApplianceError> {
        let epoch = self.next_epoch(true)?;
        let run = || {
            let _one_at_a_time = self.arming.lock().unwrap_or_else(PoisonError::into_inner);
            let mut source = open_source(&self.config, &self.metrics, &self.parked)?;
            source.arm(epoch)?;
            let stream = source.stream().clone();
            self.slot().detector = Some(Detector::of(&stream));
            let ring = self.take_ring(&stream, &mut Vec::new())?;
            source.prepare(&ring)?;
            body(source.as_mut(), &ring)
        };
        let done = run();
        self.slot().taking = false;
        done
    }

    /// The detector as far as it is known: from the last run or calibration, or from a source that can say so at once.
    pub fn detector(&self) -> Option<Detector> {
        if let Some(detector) = self.slot().detector.clone() {
            return Some(detector);
        }
        let tells = |entry: &crate::config::SourceEntry| {
            matches!(entry.source, SourceConfig::Simulate(_) | SourceConfig::Replay(_))
        };
        if !self.config.source.iter().all(tells) {
            return None;
        }
        let source = open_source(&self.config, &self.metrics, &self.parked).ok()?;
        let detector = Detector::of(source.stream());
        self.slot().detector = Some(detector.clone());
        Some(detector)
    }

    /// Keeps a calibration, and shows how far it moved.
    pub fn keep_calibration(
        &self,
        proposed: Proposed,
        detector: Option<&Detector>,
    ) -> Result<CalibrationRecord, ApplianceError> {
        let record = self.calibrations.add(proposed, detector, jiff::Timestamp::now())?;
        if let Some(sigmas) = record.drift_sigmas {
            let gain = record.conditions.gain.map_or(String::new(), |gain| format!("_g{gain}"));
            let label = format!("{}{gain}", record.kind.name());
            self.metrics.calibration_drift.with_label_values(&[&label]).set(sigmas);
        }
        for warning in &record.warnings {
            tracing::warn!(target: "fluxline", "{}: {warning}", record.version);
        }
        Ok(record)
    }

    /// Lets an armed run record and returns when it has ended.
    pub fn record(self: &Arc<Self>, mut run: Run) -> Summary {
        self.show_state("recording");
        let (work, raw, active) = (run.left.work.take(), run.left.raw.take(), run.active.clone());
        let mut summary = run.record();
        let raw = raw.or_else(|| summary.files.first().map(PathBuf::from));
        let kept = matches!(active.state(), RunState::Complete | RunState::Stopped);
        if let (Some(work), Some(raw), true) = (work, raw, kept)
            && let Err(error) = self.afterwards.begin(self, work, &active.info, &raw)
        {
            summary.warnings.push(error);
        }
        self.show_state(if summary.state == "failed" { "error" } else { "idle" });
        if let Ok(free) = self.store.free_bytes() {
            self.metrics.store_free_bytes.set(free as f64);
        }
        summary
    }

    /// Whether frames of so many bytes, their results included, find room as long as they are; compressed they need less.
    fn check_room(&self, frames: u64, frame_bytes: u64) -> Result<(), ApplianceError> {
        let needed_bytes = frames.saturating_mul(frame_bytes);
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
        let Some(keeper) = self.keeper.get() else { return Ok(()) };
        if let Err(room) = keeper.admit(needed_bytes)? {
            return Err(ApplianceError::StoreRefuses {
                path: self.store.root().display().to_string(),
                capacity_bytes: room.capacity_bytes,
                used_bytes: room.used_bytes,
                needed_bytes,
                kept_bytes: keeper.plan(0)?.unsafe_bytes,
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

pub(crate) fn run_name(start: jiff::Timestamp, epoch: Option<u32>) -> String {
    let time = start.strftime("%Y%m%dT%H%M%S%3fZ");
    epoch.map_or_else(|| format!("run-{time}"), |epoch| format!("run-{time}-{epoch:04}"))
}

/// The machine's name as the kernel gives it.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".into(), |name| name.trim().into())
}
