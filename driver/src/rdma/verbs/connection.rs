//! The connection manager: listening, connecting, and what happens to connections.

use super::{Device, VerbsError, check, errno, readable};
use rdma_sys::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections that may wait to be answered.
const BACKLOG: i32 = 16;

/// `RDMA_OPTION_ID` and `RDMA_OPTION_ID_ACK_TIMEOUT` of rdma_cma.h, which are nameless enumerations there.
const OPTION_LEVEL_ID: i32 = 0;
const OPTION_ACK_TIMEOUT: i32 = 3;

/// A few bytes that travel with a connection request or its answer.
#[derive(Clone, Copy)]
pub struct PrivateData {
    bytes: [u8; 256],
    used: usize,
}

impl PrivateData {
    /// The bytes. The manager pads them with zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl std::fmt::Debug for PrivateData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateData({} bytes)", self.used)
    }
}

/// What the manager has to say. A connection is named by [`CmId::key`].
#[derive(Debug)]
pub enum CmEvent {
    /// the peer's address is found
    AddressResolved,
    /// the way to it is found
    RouteResolved,
    /// somebody wants to connect
    Request {
        /// the connection to be
        id: CmId,
        /// what it said
        data: PrivateData,
    },
    /// the connection stands
    Established {
        /// which
        key: usize,
        /// what the peer answered
        data: PrivateData,
    },
    /// the peer refused, or nobody listens
    Rejected {
        /// the manager's number; 28: refused by the program there
        status: i32,
        /// what it said
        data: PrivateData,
    },
    /// the connection has ended
    Disconnected {
        /// which
        key: usize,
    },
    /// the device is about to go
    DeviceRemoval {
        /// which
        key: usize,
    },
    /// it cannot be had
    Failed {
        /// which
        key: usize,
        /// what happened, in words
        what: &'static str,
        /// the manager's number
        status: i32,
    },
    /// nothing that matters here
    Other {
        /// the manager's number
        event: u32,
    },
}

/// Where the manager tells what happened.
pub struct EventChannel(*mut rdma_event_channel);

// SAFETY: the manager may be used from any thread.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    /// A channel.
    pub fn new() -> Result<Arc<Self>, VerbsError> {
        super::device_names()?;
        // SAFETY: no arguments.
        let raw = unsafe { rdma_create_event_channel() };
        if raw.is_null() {
            return Err(errno("rdma_create_event_channel"));
        }
        Ok(Arc::new(Self(raw)))
    }

    /// The next event; `None` after `wait`.
    pub fn next(self: &Arc<Self>, wait: Duration) -> Result<Option<CmEvent>, VerbsError> {
        // SAFETY: the handle lives as long as the value.
        if !readable(unsafe { (*self.0).fd }, wait)? {
            return Ok(None);
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel is readable, so the call returns at once.
        check("rdma_get_cm_event", unsafe { rdma_get_cm_event(self.0, &raw mut raw) })?;
        // SAFETY: the event is the library's until it is acknowledged below.
        let event = unsafe { self.decode(&*raw) };
        // SAFETY: acknowledged once, and what was needed has been copied.
        check("rdma_ack_cm_event", unsafe { rdma_ack_cm_event(raw) })?;
        Ok(Some(event))
    }

    /// # Safety
    /// The event has not been acknowledged, and is decoded once.
    unsafe fn decode(self: &Arc<Self>, raw: &rdma_cm_event) -> CmEvent {
        use rdma_cm_event_type as kind;
        let key = raw.id as usize;
        let data = || {
            // SAFETY: connection events fill this variant.
            let parameters = unsafe { &raw.param.conn };
            let mut data = PrivateData {
                bytes: [0; 256],
                used: 0,
            };
            if !parameters.private_data.is_null() {
                data.used = usize::from(parameters.private_data_len);
                // SAFETY: the library says that so many bytes are there, at most 255.
                let bytes = unsafe { std::slice::from_raw_parts(parameters.private_data.cast::<u8>(), data.used) };
                data.bytes[..data.used].copy_from_slice(bytes);
            }
            data
        };
        let failed = |what| CmEvent::Failed {
            key,
            what,
            status: raw.status,
        };
        match raw.event {
            kind::RDMA_CM_EVENT_ADDR_RESOLVED => CmEvent::AddressResolved,
            kind::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEvent::RouteResolved,
            kind::RDMA_CM_EVENT_CONNECT_REQUEST => CmEvent::Request {
                id: CmId {
                    raw: raw.id,
                    _channel: self.clone(),
                },
                data: data(),
            },
            kind::RDMA_CM_EVENT_ESTABLISHED => CmEvent::Established { key, data: data() },
            kind::RDMA_CM_EVENT_REJECTED => CmEvent::Rejected {
                status: raw.status,
                data: data(),
            },
            kind::RDMA_CM_EVENT_DISCONNECTED => CmEvent::Disconnected { key },
            kind::RDMA_CM_EVENT_DEVICE_REMOVAL => CmEvent::DeviceRemoval { key },
            kind::RDMA_CM_EVENT_ADDR_ERROR => failed("the address cannot be reached from an RDMA device"),
            kind::RDMA_CM_EVENT_ROUTE_ERROR => failed("there is no way to the address"),
            kind::RDMA_CM_EVENT_CONNECT_ERROR => failed("the connection failed"),
            kind::RDMA_CM_EVENT_UNREACHABLE => failed("the peer does not answer"),
            event => CmEvent::Other { event },
        }
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: every identifier of the channel held it, so none is left.
        unsafe { rdma_destroy_event_channel(self.0) };
    }
}

