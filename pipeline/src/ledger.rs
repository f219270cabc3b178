//! The ledger: one entry per expected frame, three independent outcomes. The receiving thread, the
//! workers and the writer each write their own columns; anybody may read at any time.
//!
//! Invariants, once a run has ended: `expected = complete + partial + corrupt + lost`, and
//! `received = done + shed + failed = synced + vetoed + failed`.

use driver::tracker::FrameState;
use serde::Serialize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What analysis made of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Analysis {
    /// no outcome yet, or the frame was never received
    Pending = 0,
    /// a result exists
    Done = 1,
    /// left out under overload
    Shed = 2,
    /// tried, and failed
    Failed = 3,
}

/// What became of a received frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Storage {
    /// no outcome yet, or the frame was never received
    Pending = 0,
    /// on the disk, and the journal knows it: survives a crash and a power cut
    Synced = 1,
    /// a recipe decided against it
    Vetoed = 2,
    /// could not be written
    Failed = 3,
}

/// How far a frame has come: what loses it from here on. A level is acknowledged only when everything below its promise
/// has happened; L1 and L2 are reached in either order, and the higher one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub enum Acknowledged {
    /// L0: in memory; a crash loses it
    #[serde(rename = "L0")]
    InMemory,
    /// L1: analysed, its result was sent; a crash loses its bytes
    #[serde(rename = "L1")]
    Analysed,
    /// L2: synced to the local disk, together with its journal; the loss of the disk loses it
    #[serde(rename = "L2")]
    Synced,
    /// L3: read again at the central store and compared
    #[serde(rename = "L3")]
    Verified,
}

impl Acknowledged {
    /// The level of a frame with these outcomes.
    fn of(storage: Storage, analysis: Analysis, arrived: bool) -> Option<Acknowledged> {
        match (storage, analysis) {
            (Storage::Synced, _) => Some(Acknowledged::Synced),
            (_, Analysis::Done) => Some(Acknowledged::Analysed),
            (Storage::Pending, _) if arrived => Some(Acknowledged::InMemory),
            _ => None,
        }
    }

    /// Name as API and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Acknowledged::InMemory => "L0",
            Acknowledged::Analysed => "L1",
            Acknowledged::Synced => "L2",
            Acknowledged::Verified => "L3",
        }
    }
}

const ANALYSIS: [Analysis; 4] = [Analysis::Pending, Analysis::Done, Analysis::Shed, Analysis::Failed];
const STORAGE: [Storage; 4] = [Storage::Pending, Storage::Synced, Storage::Vetoed, Storage::Failed];
const STATES: [FrameState; 5] = [
    FrameState::Expected,
    FrameState::Complete,
    FrameState::Partial,
    FrameState::Corrupt,
    FrameState::Lost,
];

/// One line of the ledger.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// number within the run
    pub frame_number: u64,
    /// how it arrived
    #[schema(value_type = String)]
    pub state: &'static str,
    /// what analysis made of it
    pub analysis: Analysis,
    /// what became of its bytes
    pub storage: Storage,
    /// the level that it has reached; none before it is received, and none where it is neither analysed nor stored
    pub acknowledged: Option<Acknowledged>,
    /// whether the host analysed it because the device had failed
    pub device_failed: bool,
    /// arrival after the start of the run, µs
    pub arrival_us: Option<u64>,
    /// arrival to result, µs
    pub result_latency_us: Option<u32>,
    /// packets or modules that never came
    pub parts_missing: u32,
    /// bytes of the frame, once decompressed, that never came and hold the mask value
    pub missing_bytes: u32,
}

/// Totals of the second and third outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Outcomes {
    /// complete, partial and corrupt frames
    pub received: u64,
    /// analysed
    pub done: u64,
    /// left out under overload
    pub shed: u64,
    /// analysis failed
    pub analysis_failed: u64,
    /// written
    pub synced: u64,
    /// left out by a recipe
    pub vetoed: u64,
    /// could not be written
    pub storage_failed: u64,
}

/// One entry per expected frame.
#[derive(Debug)]
pub struct Ledger {
    start_ns: u64,
    state: Box<[AtomicU8]>,
    analysis: Box<[AtomicU8]>,
    storage: Box<[AtomicU8]>,
    arrival_ns: Box<[AtomicU64]>,
    latency_ns: Box<[AtomicU32]>,
    device_failed: Box<[AtomicBool]>,
    parts_missing: Box<[AtomicU32]>,
    missing_bytes: Box<[AtomicU32]>,
    settled: AtomicU64,
    furthest: AtomicU64,
    received: AtomicU64,
    analysed: [AtomicU64; 4],
    stored: [AtomicU64; 4],
}

