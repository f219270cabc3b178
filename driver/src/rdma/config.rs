//! `[[source]]` with `kind = "rdma"`.

use crate::source::SourceError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who decides where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// the receiver grants slots, senders write them: nothing is lost on the way
    Reliable,
    /// a free-running sender; frames that find no slot are lost and counted
    Detector,
}

/// How the receiving thread learns of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Polling {
    /// it asks all the time: least latency, one core
    Busy,
    /// it sleeps until the device wakes it
    Event,
}

/// `[[source]]` with `kind = "rdma"`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RdmaConfig {
    /// "reliable": the receiver grants slots. "detector": the sender runs freely.
    pub mode: Mode,
    /// Name of the RDMA device as `fluxline doctor` prints it; the first unless given.
    pub device: Option<String>,
    /// Address and port that senders connect to. The address belongs to the RDMA device, or is 0.0.0.0.
    pub listen: String,
    /// File with the token that senders must know. Needed unless `open_to_network` is set.
    pub token_file: Option<PathBuf>,
    /// Take senders without a token.
    pub open_to_network: bool,
    /// Most connections of one sender (1 to 16); in detector mode its streams.
    pub queue_pairs: u16,
    /// Most senders at once (1 to 4).
    pub senders_max: usize,
    /// Most slots that one connection may have at once (1 to 1024).
    pub credits: u32,
    /// Largest payload that is taken, bytes.
    pub frame_bytes_max: u64,
    /// "busy" or "event": how the receiving thread learns of frames.
    pub polling: Polling,
    /// Seconds that arming waits for a sender (0.1 to 3600).
    pub connect_timeout_s: f64,
    /// Seconds without any sender after which a run ends; what has not come is lost then (0.1 to 3600).
    pub sender_timeout_s: f64,
    /// Detector mode: index of the port's address that is told to senders; the first of RoCE v2 with IPv4 unless given.
    pub gid_index: Option<u8>,
}

impl Default for RdmaConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Reliable,
            device: None,
            listen: "0.0.0.0:18515".into(),
            token_file: None,
            open_to_network: false,
            queue_pairs: 1,
            senders_max: 1,
            credits: 256,
            frame_bytes_max: 256 << 20,
            polling: Polling::Busy,
            connect_timeout_s: 30.0,
            sender_timeout_s: 4.0,
            gid_index: None,
        }
    }
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub config: RdmaConfig,
    pub listen: SocketAddr,
    pub token: Option<String>,
}

impl Checked {
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.config.connect_timeout_s)
    }

    pub(super) fn sender_timeout_ns(&self) -> u64 {
        (self.config.sender_timeout_s * 1e9) as u64
    }
}

fn wrong(key: &'static str, value: impl std::fmt::Display, expected: impl Into<String>) -> SourceError {
    SourceError::Parameter {
        key,
        value: value.to_string(),
        expected: expected.into(),
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &'static str, value: T, low: T, high: T) -> Result<(), SourceError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(wrong(key, value, format!("allowed is {low} to {high}")))
}

impl RdmaConfig {
    /// Checks every value and reads the token.
    pub(super) fn check(&self) -> Result<Checked, SourceError> {
        within("queue_pairs", self.queue_pairs, 1, 16)?;
        within("senders_max", self.senders_max, 1, 4)?;
        within("credits", self.credits, 1, super::wire::CREDITS_MAX)?;
        within("frame_bytes_max", self.frame_bytes_max, 1, 1 << 30)?;
        within("connect_timeout_s", self.connect_timeout_s, 0.1, 3600.0)?;
        within("sender_timeout_s", self.sender_timeout_s, 0.1, 3600.0)?;
        let listen: SocketAddr = self.listen.parse().map_err(|_| {
            let expected = "an address and a port, for example \"0.0.0.0:18515\"";
            wrong("listen", format!("{:?}", self.listen), expected)
        })?;
        let token = match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None if self.open_to_network => None,
            None => {
                let expected = "name the file with the token that senders must know, or set open_to_network = true";
                return Err(wrong("token_file", "(missing)", expected));
            }
        };
        Ok(Checked {
            config: self.clone(),
            listen,
            token,
        })
    }
}

/// The token of a file: its text without the blanks around it.
pub fn read_token(path: &Path) -> Result<String, SourceError> {
    let text = std::fs::read_to_string(path).map_err(|error| SourceError::Read {
        path: path.into(),
        reason: error.to_string(),
    })?;
    let token = text.trim().to_string();
    if token.is_empty() {
        return Err(SourceError::Content {
            path: path.into(),
            found: "it is empty".into(),
            expected: "the token that senders must know".into(),
        });
    }
    Ok(token)
}
