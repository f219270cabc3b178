//! A part's own thread: its source, its small ring, and the queue of its modules.

use super::AssemblyConfig;
use crate::memory::{FrameLease, FrameRing, HugePages, PageSize, PagesConfig};
use crate::source::{Arrival, FrameSource, SourceError};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a part has to say.
pub(super) enum FromPart {
    /// a module
    Module(FrameLease),
    /// no more will come; what somebody should know
    Ended(Vec<String>),
    /// it cannot go on
    Failed(SourceError),
}

/// Wakes whoever waits for any of the parts.
#[derive(Clone)]
pub(super) struct Wake {
    ring: Sender<()>,
    heard: Receiver<()>,
}

impl Wake {
    pub(super) fn new() -> Self {
        let (ring, heard) = bounded(1);
        Self { ring, heard }
    }

    fn wake(&self) {
        // One that is not heard yet is enough.
        let _ = self.ring.try_send(());
    }

    /// Whether somebody woke it within `patience`.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        self.heard.recv_timeout(patience).is_ok()
    }
}

/// A part that runs; it ends when it is dropped.
pub(super) struct PartThread {
    modules: Receiver<FromPart>,
    stop: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl PartThread {
    /// Makes the part's ring and starts its thread.
    pub(super) fn start(
        index: usize,
        mut source: Box<dyn FrameSource>,
        config: &AssemblyConfig,
        wake: Wake,
    ) -> Result<Self, SourceError> {
        let failed = |reason: String| SourceError::Read {
            path: format!("source {index}").into(),
            reason,
        };
        let payload_bytes = source.stream().payload_bytes_max.max(1);
        let pages = HugePages::reserve(&PagesConfig {
            bytes: FrameRing::bytes_needed(config.part_slots, payload_bytes),
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        })
        .map_err(|error| failed(error.to_string()))?;
        let ring =
            FrameRing::new(pages, config.part_slots, payload_bytes).map_err(|error| failed(error.to_string()))?;
        source.prepare(&ring)?;
        let (give, modules) = bounded(config.part_slots + 1);
        let (stop, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counted, when_full) = (stop.clone(), dropped.clone(), config.when_full);
        let run = move || {
            let last = loop {
                if stopping.load(Relaxed) {
                    return;
                }
                match source.next(&ring, when_full) {
                    Ok(Arrival::Frame(lease)) => {
                        if !hand_over(&give, FromPart::Module(lease), &stopping, &wake) {
                            return;
                        }
                    }
                    Ok(Arrival::Dropped { .. }) => drop(counted.fetch_add(1, Relaxed)),
                    Ok(Arrival::Idle) => {}
                    Ok(Arrival::End) => break FromPart::Ended(source.remarks()),
                    Err(error) => break FromPart::Failed(error),
                }
            };
            hand_over(&give, last, &stopping, &wake);
        };
        let thread = std::thread::Builder::new()
            .name(format!("fluxline-part-{index}"))
            .spawn(run)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            modules,
            stop,
            dropped,
            thread: Some(thread),
        })
    }

    /// What it has, if anything.
    pub(super) fn take(&self) -> Option<FromPart> {
        self.modules.try_recv().ok()
    }

    /// Modules that found no room in its ring.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Hands something over; false when the run has ended meanwhile.
fn hand_over(give: &Sender<FromPart>, mut what: FromPart, stop: &AtomicBool, wake: &Wake) -> bool {
    loop {
        match give.send_timeout(what, Duration::from_millis(20)) {
            Ok(()) => {
                wake.wake();
                return true;
            }
            Err(SendTimeoutError::Timeout(again)) if !stop.load(Relaxed) => what = again,
            Err(_) => return false,
        }
    }
}

impl Drop for PartThread {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
