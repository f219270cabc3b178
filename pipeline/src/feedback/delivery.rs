//! Results to one consumer by its own policy, over a WebSocket or as server-sent events. A consumer pulls from what the hub
//! keeps for all of them: whoever is slow, stuck or gone costs neither the pipeline nor the others anything.

use super::access::{Access, Caller, enter::SUBPROTOCOL};
use super::error::ApiError;
use super::extract::{Path, Query};
use super::hub::{Kept, Missing, ResultMessage, Told};
use super::runs::active;
use super::server::Asked;
use super::stored;
use crate::active_run::ActiveRun;
use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use driver::clock::monotonic_ns;
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

/// Longest time that a consumer may take to accept a message.
const SEND_S: Duration = Duration::from_secs(10);
/// How long a run that has ended may still have results on their way.
const QUIET: Duration = Duration::from_secs(1);
/// Comments that keep a silent stream of events open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a consumer wants its results.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResultsQuery {
    /// lossless (every result, as far back as feedback.results_kept goes), latest (the newest one whenever the last was
    /// taken), or sampled (the newest one at a rate)
    policy: Option<String>,
    /// most messages per second for sampled, 10 unless given
    max_rate_hz: Option<f64>,
    /// of lossless: sequence number to begin with, at most the number of results so far; the next one to come unless given.
    /// Over server-sent events `Last-Event-ID` goes before it
    from: Option<u64>,
    /// age of a frame, in milliseconds, from which on its result is marked as late (0.001 to 86400000)
    deadline_ms: Option<f64>,
    /// whether messages carry curves, not only scalars
    curves: Option<bool>,
}

/// A result as one consumer gets it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DeliveredResult<'a> {
    /// the result
    #[serde(flatten)]
    #[schema(value_type = ResultMessage)]
    message: &'a ResultMessage,
    /// age of the frame when the message was handed to the connection, µs
    sent_age_us: u64,
    /// whether that is past this consumer's deadline
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<bool>,
    /// results that this consumer has lost just before this one, being slow; absent where none
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Policy {
    Lossless,
    Latest,
    Sampled(Duration),
}

#[derive(Clone)]
pub(super) struct Wants {
    policy: Policy,
    from: Option<u64>,
    deadline_us: Option<u64>,
    curves: bool,
}

impl Wants {
    /// A policy without a deadline, from what comes next.
    pub(super) fn of(policy: Policy, curves: bool) -> Self {
        Self {
            policy,
            from: None,
            deadline_us: None,
            curves,
        }
    }
}

impl ResultsQuery {
    fn wants(&self, last_event: Option<u64>, published: u64) -> Result<Wants, ApiError> {
        let rate = self.max_rate_hz.unwrap_or(10.0);
        if !(0.01..=1000.0).contains(&rate) {
            return Err(ApiError::bad_request(format!("max_rate_hz = {rate}: 0.01 to 1000")));
        }
        let policy = match self.policy.as_deref() {
            None | Some("lossless") => Policy::Lossless,
            Some("latest") => Policy::Latest,
            Some("sampled") => Policy::Sampled(Duration::from_secs_f64(1.0 / rate)),
            Some(other) => {
                let message = format!("policy = {other:?}: lossless, latest or sampled");
                return Err(ApiError::bad_request(message));
            }
        };
        let deadline_us = match self.deadline_ms {
            None => None,
            Some(ms) if (0.001..=86_400_000.0).contains(&ms) => Some((1000.0 * ms) as u64),
            Some(ms) => return Err(ApiError::bad_request(format!("deadline_ms = {ms}: 0.001 to 86400000"))),
        };
        if let Some(from) = self.from.filter(|from| policy != Policy::Lossless || *from > published) {
            let expected = match policy {
                Policy::Lossless => format!("0 to {published}, the number of results so far"),
                _ => "it goes with policy=lossless".into(),
            };
            return Err(ApiError::bad_request(format!("from = {from}: {expected}")));
        }
        // Another run's number, where a client comes back and asks for `current`: it begins with what comes.
        let resumed = last_event
            .map(|last| last.saturating_add(1))
            .filter(|next| *next <= published);
        Ok(Wants {
            policy,
            from: resumed.or(self.from),
            deadline_us,
            curves: self.curves.unwrap_or(false),
        })
    }
}

