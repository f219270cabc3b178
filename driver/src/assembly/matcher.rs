//! Which frame a module belongs to, and when a frame is handed on. A state machine: it is told what came and when, and knows
//! no clock, thread or memory.
//!
//! Invariants: a frame is open at most once and, once closed, never again; a module is placed once or counted once.

/// Most parts of a frame.
pub const PARTS_MAX: usize = 16;
/// Frames whose time is remembered when they are closed, so that what comes too late is known as that.
const PAST: usize = 64;

/// By what modules of one frame are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// the same number
    Number,
    /// the nearest time, within so many nanoseconds, once the clocks' offsets are known
    Time {
        /// largest distance, ns
        tolerance_ns: u64,
    },
}

/// The answer to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// the first of its frame; the place among those that are open
    New(usize),
    /// of a frame that is open
    Joins(usize),
    /// it had come before
    Duplicate,
    /// its frame had been closed
    Late,
    /// no frame can be its
    Unmatched,
    /// too many frames are open: ask again
    Full,
}

/// Whether modules find places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// those that found none can wait for what the others bring
    Enough,
    /// none of the parts has found one for its next module: nothing more can join
    Wanted,
    /// one part has found none, and loses what comes meanwhile
    Needed,
}

/// A frame that waits for its modules.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// its number within the run, a guess until a part has told it that knows
    pub frame: u64,
    /// parts that are there, a bit each
    pub present: u32,
    known: bool,
    /// by the clock of the first part
    time_ns: Option<i64>,
    since_ns: u64,
    /// the module that came first
    first: First,
}

impl Open {
    /// Whether it was taken earlier: by the clock, where both are known by it.
    fn is_before(&self, other: &Open) -> bool {
        match (self.time_ns, other.time_ns) {
            (Some(this), Some(other)) => this < other,
            _ => self.frame < other.frame,
        }
    }
}

/// A module as its part knows it.
#[derive(Clone, Copy, Debug)]
struct First {
    part: usize,
    number: u64,
    own_ns: Option<i64>,
}

/// A frame that is handed on, or let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// its number; `None` where it can be none of the run's
    pub frame: Option<u64>,
    /// parts that are missing, a bit each
    pub missing: u32,
    /// parts that are there
    pub present: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Matcher {
    align: Align,
    wait_ns: u64,
    all: u32,
    living: u32,
    /// by place; the last one is for a module that is older than all of them
    open: Vec<Option<Open>>,
    closed: Vec<u64>,
    expected: u64,
    past: [Option<i64>; PAST],
    oldest: usize,
    /// the latest frame that each part has sent something of, as it was then
    newest: [Option<Open>; PARTS_MAX],
    /// of each part's clock from the first part's
    offset_ns: [Option<i64>; PARTS_MAX],
    /// of the run's numbers from each part's
    shift: [i64; PARTS_MAX],
}

impl Matcher {
    /// For `parts` parts, at most [`PARTS_MAX`]; `open_max` frames are open at a time, and one that is older than all of them.
    pub fn new(parts: usize, expected: u64, align: Align, wait_ns: u64, open_max: usize) -> Self {
        let all = (1u32 << parts.min(PARTS_MAX)) - 1;
        let mut offset_ns = [None; PARTS_MAX];
        offset_ns[0] = Some(0);
        Self {
            align,
            wait_ns,
            all,
            living: all,
            open: vec![None; open_max.max(1) + 1],
            closed: vec![0; expected.div_ceil(64) as usize],
            expected,
            past: [None; PAST],
            oldest: 0,
            newest: [None; PARTS_MAX],
            offset_ns,
            shift: [0; PARTS_MAX],
        }
    }

    /// The clock of a part is so far ahead of the first part's, ns.
    pub fn set_offset(&mut self, part: usize, offset_ns: i64) {
        self.offset_ns[part] = Some(offset_ns);
    }

