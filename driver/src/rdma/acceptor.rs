//! The slow side of the reliable mode: listens, judges requests, takes descriptions, and tells which connections stand
//! and which are gone. Runs on a thread of its own while frames arrive.

use super::admission::{self, Limits, Reason};
use super::config::{Checked, Polling};
use super::counters::{Counters, count};
use super::description::Description;
use super::link::{Link, LinkSize};
use super::verbs::{
    Access, Buffer, Channel, CmEvent, CmId, Completion, CompletionQueue, Device, EventChannel, MemoryRegion, Opcode,
    PrivateData, ProtectionDomain, Status, VerbsError,
};
use super::wire::{self, END_BYTES, Hello, MAGIC, MESSAGE_BYTES_MAX, MessageKind, Refusal, Welcome};
use super::{RdmaError, VERSION};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Messages with grants that may be on their way at once on a connection.
const MESSAGES: usize = 64;
/// Receives beside one for every credit: the description, the end, and one to spare.
const RECEIVES_MORE: usize = 3;
/// Longest time that a sender may take from connecting to its description.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A connection that is ready for frames.
pub(super) struct Joined {
    pub link: Link,
    /// whose
    pub sender: u64,
    /// how many connections it has
    pub parts: u16,
    /// slots that it may have at once
    pub credits: u32,
}

/// What happened.
pub(super) enum Event {
    /// a connection is ready
    Joined(Box<Joined>),
    /// a connection is gone, by its number
    Gone(u32),
}

struct Pending {
    joined: Box<Joined>,
    established: bool,
    /// where its description goes
    description: Option<(MemoryRegion, Arc<Buffer>)>,
    until: Instant,
}

/// A connection that has been accepted.
struct Present {
    key: usize,
    connection: u32,
    sender: u64,
    part: u16,
}

/// See the module.
pub(super) struct Acceptor {
    pending: Vec<Pending>,
    present: Vec<Present>,
    _listener: CmId,
    channel: Arc<EventChannel>,
    device: Device,
    domain: ProtectionDomain,
    events: Option<Arc<Channel>>,
    limits: Limits,
    counters: Arc<Counters>,
    description: Option<Description>,
    connections: u32,
    /// the last connection that was refused, for people
    refused: Option<String>,
}

impl Acceptor {
    /// Listens for the senders of a run.
    pub(super) fn listen(config: &Checked, epoch: u32, counters: Arc<Counters>) -> Result<Self, RdmaError> {
        let device = Device::open(config.config.device.as_deref())?;
        let channel = EventChannel::new()?;
        let listener = CmId::new(&channel)?;
        listener.listen(config.listen).map_err(|error| RdmaError::Listen {
            address: config.listen.to_string(),
            reason: error.to_string(),
        })?;
        let events = match config.config.polling {
            Polling::Event => Some(Arc::new(Channel::new(&device)?)),
            Polling::Busy => None,
        };
        Ok(Self {
            pending: Vec::new(),
            present: Vec::new(),
            _listener: listener,
            channel,
            domain: ProtectionDomain::new(&device)?,
            device,
            events,
            limits: Limits {
                token: wire::token_digest(config.token.as_deref()),
                payload_bytes: config.config.frame_bytes_max,
                credits: config.config.credits,
                senders: config.config.senders_max,
                parts: config.config.queue_pairs,
                epoch,
            },
            counters,
            description: None,
            connections: 0,
            refused: None,
        })
    }

    /// What all its connections wait with, in event mode.
    pub(super) fn events(&self) -> Option<Arc<Channel>> {
        self.events.clone()
    }

    /// Where memory must be registered.
    pub(super) fn domain(&self) -> &ProtectionDomain {
        &self.domain
    }

