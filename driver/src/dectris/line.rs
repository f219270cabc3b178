//! One connection to a detector, read into where its bytes belong.
//!
//! ```text
//!   socket ──▶ buffer (8 KiB): heads of parts, commands, the first bytes of every part
//!         └──▶ the rest of an image whose slot is known        no copy but the kernel's
//!         └──▶ the rest of any other part, into its memory     one copy more, when it is decoded
//! ```
//!
//! Nothing here waits. [`Line::advance`] takes what has come until a message is whole, an image has found no slot, or there is
//! no more; [`Line::tend`] makes the connection, and makes it again when it has ended.

use super::config::Endpoint;
use super::incoming::Incoming;
use super::message::SeriesKey;
use super::zmtp::{self, Item, PONG_BYTES_MAX, Peer, Refusal};
use crate::memory::FrameSlot;
use crate::net::{self, Poller};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use std::io::{self, IoSliceMut, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Room for what is not read into its place: larger than any command and than the head of an image.
const BUFFER_BYTES: usize = 8192;
/// Bytes of a part that are there before its head is looked at.
const HEAD_BYTES: usize = 4096;
/// Parts that are smaller are not worth a place of their own.
const DIRECT_BYTES_MIN: u64 = 2 * HEAD_BYTES as u64;
/// Memory for a part grows with the bytes that come, by at most as much as this at once: a forged length costs no more.
const GROWTH_BYTES: usize = 4 << 20;
/// Bytes of an image that are waited for at once: a thread that is woken for every segment spends its time on waking.
const WAKE_BYTES_MAX: u64 = 256 << 10;
/// Reads in one go: a peer that sends without end, and no message, holds nobody up.
const READS_MAX: usize = 4096;
/// First and longest pause before a connection is tried again.
const PAUSES_NS: [u64; 2] = [50_000_000, 1_000_000_000];
/// Longest that a connection may take until messages may come.
const HANDSHAKE_NS: u64 = 10_000_000_000;
/// Bytes that the kernel keeps for a run that is busy.
const RECEIVE_BYTES: usize = 8 << 20;

/// An image on its way into its slot. Header and notes are written.
pub(super) struct Filling {
    pub(super) slot: FrameSlot,
    /// series and number of the image
    pub(super) series: SeriesKey,
    pub(super) image_id: u64,
    /// next byte of the payload, and the one behind its last
    pub(super) at: usize,
    pub(super) end: usize,
}

/// Where the rest of a part goes whose first bytes were shown.
#[allow(clippy::large_enum_variant)] // a filling in a box would be allocated, once a frame
pub(super) enum Place {
    /// into memory, with all that is there of it
    Memory,
    /// into a slot, which has all that is there of it
    Slot(Filling),
    /// nowhere yet: every slot is taken
    NoSlot,
}

/// What became of the bytes that have come.
#[allow(clippy::large_enum_variant)]
pub(super) enum Progress {
    /// a message is whole, in [`Line::incoming`]
    Message,
    /// an image is whole, in its slot
    Image(Filling),
    /// an image waits for a slot
    NoSlot,
    /// there is no more at present
    Dry,
    /// the connection has ended
    Ended,
}

enum State {
    /// to be tried again at this time
    Down { again_ns: u64 },
    /// since this time
    Connecting { socket: Socket, since_ns: u64 },
    /// since this time; messages may come when the peer is ready
    Up { socket: Socket, peer: Peer, since_ns: u64 },
}

#[allow(clippy::large_enum_variant)]
enum Target {
    /// its first bytes have not been shown
    Open,
    Memory,
    Slot(Filling),
    /// nobody wants it
    Nowhere,
}

/// The part that is being received.
struct Part {
    more: bool,
    left: u64,
    target: Target,
}

pub(super) struct Line {
    endpoint: Endpoint,
    message_bytes_max: u64,
    receive_bytes: Option<usize>,
    state: State,
    pause_ns: u64,
    /// where the name leads, once it was looked up
    found: Vec<SocketAddr>,
    next: usize,
    buffer: Box<[u8; BUFFER_BYTES]>,
    /// bytes of the buffer that nobody has taken
    held: std::ops::Range<usize>,
    part: Option<Part>,
    /// bytes that end a wait
    wake_at: u64,
    /// the message that is being received in memory
    pub(super) incoming: Incoming,
    /// why the last connection could not go on
    pub(super) refusal: Option<Refusal>,
}

impl Line {
    pub(super) fn new(endpoint: Endpoint, message_bytes_max: u64) -> Self {
        Self {
            endpoint,
            message_bytes_max,
            receive_bytes: receive_bytes(),
            state: State::Down { again_ns: 0 },
            pause_ns: PAUSES_NS[0],
            found: Vec::new(),
            next: 0,
            buffer: Box::new([0; BUFFER_BYTES]),
            held: 0..0,
            part: None,
            wake_at: 1,
            incoming: Incoming::new(),
            refusal: None,
        }
    }

    /// Whether messages may come.
    pub(super) fn ready(&self) -> bool {
        matches!(&self.state, State::Up { peer, .. } if peer.ready())
    }

    /// Waits for this connection, too: until as much has come as is worth a read.
    pub(super) fn watch(&mut self, poller: &mut Poller) {
        match &self.state {
            State::Connecting { socket, .. } => poller.add(socket, true),
            State::Up { socket, .. } => {
                let wanted = match &self.part {
                    Some(part) if !matches!(part.target, Target::Open) && matches!(self.endpoint, Endpoint::Tcp(_)) => {
                        part.left.clamp(1, WAKE_BYTES_MAX)
                    }
                    _ => 1,
                };
                if wanted != self.wake_at {
                    self.wake_at = wanted;
                    // Where it cannot be had, there are more wakes.
                    let _ = net::wake_at(socket, wanted as usize);
                }
                poller.add(socket, false);
            }
            State::Down { .. } => {}
        }
    }

    /// Makes the connection where there is none. A name is looked up, which may wait, only where `may_wait`; without it the
    /// addresses that it had serve. False where a peer that took the connection has said nothing for too long.
    pub(super) fn tend(&mut self, now_ns: u64, may_wait: bool) -> bool {
        match &self.state {
            State::Down { again_ns } if now_ns >= *again_ns => {
                if let Some(socket) = self.begin(may_wait) {
                    self.state = State::Connecting {
                        socket,
                        since_ns: now_ns,
                    };
                } else {
                    self.down(now_ns);
                }
            }
            State::Connecting { socket, since_ns } => match connected(socket) {
                Ok(true) => self.greet(now_ns),
                Ok(false) if now_ns.saturating_sub(*since_ns) < HANDSHAKE_NS => {}
                _ => self.down(now_ns),
            },
            State::Up { peer, since_ns, .. } if !peer.ready() && now_ns.saturating_sub(*since_ns) >= HANDSHAKE_NS => {
                self.refusal = Some(Refusal::Silent);
                self.down(now_ns);
                return false;
            }
            _ => {}
        }
        true
    }

    fn begin(&mut self, may_wait: bool) -> Option<Socket> {
        let (domain, address) = match &self.endpoint {
            Endpoint::Ipc(path) => (Domain::UNIX, SockAddr::unix(path).ok()?),
            Endpoint::Tcp(name) => {
                let address = match name.parse() {
                    Ok(address) => address,
                    Err(_) => {
                        if may_wait {
                            self.found = name.to_socket_addrs().ok()?.collect();
                        }
                        self.next = self.next.wrapping_add(1);
                        *self.found.get(self.next % self.found.len().max(1))?
                    }
                };
                (Domain::for_address(address), address.into())
            }
        };
        let socket = Socket::new(domain, Type::STREAM, None).ok()?;
        socket.set_nonblocking(true).ok()?;
        if domain != Domain::UNIX {
            tune(&socket, self.receive_bytes).ok()?;
        }
        match socket.connect(&address) {
            Ok(()) => Some(socket),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Some(socket),
            Err(_) => None,
        }
    }

    /// The connection stands: says who we are.
    fn greet(&mut self, now_ns: u64) {
        let State::Connecting { socket, .. } = std::mem::replace(&mut self.state, State::Down { again_ns: 0 }) else {
            return;
        };
        if !sent(&socket, &zmtp::greeting()) {
            self.down(now_ns);
            return;
        }
        let peer = Peer::new(self.message_bytes_max);
        self.state = State::Up {
            socket,
            peer,
            since_ns: now_ns,
        };
    }

    /// Ends the connection; a message that was not whole is gone, and its slot is free.
    fn down(&mut self, now_ns: u64) {
        self.state = State::Down {
            again_ns: now_ns + self.pause_ns,
        };
        self.pause_ns = (2 * self.pause_ns).min(PAUSES_NS[1]);
        self.held = 0..0;
        self.part = None;
        self.wake_at = 1;
        self.incoming.clear();
    }

    /// Gives back the slot of an image that is not whole, of which the rest will be thrown away; whether there was one.
    pub(super) fn give_back(&mut self) -> bool {
        match &mut self.part {
            Some(part) if matches!(part.target, Target::Slot(_)) => {
                part.target = Target::Nowhere;
                true
            }
            _ => false,
        }
    }

    /// Takes what has come. `place` is shown the first bytes of a large part that is a message by itself, and told how many
    /// follow them.
    pub(super) fn advance(&mut self, now_ns: u64, place: &mut dyn FnMut(&[u8], usize) -> Place) -> Progress {
        for _ in 0..READS_MAX {
            match self.consume(place) {
                Ok(Some(progress)) => return progress,
                Ok(None) => {}
                Err(refusal) => {
                    self.refusal = Some(refusal);
                    self.down(now_ns);
                    return Progress::Ended;
                }
            }
            match self.fill() {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Dry,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.down(now_ns);
                    return Progress::Ended;
                }
            }
        }
        Progress::Dry
    }

    /// Takes what is in the buffer; `None` where more must be read.
    fn consume(&mut self, place: &mut dyn FnMut(&[u8], usize) -> Place) -> Result<Option<Progress>, Refusal> {
        loop {
            let Some(part) = &mut self.part else {
                let State::Up { socket, peer, .. } = &mut self.state else {
                    return Ok(None);
                };
                let (used, item) = peer.take(&self.buffer[self.held.clone()])?;
                match item {
                    Item::Need => return Ok(None),
                    Item::Greeting if !sent(socket, zmtp::READY) => {
                        // The next read finds the end.
                        let _ = socket.shutdown(std::net::Shutdown::Both);
                    }
                    Item::Greeting | Item::Ignored => {}
                    Item::Ready => (self.pause_ns, self.refusal) = (PAUSES_NS[0], None),
                    Item::Ping(context) => {
                        let mut out = [0; PONG_BYTES_MAX];
                        let bytes = zmtp::pong(context, &mut out);
                        // A peer that takes nothing will have to do without.
                        sent(socket, &out[..bytes]);
                    }
                    Item::Part { more, bytes } => {
                        let alone = !more && self.incoming.is_empty() && bytes >= DIRECT_BYTES_MIN;
                        self.part = Some(Part {
                            more,
                            left: bytes,
                            target: if alone { Target::Open } else { Target::Memory },
                        });
                        if !alone {
                            self.incoming.begin_part();
                        }
                    }
                }
                self.held.start += used;
                continue;
            };
            let there = self.held.len().min(usize::try_from(part.left).unwrap_or(usize::MAX));
            let first = &self.buffer[self.held.start..self.held.start + there];
            match &mut part.target {
                Target::Open if there < HEAD_BYTES => return Ok(None),
                Target::Open => match place(first, part.left as usize - there) {
                    Place::NoSlot => return Ok(Some(Progress::NoSlot)),
                    Place::Memory => {
                        part.target = Target::Memory;
                        self.incoming.begin_part();
                        continue;
                    }
                    Place::Slot(filling) => part.target = Target::Slot(filling),
                },
                Target::Slot(filling) => {
                    let end = filling.at + there;
                    filling.slot.payload_mut()[filling.at..end].copy_from_slice(first);
                    filling.at = end;
                }
                Target::Memory => self.incoming.extend(first),
                Target::Nowhere => {}
            }
            self.held.start += there;
            part.left -= there as u64;
            if part.left > 0 {
                return Ok(None);
            }
            let more = part.more;
            match self.part.take().map(|part| part.target) {
                Some(Target::Slot(filling)) => return Ok(Some(Progress::Image(filling))),
                Some(Target::Memory) if !more => return Ok(Some(Progress::Message)),
                _ => {}
            }
        }
    }

    /// Reads what belongs to the part that is being received into its place, and what follows it into the buffer.
    fn fill(&mut self) -> io::Result<usize> {
        let State::Up { socket, .. } = &self.state else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if self.held.is_empty() {
            self.held = 0..0;
        } else if self.held.start > 0 {
            self.buffer.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
        let left = self.part.as_ref().map_or(0, |part| part.left);
        let rest = IoSliceMut::new(&mut self.buffer[self.held.end..]);
        let mut socket = socket;
        let own = match &mut self.part {
            Some(Part {
                target: Target::Slot(filling),
                ..
            }) => &mut filling.slot.payload_mut()[filling.at..filling.end],
            Some(Part {
                target: Target::Memory, ..
            }) => self.incoming.room(left.min(GROWTH_BYTES as u64) as usize),
            _ => &mut [],
        };
        let own_bytes = own.len();
        let read = if own_bytes == 0 {
            socket.read_vectored(&mut [rest])?
        } else {
            let mut both = [IoSliceMut::new(own), rest];
            let pieces = if left == own_bytes as u64 { 2 } else { 1 };
            socket.read_vectored(&mut both[..pieces])?
        };
        let placed = read.min(own_bytes);
        match &mut self.part {
            Some(part) if own_bytes > 0 => {
                part.left -= placed as u64;
                match &mut part.target {
                    Target::Slot(filling) => filling.at += placed,
                    _ => self.incoming.grew(placed),
                }
            }
            _ => {}
        }
        self.held.end += read - placed;
        Ok(read)
    }
}

/// Whether a connection that is being made stands.
fn connected(socket: &Socket) -> io::Result<bool> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Sends a few bytes; they find room unless something is wrong.
fn sent(mut socket: &Socket, bytes: &[u8]) -> bool {
    matches!(socket.write(bytes), Ok(written) if written == bytes.len())
}

/// The buffer that a socket is given; where the system allows less than is wanted, its own growing buffer is the larger one.
fn receive_bytes() -> Option<usize> {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?;
    let allowed: usize = allowed.trim().parse().ok()?;
    (allowed >= RECEIVE_BYTES).then_some(RECEIVE_BYTES)
}

fn tune(socket: &Socket, receive_bytes: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(5))
            .with_interval(Duration::from_secs(2))
            .with_retries(3),
    )
}
