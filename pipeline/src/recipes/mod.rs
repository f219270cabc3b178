//! Recipes: what is computed with the frames of a run, as data. A technique is one folder here: its
//! operations, the NeXus definition its files follow, and the panel of the page that shows it.
//!
//! To add a technique: a folder with a [`Technique`], and its line in [`TECHNIQUES`].

pub mod diffraction;
pub(crate) mod fields;
pub mod files;
pub mod findings;
pub mod live;
pub mod tomography;

use crate::afterwards::Afterwards;
use crate::calibrations::Calibrations;
use crate::config::{ConfigError, RecipeConfig};
use crate::decisions::Known;
use crate::grid::GridScan;
use crate::storage::CurveAxis;
use driver::memory::FrameLease;
use frame::codec::Beneath;
use frame::{
    Compression, FrameKind, FrameResult, Geometry, Image, PixelMask, PixelType, ResultLayout, StreamDescription,
};
use kernels::{Accelerator, AcceleratorError, CorrectedBatch, DeviceBatch, DeviceKind, MemoryMode, Payload, Queue};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Every technique that this program knows.
pub const TECHNIQUES: [&dyn Technique; 2] = [&diffraction::Diffraction, &tomography::Tomography];

/// Why a recipe cannot run, or why it failed on a batch.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// a parameter is wrong
    #[error(transparent)]
    Parameter(#[from] ConfigError),
    /// the accelerator refused
    #[error("{operation}: {reason}")]
    Device {
        /// operation
        operation: &'static str,
        /// the device's words
        #[source]
        reason: AcceleratorError,
    },
    /// the frames do not fit the recipe
    #[error("{operation}: {reason}")]
    Frames {
        /// operation
        operation: &'static str,
        /// what does not fit and what to do
        reason: String,
    },
}

impl RecipeError {
    /// An error of the device while `operation` ran.
    pub fn device(operation: &'static str) -> impl Fn(AcceleratorError) -> RecipeError {
        move |reason| RecipeError::Device { operation, reason }
    }

    /// What does not fit `operation`, and what to do.
    pub fn frames<R: ToString>(operation: &'static str) -> impl Fn(R) -> RecipeError {
        move |reason| RecipeError::Frames {
            operation,
            reason: reason.to_string(),
        }
    }

    /// Whether the device is at fault, and not what was asked of it.
    pub fn of_device(&self) -> bool {
        use AcceleratorError::{Build, Call, Hung, Kernel};
        matches!(
            self,
            Self::Device {
                reason: Build { .. } | Call { .. } | Hung { .. } | Kernel { .. },
                ..
            }
        )
    }
}

/// What an operation needs to know before the first frame.
pub struct Setup<'a> {
    /// recipe name, for messages
    pub recipe: &'a str,
    /// the recipe's table
    pub config: &'a RecipeConfig,
    /// folder that relative paths are relative to
    pub folder: &'a std::path::Path,
    /// what the source knows
    pub stream: &'a StreamDescription,
    /// device
    pub accelerator: &'a Accelerator,
    /// most frames per batch
    pub batch_limit: usize,
    /// calibrations that were taken or uploaded
    pub calibrations: &'a Calibrations,
    /// when the run is armed: the time at which they must hold
    pub time: jiff::Timestamp,
    /// whether what an earlier run left is still being made, and takes its memory
    pub derived_busy: bool,
}

impl Setup<'_> {
    /// What the operations are made for.
    pub fn site(&self) -> Site<'_> {
        Site {
            accelerator: self.accelerator,
            stream: self.stream,
            batch_limit: self.batch_limit,
        }
    }

    /// Whether frames are reduced while they are decoded, on the host: they come compressed, and the device is the host's
    /// own processor. A device of its own gets decoded frames.
    pub fn fused(&self) -> bool {
        let whole_numbers = self.stream.pixel_type != PixelType::F32;
        let own = self.accelerator.info().kind == DeviceKind::Cpu && self.accelerator.memory() == MemoryMode::ZeroCopy;
        self.stream.compression != Compression::None && own && whole_numbers
    }

    /// The parameters of an operation, defaults where the recipe has no table for it.
    pub fn parameters<T: DeserializeOwned>(&self, operation: &str) -> Result<T, RecipeError> {
        Ok(parameters(self.recipe, self.config, operation)?)
    }

    /// A path relative to the configuration.
    pub fn path(&self, path: &files::NamedFile) -> PathBuf {
        crate::config::resolve(self.folder, path)
    }

    /// An error that names a parameter of this recipe.
    pub fn wrong(
        &self,
        operation: &str,
        key: &str,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> RecipeError {
        ConfigError::value(format!("recipe.{}.{operation}.{key}", self.recipe), value, expected).into()
    }
}

