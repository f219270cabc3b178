//! What may be deleted, what must be, and whether another run fits. Pure: facts in, decisions out.

use super::life::{Life, State};
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// bytes that the store may take
    pub capacity_bytes: u64,
    /// bytes that are taken
    pub used_bytes: u64,
}

impl Room {
    /// Percent that is taken.
    pub fn percent(&self) -> f64 {
        100.0 * self.used_bytes as f64 / self.capacity_bytes.max(1) as f64
    }
}

/// Percent at which something happens; each is at least the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// from here on runs that are safe to delete are deleted, oldest first
    pub delete: f64,
    /// from here on somebody should be told at night
    pub urgent: f64,
    /// from here on no run is armed
    pub refuse: f64,
}

/// What the fill means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// room enough
    Normal,
    /// runs that are safe are being deleted
    Filling,
    /// deleting did not help
    Urgent,
    /// no run is armed
    Refusing,
}

impl Level {
    /// Every level in order.
    pub const NAMES: [&'static str; 4] = ["normal", "filling", "urgent", "refusing"];

    /// The word that interface and metrics use.
    pub fn name(self) -> &'static str {
        Level::NAMES[self as usize]
    }
}

/// What this fill means.
pub fn level(room: Room, marks: Watermarks) -> Level {
    match room.percent() {
        percent if percent >= marks.refuse => Level::Refusing,
        percent if percent >= marks.urgent => Level::Urgent,
        percent if percent >= marks.delete => Level::Filling,
        _ => Level::Normal,
    }
}

/// Why a run may not be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// its copy was never read and compared, or not of this run
    NotVerified(State),
    /// it is too young by so much
    TooYoung(Duration),
    /// its files here are not what they should be: somebody has to look
    Damaged,
    /// the clock cannot be believed
    Clock,
}

/// Whether a run is safe to delete: verified, old enough by a clock that can be believed, and undamaged.
pub fn is_safe(life: &Life, now: Timestamp, age: Duration, clock_trusted: bool) -> Result<(), Keep> {
    if !matches!(life.state, State::Verified | State::SafeToDelete) || life.verified.is_none() {
        return Err(Keep::NotVerified(life.state));
    }
    if life.damaged.is_some() {
        return Err(Keep::Damaged);
    }
    let Some(closed) = life.closed else {
        return Err(Keep::NotVerified(life.state));
    };
    let old = Duration::try_from(now.duration_since(closed)).unwrap_or(Duration::ZERO);
    if old < age {
        return Err(Keep::TooYoung(age - old));
    }
    if clock_trusted { Ok(()) } else { Err(Keep::Clock) }
}

/// How many of `safe` (bytes of runs that are safe to delete, oldest first) must go, so that the fill is below the mark
/// for deleting and `needed_bytes` more stay below the mark for refusing.
pub fn must_go(safe: &[u64], room: Room, marks: Watermarks, needed_bytes: u64) -> usize {
    let bytes_at = |percent: f64| (percent / 100.0 * room.capacity_bytes as f64) as u64;
    let refuse = bytes_at(marks.refuse).saturating_sub(needed_bytes);
    let target = bytes_at(marks.delete).min(refuse);
    let mut used = room.used_bytes;
    let mut count = 0;
    for bytes in safe {
        if used < target {
            break;
        }
        used = used.saturating_sub(*bytes);
        count += 1;
    }
    count
}

/// Whether a run that may take `needed_bytes` can be armed.
pub fn fits(room: Room, marks: Watermarks, needed_bytes: u64) -> bool {
    let limit = (marks.refuse / 100.0 * room.capacity_bytes as f64) as u64;
    level(room, marks) < Level::Refusing && room.used_bytes.saturating_add(needed_bytes) <= limit
}

