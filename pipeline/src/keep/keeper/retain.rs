//! How full the store is, what may be deleted and what is.

use super::super::catalogue::Found;
use super::super::clock::{Now, Trust};
use super::super::destination::Destination;
use super::super::life::State;
use super::super::push::{self, Job};
use super::super::retention::{self, Keep, Room};
use super::super::{Candidate, KEEP_FOLDER, KeepError, Keeper, Plan, delete};
use super::{SOME, locked, warn};
use crate::storage::Store;
use jiff::Timestamp;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the machine is asked whether its clock follows a server.
const CLOCK_LOOK: Duration = Duration::from_secs(60);
/// How often what was seen of the clock is kept for the next start.
const CLOCK_KEEP: Duration = Duration::from_secs(60);

fn clock_file(store: &Store) -> PathBuf {
    store.root().join(KEEP_FOLDER).join("clock.json")
}

/// What an earlier start has left of the clock.
pub(super) fn remembered(store: &Store) -> Trust {
    let kept = fs::read(clock_file(store)).ok();
    let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Trust::new(kept, has_runs(store))
}

/// Whether there is a day of any proposal.
fn has_runs(store: &Store) -> bool {
    let named = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    let proposals = fs::read_dir(store.root()).into_iter().flatten().flatten().filter(named);
    let mut days = proposals
        .filter_map(|proposal| fs::read_dir(proposal.path()).ok())
        .flatten()
        .flatten();
    days.any(|day| {
        let name = day.file_name();
        let name = name.to_string_lossy();
        name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Keeper {
    /// Whether the age of runs can be believed.
    pub(super) fn clock_is_right(&self, now: &Now) -> bool {
        let steady = self.clock_is_steady(now);
        if self.settings.retention.trust_clock || self.clock.is_test() {
            return steady;
        }
        let mut follows = locked(&self.clock_follows);
        if follows.is_none_or(|(at, _)| at.elapsed() > CLOCK_LOOK) {
            *follows = Some((Instant::now(), super::super::clock::follows_server()));
        }
        steady && follows.is_some_and(|(_, yes)| yes)
    }

    /// Whether the clock has not jumped, as far as this and earlier starts have seen.
    fn clock_is_steady(&self, now: &Now) -> bool {
        let mut trust = locked(&self.trust);
        let (age, before) = (self.settings.retention.min_age(), trust.trusted());
        let trusted = trust.look(now, age);
        if before && !trusted {
            tracing::warn!(
                target: "fluxline",
                "the clock jumped forward, or nobody knows how long the machine was off: nothing is deleted for {:.1} h",
                age.as_secs_f64() / 3600.0
            );
        }
        let mut kept = locked(&self.clock_kept);
        let due = kept.is_none_or(|at| now.steady.saturating_sub(at) >= CLOCK_KEEP) || before != trusted;
        if self.alone() && due {
            let keep = || -> std::io::Result<()> {
                let path = clock_file(&self.store);
                let draft = path.with_extension("part");
                let mut file = File::create(&draft)?;
                file.write_all(&serde_json::to_vec(&trust.seen())?)?;
                file.sync_all()?;
                fs::rename(&draft, &path)
            };
            *kept = Some(now.steady);
            warn(
                "keeping what was seen of the clock",
                keep().map_err(|source| KeepError::io("writing", &clock_file(&self.store), source)),
            );
        }
        trusted
    }

    /// Marks verified runs that are old enough as safe to delete, reading their copies again where that is wanted.
    pub fn mature(&self) -> Result<(), KeepError> {
        let Some(to) = self.reachable() else { return Ok(()) };
        let now = self.clock.now();
        let trusted = self.clock_is_right(&now);
        let age = self.settings.retention.min_age();
        for run in self.catalogue.in_states(&[State::Verified], SOME * 10)? {
            if run.damaged.is_some() {
                continue;
            }
            let Some(_busy) = self.take(&run.path) else { continue };
            let Some(mut job) = self.job(&run.path) else { continue };
            match retention::is_safe(&job.life, now.wall, age, trusted) {
                Ok(()) => {}
                // Oldest first: the others are younger.
                Err(Keep::TooYoung(_) | Keep::Clock) => break,
                Err(Keep::NotVerified(_) | Keep::Damaged) => {
                    self.note(&run.path)?;
                    continue;
                }
            }
            match self.prove(&mut job, to, now.wall) {
                Ok(()) => self.catalogue.set_life(&run.path, &job.life)?,
                Err(error @ KeepError::Differs { .. }) => {
                    tracing::warn!(target: "fluxline", "run {}: {error}", run.path);
                    self.closed_again(&mut job, &error)?;
                }
                Err(error @ (KeepError::Away { .. } | KeepError::Stopped)) => return Err(error),
                Err(error) => self.left_alone(&run.path, &error),
            }
        }
        Ok(())
    }

    fn prove(&self, job: &mut Job, to: &dyn Destination, now: Timestamp) -> Result<(), KeepError> {
        if self.settings.retention.verify_again {
            let pace = |_| self.wait(&self.pace, 0);
            self.heard(push::reread(job, to, self.settings.push.parallel, now, &pace))?;
        }
        job.append(now, "safe_to_delete", json!({ "destination": to.name() }))
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
        let mut gone = Vec::new();
        let Some(to) = self.reachable() else { return Ok(gone) };
        let plan = self.plan(needed_bytes)?;
        if plan.delete.is_empty() || !self.clock_is_right(&self.clock.now()) {
            return Ok(gone);
        }
        for run in plan.delete {
            let Some(_busy) = self.take(&run.path) else { continue };
            let Some(mut job) = self.job(&run.path) else { continue };
            let now = self.clock.now();
            let facts = (now.wall, self.settings.retention.min_age(), self.clock_is_right(&now));
            let done = self.heard(delete::delete(&mut job, to, self.access(), facts));
            // Also where not every file could be removed: what was said of it holds.
            self.catalogue.set_life(&run.path, &job.life)?;
            match done {
                Ok(()) => {
                    self.metrics.deleted.inc();
                    tracing::info!(target: "fluxline", "run {} is deleted here; its copy is at {}", run.path, to.name());
                    gone.push(run);
                }
                Err(error @ KeepError::Differs { .. }) => {
                    tracing::warn!(target: "fluxline", "run {} is not deleted: {error}", run.path);
                    self.closed_again(&mut job, &error)?;
                }
                Err(error @ (KeepError::Away { .. } | KeepError::Stopped)) => return Err(error),
                Err(error) => self.left_alone(&run.path, &error),
            }
        }
        Ok(gone)
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
}
