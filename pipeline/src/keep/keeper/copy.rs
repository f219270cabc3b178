//! To the central store and back: pushing, reading copies again, and waiting for a store that is away.

use super::super::catalogue::Found;
use super::super::destination::Destination;
use super::super::life::State;
use super::super::push::{self, Job};
use super::super::{KeepError, Keeper};
use super::{SOME, chance, locked};
use serde_json::json;

impl Keeper {
    /// The central store where it is, unless it is given time.
    pub(super) fn reachable(&self) -> Option<&dyn Destination> {
        let waits = locked(&self.schedule).waits(self.clock.now().steady);
        self.destination().filter(|_| waits.is_zero())
    }

    /// What the central store answered: it is given time where it was away, and is back where it was not.
    pub(super) fn heard<T>(&self, done: Result<T, KeepError>) -> Result<T, KeepError> {
        match &done {
            Err(KeepError::Away { .. }) => {
                locked(&self.schedule).away(self.clock.now().steady, chance());
            }
            Err(_) => {}
            Ok(_) => locked(&self.schedule).answered(),
        }
        done
    }

    /// Asks a central store that was away whether it is back, where no run waits for it that would ask by itself.
    pub(super) fn probe(&self) -> Result<(), KeepError> {
        let away = !locked(&self.schedule).away_for(self.clock.now().steady).is_zero();
        let Some(to) = self.reachable().filter(|_| away) else {
            return Ok(());
        };
        let waiting = self.catalogue.in_states(&[State::Closed, State::Pushed], SOME * 10)?;
        if waiting.iter().any(|run| run.damaged.is_none()) {
            return Ok(());
        }
        // No file of this name is ever sent; that it is not there is an answer.
        self.heard(to.ready().and_then(|()| to.size("fluxline").map(|_| ())))
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
                    KeepError::Differs { .. } => {
                        locked(&self.schedule).answered();
                        locked(&self.schedule).failed(&name, now, chance())
                    }
                    // Nobody asked it.
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
        let mut job = Job::open(self.store.root(), path).inspect_err(|error| self.set_aside(path, error))?;
        let parallel = self.settings.push.parallel;
        let pace = self.paced();
        let done = match job.life.state {
            State::Closed => push::send(&mut job, to, parallel, self.clock.now().wall, &pace)
                .and_then(|()| push::verify(&mut job, to, parallel, self.clock.now().wall, &pace)),
            State::Pushed => push::verify(&mut job, to, parallel, self.clock.now().wall, &pace),
            _ => Ok(()),
        };
        match &done {
            Err(error @ KeepError::Damaged { .. }) => self.set_aside(path, error),
            Err(error @ KeepError::Differs { .. }) => self.closed_again(&mut job, error)?,
            _ => {}
        }
        self.note(path)?;
        done
    }

    pub(super) fn closed_again(&self, job: &mut Job, error: &KeepError) -> Result<(), KeepError> {
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
        let mut job = Job::open(self.store.root(), path).inspect_err(|error| self.set_aside(path, error))?;
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
}