/// What an operation is made for: a device, and the frames that come to it.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// device
    pub accelerator: &'a Accelerator,
    /// the frames
    pub stream: &'a StreamDescription,
    /// most frames per batch
    pub batch_limit: usize,
}

/// A recipe made ready for one run.
pub struct Prepared {
    /// layout of every frame result
    pub layout: ResultLayout,
    /// axes of the result curves
    pub axes: Vec<CurveAxis>,
    /// what each worker runs, in order; one list per worker
    pub operations: Vec<Vec<Box<dyn Operation>>>,
    /// the same on the host, one per worker, where there is such a way; with a worker's `operations` empty it is the only
    /// one, else it takes the place of a device that fails
    pub host: Vec<Option<Box<dyn HostOperation>>>,
    /// makes the operations once more, where a recipe can: on the host's own processor, which takes a failing device's place,
    /// and on a device that was opened anew
    pub again: Option<Arc<dyn Again>>,
    /// why the device takes none of the operations, so that the host does them all in its place
    pub device_refused: Option<String>,
    /// pictures and curves that build up over the run, as they are before the first frame
    pub snapshot: Snapshot,
    /// mask of the run: the source's and the recipe's
    pub mask: PixelMask,
    /// geometry where the recipe has one
    pub geometry: Option<Geometry>,
    /// what the operations count over the run, by name
    pub counters: Vec<(&'static str, Counter)>,
    /// numbers of the operations that go up and down, by name
    pub levels: Vec<(&'static str, Level)>,
    /// whether the recipe may decide against storing a frame
    pub may_veto: bool,
    /// scores of a grid scan
    pub grid: Option<Arc<GridScan>>,
    /// everything as used, for the run's record
    pub parameters: serde_json::Value,
    /// what may change while the run records
    pub live: Arc<live::LiveParameters>,
    /// what its operations find out about the run as a whole
    pub found: Arc<findings::Findings>,
    /// what somebody should know before the first frame
    pub warnings: Vec<String>,
    /// what is left to do when the run is closed
    pub afterwards: Option<Box<dyn Afterwards>>,
}

/// A frame that threads may share.
#[derive(Clone)]
pub struct Leased(pub FrameLease);

impl Payload for Leased {
    fn bytes(&self) -> &[u8] {
        self.0.payload()
    }

    fn beneath(&self) -> Option<Beneath> {
        Compression::from_code(self.0.header().compression).and_then(Beneath::of)
    }
}

/// Makes the operations of a recipe once more, on another device, while the run records.
pub trait Again: Send + Sync {
    /// The operations of one worker. They count and sum where those of the run's device do.
    fn operations(&self, accelerator: &Accelerator, worker: usize) -> Result<Vec<Box<dyn Operation>>, RecipeError>;
}

/// A recipe's operations without a device.
pub trait HostOperation: Send {
    /// takes a micro-batch as it came and fills its results; frames that cannot be decoded go into `broken`, by their
    /// place in the batch, with the reason
    fn push(
        &mut self,
        frames: &[Leased],
        results: &mut [Arc<FrameResult>],
        broken: &mut Vec<(usize, String)>,
    ) -> Result<(), RecipeError>;
    /// touches what this thread would otherwise make at the first frame
    fn warm(&mut self);
    /// as [`Operation::snapshot`]
    fn snapshot(&mut self, snapshot: &mut Snapshot);
}

/// A number that operations of all workers count up.
pub type Counter = Arc<AtomicU64>;

/// A number of a recipe that goes up and down, set by one worker.
#[derive(Clone, Debug, Default)]
pub struct Level(Arc<AtomicU64>);

impl Level {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// What it is now; 0 before it was set.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Every [`Level`] of recipes, and so the labels of a metric.
pub const LEVELS: [&str; 3] = [
    "pedestal_drift_mean_adu",
    "pedestal_drift_largest_adu",
    "pedestal_drifted_pixels",
];

/// Everything that recipes count over a run, and so the labels of a metric.
pub const COUNTERS: [&str; 9] = [
    "spots",
    "frames_too_bright",
    "hits",
    "misses",
    "undecided",
    "misses_kept",
    "pixels_in_error",
    "pixels_saturated",
    "pedestal_words",
];

impl Prepared {
    /// A new counter; `name` is one of [`COUNTERS`].
    pub fn counter(&mut self, name: &'static str) -> Counter {
        debug_assert!(COUNTERS.contains(&name), "{name}");
        let counter = Counter::default();
        self.counters.push((name, counter.clone()));
        counter
    }

    /// A new level; `name` is one of [`LEVELS`].
    pub fn level(&mut self, name: &'static str) -> Level {
        debug_assert!(LEVELS.contains(&name), "{name}");
        let level = Level::default();
        self.levels.push((name, level.clone()));
        level
    }
}

/// A technique: one folder.
pub trait Technique: Sync {
    /// name in the configuration and in the API
    fn name(&self) -> &'static str;
    /// NeXus application definition of its files
    fn definition(&self) -> &'static str;
    /// operations that a recipe of this technique may list
    fn operations(&self) -> &'static [&'static str];
    /// whether frames must come in order to one owner, because an operation carries state from frame to frame
    fn ordered(&self, name: &str, config: &RecipeConfig) -> Result<bool, ConfigError>;
    /// parameters of its operations as JSON schemas: title and schema
    fn schemas(&self) -> Vec<(String, serde_json::Value)>;
    /// what the results of a recipe would be called, as much as can be known without a source; without a recipe, what those
    /// of any recipe might be called
    fn results(&self, name: &str, config: Option<&RecipeConfig>) -> Result<Known, ConfigError>;
    /// checks the parameters alone, without a source or a device
    fn check(&self, name: &str, config: &RecipeConfig) -> Result<(), ConfigError>;
    /// makes everything that the run needs: afterwards nothing is allocated until its end
    fn prepare(&self, setup: &Setup<'_>, workers: usize) -> Result<Prepared, RecipeError>;
}

/// A micro-batch on its way through a recipe. All its frames are of one kind.
pub struct Batch<'a> {
    /// queue of the worker
    pub queue: &'a Queue,
    /// pixels where the device reads them
    pub frames: &'a DeviceBatch,
    /// what the frames were taken for
    pub kind: FrameKind,
    /// rotation angle of each frame, degrees; NaN where there is none
    pub angles_deg: &'a [f64],
    /// results to fill, one per frame
    pub results: &'a mut [Arc<FrameResult>],
    /// corrected values, once an operation has made them for those behind it
    pub corrected: Option<&'a mut CorrectedBatch>,
}

impl Batch<'_> {
    /// The result of frame `index` of the batch. `None` while somebody else still reads it, which the pool excludes.
    pub fn result(&mut self, index: usize) -> Option<&mut FrameResult> {
        self.results.get_mut(index).and_then(Arc::get_mut)
    }

    /// Whether frame `index` of the batch lacks parts of itself.
    pub fn is_partial(&self, index: usize) -> bool {
        self.results.get(index).is_some_and(|result| result.partial)
    }
}

/// One operation of a recipe.
pub trait Operation: Send {
    /// name as the recipe lists it
    fn name(&self) -> &'static str;
    /// takes a micro-batch and fills its share of the results; allocates nothing
    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError>;
    /// counts over the run what it has found in the batch that it was given last, once every operation has done its share:
    /// a batch that fails at one of them counts nowhere; allocates nothing
    fn settle(&mut self, results: &mut [Arc<FrameResult>]) {
        let _ = results;
    }
    /// what its results rest on besides the frames of a batch, as it is before the first one; empty where there is nothing
    fn state(&self) -> Vec<f32> {
        Vec::new()
    }
    /// copies that to the host behind a batch, into what [`Operation::state`] has made; leaves it as it is where that fails;
    /// allocates nothing
    fn keep(&mut self, queue: &Queue, state: &mut Vec<f32>) -> Result<(), RecipeError> {
        let _ = (queue, state);
        Ok(())
    }
    /// goes on from there: another device has analysed meanwhile, or this one has failed in the middle of a batch
    fn resume(&mut self, queue: &Queue, state: &[f32]) -> Result<(), RecipeError> {
        let _ = (queue, state);
        Ok(())
    }
    /// writes its running pictures and curves into `snapshot`, which has room for them; allocates nothing
    fn snapshot(&mut self, queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        let _ = (queue, snapshot);
        Ok(())
    }
    /// takes what is still on its way and leaves the final state to a last [`Operation::snapshot`]
    fn finish(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        let _ = queue;
        Ok(())
    }
}

/// A curve that builds up over the run.
#[derive(Clone, Debug)]
pub struct RunningCurve {
    /// name, as the per-frame curve it belongs to
    pub name: String,
    /// unit
    pub unit: String,
    /// values
    pub values: Vec<f32>,
    /// standard errors of the values; empty where there are none
    pub errors: Vec<f32>,
    /// frames that it rests on
    pub frames_used: u64,
}

/// What a recipe has so far.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// counts updates
    pub version: u64,
    /// pictures
    pub images: Vec<Image>,
    /// curves
    pub curves: Vec<RunningCurve>,
}

