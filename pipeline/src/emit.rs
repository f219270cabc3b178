//! Frames sent on to other programs as DECTRIS stream V2. The data plane offers a lease and goes on; a thread of its own
//! makes the messages. What nobody takes in time is left out and counted: it never holds a run up.

use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, Sender, bounded};
use driver::dectris::encode::{SeriesEncoder, unique_name};
use driver::dectris::message::SeriesKey;
use driver::dectris::{DectrisError, Publisher, Version};
use driver::memory::FrameLease;
use driver::source::SourceError;
use frame::StreamDescription;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a frame waits for somebody to take it.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end of a run waits for the last of its frames to be taken.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Places of the queue that frames never take.
const CONTROL: usize = 4;

enum ToEmit {
    Begin(Box<StreamDescription>),
    Frame(FrameLease),
    End(Sender<()>),
    Quit,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// What a run holds of it.
#[derive(Clone)]
pub struct EmitHandle {
    queue: Sender<ToEmit>,
    frames: usize,
    counts: Arc<Counts>,
    metrics: Metrics,
}

impl EmitHandle {
    /// A run begins.
    pub(crate) fn begin(&self, stream: &StreamDescription) {
        self.counts.sent.store(0, Relaxed);
        self.counts.dropped.store(0, Relaxed);
        // The thread empties the queue within a bounded time.
        let _ = self.queue.send(ToEmit::Begin(Box::new(stream.clone())));
    }

    /// Offers a frame; allocates nothing and waits for nobody.
    pub(crate) fn offer(&self, lease: &FrameLease) {
        let room = self.queue.len() < self.frames;
        let taken = room && self.queue.try_send(ToEmit::Frame(lease.clone())).is_ok();
        if !taken {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The run has no more frames. Returns how many were sent and dropped, when that is known.
    pub(crate) fn end(&self) -> BTreeMap<String, u64> {
        let (done, finished) = bounded(1);
        if self.queue.send_timeout(ToEmit::End(done), END_PATIENCE).is_ok() {
            let _ = finished.recv_timeout(END_PATIENCE + PATIENCE * self.frames as u32);
        }
        let counted = [("sent", &self.counts.sent), ("dropped", &self.counts.dropped)];
        let counted = counted.map(|(name, count)| (name, count.load(Relaxed)));
        for (outcome, frames) in counted {
            self.metrics.emitted.with_label_values(&[outcome]).inc_by(frames);
        }
        counted
            .into_iter()
            .map(|(name, frames)| (name.to_string(), frames))
            .collect()
    }
}

/// The thread and its socket, from start to end of the process.
pub struct Emitter {
    handle: EmitHandle,
    thread: Option<JoinHandle<()>>,
}

impl Emitter {
    /// Binds `address` and starts the thread.
    pub fn start(address: &str, queue_frames: usize, metrics: &Metrics) -> Result<Emitter, SourceError> {
        let publisher = Publisher::bind(address, queue_frames as i32, END_PATIENCE)?;
        tracing::info!(target: "fluxline", "frames are sent on at {}", publisher.address());
        let (queue, taken) = bounded(queue_frames + CONTROL);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let thread = std::thread::Builder::new()
            .name("fluxline-emit".into())
            .spawn(move || emit(&publisher, &taken, &counted))
            .map_err(|error| DectrisError::Socket {
                address: address.into(),
                reason: error.to_string(),
            })?;
        Ok(Emitter {
            handle: EmitHandle {
                queue,
                frames: queue_frames,
                counts,
                metrics: metrics.clone(),
            },
            thread: Some(thread),
        })
    }

    /// What a run is given.
    pub fn handle(&self) -> EmitHandle {
        self.handle.clone()
    }
}

impl Drop for Emitter {
    fn drop(&mut self) {
        let _ = self.handle.queue.send(ToEmit::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A series on its way.
struct Series {
    stream: Box<StreamDescription>,
    encoder: SeriesEncoder,
    /// the message that begins it, until somebody has taken it
    start: Option<Vec<Vec<u8>>>,
}

impl Series {
    fn new(number: u64, stream: Box<StreamDescription>) -> Self {
        let now = jiff::Timestamp::now();
        let key = SeriesKey {
            id: number,
            unique: unique_name(now.as_microsecond().unsigned_abs().into(), number),
        };
        let encoder = SeriesEncoder::new(key, Version::V2, &now.to_string(), &stream);
        Self {
            start: Some(encoder.start(&stream)),
            encoder,
            stream,
        }
    }

    /// Sends the start if that is still to be done; false if nobody takes it.
    fn begin(&mut self, publisher: &Publisher, patience: Duration) -> bool {
        if self.start.is_some() && !publisher.ready(patience) {
            return false;
        }
        self.start.take().is_none_or(|start| publisher.send(start).is_ok())
    }

    fn image(&mut self, publisher: &Publisher, lease: &FrameLease) -> bool {
        self.begin(publisher, PATIENCE)
            && publisher.ready(PATIENCE)
            && publisher
                .send(self.encoder.image(lease.header(), lease.payload(), &self.stream))
                .is_ok()
    }
}

/// The thread.
fn emit(publisher: &Publisher, queue: &Receiver<ToEmit>, counts: &Counts) {
    let (mut current, mut number) = (None::<Series>, 0);
    while let Ok(message) = queue.recv() {
        match message {
            ToEmit::Begin(stream) => {
                number += 1;
                let mut series = Series::new(number, stream);
                series.begin(publisher, Duration::ZERO);
                current = Some(series);
            }
            ToEmit::Frame(lease) => {
                let sent = current.as_mut().is_some_and(|series| series.image(publisher, &lease));
                let count = if sent { &counts.sent } else { &counts.dropped };
                count.fetch_add(1, Relaxed);
            }
            ToEmit::End(done) => {
                if let Some(series) = current.take().filter(|series| series.start.is_none())
                    && publisher.ready(END_PATIENCE)
                {
                    let _ = publisher.send(series.encoder.end());
                }
                let _ = done.send(());
            }
            ToEmit::Quit => return,
        }
    }
}
