//! Results by ZeroMQ PUB, for programs that subscribe to many instruments. The newest result or the newest one at a rate: a
//! subscriber that is slow loses messages in its own queue and is waited for by nobody. There are no tokens here.

use super::delivery::{Consumer, Policy, Wants};
use crate::appliance::Appliance;
use crate::config::{ConfigError, ZmqConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks whether another run was armed.
const LOOK: Duration = Duration::from_millis(50);
/// Messages that wait for one subscriber.
const WAITING: i32 = 64;

/// A socket that is bound.
pub struct Publisher {
    socket: zmq::Socket,
    wants: Wants,
}

impl Publisher {
    /// Binds the address.
    ///
    /// # Errors
    /// Names it where that cannot be.
    pub fn bind(config: &ZmqConfig) -> Result<Publisher, ConfigError> {
        let bind = || {
            let socket = zmq::Context::new().socket(zmq::PUB)?;
            socket.set_linger(0)?;
            socket.set_sndhwm(WAITING)?;
            socket.bind(&config.publish)?;
            Ok::<_, zmq::Error>(socket)
        };
        let socket = bind().map_err(|error| {
            let reason = format!("cannot be bound: {error}");
            ConfigError::value("feedback.zmq.publish", format!("{:?}", config.publish), reason)
        })?;
        let policy = match config.policy.as_str() {
            "latest" => Policy::Latest,
            _ => Policy::Sampled(Duration::from_secs_f64(1.0 / config.max_rate_hz)),
        };
        Ok(Publisher {
            socket,
            wants: Wants::of(policy, config.curves),
        })
    }

    /// Publishes the results of every run, for as long as the process lives.
    pub async fn serve(self, appliance: Arc<Appliance>) {
        let mut last: Option<PathBuf> = None;
        loop {
            let run = appliance.current().filter(|run| last.as_ref() != Some(&run.folder));
            let Some(run) = run else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            last = Some(run.folder.clone());
            let id = run.info.id.clone();
            let lost = appliance.metrics().results_lost.clone();
            let mut consumer = Consumer::new(run, self.wants.clone(), lost);
            while let Some((_, text)) = consumer.next().await {
                self.send("result", &id, &text);
            }
            self.send("end", &id, "{}");
        }
    }

    fn send(&self, topic: &str, run: &str, text: &str) {
        // PUB never waits: what a subscriber has no room for is its own loss, and there may be none.
        if let Err(error) = self.socket.send_multipart([topic, run, text], zmq::DONTWAIT) {
            tracing::debug!(target: "fluxline", "a result was not published: {error}");
        }
    }
}
