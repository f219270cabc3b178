//! What time it is. The keeper asks here and nowhere else, so that a test can let days pass.
//!
//! With `FLUXLINE_TEST_CLOCK=FILE` the file holds two numbers, seconds that are added to the time of day and to the time
//! since the machine's start, and perhaps the name of that start; a program that runs like this says so. The file is read
//! again at every look.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Environment variable that names the file of a test's clock.
pub const TEST_CLOCK: &str = "FLUXLINE_TEST_CLOCK";

/// A look at the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// time of day
    pub wall: Timestamp,
    /// time since the machine was started; only ever grows
    pub steady: Duration,
    /// which start of the machine that is
    pub boot: String,
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    /// time since the machine's start at that moment
    up: Duration,
    boot: String,
    test: Option<PathBuf>,
}

impl Clock {
    /// The machine's clock, or a test's where the environment names one.
    pub fn of_environment() -> Clock {
        let test = std::env::var_os(TEST_CLOCK).map(PathBuf::from);
        if let Some(path) = &test {
            tracing::warn!(target: "fluxline", "{TEST_CLOCK}: the store's time is what {} says", path.display());
        }
        let (boot, up) = machine_start().unwrap_or_else(|| {
            // Then only this process knows how long it has been running.
            let name = format!("{}/{}", std::process::id(), Timestamp::now());
            (name, Duration::ZERO)
        });
        Clock {
            started: Instant::now(),
            up,
            boot,
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
        let mut words = text.iter().flat_map(|text| text.split_whitespace());
        let (wall, steady) = (words.next(), words.next());
        let seconds = |word: Option<&str>| word.and_then(|word| word.parse().ok()).unwrap_or(0i64);
        let now = Timestamp::now();
        Now {
            wall: now
                .checked_add(jiff::SignedDuration::from_secs(seconds(wall)))
                .unwrap_or(now),
            steady: self.up + self.started.elapsed() + Duration::from_secs(seconds(steady).max(0) as u64),
            boot: words.next().unwrap_or(&self.boot).to_string(),
        }
    }
}

/// Whether the machine says that its clock follows a time server.
pub fn follows_server() -> bool {
    let asked = std::process::Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    asked.is_ok_and(|output| output.stdout.starts_with(b"yes"))
}

/// Which start of the machine this is, and how long it is ago, where the kernel says both.
fn machine_start() -> Option<(String, Duration)> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds = uptime.split_whitespace().next()?.parse().ok()?;
    Some((boot.trim().to_string(), Duration::try_from_secs_f64(seconds).ok()?))
}

/// Difference of the two clocks between two looks that is taken for a jump.
const JUMP_S: f64 = 60.0;
/// Longest time that a machine is believed to have been off. Nothing but the clock itself says how long it was.
const OFF_S: f64 = 3600.0;

/// What was last seen of the clock. It is kept in the store from one start to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// time of day, microseconds of 1970
    wall_us: i64,
    /// seconds since the machine's start
    steady_s: f64,
    /// which start that is
    boot: String,
    /// when trust was lost, seconds since the same start; negative where that was before it
    lost_s: Option<f64>,
}

/// Whether the time of day can be trusted with the age of runs: after it jumped forward, not before as much time has
/// really passed as a run must be old. A start that finds the clock far ahead of where it was seen last, and the machine
/// was started since, is such a jump.
#[derive(Clone, Debug)]
pub struct Trust {
    seen: Option<Seen>,
    first: bool,
}

impl Trust {
    /// Goes on from what was kept. Without that a store that has runs already (`runs`) is trusted with the age of none of
    /// them before as much time has passed.
    pub fn new(kept: Option<Seen>, runs: bool) -> Trust {
        Trust {
            first: kept.is_none() && !runs,
            seen: kept,
        }
    }