/// One consumer, and how far it has come.
pub(super) struct Consumer {
    run: Arc<ActiveRun>,
    wants: Wants,
    told: watch::Receiver<Told>,
    /// sequence number that it has not had yet
    next: u64,
    lost: u64,
    sent: Option<Instant>,
    lost_counter: IntCounter,
}

impl Consumer {
    pub(super) fn new(run: Arc<ActiveRun>, wants: Wants, lost_counter: IntCounter) -> Self {
        let told = run.hub.told();
        let next = match wants.policy {
            Policy::Lossless => wants.from.unwrap_or_else(|| run.hub.published()),
            // They begin with the newest one there is.
            Policy::Latest | Policy::Sampled(_) => 0,
        };
        Self {
            run,
            wants,
            told,
            next,
            lost: 0,
            sent: None,
            lost_counter,
        }
    }

    /// The next result for this consumer and its number; none when the run has ended.
    pub(super) async fn next(&mut self) -> Option<(u64, String)> {
        if let (Policy::Sampled(pause), Some(sent)) = (self.wants.policy, self.sent) {
            tokio::time::sleep_until(sent + pause).await;
        }
        let mut quiet = false;
        loop {
            let told = *self.told.borrow_and_update();
            if let Some(kept) = self.take() {
                self.sent = Some(Instant::now());
                return Some((kept.message.sequence, self.text(&kept)));
            }
            if told.ended || quiet {
                return None;
            }
            match tokio::time::timeout(QUIET, self.told.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                // A run that never began tells nothing.
                Err(_) => quiet = self.run.state().ended(),
            }
        }
    }

    fn take(&mut self) -> Option<Kept> {
        if self.wants.policy != Policy::Lossless {
            let kept = self
                .run
                .hub
                .newest()
                .filter(|kept| kept.message.sequence >= self.next)?;
            self.next = kept.message.sequence + 1;
            return Some(kept);
        }
        loop {
            match self.run.hub.get(self.next) {
                Ok(kept) => {
                    self.next += 1;
                    return Some(kept);
                }
                Err(Missing::NotYet) => return None,
                Err(Missing::Gone(oldest)) => {
                    self.lost += oldest - self.next;
                    self.next = oldest;
                }
            }
        }
    }

    fn text(&mut self, kept: &Kept) -> String {
        let lost = std::mem::take(&mut self.lost);
        self.lost_counter.inc_by(lost);
        let sent_age_us = monotonic_ns().saturating_sub(kept.arrival_ns) / 1000;
        let late = self.wants.deadline_us.map(|deadline| sent_age_us > deadline);
        let lost = Some(lost).filter(|lost| *lost > 0);
        match self.wants.curves {
            true => own_text(&self.run.hub.full(kept), sent_age_us, late, lost),
            false => own_text(kept.light(), sent_age_us, late, lost),
        }
    }
}

/// [`DeliveredResult`] of a result whose own text is known: what is this consumer's goes before its last brace.
fn own_text(shared: &str, sent_age_us: u64, late: Option<bool>, lost: Option<u64>) -> String {
    let mut text = String::with_capacity(shared.len() + 64);
    text.push_str(shared.strip_suffix('}').unwrap_or(shared));
    // Writing into a String cannot fail.
    let _ = write!(text, ",\"sent_age_us\":{sent_age_us}");
    if let Some(late) = late {
        let _ = write!(text, ",\"late\":{late}");
    }
    if let Some(lost) = lost {
        let _ = write!(text, ",\"lost\":{lost}");
    }
    text.push('}');
    text
}

/// Results of the run in memory, one JSON message per frame: over a WebSocket, or as server-sent events where none is asked for.
#[utoipa::path(get, path = "/runs/{id}/results", params(ResultsQuery), responses((status = 101, body = DeliveredResult),
    (status = 200, body = DeliveredResult, content_type = "text/event-stream"), (status = 400, body = ApiError),
    (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn results(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<ResultsQuery>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let run = match active(&shared, &id) {
        Some(run) => run,
        None => return Err(stored::with(&shared, &id, |run| Ok(results_on_disk(run))).await?),
    };
    let wants = query.wants(last_event(&headers), run.hub.published())?;
    let lost = shared.appliance.metrics().results_lost.clone();
    let consumer = Consumer::new(run, wants, lost);
    let access = shared.access.clone();
    if !headers.contains_key(header::UPGRADE) {
        return Ok(events(consumer, access, caller).into_response());
    }
    let upgrade = upgrade.map_err(|rejection| ApiError::bad_request(format!("no WebSocket: {rejection}")))?;
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .on_upgrade(move |socket| socket_of(socket, consumer, access, caller))
        .into_response())
}

