//! The feedback hub: takes results off the data plane and serves every consumer by its own policy. A
//! slow consumer loses its own messages and sees the gap in the sequence numbers; nobody waits for it.

use crate::frame_metadata::{FrameMetadata, Value};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use frame::{FrameResult, ResultLayout};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

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
}

/// Serves the results of one run.
pub struct FeedbackHub {
    layout: ResultLayout,
    all: broadcast::Sender<Arc<ResultMessage>>,
    latest: watch::Sender<Option<Arc<ResultMessage>>>,
    published: AtomicU64,
    missed: AtomicU64,
    metadata: Arc<FrameMetadata>,
}

impl FeedbackHub {
    /// A hub for results of this layout that keeps `kept` of them for consumers that fall behind.
    pub fn new(layout: ResultLayout, kept: usize, metadata: Arc<FrameMetadata>) -> Self {
        Self {
            layout,
            all: broadcast::channel(kept).0,
            latest: watch::channel(None).0,
            published: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            metadata,
        }
    }

    /// Every result in order, for a consumer that wants all of them.
    pub fn all(&self) -> broadcast::Receiver<Arc<ResultMessage>> {
        self.all.subscribe()
    }

    /// The newest result, for a consumer that wants only that.
    pub fn latest(&self) -> watch::Receiver<Option<Arc<ResultMessage>>> {
        self.latest.subscribe()
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
                Err(RecvTimeoutError::Disconnected) => return,
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
        });
        self.latest.send_replace(Some(message.clone()));
        // A send without consumers is no fault.
        let _ = self.all.send(message.clone());
        message
    }
}