    /// The run as its first sender describes it.
    pub(super) fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// Who was refused last, and why.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Frames must fit these slots from now on, and a connection gets no more than its share of them.
    pub(super) fn limit(&mut self, payload_bytes: u64, slots: usize) {
        self.limits.payload_bytes = self.limits.payload_bytes.min(payload_bytes);
        let share = slots / (self.limits.senders * usize::from(self.limits.parts));
        self.limits.credits = self.limits.credits.min(share.max(1) as u32);
    }

    /// A connection that was handed on is gone for good.
    pub(super) fn forget(&mut self, connection: u32) {
        self.present.retain(|one| one.connection != connection);
    }

    /// Waits for what happens next; `None` after `wait`.
    pub(super) fn step(&mut self, wait: Duration) -> Result<Option<Event>, RdmaError> {
        if let Some(event) = self.advance_pending() {
            return Ok(Some(event));
        }
        // Descriptions are not waited for by events, so a connection that is on its way is looked at often.
        let wait = if self.pending.is_empty() {
            wait
        } else {
            wait.min(Duration::from_millis(2))
        };
        match self.channel.next(wait)? {
            Some(CmEvent::Request { id, data }) => Ok(self.request(id, &data)),
            Some(CmEvent::Established { key, .. }) => {
                let mine = self.pending.iter_mut().find(|one| one.joined.link.id.key() == key);
                if let Some(pending) = mine {
                    pending.established = true;
                }
                Ok(None)
            }
            Some(CmEvent::Disconnected { key } | CmEvent::DeviceRemoval { key } | CmEvent::Failed { key, .. }) => {
                Ok(self.gone(key))
            }
            _ => Ok(None),
        }
    }

    fn gone(&mut self, key: usize) -> Option<Event> {
        let at = self.present.iter().position(|one| one.key == key)?;
        let connection = self.present[at].connection;
        if let Some(at) = self
            .pending
            .iter()
            .position(|one| one.joined.link.connection == connection)
        {
            self.pending.remove(at);
            self.forget(connection);
            return None;
        }
        Some(Event::Gone(connection))
    }

    fn refuse(&mut self, id: &CmId, reason: Reason, limit: u64) {
        self.counters.refuse(reason);
        self.refused = Some(reason.words(limit));
        // The sender may be gone already; then nobody reads it.
        let _ = id.reject(Refusal::new(reason as u16, limit).as_bytes());
    }

    fn request(&mut self, id: CmId, data: &PrivateData) -> Option<Event> {
        let hello = Hello::read_from_prefix(data.bytes()).map_or_else(|_| Hello::new_zeroed(), |(hello, _)| hello);
        let senders: Vec<u64> = self.present.iter().map(|one| one.sender).collect();
        if let Err((reason, limit)) = admission::judge(&hello, &self.limits, &senders) {
            self.refuse(&id, reason, limit);
            return None;
        }
        if !id.is_on(&self.device) || (self.description.is_none() && hello.part.get() > 0) {
            self.refuse(&id, Reason::Description, 0);
            return None;
        }
        // A sender that asks again for a connection that it has lost it, even if we have not noticed.
        let (sender, part) = (hello.sender.get(), hello.part.get());
        let replaced = self.present.iter().find(|one| (one.sender, one.part) == (sender, part));
        let replaced = replaced.map(|one| one.key).and_then(|key| self.gone(key));
        match self.accept(id, &hello) {
            Ok(pending) => self.pending.push(pending),
            // The connection failed while it was made: the sender notices and tries again.
            Err(error) => self.refused = Some(error.to_string()),
        }
        replaced
    }