fn column<T>(length: u64, zero: impl Fn() -> T) -> Box<[T]> {
    (0..length).map(|_| zero()).collect()
}

impl Ledger {
    /// A ledger of `expected` frames; `start_ns` is the monotonic time that arrivals are counted from.
    pub fn new(expected: u64, start_ns: u64) -> Self {
        Self {
            start_ns,
            state: column(expected, || AtomicU8::new(0)),
            analysis: column(expected, || AtomicU8::new(0)),
            storage: column(expected, || AtomicU8::new(0)),
            arrival_ns: column(expected, || AtomicU64::new(0)),
            latency_ns: column(expected, || AtomicU32::new(0)),
            device_failed: column(expected, || AtomicBool::new(false)),
            parts_missing: column(expected, || AtomicU32::new(0)),
            missing_bytes: column(expected, || AtomicU32::new(0)),
            settled: AtomicU64::new(0),
            furthest: AtomicU64::new(0),
            received: AtomicU64::new(0),
            analysed: Default::default(),
            stored: Default::default(),
        }
    }

    /// The host analyses a frame because the device has failed.
    pub fn device_failed(&self, frame: u64) {
        self.device_failed[frame as usize].store(true, Relaxed);
    }

    /// Number of frames expected.
    pub fn expected(&self) -> u64 {
        self.state.len() as u64
    }

    /// The tracker has settled a frame. Called once per frame, by the receiving thread.
    pub fn receipt(&self, frame: u64, state: FrameState, arrival_ns: u64) {
        let index = frame as usize;
        self.state[index].store(state as u8, Relaxed);
        if matches!(state, FrameState::Complete | FrameState::Partial | FrameState::Corrupt) {
            self.arrival_ns[index].store(arrival_ns.saturating_sub(self.start_ns).max(1), Relaxed);
            self.received.fetch_add(1, Relaxed);
        }
        self.furthest.fetch_max(frame + 1, Relaxed);
        self.settled.fetch_add(1, Relaxed);
    }

    /// Packets or modules that a received frame lacks. Called by the receiving thread.
    pub fn parts_missing(&self, frame: u64, parts: u32) {
        self.parts_missing[frame as usize].store(parts, Relaxed);
    }

    /// So many bytes of a partial frame never came.
    pub fn missing(&self, frame: u64, bytes: u32) {
        self.missing_bytes[frame as usize].store(bytes, Relaxed);
    }

    /// Analysis has ended for a received frame. Called once per received frame.
    pub fn analysed(&self, frame: u64, outcome: Analysis, latency_ns: u64) {
        self.latency_ns[frame as usize].store(latency_ns.min(u64::from(u32::MAX)) as u32, Relaxed);
        self.analysis[frame as usize].store(outcome as u8, Relaxed);
        self.analysed[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Storage has ended for a received frame. Called once per received frame.
    pub fn stored(&self, frame: u64, outcome: Storage) {
        self.storage[frame as usize].store(outcome as u8, Relaxed);
        self.stored[outcome as usize].fetch_add(1, Relaxed);
    }

    /// A frame counted as written turns out not to be: the file that held it could not be closed.
    pub fn storage_failed_after_all(&self) {
        for storage in &self.storage {
            if storage
                .compare_exchange(Storage::Synced as u8, Storage::Failed as u8, Relaxed, Relaxed)
                .is_ok()
            {
                self.stored[Storage::Synced as usize].fetch_sub(1, Relaxed);
                self.stored[Storage::Failed as usize].fetch_add(1, Relaxed);
            }
        }
    }

    /// Totals so far.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            received: self.received.load(Relaxed),
            done: self.analysed[Analysis::Done as usize].load(Relaxed),
            shed: self.analysed[Analysis::Shed as usize].load(Relaxed),
            analysis_failed: self.analysed[Analysis::Failed as usize].load(Relaxed),
            synced: self.stored[Storage::Synced as usize].load(Relaxed),
            vetoed: self.stored[Storage::Vetoed as usize].load(Relaxed),
            storage_failed: self.stored[Storage::Failed as usize].load(Relaxed),
        }
    }