/// The technique with this name.
pub fn technique(recipe: &str, name: &str) -> Result<&'static dyn Technique, ConfigError> {
    TECHNIQUES.into_iter().find(|t| t.name() == name).ok_or_else(|| {
        let known: Vec<&str> = TECHNIQUES.iter().map(|t| t.name()).collect();
        ConfigError::value(
            format!("recipe.{recipe}.technique"),
            format!("{name:?}"),
            format!("one of {}", known.join(", ")),
        )
    })
}

/// Checks a recipe's table without a source or a device.
pub fn check(name: &str, config: &RecipeConfig) -> Result<(), ConfigError> {
    let technique = technique(name, &config.technique)?;
    let known = technique.operations();
    for operation in &config.operations {
        if !known.contains(&operation.as_str()) {
            let expected = format!("{} knows the operations {}", technique.name(), known.join(", "));
            return Err(ConfigError::value(
                format!("recipe.{name}.operations"),
                format!("{operation:?}"),
                expected,
            ));
        }
    }
    for table in config.parameters.keys() {
        if !config.operations.iter().any(|operation| operation == table) {
            let expected = format!(
                "the recipe has no operation of that name; it lists {}",
                config.operations.join(", ")
            );
            return Err(ConfigError::value(format!("recipe.{name}"), table, expected));
        }
    }
    technique.check(name, config)
}

