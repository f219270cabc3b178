//! The sending end of a stream: a bound PUSH socket that never holds its owner up longer than it is told.

use super::error::DectrisError;
use std::time::Duration;

/// A bound PUSH socket.
pub struct Publisher {
    socket: zmq::Socket,
    _context: zmq::Context,
    address: String,
}

impl Publisher {
    /// Binds `address`, for example `tcp://*:31001`. `queue_messages` wait here for a receiver; what is still there when the
    /// publisher is dropped is given `linger` to leave.
    pub fn bind(address: &str, queue_messages: i32, linger: Duration) -> Result<Self, DectrisError> {
        let failed = |error: zmq::Error| DectrisError::Socket {
            address: address.into(),
            reason: error.to_string(),
        };
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PUSH).map_err(failed)?;
        let set = || {
            socket.set_sndhwm(queue_messages)?;
            socket.set_sndtimeo(100)?;
            socket.set_linger(linger.as_millis() as i32)?;
            socket.bind(address)
        };
        set().map_err(failed)?;
        Ok(Self {
            address: address.into(),
            socket,
            _context: context,
        })
    }

    /// The address that was bound, for example with a port that the system chose.
    pub fn address(&self) -> String {
        let bound = self.socket.get_last_endpoint().ok().and_then(Result::ok);
        bound.unwrap_or_else(|| self.address.clone())
    }

    /// Whether a receiver takes a message within `patience`.
    pub fn ready(&self, patience: Duration) -> bool {
        let events = self.socket.poll(zmq::POLLOUT, patience.as_millis() as i64);
        events.is_ok_and(|events| events > 0)
    }

    /// Sends the parts of a message after [`Publisher::ready`] said yes. ZeroMQ takes the memory over.
    pub fn send(&self, parts: Vec<Vec<u8>>) -> Result<(), DectrisError> {
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let more = if index + 1 < count { zmq::SNDMORE } else { 0 };
            self.socket.send(part, more).map_err(|error| DectrisError::Socket {
                address: self.address.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}
