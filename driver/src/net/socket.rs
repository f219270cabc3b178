//! Sockets: their buffers, what they dropped, and waiting for several of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Numbers that `SO_MEMINFO` gives, and which of them is the packets dropped (linux/sock_diag.h).
const MEMINFO_VALUES: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// A bound socket that never blocks, and the size of its receive buffer in bytes. `SO_RCVBUFFORCE` needs
/// CAP_NET_ADMIN; without it `net.core.rmem_max` limits what is had.
pub fn bind(address: SocketAddr, receive_bytes: usize) -> io::Result<(UdpSocket, usize)> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let wanted = i32::try_from(receive_bytes).unwrap_or(i32::MAX / 2);
    if set(&socket, libc::SO_RCVBUFFORCE, wanted).is_err() {
        set(&socket, libc::SO_RCVBUF, wanted)?;
    }
    let mut had = [0u32; 1];
    get(&socket, libc::SO_RCVBUF, &mut had)?;
    // The kernel doubles what is asked for, for its own use.
    Ok((socket, had[0] as usize / 2))
}

/// Packets that the kernel dropped at this socket since it was made.
pub fn drops(socket: &UdpSocket) -> io::Result<u32> {
    let mut values = [0; MEMINFO_VALUES];
    get(socket, libc::SO_MEMINFO, &mut values)?;
    Ok(values[MEMINFO_DROPS])
}

/// Name of the interface that has this IPv4 address.
pub fn interface_of(address: IpAddr) -> Option<String> {
    let IpAddr::V4(wanted) = address else { return None };
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call writes one pointer, to a list that is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return None;
    }
    let (mut entry, mut found) = (first, None);
    while !entry.is_null() && found.is_none() {
        // SAFETY: entries are valid until the list is freed; an address of family AF_INET is a sockaddr_in, and names are
        // C strings.
        unsafe {
            let (one, at) = (&*entry, (*entry).ifa_addr);
            if !at.is_null() && i32::from((*at).sa_family) == libc::AF_INET {
                let inet = at.cast::<libc::sockaddr_in>().read_unaligned();
                if Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr)) == wanted {
                    found = Some(std::ffi::CStr::from_ptr(one.ifa_name).to_string_lossy().into_owned());
                }
            }
            entry = one.ifa_next;
        }
    }
    // SAFETY: the list came from getifaddrs, and nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// Lets a wait for a stream end when `bytes` can be read, or when no more can come.
pub fn wake_at(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    set(socket, libc::SO_RCVLOWAT, i32::try_from(bytes).unwrap_or(i32::MAX))
}

fn set(socket: &impl AsRawFd, option: libc::c_int, value: i32) -> io::Result<()> {
    let bytes = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the value is read during the call, `bytes` long.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            bytes,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn get(socket: &UdpSocket, option: libc::c_int, values: &mut [u32]) -> io::Result<()> {
    let mut bytes = size_of_val(values) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most `bytes` to `values`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Waits for any of several sockets.
#[derive(Default)]
pub struct Poller(Vec<libc::pollfd>);

impl Poller {
    /// Waits for these sockets; they must live as long as it is used.
    pub fn new<'a>(sockets: impl Iterator<Item = &'a UdpSocket>) -> Self {
        let mut poller = Self::default();
        for socket in sockets {
            poller.add(socket, false);
        }
        poller
    }

    /// Waits for none any more; the room for them is kept.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Waits for `socket`, too: until it can be read, or written where a connection is being made.
    pub fn add(&mut self, socket: &impl AsRawFd, to_write: bool) {
        self.0.push(libc::pollfd {
            fd: socket.as_raw_fd(),
            events: if to_write { libc::POLLOUT } else { libc::POLLIN },
            revents: 0,
        });
    }

    /// Whether something has come within `milliseconds`.
    pub fn wait(&mut self, milliseconds: i32) -> bool {
        let count = self.0.len() as libc::nfds_t;
        // SAFETY: the entries are the vector's own; a descriptor that is closed only makes the kernel say so.
        unsafe { libc::poll(self.0.as_mut_ptr(), count, milliseconds) > 0 }
    }
}
