//! What is said of the store: forecast, status, metrics.

use super::super::life::State;
use super::super::retention::{self, Forecast};
use super::super::status::{KeepStatus, PushStatus, StateCount};
use super::super::{KeepError, Keeper};
use super::locked;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A run that is being recorded.
struct Recording {
    /// bytes that its files have on the disk
    bytes: u64,
    /// how long ago it began, and how long ago it was last written to
    ago: (Duration, Duration),
}

impl Recording {
    /// The run in `folder`; none where none is armed there.
    fn of(folder: &Path) -> Option<Recording> {
        let ago = |time: SystemTime| time.elapsed().unwrap_or_default();
        let mut last = ago(fs::metadata(folder.join(".start.json")).ok()?.modified().ok()?);
        let (begun, mut bytes) = (last, 0);
        for file in fs::read_dir(folder).ok()?.flatten() {
            let Ok(data) = file.metadata() else { continue };
            // What was made ready ahead of the frames counts once it is taken from the disk.
            bytes += data.len().min(data.blocks() * 512);
            last = last.min(data.modified().map_or(last, ago));
        }
        let ago = (begun, last);
        Some(Recording { bytes, ago })
    }

    /// Bytes that it added within the last `window`.
    fn within(&self, window: Duration) -> u64 {
        let (begun, last) = self.ago;
        let all = begun.saturating_sub(last).as_secs_f64();
        if begun <= window || all <= 0.0 {
            return if last <= window { self.bytes } else { 0 };
        }
        (self.bytes as f64 * window.saturating_sub(last).as_secs_f64() / all) as u64
    }
}

impl Keeper {
    /// What will be.
    pub fn forecast(&self) -> Result<Forecast, KeepError> {
        let now = self.clock.now().wall.as_microsecond();
        let open = self.catalogue.unclosed_folders()?;
        let recording: Vec<Recording> = open.iter().filter_map(|folder| Recording::of(folder)).collect();
        let within = |window| recording.iter().map(|run| run.within(window)).sum::<u64>();
        let mut room = self.room()?;
        room.used_bytes += recording.iter().map(|run| run.bytes).sum::<u64>();
        let safe = self
            .catalogue
            .totals()?
            .into_iter()
            .find(|total| total.life == State::SafeToDelete);
        Ok(retention::forecast(
            room,
            self.settings.retention.watermarks(),
            safe.map_or(0, |total| total.bytes),
            self.catalogue.bytes_since(now - HOUR.as_micros() as i64)? + within(HOUR),
            self.catalogue.bytes_since(now - DAY.as_micros() as i64)? + within(DAY),
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
            unclosed_runs: locked(&self.closing).failing() as u64,
            clock_trusted: self.clock_is_right(&now),
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
        let (waits, away) = {
            let schedule = locked(&self.schedule);
            (schedule.waits(now.steady), schedule.away_for(now.steady))
        };
        let going = locked(&self.going);
        let (closed, pushed) = (status.of(State::Closed), status.of(State::Pushed));
        status.push = PushStatus {
            destination: self.destination().map(|to| to.name()),
            waiting_runs: closed.runs + pushed.runs,
            waiting_bytes: closed.bytes + pushed.bytes,
            current: going.current.clone(),
            error: going.error.clone(),
            retry_in_s: waits.as_secs_f64(),
            away_s: away.as_secs_f64(),
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
        metrics.unclosed.set(status.unclosed_runs as i64);
        metrics.push_wait.set(status.push.retry_in_s);
        metrics.push_away.set(status.push.away_s);
    }
}
