//! Values by frame number: angle, monitors, motors, hardware time. They come by HTTP or with the stream, before, with or
//! after their frame, and are joined by the frame's number.
//!
//! Two rules make the order of arrival irrelevant: a value told by HTTP goes before one that came with the stream, and of
//! several by one way the last one counts. Invariants: a batch is taken whole or not at all; nothing is taken any more once
//! [`FrameMetadata::seal`] has been called; at most [`COLUMNS_MAX`] columns and [`VALUES_MAX`] values are kept.
//!
//! The receiving thread only stores into memory that is there ([`FrameMetadata::note`]); what belongs to a column that is
//! not made yet waits in a bounded queue for the control plane ([`FrameMetadata::drain`]).

use crossbeam_queue::ArrayQueue;
use frame::Note;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Most columns of a run.
pub const COLUMNS_MAX: usize = 64;
/// Most values of a run, given or not, over all columns: 8 bytes each.
pub const VALUES_MAX: u64 = 1 << 25;
/// Rotation angle, degrees: goes before the one that the source knows.
pub const ANGLE: &str = "angle_deg";
/// The detector's clock, whole nanoseconds.
pub const HARDWARE_TIME: &str = "hardware_time_ns";
/// Values that wait for their column to be made.
const WAITING_MAX: usize = 8192;

/// A value as it is told to people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Value {
    /// any finite number
    Number(f64),
    /// of [`HARDWARE_TIME`]
    Nanoseconds(u64),
}

/// Which values a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// finite numbers
    Number,
    /// whole nanoseconds
    Nanoseconds,
}

impl Kind {
    /// What a column of this name holds.
    pub fn of(name: &str) -> Kind {
        if name == HARDWARE_TIME {
            Kind::Nanoseconds
        } else {
            Kind::Number
        }
    }
}

/// 0 is "no value": neither a finite number nor a time below the largest has these bits once inverted.
fn stored(value: Value) -> u64 {
    match value {
        Value::Number(number) => !number.to_bits(),
        Value::Nanoseconds(ns) => !ns,
    }
}

type Cells = Box<[AtomicU64]>;

#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
    told: OnceLock<Cells>,
    streamed: OnceLock<Cells>,
}

impl Column {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            kind: Kind::of(name),
            told: OnceLock::new(),
            streamed: OnceLock::new(),
        }
    }

    fn value(&self, frame: u64) -> Option<Value> {
        let at = |cells: &OnceLock<Cells>| cells.get()?.get(frame as usize).map(|cell| cell.load(Relaxed));
        let bits = at(&self.told)
            .filter(|bits| *bits != 0)
            .or_else(|| at(&self.streamed).filter(|bits| *bits != 0))?;
        Some(match self.kind {
            Kind::Number => Value::Number(f64::from_bits(!bits)),
            Kind::Nanoseconds => Value::Nanoseconds(!bits),
        })
    }
}

/// One column of a batch: values in the order of the batch's frames, `None` where there is none.
#[derive(Clone, Debug)]
pub struct BatchColumn {
    /// [`frame::note::valid_name`]
    pub name: String,
    /// as NeXus writes it
    pub unit: Option<String>,
    /// of the column's [`Kind`]
    pub values: Vec<Option<Value>>,
}

/// Values that are taken together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// numbers of the frames
    pub frames: Vec<u64>,
    /// by name
    pub columns: Vec<BatchColumn>,
    /// nothing more will come
    pub last: bool,
}

/// Why a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// the run's files are being closed, or are
    Sealed,
    /// a value that cannot be
    Wrong {
        /// where it stands
        field: String,
        /// the value
        value: String,
        /// what was expected
        expected: String,
    },
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Taken {
    /// values taken
    pub values: u64,
    /// of these, those that took the place of an earlier one
    pub replaced: u64,
}

/// One column for the file, one value per expected frame.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataColumn {
    /// name
    pub name: String,
    /// unit, where it was told
    pub unit: Option<String>,
    /// values
    pub values: MetadataValues,
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValues {
    /// NaN where there is none
    Numbers(Vec<f64>),
    /// 0 where there is none
    Nanoseconds(Vec<u64>),
}

/// What the run's summary says of a column.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ColumnSummary {
    /// frames that have a value
    pub frames: u64,
    /// unit, where it was told
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What the run's summary says of the metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MetadataSummary {
    /// by name; those with a value only
    pub columns: BTreeMap<String, ColumnSummary>,
    /// values told by HTTP that took the place of an earlier one
    pub replaced: u64,
    /// values of the stream for which there was no room
    pub dropped: u64,
}

impl MetadataSummary {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.dropped == 0
    }
}