    /// One look; whether ages of `age` can be believed now.
    pub fn look(&mut self, now: &Now, age: Duration) -> bool {
        let (wall_us, steady_s) = (now.wall.as_microsecond(), now.steady.as_secs_f64());
        let passed = |seen: &Seen| (wall_us - seen.wall_us) as f64 / 1e6;
        let lost_s = match &self.seen {
            None if self.first => None,
            None => Some(steady_s),
            Some(seen) if seen.boot == now.boot => {
                let jumped = passed(seen) - (steady_s - seen.steady_s).max(0.0) > JUMP_S;
                if jumped { Some(steady_s) } else { seen.lost_s }
            }
            // The machine was off for what its present start does not explain.
            Some(seen) if passed(seen) - steady_s > OFF_S => Some(steady_s),
            Some(seen) => seen.lost_s.map(|lost| lost - seen.steady_s),
        };
        let lost_s = lost_s.filter(|lost| steady_s - lost < age.as_secs_f64());
        self.seen = Some(Seen {
            wall_us,
            steady_s,
            boot: now.boot.clone(),
            lost_s,
        });
        lost_s.is_none()
    }

    /// What the last look found.
    pub fn trusted(&self) -> bool {
        self.seen.as_ref().map_or(self.first, |seen| seen.lost_s.is_none())
    }

    /// What is to be kept.
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_boot(wall_h: i64, steady_h: u64, boot: &str) -> Now {
        Now {
            wall: Timestamp::from_second(1_700_000_000 + wall_h * 3600).unwrap(),
            steady: Duration::from_secs(steady_h * 3600),
            boot: boot.into(),
        }
    }

    fn at(wall_h: i64, steady_h: u64) -> Now {
        at_boot(wall_h, steady_h, "a")
    }

    const AGE: Duration = Duration::from_secs(48 * 3600);

    /// The next start of the program: what was kept went through the file.
    fn again(trust: &Trust) -> Trust {
        let text = serde_json::to_string(trust.seen().unwrap()).unwrap();
        Trust::new(serde_json::from_str(&text).ok(), true)
    }

    #[test]
    fn a_jump_forward_costs_its_time_and_a_jump_back_nothing() {
        let mut trust = Trust::new(None, false);
        assert!(trust.look(&at(0, 0), AGE));
        assert!(trust.look(&at(50, 50), AGE), "time passed");
        assert!(!trust.look(&at(87_650, 51), AGE), "ten years in an hour");
        assert!(!trust.look(&at(87_690, 91), AGE));
        assert!(trust.look(&at(87_700, 101), AGE), "50 real hours later");
        assert!(trust.look(&at(10, 102), AGE), "back: runs are only younger");
        assert!(
            !trust.look(&at(87_702, 103), AGE),
            "what was closed meanwhile is not that old"
        );
    }

    #[test]
    fn a_jump_is_remembered_by_the_next_start() {
        let mut trust = Trust::new(None, false);
        assert!(trust.look(&at(0, 10), AGE));
        let mut next = again(&trust);
        assert!(
            next.look(&at(60, 70), AGE),
            "the program was ended for 60 h that the machine counted"
        );
        let mut next = again(&next);
        assert!(
            !next.look(&at(120, 71), AGE),
            "it was ended for one hour, the clock says 60"
        );
        let mut next = again(&next);
        assert!(!next.look(&at(130, 81), AGE));
        let mut next = again(&next);
        assert!(next.look(&at(170, 121), AGE), "50 hours after the jump");
    }

    #[test]
    fn a_machine_that_was_off_for_long_proves_nothing() {
        let mut trust = Trust::new(None, false);
        assert!(trust.look(&at(0, 100), AGE));
        let mut soon = again(&trust);
        assert!(soon.look(&at_boot(1, 1, "b"), AGE), "started again at once");
        let mut late = again(&trust);
        assert!(
            !late.look(&at_boot(72, 0, "b"), AGE),
            "off for three days, or the clock is wrong"
        );
        let mut later = again(&late);
        assert!(!later.look(&at_boot(92, 0, "c"), AGE), "and again");
        let mut reboot = again(&late);
        assert!(
            !reboot.look(&at_boot(72, 0, "c"), AGE),
            "trust that was lost stays lost"
        );
        assert!(!reboot.look(&at_boot(119, 47, "c"), AGE));
        assert!(reboot.look(&at_boot(121, 49, "c"), AGE));
    }

    #[test]
    fn a_store_with_runs_and_without_a_memory_is_not_trusted_at_once() {
        let mut trust = Trust::new(None, true);
        assert!(!trust.look(&at(0, 5), AGE));
        assert!(trust.look(&at(48, 53), AGE));
    }
}
