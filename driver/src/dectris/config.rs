//! `[[source]]` with `kind = "dectris"`.

use super::series::Patience;
use crate::source::SourceError;
use frame::PixelType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// as the messages are
    Auto,
    /// CBOR
    V2,
    /// JSON and bytes
    V1,
}

/// `[[source]]` with `kind = "dectris"`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DectrisConfig {
    /// Addresses of the detector's stream, for example ["tcp://10.0.0.5:31001"] (V2) or ["tcp://10.0.0.5:9999"] (V1).
    pub addresses: Vec<String>,
    /// "auto" (as the messages are), "v2" or "v1".
    pub version: Version,
    /// Channel (threshold) that is recorded; needed where the detector sends several.
    pub channel: Option<String>,
    /// Images of a series, where its start does not say (stream V1 with header_detail "none").
    pub images: Option<u64>,
    /// "uint8", "uint16" or "uint32", where the start does not say; otherwise arming waits for the first image.
    pub pixel_type: Option<String>,
    /// Seconds that arming waits for a series to begin (0.1 to 86400).
    pub start_timeout_s: f64,
    /// Seconds that an end waits for images that it has overtaken, and the last image for its end (0.01 to 60).
    pub end_timeout_s: f64,
    /// Seconds without any message of the series after which a run ends, and at least three times the time from frame to
    /// frame (0.1 to 86400).
    pub silence_timeout_s: f64,
    /// Messages that wait in memory between two runs (2 to 100000, 256 MiB); then the detector's own buffer fills, as it does
    /// while a run's ring is full.
    pub queue_messages: i32,
    /// Largest message that is taken, bytes (1024 to 4294967296): one that is larger ends the connection.
    pub message_bytes_max: i64,
}

impl Default for DectrisConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            version: Version::Auto,
            channel: None,
            images: None,
            pixel_type: None,
            start_timeout_s: 60.0,
            end_timeout_s: 0.5,
            silence_timeout_s: 30.0,
            queue_messages: 64,
            message_bytes_max: 512 << 20,
        }
    }
}

/// An address that is connected to without a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// name or number, and port
    Tcp(String),
    /// path of a socket; one without a file begins with a zero
    Ipc(String),
}

impl Endpoint {
    /// `None` where ZeroMQ has more to say about it: an interface or an address of this machine to connect from.
    pub(super) fn plain(address: &str) -> Option<Self> {
        match (address.strip_prefix("tcp://"), address.strip_prefix("ipc://")) {
            (Some(name), _) if !name.contains(';') => Some(Endpoint::Tcp(name.into())),
            (_, Some(path)) => Some(Endpoint::Ipc(match path.strip_prefix('@') {
                Some(name) => format!("\0{name}"),
                None => path.into(),
            })),
            _ => None,
        }
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

impl DectrisConfig {
    /// Checks every value.
    pub fn check(&self) -> Result<(), SourceError> {
        if self.addresses.is_empty() || self.addresses.len() > 16 {
            let expected = "1 to 16 addresses, for example [\"tcp://10.0.0.5:31001\"]";
            return Err(wrong("addresses", format!("{:?}", self.addresses), expected));
        }
        for address in &self.addresses {
            let rest = address.strip_prefix("tcp://").or(address.strip_prefix("ipc://"));
            if rest.is_none_or(str::is_empty) {
                let expected = "a ZeroMQ address, for example \"tcp://10.0.0.5:31001\"";
                return Err(wrong("addresses", format!("{address:?}"), expected));
            }
        }
        self.pixel_type()?;
        within("images", self.images.unwrap_or(1), 1, super::message::IMAGES_MAX)?;
        within("start_timeout_s", self.start_timeout_s, 0.1, 86_400.0)?;
        within("end_timeout_s", self.end_timeout_s, 0.01, 60.0)?;
        within("silence_timeout_s", self.silence_timeout_s, 0.1, 86_400.0)?;
        within("queue_messages", self.queue_messages, 2, 100_000)?;
        within("message_bytes_max", self.message_bytes_max, 1024, 4 << 30)
    }

    /// The configured pixel type.
    pub(super) fn pixel_type(&self) -> Result<Option<PixelType>, SourceError> {
        let unsigned = [PixelType::U8, PixelType::U16, PixelType::U32];
        match &self.pixel_type {
            None => Ok(None),
            Some(name) => unsigned
                .into_iter()
                .find(|pixel_type| pixel_type.numpy_name() == name)
                .map(Some)
                .ok_or_else(|| wrong("pixel_type", format!("{name:?}"), "\"uint8\", \"uint16\" or \"uint32\"")),
        }
    }

    /// Patience with a series whose frames come every `frame_time_s`.
    pub(super) fn patience(&self, frame_time_s: Option<f64>) -> Patience {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let slowest = 3.0 * frame_time_s.unwrap_or(0.0).clamp(0.0, 86_400.0);
        Patience {
            end_ns: ns(self.end_timeout_s),
            silence_ns: ns(self.silence_timeout_s.max(slowest)),
        }
    }
}
