//! Why a message of a detector's stream is refused. Nothing here allocates: a storm of broken messages costs no memory.

use super::message::Short;
use std::fmt;

/// What was found in the place of something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// nothing
    Missing,
    /// a number
    Number(u64),
    /// a text, its first bytes
    Text(Short),
    /// two numbers, for example rows and columns
    Pair(u64, u64),
    /// bytes that are not what they should be, at this place of the message
    AtByte(usize),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Missing => write!(f, "(missing)"),
            Found::Number(number) => write!(f, "{number}"),
            Found::Text(text) => write!(f, "{:?}", text.as_str()),
            Found::Pair(a, b) => write!(f, "{a}x{b}"),
            Found::AtByte(at) => write!(f, "something else, at byte {at} of the message"),
        }
    }
}

/// A field of a message that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: expected {expected}")]
pub struct DecodeError {
    /// field, as the stream's documentation names it
    pub field: &'static str,
    /// what was found
    pub found: Found,
    /// what is allowed
    pub expected: &'static str,
}

impl DecodeError {
    pub(super) fn new(field: &'static str, found: Found, expected: &'static str) -> Self {
        Self { field, found, expected }
    }

    pub(super) fn missing(field: &'static str, expected: &'static str) -> Self {
        Self::new(field, Found::Missing, expected)
    }
}

/// Why a stream cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum DectrisError {
    /// a socket that cannot be made or connected
    #[error("{address}: {reason}")]
    Socket {
        /// address as configured
        address: String,
        /// ZeroMQ's words
        reason: String,
    },
    /// no series began
    #[error(
        "no series began within {seconds} s on {addresses}: arm the detector, and check that its stream is enabled{seen}"
    )]
    NoStart {
        /// addresses as configured
        addresses: String,
        /// seconds waited
        seconds: f64,
        /// what came instead
        seen: String,
    },
    /// a series began that does not say its pixel type, and no image came
    #[error(
        "a series has begun on {addresses}, and its first image, which says the pixel type, did not come within \
         {seconds} s: trigger the detector, or set source.pixel_type{seen}"
    )]
    NoImage {
        /// addresses as configured
        addresses: String,
        /// seconds waited
        seconds: f64,
        /// what came instead
        seen: String,
    },
    /// a series began that cannot be recorded as configured
    #[error("series {series} cannot be taken: {reason}")]
    Start {
        /// number of the series
        series: u64,
        /// what is wrong and what to do
        reason: String,
    },
}
