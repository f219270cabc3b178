//! The keeper: looks after the runs of one store. [`Keeper::start`] does it on threads of its own, beside the runs that are
//! recorded; the command line does single steps of it.
//!
//! `copy` is the way to the central store and back, `retain` what may be deleted and when, `care` what becomes of files
//! that are not as they were written and of runs that were never closed, `tell` what others see, `look` what is said of it.
//! Whoever works on one run after the other opens it by [`Keeper::job`], so that one bad run is in nobody's way.

mod care;
mod copy;
mod look;
mod retain;
mod tell;

use super::catalogue::Catalogue;
use super::clock::{Clock, Trust};
use super::config::{AccessConfig, AnnounceConfig, PushConfig, RetentionConfig};
use super::destination::{self, Destination};
use super::life::Life;
use super::schedule::{Pace, Schedule};
use super::status::KeepStatus;
use super::{KEEP_FOLDER, KeepError, KeepMetrics, delete};
use crate::storage::Store;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Runs that one step looks at.
const SOME: usize = 100;
/// Longest sleep within which the program's end is noticed.
const NAP: Duration = Duration::from_millis(50);

/// What the keeper goes by.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[push]`
    pub push: PushConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
    /// `[access]`
    pub access: AccessConfig,
    /// `[announce]`
    pub announce: AnnounceConfig,
    /// folder that relative paths of the configuration are relative to
    pub base: PathBuf,
}

impl Settings {
    /// Those of a configuration.
    pub fn of(config: &crate::config::Config) -> Settings {
        Settings {
            push: config.push.clone(),
            retention: config.retention.clone(),
            access: config.access.clone(),
            announce: config.announce.clone(),
            base: config.folder.clone(),
        }
    }
}

/// Looks after a store.
pub struct Keeper {
    settings: Settings,
    store: Store,
    catalogue: Arc<Catalogue>,
    clock: Clock,
    metrics: KeepMetrics,
    destination: Option<Box<dyn Destination>>,
    schedule: Mutex<Schedule>,
    telling: Mutex<Schedule>,
    showing: Mutex<Schedule>,
    opening: Mutex<Schedule>,
    closing: Mutex<Schedule>,
    pace: Mutex<Pace>,
    scrub_pace: Mutex<Pace>,
    trust: Mutex<Trust>,
    clock_kept: Mutex<Option<Duration>>,
    clock_follows: Mutex<Option<(Instant, bool)>>,
    /// runs that a thread works on: pushed, read again, scrubbed or deleted, one at a time
    busy: Mutex<BTreeSet<String>>,
    going: Mutex<Going>,
    status: Mutex<Option<KeepStatus>>,
    stop: AtomicBool,
    // Held: another process that wants to look after this store is refused.
    lock: Option<File>,
}

/// A run that nobody else works on while this is held.
struct Busy<'a>(&'a Mutex<BTreeSet<String>>, String);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        locked(self.0).remove(&self.1);
    }
}

#[derive(Default)]
struct Going {
    current: Option<String>,
    error: Option<String>,
    complete: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn warn(doing: &str, done: Result<(), KeepError>) {
    if let Err(error) = done
        && !matches!(error, KeepError::Stopped)
    {
        tracing::warn!(target: "fluxline", "the store, {doing}: {error}");
    }
}

/// A number between 0 and 1 that nobody foresees: what keeps appliances from coming back all at once.
fn chance() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

impl Keeper {
    /// The keeper of `store`. With `alone` no other process may look after it at the same time.
    pub fn open(
        store: &Store,
        catalogue: Arc<Catalogue>,
        settings: Settings,
        metrics: KeepMetrics,
        alone: bool,
    ) -> Result<Keeper, KeepError> {
        let folder = store.root().join(KEEP_FOLDER);
        let lock = if alone {
            let path = folder.join("keeper.lock");
            let file = File::create(&path).map_err(|source| KeepError::io("creating", &path, source))?;
            let root = store.root().to_path_buf();
            file.try_lock().map_err(|_| KeepError::Locked { store: root })?;
            Some(file)
        } else {
            None
        };
        let destination = destination::open(&settings.push, store.root(), &settings.base)?;
        let keeper = Keeper {
            pace: Mutex::new(Pace::new(settings.push.rate_mb_s * 1e6)),
            scrub_pace: Mutex::new(Pace::new(settings.retention.scrub_mb_s * 1e6)),
            store: store.clone(),
            settings,
            catalogue,
            clock: Clock::of_environment(),
            metrics,
            destination,
            schedule: Mutex::default(),
            telling: Mutex::default(),
            showing: Mutex::default(),
            opening: Mutex::default(),
            closing: Mutex::default(),
            trust: Mutex::new(retain::remembered(store)),
            clock_kept: Mutex::default(),
            clock_follows: Mutex::default(),
            busy: Mutex::default(),
            going: Mutex::default(),
            status: Mutex::default(),
            stop: AtomicBool::new(false),
            lock,
        };
        if alone {
            delete::finish(keeper.access());
        }
        Ok(keeper)
    }