#[derive(Debug, Default)]
struct Books {
    units: BTreeMap<String, String>,
    /// room taken, given or not
    values: u64,
    replaced: u64,
    sealed: bool,
    last: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FrameMetadata {
    frames: u64,
    columns: [OnceLock<Column>; COLUMNS_MAX],
    waiting: ArrayQueue<(u64, Note)>,
    dropped: AtomicU64,
    books: Mutex<Books>,
}

impl FrameMetadata {
    /// For a run of `frames`. The columns of angle and hardware time are there from the start.
    pub fn new(frames: u64) -> Self {
        let metadata = Self {
            frames,
            columns: std::array::from_fn(|_| OnceLock::new()),
            waiting: ArrayQueue::new(WAITING_MAX),
            dropped: AtomicU64::new(0),
            books: Mutex::default(),
        };
        let mut books = metadata.books();
        for (name, unit) in [(ANGLE, "deg"), (HARDWARE_TIME, "ns")] {
            books.units.insert(name.into(), unit.into());
            metadata.column_or_new(name);
        }
        if let Some(column) = metadata.column(HARDWARE_TIME) {
            metadata.room(&column.streamed, &mut books);
        }
        drop(books);
        metadata
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().map_while(OnceLock::get)
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns().find(|column| column.name == name)
    }

    /// Called with the books held, so that no two columns have one name.
    fn column_or_new(&self, name: &str) -> Option<&Column> {
        if let Some(column) = self.column(name) {
            return Some(column);
        }
        let free = self.columns.iter().find(|place| place.get().is_none())?;
        Some(free.get_or_init(|| Column::new(name)))
    }