    /// Nothing more comes from a part: no frame waits for it.
    pub fn ended(&mut self, part: usize) {
        self.living &= !(1 << part);
    }

    /// The frame at a place.
    pub fn at(&self, place: usize) -> Option<&Open> {
        self.open.get(place)?.as_ref()
    }

    /// Places that frames may be open at.
    pub fn places(&self) -> usize {
        self.open.len()
    }

    /// Whether no frame is open.
    pub fn idle(&self) -> bool {
        self.open.iter().all(Option::is_none)
    }

    fn is_closed(&self, frame: u64) -> bool {
        self.closed
            .get((frame / 64) as usize)
            .is_some_and(|word| word & (1 << (frame % 64)) != 0)
    }

    fn find(&self, wanted: impl Fn(&Open) -> bool) -> Option<usize> {
        self.open.iter().position(|open| open.as_ref().is_some_and(&wanted))
    }

    /// A module has come: its part, its number and its time there (0: none).
    pub fn place(&mut self, part: usize, number: u64, time_ns: u64, now_ns: u64) -> Placed {
        let placed = self.find_place(part, number, time_ns, now_ns);
        if let Placed::New(place) | Placed::Joins(place) = placed
            && let Some(open) = self.open[place]
            && self.newest[part].is_none_or(|newest| newest.is_before(&open))
        {
            self.newest[part] = Some(open);
        }
        placed
    }

    fn find_place(&mut self, part: usize, number: u64, time_ns: u64, now_ns: u64) -> Placed {
        let own_ns = i64::try_from(time_ns).ok().filter(|ns| *ns > 0);
        match (self.align, own_ns, self.offset_ns[part]) {
            (Align::Time { tolerance_ns }, Some(own_ns), Some(offset_ns)) => {
                let first = First {
                    part,
                    number,
                    own_ns: Some(own_ns),
                };
                self.by_time(first, own_ns.saturating_sub(offset_ns), tolerance_ns, now_ns)
            }
            // Before the first pair has told how far apart the clocks are, numbers have to do.
            (Align::Time { .. }, Some(own_ns), None) => {
                let first = First {
                    part,
                    number,
                    own_ns: Some(own_ns),
                };
                let placed = self.by_number(first, now_ns);
                if let Placed::Joins(place) = placed {
                    self.learn(place, part, own_ns);
                }
                placed
            }
            _ => {
                let own_ns = None;
                self.by_number(First { part, number, own_ns }, now_ns)
            }
        }
    }

    fn learn(&mut self, place: usize, part: usize, own_ns: i64) {
        if let Some(reference_ns) = self.at(place).and_then(|open| open.time_ns) {
            self.learned(part, own_ns.saturating_sub(reference_ns));
        }
    }

    /// A part's clock can be compared from now on: what the part began by its own number is known by time instead.
    fn learned(&mut self, part: usize, offset_ns: i64) {
        self.offset_ns[part] = Some(offset_ns);
        for open in self.open.iter_mut().flatten() {
            let alone = open.first.part == part && open.time_ns.is_none() && open.present == 1 << part;
            if let Some(own_ns) = open.first.own_ns.filter(|_| alone) {
                (open.time_ns, open.known) = (Some(own_ns.saturating_sub(offset_ns)), false);
            }
        }
    }

    fn by_number(&mut self, first: First, now_ns: u64) -> Placed {
        if first.number >= self.expected {
            return Placed::Unmatched;
        }
        if let Some(place) = self.find(|open| open.known && open.frame == first.number) {
            return self.join(place, first.part);
        }
        if self.is_closed(first.number) {
            return Placed::Late;
        }
        self.begin(first, first.number, true, None, now_ns)
    }