/// What the results of any of these recipes would be called; of none, what those of any technique might.
pub fn results_of<'a>(recipes: impl Iterator<Item = (&'a String, &'a RecipeConfig)>) -> Result<Known, ConfigError> {
    let (mut all, mut some) = (Known::default(), false);
    let mut add = |known: Known| {
        all.curve |= known.curve;
        all.scalars.extend(known.scalars);
    };
    for (name, config) in recipes {
        some = true;
        add(technique(name, &config.technique)?.results(name, Some(config))?);
    }
    if !some {
        for technique in TECHNIQUES {
            add(technique.results("", None)?);
        }
        all.regions = true;
    }
    // Several recipes may make the same.
    let mut seen = std::collections::BTreeSet::new();
    all.scalars.retain(|(name, _)| seen.insert(name.clone()));
    Ok(all)
}

/// The parameters of one operation; an unknown key is an error that names it.
pub fn parameters<T: DeserializeOwned>(recipe: &str, config: &RecipeConfig, operation: &str) -> Result<T, ConfigError> {
    let table = config
        .parameters
        .get(operation)
        .cloned()
        .unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    let shown = table.clone();
    table.try_into().map_err(|error: toml::de::Error| {
        let text = error.to_string();
        ConfigError::value(
            format!("recipe.{recipe}.{operation}"),
            shown,
            text.trim_end().to_string(),
        )
    })
}

/// Parameters of every operation, for `docs/configuration.md`: title and JSON schema.
pub fn schemas() -> Vec<(String, serde_json::Value)> {
    TECHNIQUES.iter().flat_map(|technique| technique.schemas()).collect()
}