    /// The cells, made where there is still room for them.
    fn room<'a>(&self, cells: &'a OnceLock<Cells>, books: &mut Books) -> Option<&'a Cells> {
        if cells.get().is_none() {
            if books.values + self.frames > VALUES_MAX {
                return None;
            }
            books.values += self.frames;
        }
        Some(cells.get_or_init(|| (0..self.frames).map(|_| AtomicU64::new(0)).collect()))
    }

    /// A value that came with a frame of the stream. Allocates nothing and waits for nothing.
    pub fn note(&self, frame: u64, note: &Note) {
        let cells = self.column(note.name()).and_then(|column| column.streamed.get());
        match cells.map(|cells| cells.get(frame as usize)) {
            Some(Some(cell)) => cell.store(stored(Value::Number(note.value())), Relaxed),
            Some(None) => {}
            None => {
                if self.waiting.push((frame, *note)).is_err() {
                    self.dropped.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// The detector's clock as a frame brought it; 0 is none.
    pub fn hardware_time(&self, frame: u64, ns: u64) {
        let cells = self.columns[1].get().and_then(|column| column.streamed.get());
        if let Some(cell) = cells.and_then(|cells| cells.get(frame as usize))
            && (1..u64::MAX).contains(&ns)
        {
            cell.store(stored(Value::Nanoseconds(ns)), Relaxed);
        }
    }

    /// Makes the columns that values of the stream wait for. Control plane.
    pub fn drain(&self) {
        while let Some((frame, note)) = self.waiting.pop() {
            let mut books = self.books();
            let column = self
                .column_or_new(note.name())
                .filter(|column| column.kind == Kind::Number);
            let cells = column.and_then(|column| self.room(&column.streamed, &mut books));
            match cells.and_then(|cells| cells.get(frame as usize)) {
                // A later value may have been stored directly since the column was made by an earlier turn.
                Some(cell) => drop(cell.compare_exchange(0, stored(Value::Number(note.value())), Relaxed, Relaxed)),
                None => drop(self.dropped.fetch_add(1, Relaxed)),
            }
        }
    }

    /// Takes a batch whole, or not at all.
    ///
    /// # Errors
    /// [`Refused`], which names what is wrong.
    pub fn take(&self, batch: &Batch) -> Result<Taken, Refused> {
        let mut books = self.books();
        if books.sealed {
            return Err(Refused::Sealed);
        }
        self.check(batch, &books)?;
        let mut taken = Taken::default();
        for given in &batch.columns {
            // There is room: it has been checked, and the books have been held since.
            let Some(column) = self.column_or_new(&given.name) else {
                continue;
            };
            if let Some(unit) = &given.unit {
                books.units.insert(given.name.clone(), unit.clone());
            }
            let Some(cells) = self.room(&column.told, &mut books) else {
                continue;
            };
            for (frame, value) in batch.frames.iter().zip(&given.values) {
                if let (Some(cell), Some(value)) = (cells.get(*frame as usize), value) {
                    taken.values += 1;
                    taken.replaced += u64::from(cell.swap(stored(*value), Relaxed) != 0);
                }
            }
        }
        books.replaced += taken.replaced;
        books.last |= batch.last;
        Ok(taken)
    }

    fn check(&self, batch: &Batch, books: &Books) -> Result<(), Refused> {
        let wrong = |field: String, value: String, expected: String| Err(Refused::Wrong { field, value, expected });
        for (index, frame) in batch.frames.iter().enumerate() {
            if *frame >= self.frames {
                let expected = format!("a frame of the run: 0 to {}", self.frames.saturating_sub(1));
                return wrong(format!("frame_numbers[{index}]"), frame.to_string(), expected);
            }
        }
        let (mut new_columns, mut new_values) = (0, 0);
        for column in &batch.columns {
            let known = self.column(&column.name);
            new_columns += usize::from(known.is_none());
            if known.is_none_or(|column| column.told.get().is_none()) {
                new_values += self.frames;
            }
            if let (Some(unit), Some(before)) = (&column.unit, books.units.get(&column.name))
                && unit != before
            {
                return wrong(
                    format!("units.{}", column.name),
                    format!("{unit:?}"),
                    format!("{before:?}, the unit of this column"),
                );
            }
        }
        let columns = self.columns().count() + new_columns;
        if columns > COLUMNS_MAX {
            let expected = format!("at most {COLUMNS_MAX} columns of a run, {ANGLE} and {HARDWARE_TIME} included");
            return wrong("values".into(), format!("{columns} columns"), expected);
        }
        let values = books.values + new_values;
        if values > VALUES_MAX {
            let expected = format!("at most {VALUES_MAX} values of a run: columns times frames");
            return wrong("values".into(), format!("{values} values"), expected);
        }
        Ok(())
    }

    /// Whether somebody said that nothing more will come.
    pub fn last(&self) -> bool {
        self.books().last
    }

    /// From now on nothing is taken: the files are being written.
    pub fn seal(&self) {
        self.drain();
        self.books().sealed = true;
    }

    /// The rotation angle of a frame, degrees, if it is there already.
    pub fn angle_deg(&self, frame: u64) -> Option<f64> {
        match self.columns[0].get()?.value(frame)? {
            Value::Number(angle) => Some(angle),
            Value::Nanoseconds(_) => None,
        }
    }

    /// The numbers of a column by frame, those that are there.
    pub fn numbers<'a>(&'a self, name: &str) -> impl Fn(u64) -> Option<f64> + use<'a> {
        let column = self.column(name);
        move |frame| match column?.value(frame)? {
            Value::Number(number) => Some(number),
            Value::Nanoseconds(_) => None,
        }
    }

    /// Everything that is known of a frame now.
    pub fn of(&self, frame: u64) -> BTreeMap<String, Value> {
        self.columns()
            .filter_map(|column| Some((column.name.clone(), column.value(frame)?)))
            .collect()
    }

    /// For the run's summary.
    pub fn summary(&self) -> MetadataSummary {
        let books = self.books();
        let columns = self.columns().filter_map(|column| {
            let frames = (0..self.frames).filter(|frame| column.value(*frame).is_some()).count() as u64;
            let unit = books.units.get(&column.name).cloned();
            (frames > 0).then(|| (column.name.clone(), ColumnSummary { frames, unit }))
        });
        MetadataSummary {
            columns: columns.collect(),
            replaced: books.replaced,
            dropped: self.dropped.load(Relaxed),
        }
    }

    /// Every column with a value, for the run's file. Allocates: called once, at the end.
    pub fn for_file(&self) -> Vec<MetadataColumn> {
        let books = self.books();
        let columns = self.columns().filter_map(|column| {
            let all = || (0..self.frames).map(|frame| column.value(frame));
            all().flatten().next()?;
            let values = match column.kind {
                Kind::Number => MetadataValues::Numbers(
                    all()
                        .map(|value| match value {
                            Some(Value::Number(number)) => number,
                            _ => f64::NAN,
                        })
                        .collect(),
                ),
                Kind::Nanoseconds => MetadataValues::Nanoseconds(
                    all()
                        .map(|value| match value {
                            Some(Value::Nanoseconds(ns)) => ns,
                            _ => 0,
                        })
                        .collect(),
                ),
            };
            Some(MetadataColumn {
                name: column.name.clone(),
                unit: books.units.get(&column.name).cloned(),
                values,
            })
        });
        columns.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(frames: &[u64], name: &str, values: &[f64]) -> Batch {
        Batch {
            frames: frames.to_vec(),
            columns: vec![BatchColumn {
                name: name.into(),
                unit: None,
                values: values.iter().map(|value| Some(Value::Number(*value))).collect(),
            }],
            last: false,
        }
    }

    #[test]
    fn a_batch_is_taken_whole_or_not_at_all() {
        let metadata = FrameMetadata::new(10);
        let refused = metadata.take(&batch(&[3, 10], "I0", &[1.0, 2.0])).unwrap_err();
        assert!(
            matches!(&refused, Refused::Wrong { field, value, expected }
            if field == "frame_numbers[1]" && value == "10" && expected.contains("0 to 9")),
            "{refused:?}"
        );
        assert!(metadata.of(3).is_empty());
        assert_eq!(metadata.take(&batch(&[3, 9], "I0", &[1.0, 2.0])).unwrap().values, 2);
        assert_eq!(metadata.take(&batch(&[3], "I0", &[5.0])).unwrap().replaced, 1);
        assert_eq!(metadata.of(3)["I0"], Value::Number(5.0));
        let mut other = batch(&[1], ANGLE, &[1.0]);
        other.columns[0].unit = Some("rad".into());
        assert!(matches!(metadata.take(&other), Err(Refused::Wrong { field, .. }) if field == "units.angle_deg"));
        metadata.seal();
        assert_eq!(metadata.take(&batch(&[3], "I0", &[1.0])), Err(Refused::Sealed));
        assert_eq!(metadata.summary().columns["I0"].frames, 2);
    }

    #[test]
    fn memory_is_bounded_by_columns_and_by_values() {
        let metadata = FrameMetadata::new(4);
        for index in 0..COLUMNS_MAX - 2 {
            metadata.take(&batch(&[0], &format!("motor_{index}"), &[1.0])).unwrap();
        }
        assert!(matches!(
            metadata.take(&batch(&[0], "more", &[1.0])),
            Err(Refused::Wrong { .. })
        ));
        assert_eq!(metadata.take(&batch(&[1], "motor_3", &[1.0])).unwrap().values, 1);
        metadata.note(0, &Note::new("more", 1.0).unwrap());
        metadata.drain();
        assert_eq!(metadata.summary().dropped, 1);
        let metadata = FrameMetadata::new(VALUES_MAX / 2);
        metadata.take(&batch(&[0], "a", &[1.0])).unwrap();
        let refused = metadata.take(&batch(&[0], "b", &[1.0])).unwrap_err();
        assert!(matches!(&refused, Refused::Wrong { expected, .. } if expected.contains("columns times frames")));
        let metadata = FrameMetadata::new(4);
        for _ in 0..WAITING_MAX + 5 {
            metadata.note(0, &Note::new("x", 1.0).unwrap());
        }
        metadata.drain();
        assert_eq!(metadata.summary().dropped, 5);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Told(Vec<(u64, f64)>, usize),
        Streamed(u64, usize, f64),
        Time(u64, u64),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prop::collection::vec((0u64..20, -1e3..1e3), 0..6), 0usize..3).prop_map(|(v, c)| Step::Told(v, c)),
            (0u64..20, 0usize..3, -1e3..1e3).prop_map(|(frame, column, value)| Step::Streamed(frame, column, value)),
            (0u64..20, 1u64..1000).prop_map(|(frame, ns)| Step::Time(frame, ns)),
            Just(Step::Drain),
        ]
    }

    proptest! {
        /// In whatever order values come: one that was told goes before one of the stream, the last of each way counts.
        #[test]
        fn the_order_of_arrival_makes_no_difference(steps in prop::collection::vec(step(), 0..60)) {
            const NAMES: [&str; 3] = ["I0", ANGLE, "sam_x"];
            let metadata = FrameMetadata::new(20);
            let (mut told, mut streamed, mut times) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Told(pairs, column) => {
                        let (frames, values): (Vec<u64>, Vec<f64>) = pairs.iter().copied().unzip();
                        metadata.take(&batch(&frames, NAMES[column], &values)).unwrap();
                        told.extend(pairs.into_iter().map(|(frame, value)| ((frame, NAMES[column]), value)));
                    }
                    // A stream brings each value of a frame once: its duplicates have no receipt.
                    Step::Streamed(frame, column, value) => {
                        if let std::collections::btree_map::Entry::Vacant(first) = streamed.entry((frame, NAMES[column])) {
                            first.insert(value);
                            metadata.note(frame, &Note::new(NAMES[column], value).unwrap());
                        }
                    }
                    Step::Time(frame, ns) => {
                        metadata.hardware_time(frame, ns);
                        times.insert(frame, ns);
                    }
                    Step::Drain => metadata.drain(),
                }
            }
            metadata.seal();
            for frame in 0..20 {
                let now = metadata.of(frame);
                for name in NAMES {
                    let expected = told.get(&(frame, name)).or(streamed.get(&(frame, name)));
                    prop_assert_eq!(now.get(name).copied(), expected.map(|value| Value::Number(*value)), "{} {}", frame, name);
                }
                prop_assert_eq!(now.get(HARDWARE_TIME).copied(), times.get(&frame).map(|ns| Value::Nanoseconds(*ns)));
            }
        }
    }
}
