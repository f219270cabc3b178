//! One connection of the reliable mode, from either side: a queue pair, its completions, and a little memory for messages.

use super::verbs::{Access, Buffer, CmId, CompletionQueue, MemoryRegion, ProtectionDomain, QueuePair, QueuePairSize};
use super::verbs::{Completion, Status, VerbsError, Work};
use super::wire::{Grant, Message, MessageKind};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Bit of a completion's number that tells sent messages from receives.
const SENT: u64 = 1 << 32;
/// Bit that tells frames from messages.
const FRAME: u64 = 1 << 33;

/// What a completion's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// a receive
    Receive(usize),
    /// a message that was sent
    Message(usize),
    /// a frame that was sent, by slot
    Frame(usize),
}

impl Ended {
    pub(super) fn from_id(id: u64) -> Ended {
        let index = id as u32 as usize;
        if id & FRAME != 0 {
            Ended::Frame(index)
        } else if id & SENT != 0 {
            Ended::Message(index)
        } else {
            Ended::Receive(index)
        }
    }

    pub(super) fn frame_id(slot: usize) -> u64 {
        FRAME | slot as u64
    }
}

/// How large a link is.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkSize {
    /// receives that are posted
    pub receives: usize,
    /// bytes of each
    pub receive_bytes: usize,
    /// messages that may be on their way at once
    pub messages: usize,
    /// bytes of the longest
    pub message_bytes: usize,
    /// frames that may be on their way at once, two pieces of work each
    pub frames: usize,
}

/// See the module. Fields are dropped in this order: the queue pair first, so that nothing arrives afterwards.
pub(super) struct Link {
    pub queue_pair: QueuePair,
    pub queue: Arc<CompletionQueue>,
    messages: MemoryRegion,
    buffer: Arc<Buffer>,
    pub id: Arc<CmId>,
    /// number of the connection
    pub connection: u32,
    size: LinkSize,
    idle: Vec<usize>,
}

impl Link {
    /// Makes the queue pair of a connection and posts every receive.
    pub(super) fn new(
        id: Arc<CmId>,
        domain: &ProtectionDomain,
        queue: Arc<CompletionQueue>,
        connection: u32,
        size: LinkSize,
    ) -> Result<Link, VerbsError> {
        let pair = QueuePairSize {
            sends: size.messages + 2 * size.frames,
            receives: size.receives,
        };
        let queue_pair = QueuePair::of_connection(id.clone(), domain, &queue, pair)?;
        let bytes = size.receives * size.receive_bytes + size.messages * size.message_bytes;
        let buffer = Arc::new(Buffer::new(bytes)?);
        let messages = MemoryRegion::register(domain, buffer.clone(), Access::LocalWrite)?;
        let link = Link {
            queue_pair,
            queue,
            messages,
            buffer,
            id,
            connection,
            size,
            idle: (0..size.messages).collect(),
        };
        for index in 0..size.receives {
            link.post_receive(index)?;
        }
        Ok(link)
    }

    /// Completions that its queue must have room for.
    pub(super) fn completions(size: LinkSize) -> usize {
        size.receives + size.messages + 2 * size.frames + 16
    }

    /// Posts a receive, for the first time or again after its completion.
    pub(super) fn post_receive(&self, index: usize) -> Result<(), VerbsError> {
        let piece = (&self.messages, index * self.size.receive_bytes, self.size.receive_bytes);
        // SAFETY: the link owns the buffer, reads a receive only between its completion and this call, and drops the
        // queue pair first.
        unsafe { self.queue_pair.post_receive(index as u64, &[piece]) }
    }

    /// The message that a completed receive holds, and where its grants begin.
    pub(super) fn received(&self, index: usize, bytes: usize) -> Option<Message> {
        let mut raw = [0; size_of::<Message>()];
        if bytes < raw.len() || index >= self.size.receives {
            return None;
        }
        // SAFETY: the receive has completed and is not posted again yet.
        unsafe { self.buffer.read(index * self.size.receive_bytes, &mut raw) };
        Message::read_from_bytes(&raw).ok()
    }

    /// One of the grants of a completed receive.
    pub(super) fn grant(&self, index: usize, number: usize, bytes: usize) -> Option<Grant> {
        let start = size_of::<Message>() + number * size_of::<Grant>();
        let mut raw = [0; size_of::<Grant>()];
        if start + raw.len() > bytes.min(self.size.receive_bytes) || index >= self.size.receives {
            return None;
        }
        // SAFETY: as in `received`.
        unsafe { self.buffer.read(index * self.size.receive_bytes + start, &mut raw) };
        Grant::read_from_bytes(&raw).ok()
    }

    /// Whether a message can be sent now.
    pub(super) fn can_send(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether no message is on its way.
    pub(super) fn quiet(&self) -> bool {
        self.idle.len() == self.size.messages
    }

    /// Sends a message with its grants; false where all are on their way.
    pub(super) fn send(
        &mut self,
        kind: MessageKind,
        count: u16,
        value: u64,
        grants: &[Grant],
    ) -> Result<bool, VerbsError> {
        let Some(index) = self.idle.pop() else {
            return Ok(false);
        };
        let message = Message::new(kind, self.connection, count, value);
        let start = self.size.receives * self.size.receive_bytes + index * self.size.message_bytes;
        let (head, bytes) = (message.as_bytes(), size_of::<Message>() + size_of_val(grants));
        let pieces = [(&self.messages, start, bytes)];
        let work = Work {
            id: SENT | index as u64,
            pieces: &pieces,
            target: None,
            immediate: None,
            signaled: true,
        };
        // SAFETY: the message is idle, so nothing reads it; it is not touched again before its completion, and the link
        // owns the buffer.
        unsafe {
            self.buffer.write(start, head);
            self.buffer.write(start + head.len(), grants.as_bytes());
            self.queue_pair.post(&work, None)?;
        }
        Ok(true)
    }

    /// Waits until the peer has every message, at most until `until_ns`.
    pub(super) fn settle(&mut self, until_ns: u64) {
        let mut one = [Completion::default()];
        while !self.quiet() && crate::clock::monotonic_ns() < until_ns {
            match self.queue.poll(&mut one) {
                Ok(0) => std::thread::sleep(std::time::Duration::from_micros(100)),
                Ok(_) if one[0].status == Status::Success => {
                    if let Ended::Message(index) = Ended::from_id(one[0].id) {
                        self.sent(index);
                    }
                }
                _ => return,
            }
        }
    }

    /// A message has been sent and can be used again.
    pub(super) fn sent(&mut self, index: usize) {
        // Never more than there are: `idle` keeps its capacity.
        if index < self.size.messages && self.idle.len() < self.size.messages {
            self.idle.push(index);
        }
    }
}
