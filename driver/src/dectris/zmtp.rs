//! ZMTP 3.0 and 3.1 (rfc.zeromq.org, 23 and 37) as a PULL socket without security speaks it: a state machine without socket
//! or clock. It is shown the bytes that have come and says what they begin with; the bytes of a part are not its business.
//!
//! ```text
//!   peer ─▶ greeting (64 bytes) ─▶ READY or ERROR ─▶ parts of messages, and commands between them
//!   here ─▶ greeting            ─▶ READY          ─▶ PONG for a PING, nothing else
//! ```
//!
//! What a peer says of lengths is checked against limits before anybody makes room for it.

use super::message::Short;
use std::fmt;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 64;
/// Largest command: the properties of a peer are a few names. A larger one ends the connection.
pub const COMMAND_BYTES_MAX: usize = 2048;
/// Longest context of a PING, by the standard; what is beyond it is not sent back.
const CONTEXT_BYTES_MAX: usize = 16;
/// Largest PONG with its head.
pub const PONG_BYTES_MAX: usize = 2 + 5 + CONTEXT_BYTES_MAX;

const SIGNATURE_FIRST: u8 = 0xff;
const SIGNATURE_LAST_AT: usize = 9;
const MAJOR_AT: usize = 10;
const MECHANISM: std::ops::Range<usize> = 12..32;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a connection to a peer cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// it does not speak ZeroMQ
    NoZeroMq,
    /// it took the connection and said nothing, or not enough
    Silent,
    /// it speaks ZMTP 1 or 2, as libraries before ZeroMQ 4 do
    Older,
    /// it wants a security mechanism
    Mechanism(Short),
    /// it sent an ERROR, with this reason
    Said(Short),
    /// its socket is of another type than PUSH
    SocketType(Short),
    /// a command that is none, or not in its place
    Command,
    /// flags that the protocol does not have
    Flags(u8),
    /// a part or message larger than is taken
    TooLarge(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoZeroMq => write!(f, "what is there does not speak ZeroMQ"),
            Refusal::Silent => write!(f, "what is there took the connection and did not greet"),
            Refusal::Older => write!(f, "it speaks ZMTP 1 or 2"),
            Refusal::Mechanism(name) => write!(f, "it wants the security mechanism {name:?}; none is spoken here"),
            Refusal::Said(reason) => write!(f, "it refuses this program: {reason:?}"),
            Refusal::SocketType(name) => write!(f, "its socket is a {name:?}; a PUSH socket is expected"),
            Refusal::Command => write!(f, "it sent a command that is none"),
            Refusal::Flags(flags) => write!(f, "it sent a frame with the flags {flags:#04x}"),
            Refusal::TooLarge(bytes) => write!(f, "it announced {bytes} bytes, more than source.message_bytes_max"),
        }
    }
}

/// What the bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// not enough of them to tell
    Need,
    /// the peer's greeting; [`READY`] is to be sent
    Greeting,
    /// the peer is ready: messages follow
    Ready,
    /// a PING; a PONG with this context is to be sent
    Ping(&'b [u8]),
    /// a command that means nothing here
    Ignored,
    /// a part of `bytes` begins; more parts follow it in its message
    Part {
        /// more parts follow
        more: bool,
        /// bytes of the part, which come next
        bytes: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Handshake,
    Traffic,
}

/// One connection's state.
#[derive(Clone, Debug)]
pub struct Peer {
    phase: Phase,
    /// largest message
    message_bytes_max: u64,
    /// bytes of the parts of the message that has begun; `None` between two messages
    within: Option<u64>,
}

/// The greeting that is sent: version 3.1, no security, not a server.
pub fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    (bytes[0], bytes[SIGNATURE_LAST_AT]) = (SIGNATURE_FIRST, 0x7f);
    (bytes[MAJOR_AT], bytes[MAJOR_AT + 1]) = (3, 1);
    bytes[MECHANISM.start..MECHANISM.start + 4].copy_from_slice(b"NULL");
    bytes
}