/// A connection, or a place to listen, in the manager's hands.
pub struct CmId {
    raw: *mut rdma_cm_id,
    _channel: Arc<EventChannel>,
}

// SAFETY: the manager may be used from any thread.
unsafe impl Send for CmId {}
// SAFETY: as above.
unsafe impl Sync for CmId {}

impl std::fmt::Debug for CmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CmId({:#x})", self.key())
    }
}

impl CmId {
    /// A new one.
    pub fn new(channel: &Arc<EventChannel>) -> Result<Self, VerbsError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel is open, and the identifier keeps it open.
        check("rdma_create_id", unsafe {
            rdma_create_id(
                channel.0,
                &raw mut raw,
                std::ptr::null_mut(),
                rdma_port_space::RDMA_PS_TCP,
            )
        })?;
        Ok(Self {
            raw,
            _channel: channel.clone(),
        })
    }

    pub(super) fn raw(&self) -> *mut rdma_cm_id {
        self.raw
    }

    /// What names it in events.
    pub fn key(&self) -> usize {
        self.raw as usize
    }

    /// Whether it goes through this device.
    pub fn is_on(&self, device: &Device) -> bool {
        // SAFETY: the handle lives as long as the value.
        unsafe { (*self.raw).verbs == device.context() }
    }

    /// The port of the device that it goes through.
    pub fn port(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.raw).port_num }
    }

    /// Listens at an address.
    pub fn listen(&self, address: SocketAddr) -> Result<(), VerbsError> {
        let mut storage = Address::new(address);
        // SAFETY: the address is a whole sockaddr of its family, and lives for the call.
        check("rdma_bind_addr", unsafe { rdma_bind_addr(self.raw, storage.as_ptr()) })?;
        // SAFETY: the identifier is open.
        check("rdma_listen", unsafe { rdma_listen(self.raw, BACKLOG) })
    }

    /// Begins to look for an address; [`CmEvent::AddressResolved`] follows.
    pub fn resolve_address(&self, address: SocketAddr, wait: Duration) -> Result<(), VerbsError> {
        let mut storage = Address::new(address);
        let wait_ms = wait.as_millis().min(60_000) as i32;
        // SAFETY: as in `listen`; no source address is given.
        check("rdma_resolve_addr", unsafe {
            rdma_resolve_addr(self.raw, std::ptr::null_mut(), storage.as_ptr(), wait_ms)
        })
    }

    /// Begins to look for the way; [`CmEvent::RouteResolved`] follows.
    pub fn resolve_route(&self, wait: Duration) -> Result<(), VerbsError> {
        // SAFETY: the identifier is open.
        check("rdma_resolve_route", unsafe {
            rdma_resolve_route(self.raw, wait.as_millis().min(60_000) as i32)
        })
    }

    fn parameters(data: &[u8]) -> Result<rdma_conn_param, VerbsError> {
        let private_data_len = u8::try_from(data.len()).map_err(|_| VerbsError::Limit {
            what: "private data",
            value: data.len(),
            limit: 255,
        })?;
        Ok(rdma_conn_param {
            private_data: data.as_ptr().cast(),
            private_data_len,
            responder_resources: 1,
            initiator_depth: 1,
            flow_control: 0,
            retry_count: super::queue_pair::RETRIES,
            rnr_retry_count: super::queue_pair::RNR_RETRIES,
            srq: 0,
            qp_num: 0,
        })
    }

    /// Notices a peer that is gone within half a second; the manager's own choice is many seconds. Before connecting or
    /// accepting.
    pub fn notice_soon(&self) -> Result<(), VerbsError> {
        let mut timeout = super::queue_pair::ACK_TIMEOUT;
        // SAFETY: the option is one byte, which lives for the call.
        check("rdma_set_option", unsafe {
            rdma_set_option(
                self.raw,
                OPTION_LEVEL_ID,
                OPTION_ACK_TIMEOUT,
                (&raw mut timeout).cast(),
                1,
            )
        })
    }

    /// Asks the peer; [`CmEvent::Established`] or [`CmEvent::Rejected`] follows. At most 56 bytes.
    pub fn connect(&self, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = Self::parameters(data)?;
        // SAFETY: the route is resolved or the call says so; the data lives for the call.
        check("rdma_connect", unsafe { rdma_connect(self.raw, &raw mut parameters) })
    }

    /// Takes a connection that asked. At most 196 bytes.
    pub fn accept(&self, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = Self::parameters(data)?;
        // SAFETY: the identifier came with a request; the data lives for the call.
        check("rdma_accept", unsafe { rdma_accept(self.raw, &raw mut parameters) })
    }

    /// Refuses a connection that asked. At most 148 bytes.
    pub fn reject(&self, data: &[u8]) -> Result<(), VerbsError> {
        let used = Self::parameters(data)?.private_data_len;
        // SAFETY: as in `accept`.
        check("rdma_reject", unsafe {
            rdma_reject(self.raw, data.as_ptr().cast(), used)
        })
    }

    /// Ends a connection.
    pub fn disconnect(&self) -> Result<(), VerbsError> {
        // SAFETY: the identifier is open.
        check("rdma_disconnect", unsafe { rdma_disconnect(self.raw) })
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: its queue pair held it, so that is gone; its events are acknowledged as they are decoded.
        unsafe { rdma_destroy_id(self.raw) };
    }
}

/// An address as the library wants it.
enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    fn new(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(v4) => Address::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Address::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    fn as_ptr(&mut self) -> *mut libc::sockaddr {
        match self {
            Address::V4(v4) => (&raw mut *v4).cast(),
            Address::V6(v6) => (&raw mut *v6).cast(),
        }
    }
}