    fn by_time(&mut self, first: First, time_ns: i64, tolerance_ns: u64, now_ns: u64) -> Placed {
        let First { part, number, .. } = first;
        let near = |other: Option<i64>| {
            other
                .map(|other| other.abs_diff(time_ns))
                .filter(|ns| *ns <= tolerance_ns)
        };
        let nearest = (0..self.open.len())
            .filter_map(|place| Some((near(self.at(place)?.time_ns)?, place)))
            .min();
        if let Some((_, place)) = nearest {
            if part == 0 && self.at(place).is_some_and(|open| !open.known) && !self.free(number) {
                return Placed::Unmatched;
            }
            let joined = self.join(place, part);
            if matches!(joined, Placed::Joins(_)) {
                self.number(place, first, time_ns);
            }
            return joined;
        }
        if self.past.iter().any(|past| near(*past).is_some()) {
            return Placed::Late;
        }
        // A frame that began with a module whose clock cannot be compared yet is known by its number.
        if part == 0
            && let Some(place) = self.find(|open| open.known && open.frame == number && open.time_ns.is_none())
        {
            let joined = self.join(place, part);
            self.number(place, first, time_ns);
            return joined;
        }
        if part == 0 && !self.free(number) {
            return if self.is_closed(number) {
                Placed::Late
            } else {
                Placed::Unmatched
            };
        }
        // Only the first part knows the run's numbers; what others begin is numbered when it joins, or as the last pair
        // says.
        let guess = number.wrapping_add_signed(self.shift[part]);
        self.begin(first, guess, part == 0, Some(time_ns), now_ns)
    }

    /// Whether a number of the run has not been used.
    fn free(&self, frame: u64) -> bool {
        frame < self.expected && !self.is_closed(frame) && self.find(|open| open.known && open.frame == frame).is_none()
    }

    /// A module has joined: what a pair tells of numbers and clocks.
    fn number(&mut self, place: usize, joined: First, time_ns: i64) {
        let Some(open) = &mut self.open[place] else { return };
        if joined.part == 0 {
            (open.frame, open.known, open.time_ns) = (joined.number, true, Some(time_ns));
            let First { part, number, own_ns } = open.first;
            self.shift[part] = open.frame as i64 - number as i64;
            if let (None, Some(own_ns)) = (self.offset_ns[part], own_ns) {
                self.learned(part, own_ns.saturating_sub(time_ns));
            }
        } else if open.known {
            self.shift[joined.part] = open.frame as i64 - joined.number as i64;
        }
    }

    fn join(&mut self, place: usize, part: usize) -> Placed {
        let Some(open) = &mut self.open[place] else {
            return Placed::Unmatched;
        };
        if open.present & (1 << part) != 0 {
            return Placed::Duplicate;
        }
        open.present |= 1 << part;
        Placed::Joins(place)
    }

    fn begin(&mut self, first: First, frame: u64, known: bool, time_ns: Option<i64>, now_ns: u64) -> Placed {
        let begun = Open {
            frame,
            present: 1 << first.part,
            known,
            time_ns,
            since_ns: now_ns,
            first,
        };
        let last = self.open.len() - 1;
        // What the others of its part wait behind must not wait for them.
        let oldest = || self.open.iter().flatten().all(|open| begun.is_before(open));
        let free = self.open[..last].iter().position(Option::is_none);
        let Some(place) = free.or_else(|| (self.open[last].is_none() && oldest()).then_some(last)) else {
            return Placed::Full;
        };
        self.open[place] = Some(begun);
        Placed::New(place)
    }

    /// The module that [`Placed::New`] was the answer to found no memory: as if it had not come.
    pub fn take_back(&mut self, place: usize) {
        self.open[place] = None;
    }

    /// A module that was placed turned out to be none.
    pub fn spoiled(&mut self, place: usize, part: usize) {
        if let Some(open) = &mut self.open[place] {
            open.present &= !(1 << part);
        }
    }

