//! When to try again, and how fast to send. State machines: time and chance come from outside.

use std::collections::BTreeMap;
use std::time::Duration;

/// First and longest wait after a failure.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// The wait after so many failures in a row (from 1): doubles from 1 s to 5 min, of which chance (0 to 1) takes up to
/// half, so that many who failed together do not come back together.
pub fn wait(failures: u32, chance: f64) -> Duration {
    let full = WAIT
        .0
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(WAIT.1);
    full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0).max(WAIT.0)
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    until: Duration,
}

impl Failures {
    fn add(&mut self, now: Duration, chance: f64) -> Duration {
        self.count += 1;
        let wait = wait(self.count, chance);
        self.until = now + wait;
        wait
    }
}

/// Which of the runs that wait is tried next.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    away: Failures,
    /// when it first did not answer
    since: Option<Duration>,
    runs: BTreeMap<String, Failures>,
}

impl Schedule {
    /// The first of `waiting` whose time has come; none while the central store is given time.
    pub fn next<'a>(&self, now: Duration, waiting: &'a [String]) -> Option<&'a String> {
        if now < self.away.until {
            return None;
        }
        waiting.iter().find(|run| self.is_due(now, run))
    }

    /// Whether a run's own time has come.
    pub fn is_due(&self, now: Duration, run: &str) -> bool {
        self.runs.get(run).is_none_or(|failures| now >= failures.until)
    }

    /// A run was done.
    pub fn succeeded(&mut self, run: &str) {
        self.runs.remove(run);
        self.answered();
    }

    /// The central store does answer.
    pub fn answered(&mut self) {
        self.away = Failures::default();
        self.since = None;
    }

    /// The central store does not answer: nobody tries until the wait is over.
    pub fn away(&mut self, now: Duration, chance: f64) -> Duration {
        self.since.get_or_insert(now);
        self.away.add(now, chance)
    }

    /// This run failed, for a reason of its own.
    pub fn failed(&mut self, run: &str, now: Duration, chance: f64) -> Duration {
        self.runs.entry(run.to_string()).or_default().add(now, chance)
    }

    /// How long the central store has not answered, however often it was tried; zero while it does.
    pub fn away_for(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| {
            // Not zero, also in the moment of the first failure.
            now.saturating_sub(since).max(Duration::from_millis(1))
        })
    }

    /// Runs that failed last time, for reasons of their own.
    pub fn failing(&self) -> usize {
        self.runs.len()
    }

    /// Forgets runs that are no longer concerned.
    pub fn retain(&mut self, concerned: impl Fn(&str) -> bool) {
        self.runs.retain(|run, _| concerned(run));
    }

    /// How long nobody tries yet.
    pub fn waits(&self, now: Duration) -> Duration {
        self.away.until.saturating_sub(now)
    }
}

/// Bytes per second, with a second's worth of slack. 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_s: f64,
    /// when everything sent so far is paid for
    paid: Duration,
}

impl Pace {
    /// A pace of so many bytes per second.
    pub fn new(bytes_per_s: f64) -> Pace {
        Pace {
            bytes_per_s,
            paid: Duration::ZERO,
        }
    }

    /// `bytes` are about to be sent: how long to wait first.
    pub fn take(&mut self, now: Duration, bytes: usize) -> Duration {
        if self.bytes_per_s <= 0.0 {
            return Duration::ZERO;
        }
        self.paid = self.paid.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s);
        self.paid.saturating_sub(now + Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_second_to_five_minutes_and_differ() {
        let full: Vec<u64> = (1..12).map(|n| wait(n, 0.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait(u32::MAX, 1.0), Duration::from_secs(150));
        assert_eq!(wait(1, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn an_absent_store_holds_everybody_and_a_bad_run_only_itself() {
        let waiting = ["a".to_string(), "b".to_string()];
        let mut schedule = Schedule::default();
        let at = Duration::from_secs;
        assert_eq!(schedule.next(at(0), &waiting), Some(&waiting[0]));
        schedule.failed("a", at(0), 0.0);
        assert_eq!(schedule.next(at(0), &waiting), Some(&waiting[1]));
        schedule.away(at(0), 0.0);
        schedule.away(at(1), 0.0);
        assert_eq!(schedule.next(at(2), &waiting), None);
        assert_eq!(schedule.next(at(3), &waiting), Some(&waiting[0]));
        // Days away: a try every five minutes, no more and no less.
        let mut now = at(3);
        let mut tries = 0;
        while now < at(2 * 86_400) {
            tries += 1;
            now += schedule.away(now, 0.5);
        }
        assert!((576..1200).contains(&tries), "{tries}");
        assert_eq!(
            schedule.away_for(now),
            now,
            "since the first failure, whatever the waits were"
        );
        schedule.failed("b", now, 0.0);
        assert!(!schedule.away_for(now).is_zero(), "a run's own failure is no answer");
        schedule.succeeded("a");
        assert_eq!(schedule.next(now, &waiting), Some(&waiting[0]));
        assert!(schedule.away_for(now).is_zero());
    }

    #[test]
    fn a_pace_is_kept_over_time() {
        let (mut pace, mut now) = (Pace::new(10e6), Duration::ZERO);
        for _ in 0..100 {
            now += pace.take(now, 1_000_000);
        }
        assert!((now.as_secs_f64() - 9.0).abs() < 0.01, "{now:?}");
        assert_eq!(Pace::new(0.0).take(now, usize::MAX), Duration::ZERO);
    }
}
