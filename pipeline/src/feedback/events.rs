//! What happens to a run, as events that a late listener still gets from the beginning.

use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast;

/// Most events kept per run; past it progress events are thinned out, everything else is kept.
const EVENTS_KEPT: usize = 4096;

/// An event in the life of a run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// sequence number within the run, from 0
    pub sequence: u64,
    /// armed, first_frame, progress, file_closed, degraded, end
    pub event: &'static str,
    /// UTC time
    pub time: String,
    /// what belongs to the event
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

struct Log {
    next: u64,
    kept: Vec<Event>,
    ended: bool,
}

/// The events of one run.
pub struct EventLog {
    log: Mutex<Log>,
    sender: broadcast::Sender<Event>,
}

impl Default for EventLog {
    fn default() -> Self {
        let log = Log {
            next: 0,
            kept: Vec::new(),
            ended: false,
        };
        Self {
            log: Mutex::new(log),
            sender: broadcast::channel(256).0,
        }
    }
}

impl EventLog {
    /// Adds an event and tells every listener. `end` closes the log.
    pub fn add(&self, event: &'static str, data: serde_json::Value) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            sequence: log.next,
            event,
            time: jiff::Timestamp::now().to_string(),
            data,
        };
        log.next += 1;
        log.ended |= event.event == "end";
        if log.kept.len() >= EVENTS_KEPT {
            let mut odd = false;
            log.kept.retain(|kept| {
                odd = !odd;
                kept.event != "progress" || odd
            });
        }
        log.kept.push(event.clone());
        // A send without listeners is no fault.
        let _ = self.sender.send(event);
    }

    /// Everything so far, whether the run has ended, and what comes next.
    pub fn listen(&self) -> (Vec<Event>, bool, broadcast::Receiver<Event>) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.kept.clone(), log.ended, self.sender.subscribe())
    }
}