    /// A frame that is whole, or of which nothing more can come. Where places are wanted, also one that all parts have passed by
    /// that it lacks; where they are needed, the lowest.
    pub fn whole(&self, room: Room) -> Option<usize> {
        let (_, usual) = self.open.split_last().unwrap_or((&None, &[]));
        let full = room != Room::Enough && usual.iter().all(Option::is_some);
        self.lowest(|open| (open.present | !self.living) & self.all == self.all)
            .or_else(|| self.lowest(|open| full && self.is_passed(open)))
            .or_else(|| self.lowest(|_| full && room == Room::Needed))
    }

    /// Whether every part that a frame lacks has sent something of a later one.
    fn is_passed(&self, open: &Open) -> bool {
        let lacks = |part: usize| (open.present | !self.living) & (1 << part) == 0;
        let mut parts = self.newest.iter().enumerate().take(self.all.count_ones() as usize);
        parts.all(|(part, newest)| !lacks(part) || newest.as_ref().is_some_and(|newest| open.is_before(newest)))
    }

    /// A frame that has waited long enough. Its modules may have come and not been looked at yet: ask when they have been.
    pub fn overdue(&self, now_ns: u64) -> Option<usize> {
        self.lowest(|open| now_ns.saturating_sub(open.since_ns) >= self.wait_ns)
    }

    /// The lowest number first: what is behind needs frames roughly in order.
    fn lowest(&self, wanted: impl Fn(&Open) -> bool) -> Option<usize> {
        (0..self.open.len())
            .filter(|place| self.at(*place).is_some_and(&wanted))
            .min_by_key(|place| self.at(*place).map(|open| open.frame))
    }

