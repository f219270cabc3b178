//! The one TOML file of an appliance. An unknown key, a wrong unit or an impossible combination is an
//! error that names the key, the value and what is allowed. `docs/configuration.md` is generated from here.

mod assembly;
mod calibrations;
mod feedback;
mod oidc;

use crate::decisions::{RuleConfig, Rules};
pub use crate::keep::{AccessConfig, AnnounceConfig, PushConfig, RetentionConfig};
pub use assembly::{AlignBy, AssemblySection, PlaceConfig};
pub use calibrations::CalibrationsConfig;
use driver::memory::PageSize;
use driver::source::WhenFull;
pub use feedback::{FeedbackConfig, LimitsConfig, TlsConfig, ZmqConfig};
pub use oidc::OidcConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// the file cannot be read
    #[error("cannot read the configuration {path}: {reason}")]
    Read {
        /// file
        path: PathBuf,
        /// the system's words
        reason: std::io::Error,
    },
    /// not TOML, an unknown key, or a value of the wrong type
    #[error("{path}: {message}")]
    Syntax {
        /// file
        path: PathBuf,
        /// line, key and what was expected
        message: String,
    },
    /// a value outside its range or an impossible combination
    #[error("{key} = {value}: {expected}")]
    Value {
        /// key with its section, for example `ring.slots`
        key: String,
        /// the value found
        value: String,
        /// what is allowed and what to do
        expected: String,
    },
}

impl ConfigError {
    /// A value outside its range or an impossible combination.
    pub fn value(key: impl Into<String>, value: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self::Value {
            key: key.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The run that is armed at start, and what every run has in common.
    #[serde(default)]
    pub run: RunConfig,
    /// Memory that frames arrive in.
    #[serde(default)]
    pub ring: RingConfig,
    /// Where frames come from. Several make one frame together, as `[assembly]` says.
    #[schemars(with = "Vec<BTreeMap<String, serde_json::Value>>")]
    pub source: Vec<SourceEntry>,
    /// How several sources make one frame.
    pub assembly: Option<AssemblySection>,
    /// The device that computes.
    #[serde(default)]
    pub accelerator: AcceleratorConfig,
    /// Which thread runs on which core.
    #[serde(default)]
    pub cores: CoresConfig,
    /// Where runs are stored.
    pub store: StoreConfig,
    /// The central store that runs are copied to.
    #[serde(default)]
    pub push: PushConfig,
    /// How long runs stay here, and how full the store may get.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Who may read closed runs, and where.
    #[serde(default)]
    pub access: AccessConfig,
    /// What the facility's catalogues are told.
    #[serde(default)]
    pub announce: AnnounceConfig,
    /// The HTTP interface and the page.
    #[serde(default)]
    pub feedback: FeedbackConfig,
    /// Frames sent on to other programs.
    #[serde(default)]
    pub emit: EmitConfig,
    /// Darks, flats, pedestals, masks, gains and geometries that are taken or uploaded.
    #[serde(default)]
    pub calibrations: CalibrationsConfig,
    /// Recipes by name: a technique, its operations in order, and one table of parameters per operation.
    pub recipe: BTreeMap<String, RecipeConfig>,
    /// Rules by name: conditions on the results of a run, and what follows when they hold.
    #[serde(default)]
    pub rule: BTreeMap<String, RuleConfig>,
    /// Folder that relative paths of the file are relative to; set when the file is loaded.
    #[serde(skip)]
    #[schemars(skip)]
    pub folder: PathBuf,
}

/// `[run]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Name of the recipe that a run uses when `POST /runs` names none. Needed where there are several.
    pub recipe: Option<String>,
    /// Proposal that runs belong to; a folder of the store.
    pub proposal: String,
    /// Sample name of the run armed at start.
    pub sample: String,
    /// Instrument name for the NeXus file.
    pub instrument: String,
    /// Light source name for the NeXus file.
    pub facility: String,
    /// Arm a run at start without waiting for `POST /runs`.
    pub autostart: bool,
    /// Seconds after the last frame in which values by frame number are still taken (0 to 3600); a request that says
    /// `"last": true` ends the wait. Without it they are taken until the files are closed.
    pub metadata_wait_s: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            recipe: None,
            proposal: "commissioning".into(),
            sample: "unnamed".into(),
            instrument: "Fluxline".into(),
            facility: "unnamed source".into(),
            autostart: false,
            metadata_wait_s: 0.0,
        }
    }
}

