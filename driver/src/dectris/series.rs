//! Which message belongs to the run. A state machine: it is told what came and when, and knows no clock, thread or socket.
//!
//! ```text
//!            start                 all images and `end`, or `end` and a grace, or silence, or the next start
//!  waiting ─────────▶ running ─────────────────────────────────────────────────────────────────────────────▶ over
//!     ▲                                                                                                        │
//!     └──────────────────────────────────────────── arm ───────────────────────────────────────────────────────┘
//! ```
//!
//! Invariant: between two calls of [`Series::arm`] images of one series at most are taken, and that series began after
//! the first of the calls or was never taken before.

use super::message::SeriesKey;
use serde::Serialize;

/// Series that are remembered as gone.
const PAST: usize = 16;

/// Events, counted since the source was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeriesCounts {
    /// series that were taken
    pub series: u64,
    /// images of a series that was over, or of one that never began
    pub stray_images: u64,
    /// starts of a series that was over or running already
    pub stray_starts: u64,
    /// ends of a series that was not running
    pub stray_ends: u64,
    /// images that came before the start of their series
    pub early_images: u64,
    /// series that ended without a message that says so
    pub missing_ends: u64,
    /// series that ended with images missing
    pub short_series: u64,
    /// series that another one cut short
    pub superseded: u64,
}

/// The answer to a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStart {
    /// the run's series has begun
    Begin,
    /// known already
    Stray,
    /// the run is over; keep the message for the next one
    Next,
}

/// The answer to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnImage {
    /// of the run
    Take,
    /// its series has not begun: keep it until then
    Early,
    /// of no series of the run
    Stray,
}

/// Why a series is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// it said so and every image was there
    Whole,
    /// it said so, and images were missing
    Short,
    /// every image was there, and the end never came
    NoEnd,
    /// nothing came any more
    Silent,
    /// another series began
    Superseded,
}

/// Patience, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// for images that an `end` has overtaken, and for an `end` behind the last image
    pub end_ns: u64,
    /// for anything of the running series
    pub silence_ns: u64,
}

enum State {
    Waiting,
    Running(Running),
    Over,
}

struct Running {
    key: SeriesKey,
    /// by image number
    seen: Vec<u64>,
    expected: u64,
    taken: u64,
    last_ns: u64,
    ended_ns: Option<u64>,
    superseded: bool,
}

/// See the module.
pub struct Series {
    state: State,
    past: [Option<SeriesKey>; PAST],
    oldest: usize,
    patience: Patience,
    counts: SeriesCounts,
}

/// Number and name: numbers begin again when a detector restarts, and simulators keep one name.
fn same(a: &SeriesKey, b: &SeriesKey) -> bool {
    a == b
}

impl Series {
    /// Waits for a series.
    pub fn new(patience: Patience) -> Self {
        Self {
            state: State::Waiting,
            past: [None; PAST],
            oldest: 0,
            patience,
            counts: SeriesCounts::default(),
        }
    }

    /// A new run: whatever ran before is gone.
    pub fn arm(&mut self, patience: Patience) {
        if let State::Running(running) = &self.state {
            let key = running.key;
            self.forget(key);
        }
        self.patience = patience;
        self.state = State::Waiting;
    }

    /// Events so far.
    pub fn counts(&self) -> SeriesCounts {
        self.counts
    }

    /// The running series.
    pub fn running(&self) -> Option<SeriesKey> {
        match &self.state {
            State::Running(running) => Some(running.key),
            _ => None,
        }
    }

    fn gone(&self, key: &SeriesKey) -> bool {
        self.past.iter().flatten().any(|past| same(past, key))
    }

    fn forget(&mut self, key: SeriesKey) {
        if !self.gone(&key) {
            self.past[self.oldest] = Some(key);
            self.oldest = (self.oldest + 1) % PAST;
        }
    }

    /// A series begins. Numbers of stream V1 are used again, so there a start is always a new series.
    pub fn on_start(&mut self, key: SeriesKey) -> OnStart {
        let unnamed = key.unique.as_str().is_empty();
        if let State::Running(running) = &mut self.state {
            if same(&running.key, &key) {
                self.counts.stray_starts += 1;
                return OnStart::Stray;
            }
            if !unnamed && self.gone(&key) {
                self.counts.stray_starts += 1;
                return OnStart::Stray;
            }
            if let State::Running(running) = &mut self.state {
                running.superseded = true;
            }
            return OnStart::Next;
        }
        if !unnamed && self.gone(&key) {
            self.counts.stray_starts += 1;
            return OnStart::Stray;
        }
        match self.state {
            State::Waiting => OnStart::Begin,
            _ => OnStart::Next,
        }
    }

    /// The run has taken the series of `key`, of `expected` images. Makes the memory that it needs.
    pub fn begin(&mut self, key: SeriesKey, expected: u64, now_ns: u64) {
        for past in &mut self.past {
            *past = past.filter(|past| !same(past, &key));
        }
        self.counts.series += 1;
        self.state = State::Running(Running {
            key,
            seen: vec![0; expected.div_ceil(64) as usize],
            expected,
            taken: 0,
            last_ns: now_ns,
            ended_ns: None,
            superseded: false,
        });
    }

