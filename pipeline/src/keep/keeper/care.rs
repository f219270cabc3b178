//! What becomes of files that are not as they were written, and of runs that were never closed.

use super::super::life::{Life, State};
use super::super::push::Job;
use super::super::scrub::{self, Scrubbed};
use super::super::{KeepError, Keeper, access};
use super::{SOME, chance, locked, warn};
use crate::storage::RunRecord;
use serde_json::json;
use std::path::Path;

impl Keeper {
    /// Opens a run for whoever works on one after the other. One that cannot be opened is set aside, with what is wrong
    /// with it, and looked at again after a while: the others go on.
    pub(super) fn job(&self, path: &str) -> Option<Job> {
        if !locked(&self.opening).is_due(self.clock.now().steady, path) {
            return None;
        }
        match Job::open(self.store.root(), path) {
            Ok(job) => {
                locked(&self.opening).succeeded(path);
                Some(job)
            }
            Err(error) => {
                self.left_alone(path, &error);
                None
            }
        }
    }

    /// Something is wrong with this run alone: it is looked at again after a while.
    pub(super) fn left_alone(&self, path: &str, error: &KeepError) {
        self.set_aside(path, error);
        let wait = locked(&self.opening).failed(path, self.clock.now().steady, chance());
        tracing::error!(target: "fluxline", "run {path} is left alone: {error} (next look in {:.0} s)", wait.as_secs_f64());
    }

    /// Marks a run as damaged where that is what is wrong with it: nothing of it is sent or deleted, and somebody is
    /// called. It is looked over next: what has a verified copy is repaired.
    pub(super) fn set_aside(&self, path: &str, error: &KeepError) {
        if !matches!(error, KeepError::Damaged { .. }) {
            return;
        }
        let marked = || -> Result<(), KeepError> {
            let folder = self.catalogue.folder(path);
            let (mut life, reason) = (Life::read(&folder)?, error.to_string());
            if life.damaged.as_ref() != Some(&reason) {
                let now = self.clock.now().wall;
                life.append(&folder, now, "damaged", json!({ "reason": reason }))?;
            }
            self.catalogue.set_life(path, &life)?;
            self.catalogue.set_scrubbed(path, 0)
        };
        warn("marking a damaged run", marked());
    }

    /// Looks over the run that waits longest for it; none where nobody's time has come.
    pub fn scrub_next(&self) -> Result<Option<(String, Scrubbed)>, KeepError> {
        let now = self.clock.now().wall.as_microsecond();
        let before = now - (self.settings.retention.scrub_h * 3.6e9) as i64;
        // One that another thread works on has its turn later.
        let mut waiting = self.catalogue.unscrubbed(before, SOME)?.into_iter();
        let Some((run, _busy)) = waiting.find_map(|run| self.take(&run.path).map(|busy| (run, busy))) else {
            return Ok(None);
        };
        let done = self.look_over(&run.path);
        match &done {
            Err(KeepError::Stopped) => {}
            _ => self.catalogue.set_scrubbed(&run.path, now)?,
        }
        Ok(Some((run.path, done?)))
    }

    /// Looks over one run.
    pub fn scrub(&self, path: &str) -> Result<Scrubbed, KeepError> {
        let busy = || KeepError::Config(format!("{path} is being worked on: try again"));
        let _busy = self.take(path).ok_or_else(busy)?;
        self.look_over(path)
    }

    /// Looks over a run that is taken.
    fn look_over(&self, path: &str) -> Result<Scrubbed, KeepError> {
        let found = self.compare(path)?;
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
            locked(&self.opening).succeeded(path);
            // Where this fails it is tried again, as for a run that was closed.
            self.catalogue.set_exported(path, false)?;
            let job = Job::open(self.store.root(), path)?;
            access::publish(&self.settings.access, self.store.root(), &job)?;
            self.catalogue.set_exported(path, true)?;
        }
        Ok(found)
    }

    /// `run.json` first, which says what the others must be.
    fn compare(&self, path: &str) -> Result<Scrubbed, KeepError> {
        let mut found = Scrubbed::default();
        let mut job = match Job::open(self.store.root(), path) {
            Err(error @ KeepError::Damaged { .. }) => {
                self.set_aside(path, &error);
                if let Err(why) = scrub::repair_record(self.store.root(), path, self.destination()) {
                    found.damaged.push(format!("{error}; not repaired: {why}"));
                    return Ok(found);
                }
                found.repaired.push("run.json".into());
                Job::open(self.store.root(), path)?
            }
            opened => opened?,
        };
        if job.life.state == State::Deleted {
            return Ok(found);
        }
        let pace = |bytes| self.wait(&self.scrub_pace, bytes);
        scrub::scrub(&mut job, found, self.destination(), self.clock.now().wall, &pace)
    }

    /// Closes runs that an interruption or a disk that failed has left open, as the start of the program does. One that
    /// cannot be closed is tried again after a while, and counted until it is.
    pub fn close_interrupted(&self) -> Result<(), KeepError> {
        let open = self.catalogue.unclosed_folders()?;
        let name = |folder: &Path| {
            let within = folder.strip_prefix(self.store.root()).unwrap_or(folder);
            within.display().to_string()
        };
        let names: std::collections::BTreeSet<String> = open.iter().map(|folder| name(folder)).collect();
        locked(&self.closing).retain(|run| names.contains(run));
        for folder in open {
            let path = name(&folder);
            let now = self.clock.now().steady;
            if !locked(&self.closing).is_due(now, &path) {
                continue;
            }
            match self.close_one(&folder, &path) {
                Ok(()) => locked(&self.closing).succeeded(&path),
                Err(error) => {
                    let wait = locked(&self.closing).failed(&path, now, chance()).as_secs_f64();
                    tracing::error!(target: "fluxline", "run {path} cannot be closed: {error} (next try in {wait:.0} s)");
                }
            }
        }
        Ok(())
    }

    /// Nothing where the run is being written.
    fn close_one(&self, folder: &Path, path: &str) -> Result<(), KeepError> {
        // It was closed, and its record cannot be read any more.
        if folder.join("run.json").exists()
            && let Err(error) = RunRecord::read(folder)
            && let Err(why) = scrub::repair_record(self.store.root(), path, self.destination())
        {
            let reason = format!("{error}; not repaired: {why}");
            return Err(KeepError::Damaged {
                path: folder.join("run.json"),
                reason,
            });
        }
        for run in self.store.recover_among(vec![folder.to_path_buf()]) {
            let run = run?;
            let (stored, expected) = run.frames;
            tracing::warn!(target: "fluxline", "{path}: interrupted; {stored} of {expected} frames are stored, {} results", run.results);
            run.publish()?;
            tracing::info!(target: "fluxline", "{path} is closed");
        }
        self.catalogue.look(path)
    }
}
