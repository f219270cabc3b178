//! The words of the detector mode: one JSON line each way over TCP, then the stream. `driver/PROTOCOL.md` explains them.

use super::RdmaError;
use super::description::Description;
use super::verbs::{Device, Gid, Mtu, Transport, VerbsError};
use super::wire::DESCRIPTION_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::time::{Duration, Instant};

/// Longest line: a description and a little more.
const LINE_BYTES_MAX: usize = DESCRIPTION_BYTES_MAX + 4096;
/// Port of the device that is used.
pub(super) const PORT: u8 = 1;

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEnd {
    /// number of the queue pair: the peer's packets must carry it
    pub queue_pair: u32,
    /// number of the first packet that this end sends
    pub psn: u32,
}

/// How this end is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// address of the port, as IPv6; an IPv4 address a.b.c.d is `::ffff:a.b.c.d`
    pub gid: Ipv6Addr,
    /// InfiniBand's local identifier; 0 on Ethernet
    #[serde(default)]
    pub lid: u16,
    /// largest packet payload, bytes
    pub mtu: u32,
    /// the streams, in order
    pub streams: Vec<StreamEnd>,
}

/// Reliable or unreliable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// reliable: packets are acknowledged and repeated
    Rc,
    /// unreliable: what is lost is lost
    Uc,
}

impl From<Service> for Transport {
    fn from(service: Service) -> Transport {
        match service {
            Service::Rc => Transport::Reliable,
            Service::Uc => Transport::Unreliable,
        }
    }
}

/// The sender's line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FreeHello {
    /// version of the protocol
    pub fluxline_rdma: u16,
    /// digest of the token, 32 hexadecimal digits
    pub token: String,
    /// names the sender while it lives
    pub sender: u64,
    /// which service
    pub service: Service,
    /// where it is
    pub place: Place,
    /// what its frames are
    pub stream: Description,
}

/// The receiver's line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FreeAnswer {
    /// begin
    Welcome {
        /// version of the protocol
        fluxline_rdma: u16,
        /// the run, for every header
        epoch: u32,
        /// where the receiver is
        place: Place,
    },
    /// no
    Refused {
        /// code of [`super::admission::Reason`]
        refused: u16,
        /// in words
        reason: String,
    },
}

/// The sender's last line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FreeEnd {
    /// frames of the run that it is done with, sent or let go
    pub end: u64,
}

/// Hexadecimal digits of a digest.
pub(super) fn hex(digest: &[u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut digest = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Our address on the device: index and value.
pub(super) fn address(device: &Device, wanted: Option<u8>) -> Result<(u8, Gid), RdmaError> {
    let count = device.port(PORT)?.gids.min(256);
    let found = match wanted {
        Some(index) => device.gid(PORT, usize::from(index)).map(|gid| (index, gid)),
        None => {
            let all = || (0..count).filter_map(|index| Some((index as u8, device.gid(PORT, index)?)));
            let routable = |(index, gid): &(u8, Gid)| {
                Ipv6Addr::from(gid.0).to_ipv4_mapped().is_some()
                    && device
                        .gid_kind(PORT, usize::from(*index))
                        .is_some_and(|kind| kind.contains("v2"))
            };
            all().find(routable).or_else(|| all().next())
        }
    };
    found.ok_or_else(|| {
        VerbsError::Limit {
            what: "the index of an address of the RDMA port",
            value: usize::from(wanted.unwrap_or(0)),
            limit: count,
        }
        .into()
    })
}

/// The smaller of ours and the peer's.
pub(super) fn common_mtu(device: &Device, theirs: u32) -> Result<Mtu, RdmaError> {
    let ours = device.port(PORT)?.mtu;
    Ok(Mtu::from_bytes(theirs).map_or(ours, |theirs| theirs.min(ours)))
}

/// A line over TCP, read bit by bit, so that nobody is waited for.
pub(super) struct Line {
    stream: TcpStream,
    got: Vec<u8>,
    until: Instant,
}

/// What reading has come to.
pub(super) enum Heard {
    /// a line, without its end
    Line(Vec<u8>),
    /// not yet
    Nothing,
    /// the peer is gone, or says too much
    Gone,
}

impl Line {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> std::io::Result<Line> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Line {
            stream,
            got: Vec::new(),
            until: Instant::now() + patience,
        })
    }

    /// From now on there is no hurry.
    pub(super) fn take_your_time(&mut self) {
        self.until = Instant::now() + Duration::from_secs(10 * 365 * 86_400);
    }

    pub(super) fn hear(&mut self) -> Heard {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Heard::Gone,
                Ok(bytes) => self.got.extend_from_slice(&piece[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
            if self.got.len() > LINE_BYTES_MAX {
                return Heard::Gone;
            }
        }
        match self.got.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let rest = self.got.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.got, rest);
                line.pop();
                Heard::Line(line)
            }
            None if Instant::now() > self.until => Heard::Gone,
            None => Heard::Nothing,
        }
    }

    /// Says a line. It is short, and fits what the system holds for a connection that has said nothing yet.
    pub(super) fn say(&mut self, what: &impl Serialize) -> std::io::Result<()> {
        self.say_words(&Self::words(what)?)
    }

    /// What is said, as bytes.
    pub(super) fn words(what: &impl Serialize) -> std::io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Says a line that is ready.
    pub(super) fn say_words(&mut self, mut rest: &[u8]) -> std::io::Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_both_ways_in_pieces() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut raw = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut line = Line::new(listener.accept().unwrap().0, Duration::from_secs(5)).unwrap();
        assert!(matches!(line.hear(), Heard::Nothing));
        raw.write_all(b"{\"end\":").unwrap();
        raw.write_all(b"7}\n{\"en").unwrap();
        let heard = loop {
            if let Heard::Line(heard) = line.hear() {
                break heard;
            }
        };
        assert_eq!(serde_json::from_slice::<FreeEnd>(&heard).unwrap().end, 7);
        line.say(&FreeEnd { end: 9 }).unwrap();
        let mut answer = [0; 10];
        raw.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"{\"end\":9}\n");
        drop(raw);
        while !matches!(line.hear(), Heard::Gone) {}
    }

    #[test]
    fn a_digest_survives_its_digits() {
        let digest = super::super::wire::token_digest(Some("secret"));
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex(&"z".repeat(32)), None);
    }

    #[test]
    fn the_lines_are_what_the_protocol_shows() {
        let welcome = r#"{"fluxline_rdma":1,"epoch":3,"place":{"gid":"::ffff:10.0.0.5","lid":0,"mtu":4096,"streams":[{"queue_pair":17,"psn":0}]}}"#;
        let FreeAnswer::Welcome { epoch, place, .. } = serde_json::from_str(welcome).unwrap() else {
            panic!("it is a welcome")
        };
        assert_eq!((epoch, place.streams[0].queue_pair), (3, 17));
        let refused = r#"{"refused":2,"reason":"the token is not the receiver's"}"#;
        assert!(matches!(
            serde_json::from_str(refused).unwrap(),
            FreeAnswer::Refused { refused: 2, .. }
        ));
    }
}