    /// The series of `key` began, and the run cannot take it.
    pub fn refuse(&mut self, key: SeriesKey) {
        self.forget(key);
    }

    /// An image has come.
    pub fn on_image(&mut self, key: &SeriesKey, image_id: u64, now_ns: u64) -> OnImage {
        if let State::Running(running) = &mut self.state
            && same(&running.key, key)
        {
            running.last_ns = now_ns;
            // Duplicates and numbers beyond the series are the tracker's to count; they are no progress here.
            if image_id < running.expected {
                let (word, bit) = ((image_id / 64) as usize, 1 << (image_id % 64));
                if running.seen[word] & bit == 0 {
                    running.seen[word] |= bit;
                    running.taken += 1;
                }
            }
            return OnImage::Take;
        }
        if matches!(self.state, State::Waiting) && !self.gone(key) {
            return OnImage::Early;
        }
        self.counts.stray_images += 1;
        OnImage::Stray
    }

    /// An image that [`Series::on_image`] called early came before its start.
    pub fn on_early(&mut self) {
        self.counts.early_images += 1;
    }

    /// An early image could not be kept.
    pub fn on_early_lost(&mut self) {
        self.counts.stray_images += 1;
    }

    /// A series has ended.
    pub fn on_end(&mut self, key: &SeriesKey, now_ns: u64) {
        match &mut self.state {
            State::Running(running) if same(&running.key, key) && running.ended_ns.is_none() => {
                running.ended_ns = Some(now_ns);
            }
            _ => {
                self.counts.stray_ends += 1;
                self.forget_unless_running(*key);
            }
        }
    }

    fn forget_unless_running(&mut self, key: SeriesKey) {
        if self.running().is_none_or(|running| !same(&running, &key)) {
            self.forget(key);
        }
    }

