//! What others see of closed runs: the export, and the facility's catalogues.

use super::super::push::Job;
use super::super::{KeepError, Keeper, access, announce};
use super::{SOME, chance, locked};
use serde_json::json;

impl Keeper {
    /// Shows closed runs in the export. One that cannot be shown stays on the list and is tried again, after a wait.
    pub(super) fn export(&self) -> Result<(), KeepError> {
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

    /// Tells the facility of the verified run whose turn it is.
    pub(super) fn tell(&self) -> Result<(), KeepError> {
        if self.settings.announce.folder.is_none() {
            return Ok(());
        }
        for run in self.catalogue.unannounced(SOME * 10)? {
            let now = self.clock.now().steady;
            if !locked(&self.telling).is_due(now, &run.path) {
                continue;
            }
            // Whoever works on it wrote down, or will, what it knew of it before: then it would be told twice.
            let Some(_busy) = self.take(&run.path) else { continue };
            let Some(mut job) = self.job(&run.path) else { continue };
            if job.life.announced {
                self.note(&run.path)?;
                continue;
            }
            let told = announce::announce(&self.settings.announce, &self.settings.base, &job)
                .and_then(|()| job.append(self.clock.now().wall, "announced", json!({})));
            let outcome = if told.is_ok() { "done" } else { "failed" };
            self.metrics.announced.with_label_values(&[outcome]).inc();
            return match told {
                Ok(()) => {
                    locked(&self.telling).succeeded(&run.path);
                    self.catalogue.set_life(&run.path, &job.life)
                }
                Err(error) => {
                    locked(&self.telling).failed(&run.path, self.clock.now().steady, chance());
                    Err(error)
                }
            };
        }
        Ok(())
    }
}
