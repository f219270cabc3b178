//! `sendmmsg`: packets gathered from a head and pieces of frames.

use super::receive::HEAD_BYTES;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// A packet to send: its first bytes, and the pieces behind them.
pub trait Packet {
    /// its first bytes
    fn head(&self) -> &[u8; HEAD_BYTES];
    /// calls `take` with every piece in turn
    fn pieces<'a>(&'a self, take: &mut dyn FnMut(&'a [u8]));
}

/// Sends several packets at once over a connected socket.
#[derive(Default)]
pub struct Sender {
    pieces: Vec<libc::iovec>,
    counts: Vec<usize>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in it are made anew by every `send`, and used within that call only.
unsafe impl Send for Sender {}

impl Sender {
    /// Sends the first of `packets`, as many as the kernel takes; returns how many went.
    pub fn send<P: Packet>(&mut self, socket: &UdpSocket, packets: &[P]) -> io::Result<usize> {
        self.pieces.clear();
        self.counts.clear();
        self.messages.clear();
        for packet in packets {
            let before = self.pieces.len();
            let mut push = |bytes: &[u8]| {
                self.pieces.push(libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                });
            };
            push(packet.head());
            packet.pieces(&mut |bytes| push(bytes));
            self.counts.push(self.pieces.len() - before);
        }
        let mut first = 0;
        for count in &self.counts {
            // SAFETY: a header of zeros is a valid one: no name, no pieces, no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = self.pieces[first..].as_mut_ptr();
            message.msg_hdr.msg_iovlen = *count;
            self.messages.push(message);
            first += count;
        }
        // SAFETY: every header points into `pieces`, and every piece to bytes of `packets`, which are borrowed until this
        // function returns; the kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.messages.len() as libc::c_uint,
                0,
            )
        };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        Err(io::Error::last_os_error())
    }
}