/// What will be, at the rate of the last hour or day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Forecast {
    /// bytes per second that runs added: over the last hour where there were any, else over the last day
    pub bytes_per_s: f64,
    /// hours until no run is armed at this rate, if nothing is deleted; null where nothing is recorded
    pub hours_left: Option<f64>,
    /// the same if everything that is safe to delete goes first
    pub hours_left_after_deleting: Option<f64>,
}

/// The forecast for a store into which `last_hour_bytes` and `last_day_bytes` were recorded.
pub fn forecast(room: Room, marks: Watermarks, safe_bytes: u64, last_hour_bytes: u64, last_day_bytes: u64) -> Forecast {
    let bytes_per_s = match last_hour_bytes {
        0 => last_day_bytes as f64 / 86_400.0,
        bytes => bytes as f64 / 3600.0,
    };
    let limit = marks.refuse / 100.0 * room.capacity_bytes as f64;
    let hours = |used: u64| (bytes_per_s > 0.0).then(|| ((limit - used as f64) / bytes_per_s / 3600.0).max(0.0));
    Forecast {
        bytes_per_s,
        hours_left: hours(room.used_bytes),
        hours_left_after_deleting: hours(room.used_bytes.saturating_sub(safe_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKS: Watermarks = Watermarks {
        delete: 70.0,
        urgent: 85.0,
        refuse: 95.0,
    };
    const AGE: Duration = Duration::from_secs(48 * 3600);

    fn room(used_bytes: u64) -> Room {
        Room {
            capacity_bytes: 1000,
            used_bytes,
        }
    }

    #[test]
    fn levels_begin_at_their_marks() {
        for (used, expected) in [
            (0, "normal"),
            (699, "normal"),
            (700, "filling"),
            (850, "urgent"),
            (950, "refusing"),
        ] {
            assert_eq!(level(room(used), MARKS).name(), expected, "{used}");
        }
    }

    #[test]
    fn the_oldest_go_until_there_is_room() {
        assert_eq!(must_go(&[100, 100, 100], room(690), MARKS, 0), 0);
        assert_eq!(must_go(&[100, 100, 100], room(850), MARKS, 0), 2);
        assert_eq!(
            must_go(&[100, 100, 100], room(690), MARKS, 300),
            1,
            "room for a run that comes"
        );
        assert_eq!(must_go(&[10], room(990), MARKS, 0), 1, "not more than is safe");
    }

    #[test]
    fn a_forecast_says_when_arming_ends() {
        let told = forecast(room(400), MARKS, 200, 3600, 0);
        assert_eq!((told.bytes_per_s, told.hours_left), (1.0, Some(550.0 / 3600.0)));
        assert_eq!(told.hours_left_after_deleting, Some(750.0 / 3600.0));
        assert_eq!(forecast(room(400), MARKS, 0, 0, 0).hours_left, None);
    }

    fn times() -> impl Strategy<Value = Option<i64>> {
        prop::option::of(0..400_000i64)
    }

    proptest! {
        /// Only a verified, undamaged run that is old enough is ever safe, whatever the clock says.
        #[test]
        fn nothing_unverified_or_young_is_safe(
            state in 0..6usize, closed in times(), verified in times(), damaged: bool, trusted: bool, now in 0..400_000i64
        ) {
            let at = |seconds| Timestamp::from_second(seconds).unwrap();
            let life = Life {
                state: State::ALL[state],
                closed: closed.map(at),
                verified: verified.map(at),
                damaged: damaged.then(String::new),
                ..Life::default()
            };
            if is_safe(&life, at(now), AGE, trusted).is_ok() {
                prop_assert!(matches!(life.state, State::Verified | State::SafeToDelete));
                prop_assert!(verified.is_some() && !damaged && trusted);
                prop_assert!(closed.is_some_and(|closed| now - closed >= 48 * 3600));
            }
        }

        /// A run that was let in stays below the mark.
        #[test]
        fn what_fits_stays_below_the_mark(used in 0..2000u64, needed in 0..2000u64) {
            if fits(room(used), MARKS, needed) {
                prop_assert!(used + needed <= 950);
            }
        }
    }
}