/// What a source does when every slot of the ring is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RingFull {
    /// Hold the source back (files, simulations).
    Wait,
    /// Let the newest whole frame go and count it lost (detectors that cannot wait). Analysis is shed first.
    Drop,
}

impl From<RingFull> for WhenFull {
    fn from(full: RingFull) -> Self {
        match full {
            RingFull::Wait => WhenFull::Wait,
            RingFull::Drop => WhenFull::Drop,
        }
    }
}

/// Size of the pages behind the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Pages {
    /// explicit 1 GiB pages
    #[serde(rename = "1GiB")]
    Huge1GiB,
    /// explicit 2 MiB pages
    #[serde(rename = "2MiB")]
    Huge2MiB,
    /// ordinary memory that the kernel may back with huge pages
    #[serde(rename = "transparent")]
    Transparent,
}

impl From<Pages> for PageSize {
    fn from(pages: Pages) -> Self {
        match pages {
            Pages::Huge1GiB => PageSize::Huge1GiB,
            Pages::Huge2MiB => PageSize::Huge2MiB,
            Pages::Transparent => PageSize::Transparent,
        }
    }
}

/// `[ring]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RingConfig {
    /// Number of frames that can be in memory at once (16 to 65536).
    pub slots: usize,
    /// Size of the pages: "1GiB", "2MiB" or "transparent".
    pub page_size: Pages,
    /// Run on transparent huge pages where explicit ones are short. Shown as a warning in status and metrics.
    pub allow_transparent: bool,
    /// NUMA node of the memory; the kernel chooses where it is not given.
    pub numa_node: Option<u32>,
    /// "wait" or "drop": what a source does when every slot is taken.
    pub when_full: RingFull,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            slots: 256,
            page_size: Pages::Huge2MiB,
            allow_transparent: false,
            numa_node: None,
            when_full: RingFull::Wait,
        }
    }
}

/// `[[source]]`: `kind` names one, the other keys are its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "toml::Table", untagged)]
pub enum SourceConfig {
    /// A seeded simulation of a detector.
    Simulate(Box<SimulateSource>),
    /// Frames of a file: HDF5 (DXchange, NXtomo, NXmx, any dataset), TIFF, CBF.
    Replay(Box<ReplaySource>),
    /// Senders that place frames by RDMA.
    Rdma(Box<RdmaSourceConfig>),
    /// The stream of a DECTRIS detector.
    Dectris(Box<DectrisSourceConfig>),
    /// Packets of a JUNGFRAU or EIGER.
    Udp(Box<UdpSourceConfig>),
}

/// `[[source]]` with `kind = "simulate"`
#[derive(Clone, Debug, Serialize)]
pub struct SimulateSource {
    /// What is simulated.
    pub simulate: driver::simulate::SimulateConfig,
    /// Seeded faults on the way.
    pub faults: Option<driver::faults::FaultConfig>,
}

/// `[[source]]` with `kind = "replay"`
#[derive(Clone, Debug, Serialize)]
pub struct ReplaySource {
    /// The file, or the first of a numbered series.
    pub path: PathBuf,
    /// How it is read.
    pub replay: driver::replay::ReplayConfig,
    /// Seeded faults on the way.
    pub faults: Option<driver::faults::FaultConfig>,
}

/// `[[source]]` with `kind = "rdma"`
#[derive(Clone, Debug, Serialize)]
pub struct RdmaSourceConfig {
    /// How senders are taken.
    pub rdma: driver::rdma::RdmaConfig,
    /// Seeded faults on the way.
    pub faults: Option<driver::faults::FaultConfig>,
}

/// `[[source]]` with `kind = "dectris"`
#[derive(Clone, Debug, Serialize)]
pub struct DectrisSourceConfig {
    /// Which stream, and how it is taken.
    pub dectris: driver::dectris::DectrisConfig,
    /// Seeded faults on the way.
    pub faults: Option<driver::faults::FaultConfig>,
}