    /// One line; `None` past the last expected frame.
    pub fn entry(&self, frame: u64) -> Option<Entry> {
        let index = usize::try_from(frame).ok().filter(|i| *i < self.state.len())?;
        let arrival_ns = self.arrival_ns[index].load(Relaxed);
        let analysis = ANALYSIS[self.analysis[index].load(Relaxed) as usize & 3];
        let latency_ns = self.latency_ns[index].load(Relaxed);
        let storage = STORAGE[self.storage[index].load(Relaxed) as usize & 3];
        Some(Entry {
            frame_number: frame,
            state: state_name(self.state(frame)),
            analysis,
            storage,
            acknowledged: Acknowledged::of(storage, analysis, arrival_ns > 0),
            device_failed: self.device_failed[index].load(Relaxed),
            arrival_us: (arrival_ns > 0).then_some(arrival_ns / 1000),
            result_latency_us: (analysis == Analysis::Done).then_some(latency_ns / 1000),
            parts_missing: self.parts_missing[index].load(Relaxed),
            missing_bytes: self.missing_bytes[index].load(Relaxed),
        })
    }

    /// How a frame arrived; `Expected` past the last one.
    pub fn state(&self, frame: u64) -> FrameState {
        let code = self.state.get(frame as usize).map_or(0, |s| s.load(Relaxed));
        STATES.get(code as usize).copied().unwrap_or(FrameState::Expected)
    }

    /// Whether nobody will analyse a frame: it was lost, or left out, or is no frame. Of one that is waiting it is not so.
    pub fn gone(&self, frame: u64) -> bool {
        let analysis = self.analysis.get(frame as usize).map_or(0, |code| code.load(Relaxed));
        let left_out = [Analysis::Shed, Analysis::Failed]
            .iter()
            .any(|out| *out as u8 == analysis);
        left_out || self.state(frame) == FrameState::Lost
    }

    /// The last frame that arrived whole or in part.
    pub fn last_received(&self) -> Option<u64> {
        let arrived = |frame: &u64| matches!(self.state(*frame), FrameState::Complete | FrameState::Partial);
        (0..self.expected()).rev().find(arrived)
    }

    /// Outcomes so far, of every kind: as long as it is the same nothing has changed.
    pub fn changes(&self) -> u64 {
        let sum = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Relaxed)).sum::<u64>();
        self.settled.load(Relaxed) + sum(&self.analysed) + sum(&self.stored)
    }

    /// Whether a received frame waits for an outcome.
    pub fn waits(&self) -> bool {
        let now = self.outcomes();
        let analysed = now.done + now.shed + now.analysis_failed;
        let stored = now.synced + now.vetoed + now.storage_failed;
        analysed.min(stored) < now.received
    }

    /// One past the furthest frame that the tracker has settled.
    pub fn furthest(&self) -> u64 {
        self.furthest.load(Relaxed)
    }

    /// Whether nothing more will become of a frame.
    fn is_final(&self, index: usize) -> bool {
        match self.state(index as u64) {
            FrameState::Expected => false,
            FrameState::Lost => true,
            _ => self.analysis[index].load(Relaxed) > 0 && self.storage[index].load(Relaxed) > 0,
        }
    }

    /// Every column as plain numbers, for the run's file. Allocates: called once, at the end.
    pub fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        self.copy(0..self.state.len(), &mut columns);
        columns
    }

    /// These rows as plain numbers, in the place of what `into` holds. Allocates nothing where there is room; returns whether
    /// all of them are final.
    pub fn copy(&self, rows: Range<usize>, into: &mut Columns) -> bool {
        let all_final = rows.clone().all(|index| self.is_final(index));
        copy(&self.state[rows.clone()], &mut into.frame_state, |v| v.load(Relaxed));
        copy(&self.analysis[rows.clone()], &mut into.analysis, |v| v.load(Relaxed));
        copy(&self.storage[rows.clone()], &mut into.storage, |v| v.load(Relaxed));
        copy(&self.arrival_ns[rows.clone()], &mut into.arrival_ns, |v| {
            v.load(Relaxed)
        });
        copy(&self.latency_ns[rows.clone()], &mut into.result_latency_ns, |v| {
            v.load(Relaxed)
        });
        copy(&self.parts_missing[rows.clone()], &mut into.parts_missing, |v| {
            v.load(Relaxed)
        });
        copy(&self.missing_bytes[rows.clone()], &mut into.missing_bytes, |v| {
            v.load(Relaxed)
        });
        copy(&self.device_failed[rows], &mut into.device_failed, |v| {
            u8::from(v.load(Relaxed))
        });
        all_final
    }
}

fn copy<A, T>(from: &[A], into: &mut Vec<T>, value: impl Fn(&A) -> T) {
    into.clear();
    into.extend(from.iter().map(value));
}

/// The ledger's columns, one value per expected frame.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// [`FrameState`] codes
    pub frame_state: Vec<u8>,
    /// [`Analysis`] codes
    pub analysis: Vec<u8>,
    /// [`Storage`] codes
    pub storage: Vec<u8>,
    /// arrival after the start of the run, ns; 0 where it never arrived
    pub arrival_ns: Vec<u64>,
    /// arrival to result, ns; 0 where there is none
    pub result_latency_ns: Vec<u32>,
    /// packets or modules that never came of a received frame
    pub parts_missing: Vec<u32>,
    /// bytes that never came
    pub missing_bytes: Vec<u32>,
    /// 1 where the host analysed it because the device had failed
    pub device_failed: Vec<u8>,
}