    fn accept(&mut self, id: CmId, hello: &Hello) -> Result<Pending, VerbsError> {
        self.connections += 1;
        let connection = self.connections;
        let asked = hello.credits.get();
        let credits = if asked == 0 { self.limits.credits } else { asked };
        let size = LinkSize {
            receives: credits as usize + RECEIVES_MORE,
            receive_bytes: END_BYTES,
            messages: MESSAGES,
            message_bytes: MESSAGE_BYTES_MAX,
            frames: 0,
        };
        let queue = CompletionQueue::new(&self.device, Link::completions(size), self.events.clone())?;
        id.notice_soon()?;
        let id = Arc::new(id);
        let link = Link::new(id.clone(), &self.domain, Arc::new(queue), connection, size)?;
        let description = match hello.description_bytes.get() as usize {
            0 => None,
            bytes => {
                let buffer = Arc::new(Buffer::new(bytes)?);
                let region = MemoryRegion::register(&self.domain, buffer.clone(), Access::RemoteWrite)?;
                Some((region, buffer))
            }
        };
        let (address, key) = description
            .as_ref()
            .map_or((0, 0), |(region, _)| (region.address(), region.rkey()));
        let welcome = Welcome {
            magic: MAGIC,
            version: U16::new(VERSION),
            code: U16::ZERO,
            epoch: U32::new(self.limits.epoch),
            connection: U32::new(connection),
            description_address: U64::new(address),
            description_key: U32::new(key),
            credits: U32::new(credits),
            reserved: [0; 16],
        };
        id.accept(welcome.as_bytes())?;
        link.queue_pair.set_min_rnr_timer()?;
        self.present.push(Present {
            key: id.key(),
            connection,
            sender: hello.sender.get(),
            part: hello.part.get(),
        });
        Ok(Pending {
            joined: Box::new(Joined {
                link,
                sender: hello.sender.get(),
                parts: hello.parts.get(),
                credits,
            }),
            established: false,
            description,
            until: Instant::now() + HANDSHAKE,
        })
    }

    /// Looks at connections on their way.
    fn advance_pending(&mut self) -> Option<Event> {
        let mut at = 0;
        while at < self.pending.len() {
            match self.advance(at) {
                Some(true) => {
                    count(&self.counters.epochs);
                    return Some(Event::Joined(self.pending.remove(at).joined));
                }
                Some(false) => {
                    let pending = self.pending.remove(at);
                    self.forget(pending.joined.link.connection);
                }
                None => at += 1,
            }
        }
        None
    }

    /// True: ready; false: it came to nothing; `None`: not yet.
    fn advance(&mut self, at: usize) -> Option<bool> {
        let pending = &mut self.pending[at];
        if Instant::now() > pending.until {
            return Some(false);
        }
        if pending.description.is_none() {
            return pending.established.then_some(true);
        }
        let link = &mut pending.joined.link;
        let mut one = [Completion::default()];
        match link.queue.poll(&mut one) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(_) => return Some(false),
        }
        let [done] = one;
        if done.status != Status::Success {
            return Some(false);
        }
        if done.opcode != Opcode::ReceivedWrite || link.post_receive(done.id as usize).is_err() {
            return Some(false);
        }
        // Its completion means that the connection stands and that everything before it is written.
        let (_region, buffer) = pending.description.take()?;
        let bytes = done.immediate.unwrap_or(0) as usize;
        let mut json = vec![0; bytes.min(frame::HostRegion::bytes(&*buffer))];
        // SAFETY: the sender has announced it, and the protocol lets it write it once.
        unsafe { buffer.read(0, &mut json) };
        let parsed = Description::parse(&json, self.limits.payload_bytes).and_then(|new| match &self.description {
            Some(run) if !run.agrees(&new) => Err("it describes other frames than those of the run".to_string()),
            _ => Ok(new),
        });
        match parsed {
            Ok(new) => {
                self.description.get_or_insert(new);
                Some(true)
            }
            Err(sentence) => {
                self.counters.refuse(Reason::Description);
                self.refused = Some(sentence);
                // Told by a message, because the connection stands already; then it ends.
                let link = &mut self.pending[at].joined.link;
                let told = link.send(MessageKind::Refuse, Reason::Description as u16, 0, &[]);
                if told.is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = link.id.disconnect();
                Some(false)
            }
        }
    }
}
