//! `recvmmsg`: the first bytes of each packet go to a buffer of its own, the rest to where its target says.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Bytes at the start of each packet that are kept apart.
pub const HEAD_BYTES: usize = 48;
/// Pieces that one packet may be cut into.
const PIECES_MAX: usize = 64;

/// Memory that packets are scattered over, by number.
pub trait Buffers {
    /// how many there are
    fn count(&self) -> usize;
    /// one of them; empty where there is none at present
    fn buffer(&mut self, index: usize) -> &mut [u8];
}

/// Where the rest of one packet goes: `pieces` of `piece_bytes`, from `offset` on, `stride` bytes from start to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// number of the buffer
    pub buffer: usize,
    /// first byte of the first piece
    pub offset: usize,
    /// pieces
    pub pieces: usize,
    /// bytes of each
    pub piece_bytes: usize,
    /// bytes from a piece's start to the next one's; negative where rows run upwards
    pub stride: isize,
}

impl Target {
    /// Start of each piece in its buffer.
    pub fn starts(&self) -> impl Iterator<Item = usize> + use<> {
        let (offset, stride) = (self.offset, self.stride);
        (0..self.pieces).map(move |piece| offset.wrapping_add_signed(stride * piece as isize))
    }
}

/// A packet that came.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// its first bytes
    pub head: [u8; HEAD_BYTES],
    /// its length, head included, as far as there was room for it
    pub bytes: usize,
    /// there was more than room for it
    pub cut: bool,
}

/// Receives up to a fixed number of packets at once. Allocates nothing after it is made.
pub struct Receiver {
    heads: Vec<[u8; HEAD_BYTES]>,
    pieces: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    bases: Vec<(*mut u8, usize)>,
}

// SAFETY: the pointers in it are made anew by every `receive`, and used within that call only.
unsafe impl Send for Receiver {}

impl Receiver {
    /// For up to `packets` at once, over up to `buffers`.
    pub fn new(packets: usize, buffers: usize) -> Self {
        Self {
            heads: vec![[0; HEAD_BYTES]; packets],
            pieces: Vec::with_capacity(packets * (PIECES_MAX + 1)),
            messages: Vec::with_capacity(packets),
            bases: Vec::with_capacity(buffers),
        }
    }

    /// Takes what is there, one packet per target at most, without waiting. Returns how many came.
    pub fn receive(&mut self, socket: &UdpSocket, targets: &[Target], buffers: &mut dyn Buffers) -> io::Result<usize> {
        self.bases.clear();
        for index in 0..buffers.count() {
            let buffer = buffers.buffer(index);
            self.bases.push((buffer.as_mut_ptr(), buffer.len()));
        }
        self.pieces.clear();
        self.messages.clear();
        let targets = &targets[..targets.len().min(self.heads.len())];
        for (target, head) in targets.iter().zip(&mut self.heads) {
            self.pieces.push(libc::iovec {
                iov_base: head.as_mut_ptr().cast(),
                iov_len: HEAD_BYTES,
            });
            let (base, length) = self
                .bases
                .get(target.buffer)
                .copied()
                .unwrap_or((std::ptr::null_mut(), 0));
            for start in target.starts().take(PIECES_MAX) {
                if start.checked_add(target.piece_bytes).is_none_or(|end| end > length) {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a target outside its buffer",
                    ));
                }
                self.pieces.push(libc::iovec {
                    // SAFETY: checked above: the piece lies in the buffer.
                    iov_base: unsafe { base.add(start) }.cast(),
                    iov_len: target.piece_bytes,
                });
            }
        }
        let mut first = 0;
        for target in targets {
            let count = 1 + target.pieces.min(PIECES_MAX);
            // SAFETY: a header of zeros is a valid one: no name, no pieces, no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = self.pieces[first..].as_mut_ptr();
            message.msg_hdr.msg_iovlen = count;
            self.messages.push(message);
            first += count;
        }
        // SAFETY: every header points into `pieces`, which does not move during the call, and every piece into `heads`
        // or into a buffer that is borrowed uniquely until this function returns. The kernel alone writes them, and any
        // bytes are valid there.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if came >= 0 {
            return Ok(came as usize);
        }
        match io::Error::last_os_error() {
            nothing if nothing.kind() == io::ErrorKind::WouldBlock => Ok(0),
            again if again.kind() == io::ErrorKind::Interrupted => Ok(0),
            // ICMP said that an earlier answer reached nobody; there is nothing to receive.
            refused if refused.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
            error => Err(error),
        }
    }

    /// A packet of the last [`Receiver::receive`].
    pub fn message(&self, index: usize) -> Message {
        Message {
            head: self.heads[index],
            bytes: self.messages[index].msg_len as usize,
            cut: self.messages[index].msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}
