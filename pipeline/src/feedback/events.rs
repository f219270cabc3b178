//! What happens to a run, as events that a late listener still gets from the beginning.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::broadcast;

/// Most events kept of one kind: past it those of progress are thinned out, and of any other kind the first ones stay. What is
/// not kept is still told to whoever listens.
const KIND_KEPT: usize = 1024;

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
    /// events kept, by kind
    kinds: BTreeMap<&'static str, usize>,
    ended: bool,
}

impl Log {
    fn keep(&mut self, event: &Event) {
        let kept = self.kinds.entry(event.event).or_default();
        if *kept == KIND_KEPT && event.event == "progress" {
            let mut odd = false;
            self.kept.retain(|kept| {
                odd ^= kept.event == "progress";
                kept.event != "progress" || odd
            });
            *kept = KIND_KEPT / 2;
        }
        if *kept < KIND_KEPT {
            *kept += 1;
            self.kept.push(event.clone());
        }
    }
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
            kinds: BTreeMap::new(),
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
        log.keep(&event);
        // A send without listeners is no fault.
        let _ = self.sender.send(event);
    }

    /// Everything so far, whether the run has ended, and what comes next.
    pub fn listen(&self) -> (Vec<Event>, bool, broadcast::Receiver<Event>) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.kept.clone(), log.ended, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_events_there_are_few_are_kept_and_all_are_told() {
        let log = EventLog::default();
        let mut told = log.listen().2;
        log.add("armed", serde_json::Value::Null);
        for number in 0..20_000 {
            log.add("decision", serde_json::json!(number));
            log.add("progress", serde_json::json!(number));
        }
        log.add("end", serde_json::Value::Null);
        let (kept, ended, _) = log.listen();
        let of = |kind: &str| kept.iter().filter(|event| event.event == kind).collect::<Vec<_>>();
        assert!(ended && of("armed").len() == 1 && of("end").len() == 1);
        assert_eq!(of("decision").len(), KIND_KEPT);
        assert_eq!(of("decision")[KIND_KEPT - 1].data, KIND_KEPT - 1);
        assert!((KIND_KEPT / 2..=KIND_KEPT).contains(&of("progress").len()));
        // Progress is kept from the beginning to the end.
        assert!(
            of("progress")[0].data == 0
                && of("progress")
                    .last()
                    .is_some_and(|last| last.data.as_u64() > Some(19_000))
        );
        assert!(kept.is_sorted_by_key(|event| event.sequence));
        // A listener that fell behind is told so, and gets the newest.
        while !matches!(told.try_recv(), Ok(event) if event.event == "end") {}
    }
}