/// `[[source]]` with `kind = "udp"`
#[derive(Clone, Debug, Serialize)]
pub struct UdpSourceConfig {
    /// Which detector, and how its packets are taken.
    pub udp: driver::udp::UdpConfig,
    /// Seeded faults on the way.
    pub faults: Option<driver::faults::FaultConfig>,
}

/// The kinds of sources, for messages.
const KINDS: &str = "\"simulate\", \"replay\", \"rdma\", \"dectris\" or \"udp\"";

impl TryFrom<toml::Table> for SourceConfig {
    type Error = String;

    // Taken apart by hand: serde's `flatten` would let unknown keys pass in silence.
    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let kind = table
            .remove("kind")
            .ok_or_else(|| format!("source.kind is missing: {KINDS}"))?;
        let faults = match table.remove("faults") {
            Some(faults) => Some(faults.try_into().map_err(|e| format!("source.faults: {e}"))?),
            None => None,
        };
        match kind.as_str() {
            Some("simulate") => {
                let simulate = toml::Value::Table(table)
                    .try_into()
                    .map_err(|e| format!("source: {e}"))?;
                Ok(Self::Simulate(Box::new(SimulateSource { simulate, faults })))
            }
            Some("replay") => {
                let path = table
                    .remove("path")
                    .ok_or("source.path is missing: the file to replay")?;
                let path = path
                    .as_str()
                    .ok_or("source.path must be a text: the file to replay")?
                    .into();
                let replay = toml::Value::Table(table)
                    .try_into()
                    .map_err(|e| format!("source: {e}"))?;
                Ok(Self::Replay(Box::new(ReplaySource { path, replay, faults })))
            }
            Some("rdma") => {
                let rdma = toml::Value::Table(table)
                    .try_into()
                    .map_err(|e| format!("source: {e}"))?;
                Ok(Self::Rdma(Box::new(RdmaSourceConfig { rdma, faults })))
            }
            Some("dectris") => {
                let dectris: driver::dectris::DectrisConfig = toml::Value::Table(table)
                    .try_into()
                    .map_err(|e| format!("source: {e}"))?;
                dectris.check().map_err(|e| e.to_string())?;
                Ok(Self::Dectris(Box::new(DectrisSourceConfig { dectris, faults })))
            }
            Some("udp") => {
                let udp: driver::udp::UdpConfig = toml::Value::Table(table)
                    .try_into()
                    .map_err(|e| format!("source: {e}"))?;
                udp.check().map_err(|e| e.to_string())?;
                Ok(Self::Udp(Box::new(UdpSourceConfig { udp, faults })))
            }
            _ => Err(format!("source.kind = {kind}: {KINDS}")),
        }
    }
}

/// One `[[source]]`: what it is, and its place where there are several.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "toml::Table")]
pub struct SourceEntry {
    /// What it is.
    pub source: SourceConfig,
    /// Where its frames lie in the assembled ones.
    pub place: Option<PlaceConfig>,
}

impl TryFrom<toml::Table> for SourceEntry {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let keys = ["row", "column", "clock_offset_ns"];
        let place: toml::Table = keys
            .into_iter()
            .filter_map(|key| Some((key.to_string(), table.remove(key)?)))
            .collect();
        let place = match place.is_empty() {
            true => None,
            false => Some(place.try_into().map_err(|e| format!("source: {e}"))?),
        };
        let source = SourceConfig::try_from(table)?;
        Ok(Self { source, place })
    }
}

/// `[accelerator]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcceleratorConfig {
    /// "auto", "cpu", "gpu", or a part of the platform's or device's name as `fluxline doctor` prints it.
    pub device: String,
    /// "auto", "zero_copy" or "copy". "copy" forces the path of a device with its own memory.
    #[schemars(with = "String")]
    pub memory: kernels::MemoryMode,
    /// Most frames per kernel call (1 to 64).
    pub batch_limit: usize,
    /// Folder where compiled kernels are kept between starts; `fluxline` in $XDG_CACHE_HOME or ~/.cache unless given, none
    /// where it is "".
    pub cache_dir: Option<PathBuf>,
    /// Measure at start which parameters of kernels suit the device, within two seconds or so, and keep them in `cache_dir` for
    /// the next start. Without it they are as usual for its kind.
    pub tune: bool,
    /// Folder of prebuilt device binaries (`NAME.xclbin`, `NAME.aocx`, `NAME.poclbin`).
    pub binary_dir: Option<PathBuf>,
    /// Seconds after which a device that failed is tried again (0.1 to 3600).
    pub retry_s: f64,
}

