//! The keeper: looks after the runs of one store. [`Keeper::start`] does it on threads of its own, beside the runs that are
//! recorded; the command line does single steps of it.

use super::catalogue::{Catalogue, Found};
use super::clock::{Clock, Now, Trust};
use super::config::{AccessConfig, AnnounceConfig, PushConfig, RetentionConfig};
use super::destination::{self, Destination};
use super::life::{Life, State};
use super::push::{self, Job};
use super::retention::{self, Forecast, Room};
use super::schedule::{Pace, Schedule};
use super::scrub::{self, Scrubbed};
use super::status::{KeepStatus, PushStatus, StateCount};
use super::{Candidate, KEEP_FOLDER, KeepError, KeepMetrics, Plan, access, announce, delete};
use crate::storage::Store;
use serde_json::json;
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
/// How often the machine is asked whether its clock follows a server.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

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
    pace: Mutex<Pace>,
    scrub_pace: Mutex<Pace>,
    trust: Mutex<Trust>,
    clock_follows: Mutex<Option<(Instant, bool)>>,
    /// runs that a thread works on: pushed, read again, scrubbed or deleted, one at a time
    busy: Mutex<BTreeSet<String>>,
    going: Mutex<Going>,
    status: Mutex<Option<KeepStatus>>,
    stop: AtomicBool,
    // Held: another process that wants to look after this store is refused.
    _lock: Option<File>,
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
            trust: Mutex::default(),
            clock_follows: Mutex::default(),
            busy: Mutex::default(),
            going: Mutex::default(),
            status: Mutex::default(),
            stop: AtomicBool::new(false),
            _lock: lock,
        };
        if alone {
            delete::finish(keeper.access())?;
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
        })?;
        spawn("fluxline-tell", Duration::from_millis(500), |keeper| {
            warn("telling the facility", keeper.tell())
        })?;
        spawn("fluxline-scrub", Duration::from_secs(1), |keeper| {
            while let Ok(Some(_)) = keeper.scrub_next() {}
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

    /// The central store where it is, unless it is given time.
    fn reachable(&self) -> Option<&dyn Destination> {
        let waits = locked(&self.schedule).waits(self.clock.now().steady);
        self.destination().filter(|_| waits.is_zero())
    }

    /// Gives the central store time where it was the reason.
    fn back_off<T>(&self, done: Result<T, KeepError>) -> Result<T, KeepError> {
        if let Err(KeepError::Away { .. }) = &done {
            locked(&self.schedule).away(self.clock.now().steady, chance());
        }
        done
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

    /// Shows closed runs in the export. One that cannot be shown stays on the list and is tried again, after a wait.
    fn export(&self) -> Result<(), KeepError> {
        let mut tried = 0;
        for run in self.catalogue.unexported(SOME * 100)? {
            let now = self.clock.now().steady;
            if tried == SOME || !locked(&self.showing).is_due(now, &run.path) {
                continue;
            }
            tried += 1;
            let done = Job::open(self.store.root(), &run.path)
                .and_then(|job| access::publish(&self.settings.access, self.store.root(), &job));
            if done.is_ok() {
                self.catalogue.set_exported(&run.path, true)?;
                locked(&self.showing).succeeded(&run.path);
            }
            let outcome = if done.is_ok() { "done" } else { "failed" };
            self.metrics.exported.with_label_values(&[outcome]).inc();
            if let Err(error) = done {
                let wait = locked(&self.showing).failed(&run.path, now, chance()).as_secs_f64();
                tracing::warn!(target: "fluxline", "run {} is not in the export: {error} (next try in {wait:.0} s)", run.path);
            }
        }
        Ok(())
    }

    /// Pushes the run whose turn it is; none where nobody's is.
    pub fn push_next(&self) -> Result<Option<Found>, KeepError> {
        let Some(to) = self.destination() else { return Ok(None) };
        let waiting = self.catalogue.in_states(&[State::Closed, State::Pushed], SOME * 10)?;
        let waiting: Vec<Found> = waiting.into_iter().filter(|run| run.damaged.is_none()).collect();
        let names: Vec<String> = waiting.iter().map(|run| run.path.clone()).collect();
        let now = self.clock.now();
        let Some(name) = locked(&self.schedule).next(now.steady, &names).cloned() else {
            return Ok(None);
        };
        let Some(_busy) = self.take(&name) else { return Ok(None) };
        locked(&self.going).current = Some(name.clone());
        let done = self.push(&name, to);
        let mut going = locked(&self.going);
        going.current = None;
        match done {
            Ok(()) => {
                locked(&self.schedule).succeeded(&name);
                self.metrics.pushes.with_label_values(&["verified"]).inc();
                going.error = None;
                Ok(waiting.into_iter().find(|run| run.path == name))
            }
            Err(KeepError::Stopped) => Err(KeepError::Stopped),
            Err(error) => {
                let now = self.clock.now().steady;
                let wait = match &error {
                    KeepError::Away { .. } => locked(&self.schedule).away(now, chance()),
                    _ => locked(&self.schedule).failed(&name, now, chance()),
                };
                self.metrics.pushes.with_label_values(&[error.reason()]).inc();
                tracing::warn!(target: "fluxline", "run {name} is not pushed: {error} (next try in {:.0} s)", wait.as_secs_f64());
                going.error = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn push(&self, path: &str, to: &dyn Destination) -> Result<(), KeepError> {
        let mut job = match Job::open(self.store.root(), path) {
            Err(error @ KeepError::Damaged { .. }) => {
                self.damaged(path, &error)?;
                return Err(error);
            }
            opened => opened?,
        };
        let parallel = self.settings.push.parallel;
        let pace = self.paced();
        let done = match job.life.state {
            State::Closed => push::send(&mut job, to, parallel, self.clock.now().wall, &pace)
                .and_then(|()| push::verify(&mut job, to, parallel, self.clock.now().wall, &pace)),
            State::Pushed => push::verify(&mut job, to, parallel, self.clock.now().wall, &pace),
            _ => Ok(()),
        };
        match &done {
            Err(error @ KeepError::Damaged { .. }) => self.damaged(path, error)?,
            Err(error @ KeepError::Differs { .. }) => self.closed_again(&mut job, error)?,
            _ => {}
        }
        self.note(path)?;
        done
    }

    fn damaged(&self, path: &str, error: &KeepError) -> Result<(), KeepError> {
        let folder = self.catalogue.folder(path);
        let mut life = Life::read(&folder)?;
        life.append(
            &folder,
            self.clock.now().wall,
            "damaged",
            json!({ "reason": error.to_string() }),
        )?;
        self.catalogue.set_life(path, &life)
    }

    fn closed_again(&self, job: &mut Job, error: &KeepError) -> Result<(), KeepError> {
        job.append(self.clock.now().wall, "closed", json!({ "reason": error.to_string() }))?;
        self.catalogue.set_life(&job.path, &job.life)
    }

    /// Reads the copy of a run again; one that differs makes the run closed, so that it is pushed again.
    pub fn verify(&self, path: &str) -> Result<(), KeepError> {
        let to = self
            .destination()
            .ok_or_else(|| KeepError::Config("push.to is not set: there is no copy".into()))?;
        let busy = || KeepError::Config(format!("{path} is being worked on: try again"));
        let _busy = self.take(path).ok_or_else(busy)?;
        let mut job = Job::open(self.store.root(), path)?;
        if !matches!(job.life.state, State::Verified | State::SafeToDelete | State::Deleted) {
            return Err(KeepError::Config(format!(
                "{path} is {}: it has no verified copy yet",
                job.life.state.name()
            )));
        }
        let now = self.clock.now().wall;
        let done = push::reread(&mut job, to, self.settings.push.parallel, now, &|_| {
            self.wait(&self.pace, 0)
        });
        if let Err(error @ KeepError::Differs { .. }) = &done {
            self.closed_again(&mut job, error)?;
        }
        self.note(path)?;
        done
    }

    /// Whether the age of runs can be believed.
    fn clock_is_right(&self, now: Now) -> bool {
        let age = self.settings.retention.min_age();
        let steady = locked(&self.trust).look(now, age);
        if self.settings.retention.trust_clock || self.clock.is_test() {
            return steady;
        }
        let mut follows = locked(&self.clock_follows);
        if follows.is_none_or(|(at, _)| at.elapsed() > CLOCK_LOOK) {
            let asked = std::process::Command::new("timedatectl")
                .args(["show", "--property=NTPSynchronized", "--value"])
                .output();
            let yes = asked.is_ok_and(|output| output.stdout.starts_with(b"yes"));
            *follows = Some((Instant::now(), yes));
        }
        steady && follows.is_some_and(|(_, yes)| yes)
    }

    /// Marks verified runs that are old enough as safe to delete, reading their copies again where that is wanted.
    pub fn mature(&self) -> Result<(), KeepError> {
        let Some(to) = self.reachable() else { return Ok(()) };
        let now = self.clock.now();
        let trusted = self.clock_is_right(now);
        let age = self.settings.retention.min_age();
        for run in self.catalogue.in_states(&[State::Verified], SOME)? {
            let Some(_busy) = self.take(&run.path) else { continue };
            let mut job = Job::open(self.store.root(), &run.path)?;
            if retention::is_safe(&job.life, now.wall, age, trusted).is_err() {
                // Oldest first: the others are younger, or damaged, which is rare.
                if job.life.damaged.is_some() {
                    continue;
                }
                break;
            }
            if self.settings.retention.verify_again {
                let pace = |_| self.wait(&self.pace, 0);
                if let Err(error) = push::reread(&mut job, to, self.settings.push.parallel, now.wall, &pace) {
                    if matches!(error, KeepError::Differs { .. }) {
                        self.closed_again(&mut job, &error)?;
                        tracing::warn!(target: "fluxline", "run {}: {error}", run.path);
                        continue;
                    }
                    return self.back_off(Err(error));
                }
            }
            job.append(now.wall, "safe_to_delete", json!({ "destination": to.name() }))?;
            self.catalogue.set_life(&run.path, &job.life)?;
        }
        Ok(())
    }

    /// What deleting would do now, so that a run of `needed_bytes` finds room.
    pub fn plan(&self, needed_bytes: u64) -> Result<Plan, KeepError> {
        let candidate = |run: Found| Candidate {
            path: run.path,
            bytes: run.bytes,
        };
        let safe = self.catalogue.in_states(&[State::SafeToDelete], 100_000)?;
        let mut safe: Vec<Candidate> = safe
            .into_iter()
            .filter(|run| run.damaged.is_none())
            .map(candidate)
            .collect();
        let bytes: Vec<u64> = safe.iter().map(|run| run.bytes).collect();
        let count = retention::must_go(&bytes, self.room()?, self.settings.retention.watermarks(), needed_bytes);
        let stay = safe.split_off(count);
        let totals = self.catalogue.totals()?;
        let kept = totals
            .iter()
            .filter(|total| !matches!(total.life, State::SafeToDelete | State::Deleted));
        let (unsafe_runs, unsafe_bytes) = kept.fold((0, 0), |sum, total| (sum.0 + total.runs, sum.1 + total.bytes));
        Ok(Plan {
            delete: safe,
            stay,
            unsafe_runs,
            unsafe_bytes,
        })
    }

    /// Deletes runs that are safe to delete, oldest first, until there is room; which ones.
    pub fn collect(&self, needed_bytes: u64) -> Result<Vec<Candidate>, KeepError> {
        let Some(to) = self.reachable() else {
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        for run in self.plan(needed_bytes)?.delete {
            let Some(_busy) = self.take(&run.path) else { continue };
            let mut job = Job::open(self.store.root(), &run.path)?;
            let now = self.clock.now();
            let facts = (now.wall, self.settings.retention.min_age(), self.clock_is_right(now));
            match delete::delete(&mut job, to, self.access(), facts) {
                Ok(()) => {
                    self.catalogue.set_life(&run.path, &job.life)?;
                    self.metrics.deleted.inc();
                    tracing::info!(target: "fluxline", "run {} is deleted here; its copy is at {}", run.path, to.name());
                    gone.push(run);
                }
                Err(error @ KeepError::Differs { .. }) => {
                    tracing::warn!(target: "fluxline", "run {} is not deleted: {error}", run.path);
                    self.closed_again(&mut job, &error)?;
                }
                Err(error) => return self.back_off(Err(error)),
            }
        }
        Ok(gone)
    }

    fn tell(&self) -> Result<(), KeepError> {
        if self.settings.announce.folder.is_none() {
            return Ok(());
        }
        let waiting = self.catalogue.unannounced(SOME)?;
        let names: Vec<String> = waiting.into_iter().map(|run| run.path).collect();
        let name = locked(&self.telling).next(self.clock.now().steady, &names).cloned();
        if let Some(name) = name {
            let mut job = Job::open(self.store.root(), &name)?;
            match announce::announce(&self.settings.announce, &self.settings.base, &job) {
                Ok(()) => {
                    job.append(self.clock.now().wall, "announced", json!({}))?;
                    self.note(&name)?;
                    locked(&self.telling).succeeded(&name);
                    self.metrics.announced.with_label_values(&["done"]).inc();
                }
                Err(error) => {
                    self.metrics.announced.with_label_values(&["failed"]).inc();
                    locked(&self.telling).failed(&name, self.clock.now().steady, chance());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Looks over the run that waits longest for it; none where nobody's time has come.
    pub fn scrub_next(&self) -> Result<Option<(String, Scrubbed)>, KeepError> {
        let now = self.clock.now().wall.as_microsecond();
        let before = now - (self.settings.retention.scrub_h * 3.6e9) as i64;
        let Some(run) = self.catalogue.unscrubbed(before, 1)?.pop() else {
            return Ok(None);
        };
        let done = self.scrub(&run.path);
        match &done {
            Err(KeepError::Stopped) => {}
            _ => self.catalogue.set_scrubbed(&run.path, now)?,
        }
        Ok(Some((run.path, done?)))
    }

    /// Looks over one run.
    pub fn scrub(&self, path: &str) -> Result<Scrubbed, KeepError> {
        // Another thread reads it anyway; its turn comes again.
        let Some(_busy) = self.take(path) else {
            return Ok(Scrubbed::default());
        };
        let mut job = Job::open(self.store.root(), path)?;
        if job.life.state == State::Deleted {
            return Ok(Scrubbed::default());
        }
        let pace = |bytes| self.wait(&self.scrub_pace, bytes);
        let found = scrub::scrub(&mut job, self.destination(), self.clock.now().wall, &pace)?;
        for (outcome, files) in [
            ("good", &found.good),
            ("repaired", &found.repaired),
            ("damaged", &found.damaged),
        ] {
            self.metrics
                .scrubbed
                .with_label_values(&[outcome])
                .inc_by(files.len() as u64);
        }
        for text in &found.damaged {
            tracing::error!(target: "fluxline", "run {path}: {text}");
        }
        self.note(path)?;
        if !found.repaired.is_empty() {
            // Where this fails it is tried again, as for a run that was closed.
            self.catalogue.set_exported(path, false)?;
            access::publish(&self.settings.access, self.store.root(), &job)?;
            self.catalogue.set_exported(path, true)?;
        }
        Ok(found)
    }

    /// How full the store is, runs that are being recorded left out.
    pub fn room(&self) -> Result<Room, KeepError> {
        let totals = self.catalogue.totals()?;
        let here = totals.iter().filter(|total| total.life != State::Deleted);
        let used_bytes = here.map(|total| total.bytes).sum::<u64>();
        let disk = self.store.free_bytes()?.saturating_add(used_bytes);
        let capacity = self.settings.retention.capacity_gb.map(|gb| (gb * 1e9) as u64);
        Ok(Room {
            capacity_bytes: capacity.map_or(disk, |most| most.min(disk)),
            used_bytes,
        })
    }

    /// Whether a run that may take `needed_bytes` can be armed, after deleting what is safe. Otherwise what there is.
    pub fn admit(&self, needed_bytes: u64) -> Result<Result<(), Room>, KeepError> {
        self.refresh(Duration::from_millis(500))?;
        let marks = self.settings.retention.watermarks();
        let room = self.room()?;
        if retention::fits(room, marks, needed_bytes) {
            return Ok(Ok(()));
        }
        if let Err(error) = self.collect(needed_bytes) {
            tracing::warn!(target: "fluxline", "no room is made in the store: {error}");
        }
        let room = self.room()?;
        Ok(if retention::fits(room, marks, needed_bytes) {
            Ok(())
        } else {
            Err(room)
        })
    }

    /// What will be.
    pub fn forecast(&self) -> Result<Forecast, KeepError> {
        let now = self.clock.now().wall.as_microsecond();
        let safe = self
            .catalogue
            .totals()?
            .into_iter()
            .find(|total| total.life == State::SafeToDelete);
        Ok(retention::forecast(
            self.room()?,
            self.settings.retention.watermarks(),
            safe.map_or(0, |total| total.bytes),
            self.catalogue.bytes_since(now - 3_600_000_000)?,
            self.catalogue.bytes_since(now - 86_400_000_000)?,
        ))
    }

    /// The state that the threads saw last; none before they looked.
    pub fn status(&self) -> Option<KeepStatus> {
        locked(&self.status).clone()
    }

    /// Looks at everything, and shows it in the metrics.
    pub fn look(&self) -> Result<KeepStatus, KeepError> {
        let now = self.clock.now();
        let (room, forecast, totals) = (self.room()?, self.forecast()?, self.catalogue.totals()?);
        let level = retention::level(room, self.settings.retention.watermarks());
        let mut status = KeepStatus {
            capacity_bytes: room.capacity_bytes,
            used_bytes: room.used_bytes,
            percent: room.percent(),
            level: level.name(),
            forecast,
            runs: Default::default(),
            push: PushStatus::default(),
            damaged_runs: self.catalogue.damaged()?,
            oldest_unverified_s: self
                .catalogue
                .oldest_unverified_us()?
                .map(|closed| (now.wall.as_microsecond() - closed).max(0) as f64 / 1e6),
            catalogue_complete: locked(&self.going).complete,
        };
        for state in State::ALL.into_iter().skip(1) {
            let total = totals.iter().find(|total| total.life == state);
            let count = total.map(|total| StateCount {
                runs: total.runs,
                bytes: total.bytes,
            });
            status.runs.insert(state.name(), count.unwrap_or_default());
        }
        let going = locked(&self.going);
        let (closed, pushed) = (status.of(State::Closed), status.of(State::Pushed));
        status.push = PushStatus {
            destination: self.destination().map(|to| to.name()),
            waiting_runs: closed.runs + pushed.runs,
            waiting_bytes: closed.bytes + pushed.bytes,
            current: going.current.clone(),
            error: going.error.clone(),
            retry_in_s: locked(&self.schedule).waits(now.steady).as_secs_f64(),
        };
        drop(going);
        self.show(&status);
        Ok(status)
    }

    fn show(&self, status: &KeepStatus) {
        let metrics = &self.metrics;
        for (state, count) in &status.runs {
            metrics.runs.with_label_values(&[state]).set(count.runs as i64);
            metrics.bytes.with_label_values(&[state]).set(count.bytes as f64);
        }
        metrics.fill.set(status.percent / 100.0);
        crate::metrics::Metrics::only(&metrics.level, &retention::Level::NAMES, status.level);
        metrics
            .hours_left
            .set(status.forecast.hours_left.unwrap_or(f64::INFINITY));
        metrics.rate.set(status.forecast.bytes_per_s);
        metrics.oldest_unverified.set(status.oldest_unverified_s.unwrap_or(0.0));
        metrics.damaged.set(status.damaged_runs as i64);
        metrics.push_wait.set(status.push.retry_in_s);
    }
}