/// The command that follows the peer's greeting.
pub const READY: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL";

/// The answer to a PING with this context; the first bytes of `out`, as many as are returned.
pub fn pong(context: &[u8], out: &mut [u8; PONG_BYTES_MAX]) -> usize {
    let context = &context[..context.len().min(CONTEXT_BYTES_MAX)];
    (out[0], out[1]) = (COMMAND, 5 + context.len() as u8);
    out[2..7].copy_from_slice(b"\x04PONG");
    out[7..7 + context.len()].copy_from_slice(context);
    7 + context.len()
}

impl Peer {
    /// A peer of whom nothing has come, and whose messages may have `message_bytes_max` bytes.
    pub fn new(message_bytes_max: u64) -> Self {
        Self {
            phase: Phase::Greeting,
            message_bytes_max,
            within: None,
        }
    }

    /// Whether messages may come.
    pub fn ready(&self) -> bool {
        self.phase == Phase::Traffic
    }

    /// What `input` begins with, and how many of its bytes that took. After [`Item::Part`] the bytes of the part come, which
    /// the caller takes away.
    pub fn take<'b>(&mut self, input: &'b [u8]) -> Result<(usize, Item<'b>), Refusal> {
        if self.phase == Phase::Greeting {
            return self.greeted(input);
        }
        let Some((&flags, rest)) = input.split_first() else {
            return Ok((0, Item::Need));
        };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (COMMAND | MORE) == COMMAND | MORE {
            return Err(Refusal::Flags(flags));
        }
        let (head_bytes, bytes) = if flags & LONG == 0 {
            match rest.first() {
                Some(length) => (2, u64::from(*length)),
                None => return Ok((0, Item::Need)),
            }
        } else {
            match rest.first_chunk() {
                Some(length) => (9, u64::from_be_bytes(*length)),
                None => return Ok((0, Item::Need)),
            }
        };
        if flags & COMMAND == 0 {
            let item = self.part(flags & MORE != 0, bytes)?;
            return Ok((head_bytes, item));
        }
        if bytes > COMMAND_BYTES_MAX as u64 {
            return Err(Refusal::TooLarge(bytes));
        }
        match input.get(head_bytes..head_bytes + bytes as usize) {
            Some(body) => Ok((head_bytes + body.len(), self.command(body)?)),
            None => Ok((0, Item::Need)),
        }
    }

    fn greeted<'b>(&mut self, input: &[u8]) -> Result<(usize, Item<'b>), Refusal> {
        let Some(&first) = input.first() else {
            return Ok((0, Item::Need));
        };
        if first != SIGNATURE_FIRST {
            // Before ZMTP 2 the first thing is a frame with the peer's name: one byte of length, then 0.
            return match input.get(1) {
                Some(0) if first > 0 => Err(Refusal::Older),
                None if first > 0 => Ok((0, Item::Need)),
                _ => Err(Refusal::NoZeroMq),
            };
        }
        if input.get(SIGNATURE_LAST_AT).is_some_and(|last| last & 1 == 0) {
            return Err(Refusal::NoZeroMq);
        }
        if input.get(MAJOR_AT).is_some_and(|major| *major < 3) {
            return Err(Refusal::Older);
        }
        let Some(greeting) = input.first_chunk::<GREETING_BYTES>() else {
            return Ok((0, Item::Need));
        };
        let mechanism = greeting[MECHANISM].split(|byte| *byte == 0).next().unwrap_or_default();
        if mechanism != b"NULL" {
            return Err(Refusal::Mechanism(short(mechanism)));
        }
        self.phase = Phase::Handshake;
        Ok((GREETING_BYTES, Item::Greeting))
    }

    fn part<'b>(&mut self, more: bool, bytes: u64) -> Result<Item<'b>, Refusal> {
        if self.phase != Phase::Traffic {
            return Err(Refusal::Command);
        }
        let message = self.within.unwrap_or(0).saturating_add(bytes);
        if message > self.message_bytes_max {
            return Err(Refusal::TooLarge(message));
        }
        self.within = more.then_some(message);
        Ok(Item::Part { more, bytes })
    }

    fn command<'b>(&mut self, body: &'b [u8]) -> Result<Item<'b>, Refusal> {
        let (name, data) = named(body).ok_or(Refusal::Command)?;
        match (self.phase, name) {
            (Phase::Handshake, b"READY") => {
                let kind = property(data, b"Socket-Type").ok_or(Refusal::Command)?;
                if kind != b"PUSH" {
                    return Err(Refusal::SocketType(short(kind)));
                }
                self.phase = Phase::Traffic;
                Ok(Item::Ready)
            }
            (_, b"ERROR") => Err(Refusal::Said(short(named(data).map_or(&[], |(reason, _)| reason)))),
            (Phase::Handshake, _) => Err(Refusal::Command),
            (_, b"PING") => Ok(Item::Ping(data.get(2..).ok_or(Refusal::Command)?)),
            // PONG, and what later versions may have.
            _ => Ok(Item::Ignored),
        }
    }
}