impl Default for AcceleratorConfig {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            memory: kernels::MemoryMode::Auto,
            batch_limit: 32,
            cache_dir: None,
            tune: true,
            binary_dir: None,
            retry_s: 30.0,
        }
    }
}

/// How roles share cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoreMode {
    /// Dedicated where there are cores enough, else shared.
    Auto,
    /// Roles share cores and nothing is pinned; status says so.
    Shared,
    /// One core per role, as listed.
    Dedicated,
}

/// `[cores]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoresConfig {
    /// "auto", "shared" or "dedicated".
    pub mode: CoreMode,
    /// Core of the receiving thread.
    pub receive: Option<usize>,
    /// Cores of the workers, one worker each.
    pub workers: Vec<usize>,
    /// Core of the writer.
    pub writer: Option<usize>,
}

impl Default for CoresConfig {
    fn default() -> Self {
        Self {
            mode: CoreMode::Auto,
            receive: None,
            workers: Vec::new(),
            writer: None,
        }
    }
}

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Folder of the store. It is made where it is missing.
    pub path: PathBuf,
    /// Compress uncompressed frames with bitshuffle-LZ4.
    #[serde(default = "yes")]
    pub compress: bool,
    /// Frames in one data file (1 to 1000000).
    #[serde(default = "thousand")]
    pub frames_per_file: u64,
    /// Threads that compress and write frames, so many writes are on their way to the disk at once (1 to 64); 0: four.
    #[serde(default)]
    pub threads: usize,
}

fn yes() -> bool {
    true
}

fn thousand() -> u64 {
    1000
}

/// `[emit]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmitConfig {
    /// Address where every frame of a run is sent on as DECTRIS stream V2, for example "tcp://127.0.0.1:31002"; nothing is
    /// sent unless it is given. Programs connect to it as to a detector. The stream has no access control: name the
    /// interface that it is for, not `*`.
    pub dectris: Option<String>,
    /// Frames that wait for a program that is slow (1 to 1024, and at most a quarter of ring.slots); then frames are left
    /// out and counted.
    pub queue_frames: usize,
}

impl Default for EmitConfig {
    fn default() -> Self {
        Self {
            dectris: None,
            queue_frames: 16,
        }
    }
}

