//! The feedback hub: takes results off the data plane and serves every consumer by its own policy. A
//! slow consumer loses its own messages and sees the gap in the sequence numbers; nobody waits for it.

use crate::frame_metadata::{FrameMetadata, Value};
use crate::grid::{GridMessage, GridScan};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use frame::{FrameResult, ResultLayout};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// One result as consumers get it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ResultMessage {
    /// counts results of the run from 0; a gap is a result that this consumer lost
    pub sequence: u64,
    /// number of the frame within the run
    pub frame_number: u64,
    /// sample, flat, dark or invalid
    #[schema(value_type = String)]
    pub kind: frame::FrameKind,
    /// whether the frame lacked parts
    pub partial: bool,
    /// version of the parameters that made the result
    pub parameters_version: u32,
    /// rotation angle in degrees
    pub angle_deg: Option<f64>,
    /// age of the frame when its result was ready, µs
    pub age_us: u64,
    /// by name
    pub scalars: BTreeMap<String, f64>,
    /// by name
    pub curves: BTreeMap<String, Vec<f32>>,
    /// values of the frame that had come by then, by name
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
    /// of a grid scan: the frame's box, and what all boxes say
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridMessage>,
}

/// A result, and when its frame arrived.
#[derive(Clone, Debug)]
pub struct Kept {
    /// what consumers get
    pub message: Arc<ResultMessage>,
    /// arrival of its frame, ns of the monotonic clock
    pub arrival_ns: u64,
    /// the result without its curves as JSON, made when the first consumer wants it
    light: Arc<OnceLock<String>>,
}

impl Kept {
    /// A result, and when its frame arrived.
    pub fn new(message: Arc<ResultMessage>, arrival_ns: u64) -> Self {
        Self {
            message,
            arrival_ns,
            light: Arc::default(),
        }
    }

    /// The result without its curves as JSON: made once, however many consumers get it.
    pub fn light(&self) -> &str {
        self.light.get_or_init(|| {
            let message = &self.message;
            let light = ResultMessage {
                scalars: message.scalars.clone(),
                metadata: message.metadata.clone(),
                curves: BTreeMap::new(),
                grid: message.grid.clone(),
                ..**message
            };
            serde_json::to_string(&light).unwrap_or_default()
        })
    }
}

/// Results whose JSON with curves is kept: those that consumers who keep up want at the same time.
const TEXTS: usize = 16;

/// Why there is no result of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// it comes later, if at all
    NotYet,
    /// it was let go; this is the oldest that is kept
    Gone(u64),
}

/// What consumers are told when something has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// results so far
    pub published: u64,
    /// whether nothing more comes
    pub ended: bool,
}

/// Serves the results of one run. They are kept once for all consumers, each of which knows how far it has come: one that
/// stands still costs nothing, and one that comes back goes on where it was.
pub struct FeedbackHub {
    layout: ResultLayout,
    capacity: usize,
    kept: RwLock<VecDeque<Kept>>,
    /// the newest results with their curves as JSON, by number, as far as consumers wanted them
    texts: Mutex<VecDeque<(u64, Arc<str>)>>,
    told: watch::Sender<Told>,
    published: AtomicU64,
    missed: AtomicU64,
    metadata: Arc<FrameMetadata>,
    grid: Option<Arc<GridScan>>,
}

impl FeedbackHub {
    /// A hub for results of this layout that keeps `kept` of them for consumers that fall behind.
    pub fn new(layout: ResultLayout, kept: usize, metadata: Arc<FrameMetadata>, grid: Option<Arc<GridScan>>) -> Self {
        Self {
            layout,
            capacity: kept.max(1),
            kept: RwLock::new(VecDeque::with_capacity(kept.max(1))),
            texts: Mutex::default(),
            told: watch::channel(Told::default()).0,
            published: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            metadata,
            grid,
        }
    }

    /// What tells that something has come.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// The result of this number.
    pub fn get(&self, sequence: u64) -> Result<Kept, Missing> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = kept.front().map_or(0, |kept| kept.message.sequence);
        let index = sequence.checked_sub(oldest).ok_or(Missing::Gone(oldest))?;
        kept.get(index as usize).cloned().ok_or(Missing::NotYet)
    }

    /// The result with its curves as JSON: made once for all consumers that keep up, for each that is behind.
    pub fn full(&self, kept: &Kept) -> Arc<str> {
        let sequence = kept.message.sequence;
        let texts = || self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |texts: &VecDeque<(u64, Arc<str>)>| {
            let text = texts.iter().find(|(number, _)| *number == sequence);
            text.map(|(_, text)| text.clone())
        };
        if let Some(text) = found(&texts()) {
            return text;
        }
        // Not under the lock: others send meanwhile, and two may make the same.
        let text: Arc<str> = serde_json::to_string(&*kept.message).unwrap_or_default().into();
        let mut texts = texts();
        if sequence + TEXTS as u64 > self.published() && found(&texts).is_none() {
            if texts.len() == TEXTS {
                texts.pop_front();
            }
            texts.push_back((sequence, text.clone()));
        }
        text
    }

    /// What results are made of.
    pub fn layout(&self) -> &ResultLayout {
        &self.layout
    }

    /// The result of this frame, where it is still kept.
    pub fn of_frame(&self, frame_number: u64) -> Option<Kept> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = kept.iter().rev();
        newest_first
            .find(|kept| kept.message.frame_number == frame_number)
            .cloned()
    }

    /// The newest result.
    pub fn newest(&self) -> Option<Kept> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.back().cloned()
    }

    /// Results handed over so far.
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Results that the data plane could not hand over because this hub was behind.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Called by a worker whose hand-over queue was full.
    pub fn miss(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    /// Takes results until the data plane has hung up. Runs on a thread of the control plane. `each` is told of every
    /// one with the arrival of its frame (ns), and of nothing from time to time where none comes.
    pub fn serve(&self, results: &Receiver<Arc<FrameResult>>, each: impl Fn(Option<(&Arc<ResultMessage>, u64)>)) {
        loop {
            match results.recv_timeout(Duration::from_millis(200)) {
                Ok(result) => each(Some((&self.publish(&result), result.arrival_time_ns))),
                Err(RecvTimeoutError::Timeout) => each(None),
                Err(RecvTimeoutError::Disconnected) => {
                    self.told.send_modify(|told| told.ended = true);
                    return;
                }
            }
        }
    }

    fn publish(&self, result: &FrameResult) -> Arc<ResultMessage> {
        let sequence = self.published.fetch_add(1, Relaxed);
        let scalars = self
            .layout
            .scalars
            .iter()
            .zip(&result.scalars)
            .map(|(field, value)| (field.name.clone(), *value));
        let curves = self
            .layout
            .curves
            .iter()
            .zip(&result.curves)
            .map(|(field, v)| (field.name.clone(), v.to_vec()));
        let message = Arc::new(ResultMessage {
            sequence,
            frame_number: result.frame_number,
            kind: result.kind,
            partial: result.partial,
            parameters_version: result.parameters_version,
            angle_deg: Some(result.angle_deg).filter(|a| a.is_finite()),
            age_us: result.result_time_ns.saturating_sub(result.arrival_time_ns) / 1000,
            scalars: scalars.collect(),
            curves: curves.collect(),
            metadata: self.metadata.of(result.frame_number),
            grid: self
                .grid
                .as_ref()
                .map(|grid| grid.message(result.frame_number, &self.metadata)),
        });
        {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == self.capacity {
                kept.pop_front();
            }
            kept.push_back(Kept::new(message.clone(), result.arrival_time_ns));
        }
        self.told.send_modify(|told| told.published = sequence + 1);
        message
    }
}