/// A byte of length and as many bytes; and what follows them.
fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The value of a property; names are the same in capitals.
fn property<'b>(mut data: &'b [u8], wanted: &[u8]) -> Option<&'b [u8]> {
    let mut found = None;
    while !data.is_empty() {
        let (name, rest) = named(data)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name.eq_ignore_ascii_case(wanted) {
            found = Some(value);
        }
        data = rest;
    }
    found
}

fn short(bytes: &[u8]) -> Short {
    Short::new(&String::from_utf8_lossy(&bytes[..bytes.len().min(64)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PUSH: &[u8] = b"\x04\x27\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH\x08Identity\x00\x00\x00\x00";

    fn ready() -> Peer {
        let mut peer = Peer::new(1 << 20);
        assert_eq!(peer.take(&greeting()), Ok((64, Item::Greeting)));
        assert_eq!(peer.take(PUSH), Ok((PUSH.len(), Item::Ready)));
        assert!(peer.ready());
        peer
    }

    #[test]
    fn a_push_socket_is_greeted_and_its_parts_are_told_apart() {
        let mut peer = ready();
        assert_eq!(
            peer.take(b"\x01\x05first"),
            Ok((2, Item::Part { more: true, bytes: 5 }))
        );
        let long = [&[2][..], &70_000u64.to_be_bytes(), b"second"].concat();
        let part = Item::Part {
            more: false,
            bytes: 70_000,
        };
        assert_eq!(peer.take(&long), Ok((9, part)));
        assert_eq!(
            peer.take(b"\x04\x0b\x04PING\x00\x0aabcd"),
            Ok((13, Item::Ping(b"abcd")))
        );
        assert_eq!(peer.take(b"\x04\x05\x04PONG"), Ok((7, Item::Ignored)));
        assert_eq!(READY.len(), usize::from(READY[1]) + 2);
        let mut out = [0; PONG_BYTES_MAX];
        let used = pong(b"abcd", &mut out);
        assert_eq!(&out[..used], b"\x04\x09\x04PONGabcd");
        let used = pong(&[7; 200], &mut out);
        assert_eq!((used, out[1]), (PONG_BYTES_MAX, 21));
    }

    #[test]
    fn what_is_none_is_refused_as_soon_as_it_shows() {
        let fresh = |input: &[u8]| Peer::new(1000).take(input).unwrap_err();
        assert_eq!(fresh(b"HTTP/1.1 400 Bad Request\r\n"), Refusal::NoZeroMq);
        assert_eq!(fresh(b"SSH-2.0-OpenSSH"), Refusal::NoZeroMq);
        assert_eq!(fresh(&[0; 64]), Refusal::NoZeroMq);
        assert_eq!(
            fresh(&[0xff; 9].iter().chain(&[0x80]).copied().collect::<Vec<u8>>()),
            Refusal::NoZeroMq
        );
        assert_eq!(fresh(b"\x01\x00"), Refusal::Older, "ZMTP 1.0, anonymous");
        assert_eq!(fresh(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01"), Refusal::Older, "ZMTP 2.0");
        let mut curve = greeting();
        curve[12..17].copy_from_slice(b"CURVE");
        assert_eq!(fresh(&curve), Refusal::Mechanism(Short::new("CURVE")));
        let after = |input: &[u8]| ready().take(input).unwrap_err();
        assert_eq!(after(b"\x08\x00"), Refusal::Flags(8));
        assert_eq!(after(b"\x05\x00"), Refusal::Flags(5));
        assert_eq!(
            after(&[&[2][..], &(1u64 << 63).to_be_bytes()].concat()),
            Refusal::TooLarge(1 << 63)
        );
        assert_eq!(
            after(&[&[6][..], &(1u64 << 40).to_be_bytes()].concat()),
            Refusal::TooLarge(1 << 40)
        );
        assert_eq!(after(b"\x04\x00"), Refusal::Command);
        assert_eq!(after(b"\x04\x05\x05ERRO"), Refusal::Command);
        assert_eq!(after(b"\x04\x0a\x05ERROR\x03not"), Refusal::Said(Short::new("not")));
        // Parts of one message are counted together.
        let mut peer = ready();
        let half = [&[3][..], &(1u64 << 19).to_be_bytes()].concat();
        assert!(peer.take(&half).is_ok() && peer.take(&half).is_ok());
        assert_eq!(peer.take(b"\x00\x01").unwrap_err(), Refusal::TooLarge((1 << 20) + 1));
        let mut early = Peer::new(1000);
        assert!(early.take(&greeting()).is_ok());
        assert_eq!(
            early.clone().take(b"\x00\x05hello"),
            Err(Refusal::Command),
            "a message before READY"
        );
        assert_eq!(early.clone().take(b"\x04\x07\x04PING\0\0"), Err(Refusal::Command));
        assert_eq!(early.clone().take(READY), Err(Refusal::SocketType(Short::new("PULL"))));
        assert_eq!(
            early.take(b"\x04\x06\x05READY"),
            Err(Refusal::Command),
            "without a type"
        );
    }

    proptest! {
        /// However the bytes are cut, the same things are read from them, and never more is taken than is there.
        #[test]
        fn pieces_make_no_difference(
            tail in prop::collection::vec(any::<u8>(), 0..200),
            sound in any::<bool>(),
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let mut stream = greeting().to_vec();
            stream.extend_from_slice(PUSH);
            if sound {
                stream.extend_from_slice(b"\x04\x0b\x04PING\x00\x0aabcd\x00\x00");
            }
            stream.extend_from_slice(&tail);
            let read = |pieces: &mut dyn Iterator<Item = usize>| {
                let (mut peer, mut at, mut seen) = (Peer::new(300), 0, Vec::new());
                let mut end = 0;
                loop {
                    match peer.take(&stream[at..end]) {
                        Ok((used, Item::Need)) => {
                            assert_eq!(used, 0);
                            if end == stream.len() {
                                break;
                            }
                            end = (end + pieces.next().unwrap_or(7)).min(stream.len());
                        }
                        Ok((used, item)) => {
                            assert!(used > 0 && at + used <= end);
                            seen.push(format!("{item:?}"));
                            at += used;
                            if let Item::Part { bytes, .. } = item {
                                assert!(bytes <= 300);
                                if at + bytes as usize > stream.len() {
                                    break;
                                }
                                at += bytes as usize;
                                end = end.max(at);
                            }
                        }
                        Err(refusal) => {
                            seen.push(refusal.to_string());
                            break;
                        }
                    }
                }
                seen
            };
            let whole = read(&mut std::iter::once(stream.len()));
            prop_assert_eq!(whole, read(&mut cuts.iter().copied()));
        }
    }
}