    /// A frame is handed on, or let go; what comes of it from now on is late.
    pub fn close(&mut self, place: usize) -> Option<Closed> {
        let open = self.open[place].take()?;
        let frame = if open.known {
            Some(open.frame)
        } else {
            // Its first part's last pair may have been seen since it began.
            let guess = open.first.number.wrapping_add_signed(self.shift[open.first.part]);
            Some(guess).filter(|guess| self.free(*guess))
        };
        if let Some(word) = frame.and_then(|frame| self.closed.get_mut((frame / 64) as usize)) {
            *word |= 1 << (frame.unwrap_or(0) % 64);
        }
        if open.time_ns.is_some() {
            self.past[self.oldest] = open.time_ns;
            self.oldest = (self.oldest + 1) % PAST;
        }
        Some(Closed {
            frame,
            missing: self.all & !open.present,
            present: open.present,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAIT: u64 = 1000;

    #[test]
    fn a_frame_is_due_when_whole_or_after_its_wait_or_when_nothing_more_comes() {
        let mut matcher = Matcher::new(2, 10, Align::Number, WAIT, 4);
        assert_eq!(matcher.place(0, 3, 0, 0), Placed::New(0));
        assert_eq!(matcher.place(0, 3, 0, 0), Placed::Duplicate);
        assert_eq!(matcher.whole(Room::Enough), None);
        assert_eq!((matcher.overdue(WAIT - 1), matcher.overdue(WAIT)), (None, Some(0)));
        assert_eq!(matcher.place(1, 3, 0, 5), Placed::Joins(0));
        assert_eq!(matcher.whole(Room::Enough), Some(0));
        assert_eq!(
            matcher.close(0).map(|closed| (closed.frame, closed.missing)),
            Some((Some(3), 0))
        );
        assert_eq!(
            (matcher.place(1, 3, 0, 6), matcher.place(1, 10, 0, 6)),
            (Placed::Late, Placed::Unmatched)
        );
        assert_eq!(matcher.place(0, 4, 0, 10), Placed::New(0));
        matcher.ended(1);
        assert_eq!(matcher.whole(Room::Enough), Some(0));
        assert_eq!(matcher.close(0).map(|closed| closed.missing), Some(2));
    }

    #[test]
    fn clocks_learn_their_offset_from_the_first_pair() {
        let mut matcher = Matcher::new(2, 100, Align::Time { tolerance_ns: 50 }, WAIT, 8);
        // The second part's clock is 1 000 000 ahead; its frame 5 was never sent, so that its numbers shift.
        assert_eq!(matcher.place(1, 0, 1_001_000, 0), Placed::New(0));
        assert_eq!(matcher.place(0, 0, 1_000, 0), Placed::Joins(0));
        matcher.close(0);
        assert_eq!(matcher.place(0, 1, 2_000, 0), Placed::New(0));
        assert_eq!(matcher.place(1, 1, 1_002_010, 0), Placed::Joins(0));
        matcher.close(0);
        assert_eq!(
            matcher.place(1, 2, 1_004_020, 0),
            Placed::New(0),
            "it is frame 3, its own 2"
        );
        assert_eq!(matcher.place(0, 3, 4_000, 0), Placed::Joins(0));
        assert_eq!(
            matcher.close(0).map(|closed| (closed.frame, closed.missing)),
            Some((Some(3), 0))
        );
        assert_eq!(
            matcher.place(1, 3, 1_005_000, 0),
            Placed::New(0),
            "frame 4 by the shift"
        );
        assert_eq!(matcher.at(0).map(|open| open.frame), Some(4));
        assert_eq!(
            matcher.place(0, 4, 5_060, 0),
            Placed::New(1),
            "too far away: another frame, and its number is known"
        );
        assert_eq!(
            matcher.close(0).map(|closed| closed.frame),
            Some(None),
            "which leaves none for the other"
        );
        assert_eq!(matcher.place(0, 5, 5_000, 0), Placed::Late);
        assert_eq!(matcher.place(1, 5, 1_009_000, 0), Placed::New(0));
        assert_eq!(
            matcher.close(0).map(|closed| closed.frame),
            Some(Some(6)),
            "numbered as the last pair says"
        );
    }

    #[test]
    fn what_began_by_number_goes_by_time_once_the_clocks_can_be_compared() {
        // The second part comes first and missed trigger 1: its number 1 is frame 2.
        let mut matcher = Matcher::new(2, 100, Align::Time { tolerance_ns: 50 }, WAIT, 8);
        assert_eq!(matcher.place(1, 0, 1_001_000, 0), Placed::New(0));
        assert_eq!(matcher.place(1, 1, 1_003_000, 0), Placed::New(1));
        assert_eq!(matcher.place(0, 0, 1_000, 0), Placed::Joins(0));
        assert_eq!(
            matcher.place(0, 1, 2_000, 0),
            Placed::New(2),
            "not the second part's number 1"
        );
        assert_eq!(matcher.place(0, 2, 3_000, 0), Placed::Joins(1));
        let whole = matcher.close(1).map(|closed| (closed.frame, closed.missing));
        assert_eq!(whole, Some((Some(2), 0)));
    }

    #[test]
    fn a_part_that_is_ahead_keeps_no_place_from_the_frames_that_it_missed() {
        // The second part is four frames ahead, missed triggers 3 and 4 and counts on.
        let mut matcher = Matcher::new(2, 100, Align::Time { tolerance_ns: 50 }, WAIT, 4);
        let second = |matcher: &mut Matcher, number: u64| {
            let frame = if number < 3 { number } else { number + 2 };
            matcher.place(1, number, 1_000_000 + 1000 * (frame + 1), 0)
        };
        for number in 0..4 {
            assert_eq!(second(&mut matcher, number), Placed::New(number as usize));
        }
        assert_eq!(second(&mut matcher, 4), Placed::Full);
        for frame in 0..3 {
            assert_eq!(
                matcher.place(0, frame, 1000 * (frame + 1), 0),
                Placed::Joins(frame as usize)
            );
            assert_eq!(matcher.whole(Room::Wanted), Some(frame as usize));
            let closed = matcher
                .close(frame as usize)
                .map(|closed| (closed.frame, closed.missing));
            assert_eq!(closed, Some((Some(frame), 0)));
            assert_eq!(second(&mut matcher, frame + 4), Placed::New(frame as usize));
        }
        assert_eq!(second(&mut matcher, 7), Placed::Full);
        for frame in 3..5 {
            assert_eq!(
                matcher.place(0, frame, 1000 * (frame + 1), 0),
                Placed::New(4),
                "older than all"
            );
            assert_eq!(matcher.whole(Room::Enough), None, "it may still come");
            assert_eq!(matcher.whole(Room::Wanted), Some(4), "the second part has passed it by");
            let closed = matcher.close(4).map(|closed| (closed.frame, closed.missing));
            assert_eq!(closed, Some((Some(frame), 2)));
        }
        assert_eq!(matcher.place(0, 5, 6000, 0), Placed::Joins(3));
        let closed = matcher.close(3).map(|closed| (closed.frame, closed.missing));
        assert_eq!(closed, Some((Some(5), 0)));
    }

    #[test]
    fn a_part_that_is_behind_is_waited_for() {
        let mut matcher = Matcher::new(2, 100, Align::Number, WAIT, 4);
        for frame in 0..4 {
            assert_eq!(matcher.place(0, frame, 0, 0), Placed::New(frame as usize));
        }
        assert_eq!(matcher.place(0, 4, 0, 0), Placed::Full);
        assert_eq!(matcher.whole(Room::Wanted), None);
        assert_eq!(matcher.place(1, 0, 0, 0), Placed::Joins(0));
        assert_eq!(matcher.whole(Room::Wanted), Some(0), "whole");
        matcher.close(0);
        assert_eq!(matcher.place(0, 4, 0, 0), Placed::New(0));
        assert_eq!(matcher.whole(Room::Wanted), None, "it has sent the one before");
        assert_eq!(matcher.whole(Room::Needed), Some(1));
        assert_eq!(matcher.place(1, 2, 0, 0), Placed::Joins(2));
        matcher.close(2);
        assert_eq!(matcher.place(0, 5, 0, 0), Placed::New(2));
        assert_eq!(
            (matcher.whole(Room::Enough), matcher.whole(Room::Wanted)),
            (None, Some(1)),
            "passed by"
        );
    }

    proptest! {
        /// Two parts in any order, with duplicates: every module has one answer, every frame is closed once.
        #[test]
        fn every_module_is_placed_once(
            by_time in any::<bool>(),
            arrivals in prop::collection::vec((0usize..2, 0u64..12, 0u64..600), 0..120),
        ) {
            let align = if by_time { Align::Time { tolerance_ns: 10 } } else { Align::Number };
            let mut matcher = Matcher::new(2, 12, align, WAIT, 3);
            matcher.set_offset(1, 7);
            let (mut now, mut placed, mut closed) = (0, std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
            for (part, number, pass) in arrivals {
                now += pass;
                while let Some(place) = matcher.whole(Room::Needed).or_else(|| matcher.overdue(now)) {
                    let done = matcher.close(place).unwrap();
                    let frame = done.frame.unwrap();
                    prop_assert!(closed.insert(frame), "frame {} twice", frame);
                    for part in 0..2 {
                        prop_assert_eq!(done.missing & (1 << part) == 0, placed.contains(&(part, frame)));
                    }
                }
                let time_ns = 1000 * (number + 1) + if part == 1 { 9 } else { 0 };
                match matcher.place(part, number, time_ns, now) {
                    Placed::New(place) | Placed::Joins(place) => {
                        prop_assert_eq!(matcher.at(place).unwrap().frame, number);
                        prop_assert!(placed.insert((part, number)) && !closed.contains(&number));
                    }
                    Placed::Duplicate => prop_assert!(placed.contains(&(part, number))),
                    Placed::Late => prop_assert!(closed.contains(&number)),
                    other => prop_assert!(false, "{:?} with room made", other),
                }
            }
        }
    }
}
