//! What goes over the wire in reliable mode, little-endian. `driver/PROTOCOL.md` has the same tables for those who build
//! senders; the tests below hold both to the same places.

use super::VERSION;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of everything that a handshake carries.
pub const MAGIC: [u8; 4] = *b"FXRD";
/// Slots that one grant message hands out at most.
pub const GRANTS_MAX: usize = 64;
/// Bytes of the longest message that the receiver sends.
pub const MESSAGE_BYTES_MAX: usize = size_of::<Message>() + GRANTS_MAX * size_of::<Grant>();
/// Bytes that the receiver keeps for a message of the sender.
pub const END_BYTES: usize = 64;
/// Longest description, bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 16 << 20;
/// Most slots that one connection has at once.
pub const CREDITS_MAX: u32 = 1024;
/// Capability: the sender puts a CRC32C of the payload into every header.
pub const CAPABILITY_PAYLOAD_CRC: u16 = 1 << 0;

const _: () = assert!(size_of::<Hello>() == 56);
const _: () = assert!(size_of::<Welcome>() == 48);
const _: () = assert!(size_of::<Refusal>() == 16);
const _: () = assert!(size_of::<Message>() == 16);
const _: () = assert!(size_of::<Grant>() == 16);
const _: () = assert!(size_of::<Message>() <= END_BYTES);

/// The sender's private data of the connection request: 56 bytes, all that the manager carries.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    /// [`MAGIC`]
    pub magic: [u8; 4],
    /// [`VERSION`]
    pub version: U16,
    /// `CAPABILITY_…`
    pub capabilities: U16,
    /// largest payload of a frame
    pub payload_bytes_max: U64,
    /// [`token_digest`]
    pub token: [u8; 16],
    /// names the sender while it lives; a restarted one has another
    pub sender: U64,
    /// bytes of the description that follows on this connection; 0 on all but part 0
    pub description_bytes: U32,
    /// which of the sender's connections, from 0
    pub part: U16,
    /// how many connections the sender has
    pub parts: U16,
    /// slots that it wants to have at once on this connection; 0: as many as it gets
    pub credits: U32,
    /// the run's epoch as the sender knows it; 0: none yet
    pub epoch: U32,
}

/// The receiver's private data of the acceptance.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Welcome {
    /// [`MAGIC`]
    pub magic: [u8; 4],
    /// [`VERSION`]
    pub version: U16,
    /// 0
    pub code: U16,
    /// the run's epoch, for every header
    pub epoch: U32,
    /// number of this connection; its low 16 bits go into every immediate
    pub connection: U32,
    /// where the description goes
    pub description_address: U64,
    /// the key for it
    pub description_key: U32,
    /// slots that the sender may have at once
    pub credits: U32,
    /// zero
    pub reserved: [u8; 16],
}

/// The receiver's private data of a refusal.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Refusal {
    /// [`MAGIC`]
    pub magic: [u8; 4],
    /// [`VERSION`]
    pub version: U16,
    /// [`super::admission::Reason`]
    pub code: U16,
    /// the limit that was passed, where there is one
    pub limit: U64,
}

/// Begins every SEND.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Message {
    /// [`MessageKind`]
    pub kind: U16,
    /// number of grants that follow, or the code of a refusal
    pub count: U16,
    /// number of the connection
    pub connection: U32,
    /// frames, or the limit of a refusal
    pub value: U64,
}

/// One slot, granted.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Grant {
    /// number of the slot
    pub slot: U32,
    /// key of the memory
    pub key: U32,
    /// address of the slot: header there, payload 4096 bytes on
    pub address: U64,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum MessageKind {
    /// receiver: slots, granted
    Grant = 1,
    /// receiver: refused after all; the connection ends
    Refuse = 2,
    /// receiver: the end has arrived, and everything before it
    Done = 3,
    /// sender: no more frames on this connection
    End = 16,
}

impl MessageKind {
    /// The kind with this number.
    pub fn from_code(code: u16) -> Option<MessageKind> {
        [
            MessageKind::Grant,
            MessageKind::Refuse,
            MessageKind::Done,
            MessageKind::End,
        ]
        .into_iter()
        .find(|kind| *kind as u16 == code)
    }
}

impl Message {
    /// A message.
    pub fn new(kind: MessageKind, connection: u32, count: u16, value: u64) -> Self {
        Self {
            kind: U16::new(kind as u16),
            count: U16::new(count),
            connection: U32::new(connection),
            value: U64::new(value),
        }
    }
}

impl Refusal {
    /// A refusal.
    pub fn new(code: u16, limit: u64) -> Self {
        Self {
            magic: MAGIC,
            version: U16::new(VERSION),
            code: U16::new(code),
            limit: U64::new(limit),
        }
    }
}

/// What a token is on the wire: the first 16 bytes of the SHA-256 of its text; zeros where there is none.
pub fn token_digest(token: Option<&str>) -> [u8; 16] {
    let mut digest = [0; 16];
    if let Some(token) = token {
        digest.copy_from_slice(&Sha256::digest(token.trim().as_bytes())[..16]);
    }
    digest
}

/// The immediate of an announcement: low bits of the connection above, slot below.
pub const fn immediate(connection: u32, slot: u16) -> u32 {
    (connection & 0xffff) << 16 | slot as u32
}

/// Connection bits and slot of an immediate.
pub const fn parts_of_immediate(immediate: u32) -> (u16, u16) {
    ((immediate >> 16) as u16, immediate as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn every_field_is_where_the_protocol_says() {
        let hello = [
            offset_of!(Hello, payload_bytes_max),
            offset_of!(Hello, token),
            offset_of!(Hello, sender),
            offset_of!(Hello, description_bytes),
            offset_of!(Hello, part),
            offset_of!(Hello, parts),
            offset_of!(Hello, credits),
            offset_of!(Hello, epoch),
        ];
        assert_eq!(hello, [8, 16, 32, 40, 44, 46, 48, 52]);
        let welcome = [
            offset_of!(Welcome, code),
            offset_of!(Welcome, epoch),
            offset_of!(Welcome, connection),
            offset_of!(Welcome, description_address),
            offset_of!(Welcome, description_key),
            offset_of!(Welcome, credits),
        ];
        assert_eq!(welcome, [6, 8, 12, 16, 24, 28]);
        assert_eq!(parts_of_immediate(immediate(0x1_0007, 3)), (7, 3));
        assert_eq!(token_digest(None), [0; 16]);
        assert_eq!(token_digest(Some("abc\n"))[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