    /// Whether the running series is over, and why; says so once.
    pub fn over(&mut self, now_ns: u64) -> Option<Over> {
        let State::Running(running) = &self.state else {
            return None;
        };
        let whole = running.taken == running.expected;
        let since = |then_ns: u64| now_ns.saturating_sub(then_ns);
        let over = match running.ended_ns {
            Some(_) if whole => Over::Whole,
            _ if running.superseded => Over::Superseded,
            Some(ended_ns) if since(ended_ns.max(running.last_ns)) >= self.patience.end_ns => Over::Short,
            Some(_) => return None,
            None if whole && since(running.last_ns) >= self.patience.end_ns => Over::NoEnd,
            None if since(running.last_ns) >= self.patience.silence_ns => Over::Silent,
            None => return None,
        };
        let (key, ended) = (running.key, running.ended_ns.is_some());
        self.counts.missing_ends += u64::from(!ended);
        self.counts.short_series += u64::from(!whole);
        self.counts.superseded += u64::from(over == Over::Superseded);
        self.forget(key);
        self.state = State::Over;
        Some(over)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Short;
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Patience = Patience {
        end_ns: 100,
        silence_ns: 1000,
    };

    fn key(number: u64) -> SeriesKey {
        SeriesKey {
            id: number % 3, // numbers come again
            unique: Short::new(&format!("01HRCJF83SA63WH8M5X1VBK{number:03}")),
        }
    }

    fn begun(number: u64, images: u64) -> Series {
        let mut series = Series::new(PATIENCE);
        assert_eq!(series.on_start(key(number)), OnStart::Begin);
        series.begin(key(number), images, 0);
        series
    }

    #[test]
    fn a_whole_series_is_over_with_its_end_and_not_before() {
        let mut series = begun(1, 70);
        for image in (0..70).rev() {
            assert_eq!(series.on_image(&key(1), image, 1), OnImage::Take);
            assert_eq!(
                series.on_image(&key(1), image, 1),
                OnImage::Take,
                "the tracker counts duplicates"
            );
            assert_eq!(series.over(1), None);
        }
        series.on_end(&key(1), 2);
        assert_eq!(series.over(2), Some(Over::Whole));
        assert_eq!(series.over(2), None, "said once");
        assert_eq!(
            series.counts(),
            SeriesCounts {
                series: 1,
                ..SeriesCounts::default()
            }
        );
    }

    #[test]
    fn duplicates_are_no_progress() {
        let mut series = begun(1, 2);
        series.on_image(&key(1), 0, 1);
        series.on_image(&key(1), 0, 1);
        series.on_end(&key(1), 2);
        assert_eq!(series.over(3), None, "image 1 may still come");
        assert_eq!(series.on_image(&key(1), 1, 50), OnImage::Take);
        assert_eq!(series.over(50), Some(Over::Whole));
    }

    #[test]
    fn an_end_before_all_images_waits_for_them_and_no_longer() {
        let mut series = begun(1, 5);
        series.on_end(&key(1), 10);
        assert_eq!(series.over(109), None);
        assert_eq!(series.over(110), Some(Over::Short));
        assert_eq!((series.counts().short_series, series.counts().missing_ends), (1, 0));
    }

    #[test]
    fn a_missing_end_and_a_silent_detector_end_a_run() {
        let mut series = begun(1, 1);
        series.on_image(&key(1), 0, 5);
        assert_eq!((series.over(104), series.over(105)), (None, Some(Over::NoEnd)));
        let mut series = begun(1, 2);
        series.on_image(&key(1), 0, 5);
        assert_eq!((series.over(1004), series.over(1005)), (None, Some(Over::Silent)));
        assert_eq!((series.counts().missing_ends, series.counts().short_series), (1, 1));
    }

    #[test]
    fn stray_frames_of_an_aborted_series_stay_outside() {
        let mut series = begun(1, 5);
        series.on_image(&key(1), 0, 1);
        series.arm(PATIENCE); // aborted
        assert_eq!(series.on_image(&key(1), 1, 2), OnImage::Stray);
        assert_eq!(series.on_start(key(1)), OnStart::Stray);
        assert_eq!(
            series.on_start(key(4)),
            OnStart::Begin,
            "the same number, another series"
        );
        series.begin(key(4), 5, 3);
        assert_eq!(series.on_image(&key(1), 2, 4), OnImage::Stray);
        series.on_end(&key(1), 4);
        assert_eq!(series.on_image(&key(4), 0, 4), OnImage::Take);
        let counts = series.counts();
        assert_eq!((counts.stray_images, counts.stray_starts, counts.stray_ends), (2, 1, 1));
    }

    #[test]
    fn the_next_start_ends_a_series_and_is_kept() {
        let mut series = begun(1, 5);
        series.on_image(&key(1), 0, 1);
        assert_eq!(series.on_start(key(2)), OnStart::Next);
        assert_eq!(series.over(2), Some(Over::Superseded));
        assert_eq!(series.on_start(key(2)), OnStart::Next, "no run is armed");
        series.arm(PATIENCE);
        assert_eq!(series.on_start(key(2)), OnStart::Begin);
    }

    #[test]
    fn images_before_their_start_are_kept_and_those_of_nobody_are_not() {
        let mut series = Series::new(PATIENCE);
        assert_eq!(series.on_image(&key(1), 0, 0), OnImage::Early);
        series.on_end(&key(2), 0);
        assert_eq!(
            series.on_image(&key(2), 0, 0),
            OnImage::Stray,
            "it ended without a start"
        );
    }

    #[test]
    fn numbers_of_stream_v1_come_again() {
        let v1 = |id| SeriesKey {
            id,
            unique: Short::new(""),
        };
        let mut series = Series::new(PATIENCE);
        assert_eq!(series.on_start(v1(1)), OnStart::Begin);
        series.begin(v1(1), 1, 0);
        series.arm(PATIENCE);
        assert_eq!(series.on_image(&v1(1), 0, 0), OnImage::Stray);
        assert_eq!(series.on_start(v1(1)), OnStart::Begin, "the detector was restarted");
        series.begin(v1(1), 1, 0);
        assert_eq!(series.on_image(&v1(1), 0, 0), OnImage::Take);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm,
        Start(u64),
        Image(u64, u64),
        End(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Arm),
            2 => (0u64..6).prop_map(Step::Start),
            8 => (0u64..6, 0u64..12).prop_map(|(series, image)| Step::Image(series, image)),
            2 => (0u64..6).prop_map(Step::End),
            2 => (0u64..600).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: a run takes images of one series, none that an earlier run took from.
        #[test]
        fn no_image_of_an_old_series_enters_a_run(steps in prop::collection::vec(step(), 0..300)) {
            let mut series = Series::new(PATIENCE);
            let (mut now, mut of_run, mut used) = (0, None, std::collections::BTreeSet::new());
            let (mut images, mut settled) = (0, 0);
            for step in steps {
                match step {
                    Step::Arm => {
                        series.arm(PATIENCE);
                        used.extend(of_run.take());
                    }
                    Step::Start(number) => {
                        if series.on_start(key(number)) == OnStart::Begin {
                            prop_assert!(of_run.is_none() && !used.contains(&number));
                            series.begin(key(number), 10, now);
                            of_run = Some(number);
                        }
                    }
                    Step::Image(number, image) => {
                        images += 1;
                        match series.on_image(&key(number), image, now) {
                            OnImage::Take => {
                                prop_assert_eq!(of_run, Some(number));
                                settled += 1;
                            }
                            OnImage::Early => {
                                prop_assert!(of_run.is_none() && !used.contains(&number));
                                series.on_early();
                            }
                            OnImage::Stray => {}
                        }
                    }
                    Step::End(number) => series.on_end(&key(number), now),
                    Step::Pass(ns) => now += ns,
                }
                if series.over(now).is_some() {
                    used.extend(of_run.take());
                }
            }
            let counts = series.counts();
            prop_assert_eq!(images, settled + counts.stray_images + counts.early_images, "every image is counted once");
            prop_assert!(counts.superseded <= counts.series && counts.short_series <= counts.series);
        }
    }
}