    /// Looks after the store on threads of its own until [`Keeper::stop`].
    pub fn start(self) -> std::io::Result<Arc<Keeper>> {
        let keeper = Arc::new(self);
        let spawn = |name: &str, each: Duration, work: fn(&Keeper)| {
            let keeper = keeper.clone();
            std::thread::Builder::new().name(name.into()).spawn(move || {
                while !keeper.stop.load(Relaxed) {
                    work(&keeper);
                    keeper.nap(each);
                }
            })
        };
        spawn("fluxline-keep", Duration::from_millis(500), Keeper::tick)?;
        spawn("fluxline-push", Duration::from_millis(200), |keeper| {
            // What failed is in status, and tried again when its time has come.
            while let Ok(Some(_)) = keeper.push_next() {}
            warn("looking for runs that are safe to delete", keeper.mature());
            warn("looking for the central store", keeper.probe());
        })?;
        spawn("fluxline-tell", Duration::from_millis(500), |keeper| {
            warn("telling the facility", keeper.tell())
        })?;
        spawn("fluxline-scrub", Duration::from_secs(1), |keeper| {
            let looked = loop {
                match keeper.scrub_next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            warn("looking after files", looked);
        })?;
        spawn("fluxline-close", Duration::from_secs(1), |keeper| {
            warn("closing interrupted runs", keeper.close_interrupted())
        })?;
        Ok(keeper)
    }

    /// The threads end at the next opportunity. What is on its way goes on after the next start.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// The catalogue of the store.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Where runs are pushed to.
    pub fn destination(&self) -> Option<&dyn Destination> {
        self.destination.as_deref()
    }

    /// Whether no other process looks after the store.
    fn alone(&self) -> bool {
        self.lock.is_some()
    }

    fn access(&self) -> (&AccessConfig, &Path) {
        (&self.settings.access, self.store.root())
    }

    /// Takes a run to work on; none while another thread does.
    fn take(&self, path: &str) -> Option<Busy<'_>> {
        let free = locked(&self.busy).insert(path.to_string());
        free.then(|| Busy(&self.busy, path.to_string()))
    }

    /// Enters into the catalogue what a run's own file says by now.
    fn note(&self, path: &str) -> Result<(), KeepError> {
        self.catalogue
            .set_life(path, &Life::read(&self.catalogue.folder(path))?)
    }

    fn nap(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.stop.load(Relaxed) && Instant::now() < end {
            std::thread::sleep(NAP.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// Lets the time pass that so many bytes cost.
    fn wait(&self, pace: &Mutex<Pace>, bytes: usize) -> Result<(), KeepError> {
        let wait = locked(pace).take(self.clock.now().steady, bytes);
        self.nap(wait);
        match self.stop.load(Relaxed) {
            true => Err(KeepError::Stopped),
            false => Ok(()),
        }
    }

    fn paced(&self) -> impl Fn(usize) -> Result<(), KeepError> + Sync + '_ {
        |bytes| {
            self.metrics.pushed_bytes.inc_by(bytes as u64);
            self.wait(&self.pace, bytes)
        }
    }

    /// Everything but pushing and scrubbing, once.
    fn tick(&self) {
        warn("looking for runs", self.refresh(Duration::from_secs(2)).map(|_| ()));
        self.clock_is_right(&self.clock.now());
        warn("showing closed runs", self.export());
        warn("deleting", self.collect(0).map(|_| ()));
        let looked = self.look().map(|status| *locked(&self.status) = Some(status));
        warn("looking at it", looked);
    }

    /// Finds runs that were closed since; whether all are known now.
    pub fn refresh(&self, patience: Duration) -> Result<bool, KeepError> {
        let complete = self.catalogue.refresh(patience)?;
        locked(&self.going).complete = complete;
        Ok(complete)
    }
}