/// The number of the last event that a client has had, where it comes back.
pub(super) fn last_event(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.trim().parse().ok()
}

fn results_on_disk(run: &stored::StoredRun) -> ApiError {
    let message = format!(
        "run {} has ended and sends no more results; its master file has them at /entry/results, and \
         /runs/{{id}}/profiles/{{n}} answers curves",
        run.record.id
    );
    ApiError::new(StatusCode::CONFLICT, "on_disk", message)
}

async fn socket_of(mut socket: WebSocket, mut consumer: Consumer, access: Arc<Access>, caller: Caller) {
    loop {
        let message = tokio::select! {
            message = consumer.next() => message,
            () = left(&mut socket) => return,
            () = access.revoked(&caller) => break,
        };
        let Some((_, text)) = message else { break };
        let sent = tokio::time::timeout(SEND_S, socket.send(Message::Text(text.into()))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
    // The consumer may be gone already.
    let _ = tokio::time::timeout(SEND_S, socket.send(Message::Close(None))).await;
}

/// Returns when the consumer has left. What it says meanwhile is answered by the socket (pings) or of no interest.
async fn left(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
    }
}

fn events(mut consumer: Consumer, access: Arc<Access>, caller: Caller) -> impl IntoResponse {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = consumer.next() => message,
                () = sender.closed() => return,
                () = access.revoked(&caller) => return,
            };
            let event = match &message {
                Some((sequence, text)) => SseEvent::default().id(sequence.to_string()).event("result").data(text),
                None => SseEvent::default().event("end").data("{}"),
            };
            // A consumer that does not read holds its own task here and nothing else.
            let sent = tokio::select! {
                sent = sender.send(event) => sent.is_ok(),
                () = access.revoked(&caller) => false,
            };
            if !sent || message.is_none() {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver).map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Events to one listener, until they end or the listener may no longer listen.
pub(super) fn guarded(
    stream: impl Stream<Item = SseEvent> + Send + 'static,
    access: Arc<Access>,
    caller: Caller,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        let pump = async {
            while let Some(event) = stream.next().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = pump => {}
            () = sender.closed() => {}
            () = access.revoked(&caller) => {}
        }
    });
    Sse::new(ReceiverStream::new(receiver).map(Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

#[cfg(test)]
mod tests {
    use super::super::hub::FeedbackHub;
    use super::*;
    use crate::frame_metadata::FrameMetadata;
    use frame::ResultLayout;
    use std::collections::BTreeMap;

    #[test]
    fn the_shared_text_is_what_the_structure_says() {
        let message = ResultMessage {
            sequence: 7,
            frame_number: 9,
            kind: frame::FrameKind::Sample,
            partial: false,
            parameters_version: 1,
            angle_deg: None,
            age_us: 12,
            scalars: BTreeMap::from([("sum".into(), 1.5), ("a \"}\" b".into(), -1e300)]),
            curves: BTreeMap::from([("intensity".into(), vec![1.0, 2.0])]),
            metadata: BTreeMap::new(),
            grid: None,
        };
        let bare = ResultMessage {
            curves: BTreeMap::new(),
            ..message.clone()
        };
        let kept = Kept::new(Arc::new(message.clone()), 0);
        let hub = FeedbackHub::new(ResultLayout::default(), 16, Arc::new(FrameMetadata::new(10)), None);
        for (late, lost) in [(None, None), (Some(true), Some(3)), (Some(false), None)] {
            for (message, shared) in [(&bare, kept.light()), (&message, &hub.full(&kept))] {
                let delivered = DeliveredResult {
                    message,
                    sent_age_us: 42,
                    late,
                    lost,
                };
                let expected = serde_json::to_string(&delivered).unwrap();
                assert_eq!(own_text(shared, 42, late, lost), expected);
            }
        }
        assert!(
            std::ptr::eq(kept.light(), kept.clone().light()),
            "once for all consumers"
        );
    }
}