/// `[recipe.NAME]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RecipeConfig {
    /// Technique: one of the folders of `pipeline/src/recipes`.
    pub technique: String,
    /// Operations in order; each may have a table `[recipe.NAME.OPERATION]`. None of diffraction's: frames are recorded as they come.
    pub operations: Vec<String>,
    /// Parameters of the operations, by operation name.
    #[serde(flatten)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub parameters: BTreeMap<String, toml::Value>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::Read {
            path: path.to_path_buf(),
            reason,
        })?;
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Self::parse(&text, path, &folder)
    }

    /// Parses and checks the text of a configuration; `path` is for messages.
    pub fn parse(text: &str, path: &Path, folder: &Path) -> Result<Config, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            message: error.to_string().trim_end().to_string(),
        })?;
        config.folder = folder.to_path_buf();
        config.check()?;
        Ok(config)
    }

    /// `path` as given, or relative to the configuration's folder.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        resolve(&self.folder, path)
    }

    /// The recipe of a run that asks for `name`, or the only one, or the one that `[run]` names.
    pub fn recipe(&self, name: Option<&str>, technique: Option<&str>) -> Result<(&str, &RecipeConfig), ConfigError> {
        let fits = |recipe: &RecipeConfig| technique.is_none_or(|technique| technique == recipe.technique);
        let known = || {
            let one = |(name, recipe): (&String, &RecipeConfig)| format!("{name} ({})", recipe.technique);
            self.recipe.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        if let Some(name) = name.or(self.run.recipe.as_deref().filter(|_| technique.is_none())) {
            let found = self.recipe.get_key_value(name).ok_or_else(|| {
                ConfigError::value(
                    "recipe",
                    format!("{name:?}"),
                    format!("no such recipe; there are: {}", known()),
                )
            })?;
            return match fits(found.1) {
                true => Ok((found.0.as_str(), found.1)),
                false => Err(ConfigError::value(
                    "technique",
                    format!("{:?}", technique.unwrap_or_default()),
                    format!("recipe {name} is of technique {}", found.1.technique),
                )),
            };
        }
        let mut fitting = self.recipe.iter().filter(|(_, recipe)| fits(recipe));
        match (fitting.next(), fitting.next(), technique) {
            (Some((name, recipe)), None, _) => Ok((name.as_str(), recipe)),
            (_, _, None) => Err(ConfigError::value(
                "run.recipe",
                "(missing)",
                format!("name one of the {} recipes: {}", self.recipe.len(), known()),
            )),
            (several, _, Some(technique)) => Err(ConfigError::value(
                "technique",
                format!("{technique:?}"),
                match several {
                    Some(_) => format!("several recipes are of this technique, name one: {}", known()),
                    None => format!("no recipe is of this technique; there are: {}", known()),
                },
            )),
        }
    }

    /// The same with so many frames from every source that does as it is told; others announce theirs.
    pub fn expecting(&self, frames: u64) -> Config {
        let mut config = self.clone();
        for entry in &mut config.source {
            match &mut entry.source {
                SourceConfig::Simulate(simulate) => simulate.simulate.frames = frames,
                SourceConfig::Udp(udp) => udp.udp.frames = frames,
                SourceConfig::Replay(_) | SourceConfig::Rdma(_) | SourceConfig::Dectris(_) => {}
            }
        }
        config
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("run.metadata_wait_s", self.run.metadata_wait_s, 0.0, 3600.0)?;
        within("ring.slots", self.ring.slots, 16, 65536)?;
        within("accelerator.batch_limit", self.accelerator.batch_limit, 1, 64)?;
        within("accelerator.retry_s", self.accelerator.retry_s, 0.1, 3600.0)?;
        within("store.frames_per_file", self.store.frames_per_file, 1, 1_000_000)?;
        within("store.threads", self.store.threads, 0, 64)?;
        assembly::check(self)?;
        crate::keep::check_config(self)?;
        calibrations::check(&self.calibrations)?;
        if self.emit.dectris.is_some() {
            within(
                "emit.queue_frames",
                self.emit.queue_frames,
                1,
                1024.min(self.ring.slots / 4),
            )?;
        }
        if self.recipe.is_empty() {
            let expected = "a [recipe.NAME] with a technique and its operations";
            return Err(ConfigError::value("recipe", "(missing)", expected));
        }
        if self.run.recipe.is_some() || self.recipe.len() == 1 {
            self.recipe(None, None)?;
        }
        for (name, recipe) in &self.recipe {
            crate::recipes::check(name, recipe)?;
        }
        let known = crate::recipes::results_of(self.recipe.iter())?;
        Rules::new(&self.rule, known).map_err(|error| ConfigError::value("rule", "", error.to_string()))?;
        self.check_cores()?;
        feedback::check(&self.feedback)
    }

    fn check_cores(&self) -> Result<(), ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let named = self
            .cores
            .receive
            .iter()
            .chain(&self.cores.workers)
            .chain(&self.cores.writer);
        for core in named {
            if *core >= cores {
                return Err(ConfigError::value(
                    "cores",
                    core,
                    format!("this machine has cores 0 to {}", cores - 1),
                ));
            }
        }
        let incomplete = self.cores.receive.is_none() || self.cores.workers.is_empty() || self.cores.writer.is_none();
        if self.cores.mode == CoreMode::Dedicated && incomplete {
            let expected = "needs cores.receive, cores.workers and cores.writer";
            return Err(ConfigError::value("cores.mode", "\"dedicated\"", expected));
        }
        Ok(())
    }
}

/// `path` as given where it is absolute, else below `folder`.
pub fn resolve(folder: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() {
        path.to_path_buf()
    } else {
        folder.join(path)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, low: T, high: T) -> Result<(), ConfigError> {
    if value < low || value > high {
        return Err(ConfigError::value(key, value, format!("allowed is {low} to {high}")));
    }
    Ok(())
}