impl Columns {
    /// Room for so many rows, and none in it.
    pub fn with_room(rows: usize) -> Self {
        Self {
            frame_state: Vec::with_capacity(rows),
            analysis: Vec::with_capacity(rows),
            storage: Vec::with_capacity(rows),
            arrival_ns: Vec::with_capacity(rows),
            result_latency_ns: Vec::with_capacity(rows),
            parts_missing: Vec::with_capacity(rows),
            missing_bytes: Vec::with_capacity(rows),
            device_failed: Vec::with_capacity(rows),
        }
    }

    /// One line; `None` past the last frame.
    pub fn entry(&self, frame: u64) -> Option<Entry> {
        let index = usize::try_from(frame).ok()?;
        let state = STATES.get(usize::from(*self.frame_state.get(index)?)).copied();
        let analysis = ANALYSIS[usize::from(*self.analysis.get(index)?) & 3];
        let storage = STORAGE[usize::from(*self.storage.get(index)?) & 3];
        let arrival_ns = *self.arrival_ns.get(index)?;
        let latency_ns = *self.result_latency_ns.get(index)?;
        // Runs of earlier versions lack the last columns.
        let newer = |column: &[u32]| column.get(index).copied().unwrap_or(0);
        Some(Entry {
            frame_number: frame,
            state: state_name(state.unwrap_or(FrameState::Expected)),
            analysis,
            storage,
            acknowledged: Acknowledged::of(storage, analysis, arrival_ns > 0),
            device_failed: self.device_failed.get(index).is_some_and(|failed| *failed > 0),
            arrival_us: (arrival_ns > 0).then_some(arrival_ns / 1000),
            result_latency_us: (analysis == Analysis::Done).then_some(latency_ns / 1000),
            parts_missing: newer(&self.parts_missing),
            missing_bytes: newer(&self.missing_bytes),
        })
    }

    /// As the store takes them.
    pub fn as_storage(&self) -> crate::storage::LedgerColumns<'_> {
        crate::storage::LedgerColumns {
            frame_state: &self.frame_state,
            analysis: &self.analysis,
            storage: &self.storage,
            arrival_ns: &self.arrival_ns,
            result_latency_ns: &self.result_latency_ns,
            parts_missing: &self.parts_missing,
            missing_bytes: &self.missing_bytes,
            device_failed: &self.device_failed,
        }
    }
}

/// The name of a frame's state, as the API writes it.
pub fn state_name(state: FrameState) -> &'static str {
    match state {
        FrameState::Expected => "expected",
        FrameState::Complete => "complete",
        FrameState::Partial => "partial",
        FrameState::Corrupt => "corrupt",
        FrameState::Lost => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_close_when_every_frame_is_settled() {
        let ledger = Ledger::new(4, 1_000);
        ledger.receipt(0, FrameState::Complete, 2_000);
        ledger.receipt(1, FrameState::Partial, 3_000);
        ledger.receipt(2, FrameState::Lost, 0);
        ledger.receipt(3, FrameState::Corrupt, 4_000);
        ledger.analysed(0, Analysis::Done, 700_000);
        ledger.analysed(1, Analysis::Shed, 0);
        ledger.analysed(3, Analysis::Failed, 0);
        for frame in [0, 1] {
            ledger.stored(frame, Storage::Synced);
        }
        ledger.stored(3, Storage::Failed);
        let o = ledger.outcomes();
        assert_eq!(o.received, 3);
        assert_eq!(o.done + o.shed + o.analysis_failed, o.received);
        assert_eq!(o.synced + o.vetoed + o.storage_failed, o.received);
        let first = ledger.entry(0).unwrap();
        assert_eq!(
            (first.state, first.arrival_us, first.result_latency_us),
            ("complete", Some(1), Some(700))
        );
        let level = |frame| ledger.entry(frame).unwrap().acknowledged.map(Acknowledged::name);
        assert_eq!(
            [level(0), level(1), level(2), level(3)],
            [Some("L2"), Some("L2"), None, None]
        );
        assert_eq!(ledger.entry(2).unwrap().arrival_us, None);
        assert!(ledger.entry(4).is_none());
        ledger.storage_failed_after_all();
        assert_eq!((ledger.outcomes().synced, ledger.outcomes().storage_failed), (0, 3));
    }
}
