//! What time it is. The keeper asks here and nowhere else, so that a test can let days pass.
//!
//! With `FLUXLINE_TEST_CLOCK=FILE` the file holds two numbers, seconds that are added to the time of day and to the time
//! since the start; a program that runs like this says so. The file is read again at every look.

use jiff::Timestamp;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Environment variable that names the file of a test's clock.
pub const TEST_CLOCK: &str = "FLUXLINE_TEST_CLOCK";

/// A look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// time of day
    pub wall: Timestamp,
    /// time since some start; only ever grows
    pub steady: Duration,
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    test: Option<PathBuf>,
}

impl Clock {
    /// The machine's clock, or a test's where the environment names one.
    pub fn of_environment() -> Clock {
        let test = std::env::var_os(TEST_CLOCK).map(PathBuf::from);
        if let Some(path) = &test {
            tracing::warn!(target: "fluxline", "{TEST_CLOCK}: the store's time is what {} says", path.display());
        }
        Clock {
            started: Instant::now(),
            test,
        }
    }

    /// Whether a test tells the time.
    pub fn is_test(&self) -> bool {
        self.test.is_some()
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        let text = self.test.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let mut numbers = text
            .iter()
            .flat_map(|text| text.split_whitespace())
            .map(|n| n.parse().unwrap_or(0));
        let (wall, steady): (i64, u64) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0).max(0) as u64);
        let now = Timestamp::now();
        Now {
            wall: now.checked_add(jiff::SignedDuration::from_secs(wall)).unwrap_or(now),
            steady: self.started.elapsed() + Duration::from_secs(steady),
        }
    }
}

/// Difference of the two clocks between two looks that is taken for a jump.
const JUMP: Duration = Duration::from_secs(60);

/// Whether the time of day can be trusted with the age of runs: after it jumped forward, not before as much time has
/// really passed as a run must be old.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    last: Option<Now>,
    jumped: Option<Duration>,
}

impl Trust {
    /// One look; whether ages of `age` can be believed now.
    pub fn look(&mut self, now: Now, age: Duration) -> bool {
        if let Some(last) = self.last {
            let wall = now.wall.duration_since(last.wall).as_secs_f64();
            let steady = now.steady.saturating_sub(last.steady).as_secs_f64();
            if wall - steady > JUMP.as_secs_f64() {
                self.jumped = Some(now.steady);
            }
        }
        self.last = Some(now);
        self.jumped.is_none_or(|at| now.steady.saturating_sub(at) >= age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_h: i64, steady_h: u64) -> Now {
        Now {
            wall: Timestamp::from_second(1_700_000_000 + wall_h * 3600).unwrap(),
            steady: Duration::from_secs(steady_h * 3600),
        }
    }

    #[test]
    fn a_jump_forward_costs_its_time_and_a_jump_back_nothing() {
        let (mut trust, age) = (Trust::default(), Duration::from_secs(48 * 3600));
        assert!(trust.look(at(0, 0), age));
        assert!(trust.look(at(50, 50), age), "time passed");
        assert!(!trust.look(at(87_650, 51), age), "ten years in an hour");
        assert!(!trust.look(at(87_690, 91), age));
        assert!(trust.look(at(87_700, 101), age), "50 real hours later");
        assert!(trust.look(at(10, 102), age), "back: runs are only younger");
    }
}
