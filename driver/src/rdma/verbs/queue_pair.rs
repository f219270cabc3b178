//! Queue pairs: made by the connection manager for a connection, or by hand with static parameters.

use super::{CmId, CompletionQueue, Gid, MemoryRegion, Mtu, ProtectionDomain, VerbsError, check, errno};
use rdma_sys::*;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// How long a sender waits that found no receive, as the verbs code it: 1 is 10 µs. The manager would leave 0,
/// which means 655 ms.
const MIN_RNR_TIMER: u8 = 1;
/// Time-out of an acknowledgement: 4.096 µs · 2^14 = 67 ms, five times before a peer counts as gone.
pub(super) const ACK_TIMEOUT: u8 = 14;
/// How often it is tried again.
pub(super) const RETRIES: u8 = 5;
/// How often a receiver that is not ready is tried again: without end.
pub(super) const RNR_RETRIES: u8 = 7;
/// Pieces of memory in one message: header and payload.
const PIECES_MAX: usize = 2;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// reliable connection
    Reliable,
    /// unreliable connection
    Unreliable,
}

/// How much work a queue pair holds.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairSize {
    /// sends and writes
    pub sends: usize,
    /// receives
    pub receives: usize,
}

/// The way to a peer without a connection manager.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// port of the device, from 1
    pub port: u8,
    /// which of the port's addresses is ours
    pub gid_index: u8,
    /// the peer's address
    pub gid: Gid,
    /// the peer's local identifier; 0 on Ethernet
    pub lid: u16,
    /// the peer's queue pair
    pub queue_pair: u32,
    /// number of the first packet that we expect
    pub receive_psn: u32,
    /// number of the first packet that we send
    pub send_psn: u32,
    /// largest packet
    pub mtu: Mtu,
    /// Ethernet: traffic class (DSCP and ECN bits) of what we send
    pub traffic_class: u8,
}

/// One piece of work that sends.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// comes back in the completion
    pub id: u64,
    /// memory, offset and bytes of what is sent, in order
    pub pieces: &'a [(&'a MemoryRegion, usize, usize)],
    /// address and key at the peer for an RDMA WRITE; a SEND where there is none
    pub target: Option<(u64, u32)>,
    /// immediate data, which makes the peer notice
    pub immediate: Option<u32>,
    /// whether a completion is wanted
    pub signaled: bool,
}

/// A queue pair. Dropping destroys it: nothing arrives from it afterwards.
pub struct QueuePair {
    raw: *mut ibv_qp,
    id: Option<Arc<CmId>>,
    transport: Transport,
    _domain: ProtectionDomain,
    _queue: Arc<CompletionQueue>,
}

// SAFETY: verbs handles may be used from any thread.
unsafe impl Send for QueuePair {}
// SAFETY: as above; the library locks the queues.
unsafe impl Sync for QueuePair {}

fn attributes(queue: &CompletionQueue, transport: Transport, size: QueuePairSize) -> ibv_qp_init_attr {
    ibv_qp_init_attr {
        qp_context: std::ptr::null_mut(),
        send_cq: queue.raw(),
        recv_cq: queue.raw(),
        srq: std::ptr::null_mut(),
        cap: ibv_qp_cap {
            max_send_wr: size.sends as u32,
            max_recv_wr: size.receives as u32,
            max_send_sge: PIECES_MAX as u32,
            max_recv_sge: PIECES_MAX as u32,
            max_inline_data: 0,
        },
        qp_type: match transport {
            Transport::Reliable => ibv_qp_type::IBV_QPT_RC,
            Transport::Unreliable => ibv_qp_type::IBV_QPT_UC,
        },
        sq_sig_all: 0,
    }
}

impl QueuePair {
    /// The reliable queue pair of a connection.
    pub fn of_connection(
        id: Arc<CmId>,
        domain: &ProtectionDomain,
        queue: &Arc<CompletionQueue>,
        size: QueuePairSize,
    ) -> Result<Self, VerbsError> {
        let mut attributes = attributes(queue, Transport::Reliable, size);
        // SAFETY: identifier, domain and queue are open, and the value keeps them open.
        check("rdma_create_qp", unsafe {
            rdma_create_qp(id.raw(), domain.raw(), &raw mut attributes)
        })?;
        Ok(Self {
            // SAFETY: the call has set it.
            raw: unsafe { (*id.raw()).qp },
            id: Some(id),
            transport: Transport::Reliable,
            _domain: domain.clone(),
            _queue: queue.clone(),
        })
    }

    /// A queue pair whose peer is given by hand; see [`QueuePair::connect`].
    pub fn unconnected(
        domain: &ProtectionDomain,
        queue: &Arc<CompletionQueue>,
        transport: Transport,
        size: QueuePairSize,
        port: u8,
    ) -> Result<Self, VerbsError> {
        let mut attributes = attributes(queue, transport, size);
        // SAFETY: domain and queue are open, and the value keeps them open.
        let raw = unsafe { ibv_create_qp(domain.raw(), &raw mut attributes) };
        if raw.is_null() {
            return Err(errno("ibv_create_qp"));
        }
        let made = Self {
            raw,
            id: None,
            transport,
            _domain: domain.clone(),
            _queue: queue.clone(),
        };
        let mut attr = blank();
        attr.qp_state = ibv_qp_state::IBV_QPS_INIT;
        attr.port_num = port;
        attr.qp_access_flags = ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0;
        use ibv_qp_attr_mask as mask;
        made.modify(
            &mut attr,
            mask::IBV_QP_STATE | mask::IBV_QP_PKEY_INDEX | mask::IBV_QP_PORT | mask::IBV_QP_ACCESS_FLAGS,
        )?;
        Ok(made)
    }

    /// Ready to receive from and to send to a peer given by hand.
    pub fn connect(&self, path: &Path) -> Result<(), VerbsError> {
        use ibv_qp_attr_mask as mask;
        let reliable = self.transport == Transport::Reliable;
        let mut attr = blank();
        attr.qp_state = ibv_qp_state::IBV_QPS_RTR;
        attr.path_mtu = path.mtu.code();
        attr.dest_qp_num = path.queue_pair;
        attr.rq_psn = path.receive_psn & 0xff_ffff;
        attr.max_dest_rd_atomic = 1;
        attr.min_rnr_timer = MIN_RNR_TIMER;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.port_num = path.port;
        attr.ah_attr.dlid = path.lid;
        attr.ah_attr.grh.dgid.raw = path.gid.0;
        attr.ah_attr.grh.sgid_index = path.gid_index;
        attr.ah_attr.grh.hop_limit = 64;
        attr.ah_attr.grh.traffic_class = path.traffic_class;
        let mut fields =
            mask::IBV_QP_STATE | mask::IBV_QP_AV | mask::IBV_QP_PATH_MTU | mask::IBV_QP_DEST_QPN | mask::IBV_QP_RQ_PSN;
        if reliable {
            fields = fields | mask::IBV_QP_MAX_DEST_RD_ATOMIC | mask::IBV_QP_MIN_RNR_TIMER;
        }
        self.modify(&mut attr, fields)?;
        let mut attr = blank();
        attr.qp_state = ibv_qp_state::IBV_QPS_RTS;
        attr.sq_psn = path.send_psn & 0xff_ffff;
        attr.timeout = ACK_TIMEOUT;
        attr.retry_cnt = RETRIES;
        attr.rnr_retry = RNR_RETRIES;
        attr.max_rd_atomic = 1;
        let mut fields = mask::IBV_QP_STATE | mask::IBV_QP_SQ_PSN;
        if reliable {
            fields = fields
                | mask::IBV_QP_TIMEOUT
                | mask::IBV_QP_RETRY_CNT
                | mask::IBV_QP_RNR_RETRY
                | mask::IBV_QP_MAX_QP_RD_ATOMIC;
        }
        self.modify(&mut attr, fields)
    }

    /// Sets how long a sender waits that found no receive, on a connection that stands.
    pub fn set_min_rnr_timer(&self) -> Result<(), VerbsError> {
        let mut attr = blank();
        attr.min_rnr_timer = MIN_RNR_TIMER;
        self.modify(&mut attr, ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER)
    }

    /// Forces the error state: all its work is flushed.
    pub fn fail(&self) -> Result<(), VerbsError> {
        let mut attr = blank();
        attr.qp_state = ibv_qp_state::IBV_QPS_ERR;
        self.modify(&mut attr, ibv_qp_attr_mask::IBV_QP_STATE)
    }

    fn modify(&self, attr: &mut ibv_qp_attr, fields: ibv_qp_attr_mask) -> Result<(), VerbsError> {
        // SAFETY: the queue pair is open and the structure whole; the library reads the fields that the mask names.
        check("ibv_modify_qp", unsafe {
            ibv_modify_qp(self.raw, attr, fields.0 as i32)
        })
    }

    /// Number, by which a peer and completions name it.
    pub fn number(&self) -> u32 {
        // SAFETY: the handle lives as long as the value.
        unsafe { (*self.raw).qp_num }
    }

    /// Posts a receive into one or two pieces of memory.
    ///
    /// # Safety
    /// Rule 1: the caller keeps the token of this memory, and the memory registered, until the completion has come or
    /// the queue pair is destroyed.
    pub unsafe fn post_receive(&self, id: u64, pieces: &[(&MemoryRegion, usize, usize)]) -> Result<(), VerbsError> {
        let (mut list, count) = gather(pieces)?;
        let mut work = ibv_recv_wr {
            wr_id: id,
            next: std::ptr::null_mut(),
            sg_list: list.as_mut_ptr().cast(),
            num_sge: count,
        };
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair is open, and the first `count` entries of the list are filled; the library copies them.
        check("ibv_post_recv", unsafe {
            ibv_post_recv(self.raw, &raw mut work, &raw mut bad)
        })
    }

    /// Posts one piece of work, or two of which the second follows at once.
    ///
    /// # Safety
    /// Rule 1: nobody writes the memory until its completion has come or the queue pair is destroyed. For an RDMA WRITE
    /// the peer has granted the target.
    pub unsafe fn post(&self, first: &Work<'_>, second: Option<&Work<'_>>) -> Result<(), VerbsError> {
        let (mut first_list, first_count) = gather(first.pieces)?;
        let mut first_request = request(first, &mut first_list, first_count);
        let mut bad = std::ptr::null_mut();
        let posted = match second {
            None => {
                // SAFETY: the queue pair is open; request and list live for the call and are copied by it.
                unsafe { ibv_post_send(self.raw, &raw mut first_request, &raw mut bad) }
            }
            Some(second) => {
                let (mut list, count) = gather(second.pieces)?;
                let mut request = request(second, &mut list, count);
                first_request.next = &raw mut request;
                // SAFETY: as above, for a chain of two.
                unsafe { ibv_post_send(self.raw, &raw mut first_request, &raw mut bad) }
            }
        };
        check("ibv_post_send", posted)
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        match &self.id {
            // SAFETY: the queue pair was made by rdma_create_qp and is destroyed once.
            Some(id) => unsafe { rdma_destroy_qp(id.raw()) },
            None => {
                // SAFETY: the queue pair was made by ibv_create_qp and is destroyed once.
                unsafe { ibv_destroy_qp(self.raw) };
            }
        }
    }
}

type List = [MaybeUninit<ibv_sge>; PIECES_MAX];

fn gather(pieces: &[(&MemoryRegion, usize, usize)]) -> Result<(List, i32), VerbsError> {
    if pieces.len() > PIECES_MAX {
        return Err(VerbsError::Limit {
            what: "the number of pieces in a message",
            value: pieces.len(),
            limit: PIECES_MAX,
        });
    }
    let mut list = [const { MaybeUninit::uninit() }; PIECES_MAX];
    for (place, (memory, offset, bytes)) in list.iter_mut().zip(pieces) {
        place.write(memory.piece(*offset, *bytes)?);
    }
    Ok((list, pieces.len() as i32))
}

fn request(work: &Work<'_>, list: &mut List, count: i32) -> ibv_send_wr {
    use ibv_wr_opcode as op;
    // SAFETY: a structure of numbers and pointers; zero is a valid value of each.
    let mut request: ibv_send_wr = unsafe { MaybeUninit::zeroed().assume_init() };
    request.wr_id = work.id;
    request.sg_list = list.as_mut_ptr().cast();
    request.num_sge = count;
    request.opcode = match (work.target, work.immediate) {
        (Some(_), Some(_)) => op::IBV_WR_RDMA_WRITE_WITH_IMM,
        (Some(_), None) => op::IBV_WR_RDMA_WRITE,
        (None, Some(_)) => op::IBV_WR_SEND_WITH_IMM,
        (None, None) => op::IBV_WR_SEND,
    };
    if work.signaled {
        request.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
    }
    if let Some((remote_addr, rkey)) = work.target {
        request.wr.rdma = rdma_t { remote_addr, rkey };
    }
    if let Some(immediate) = work.immediate {
        request.imm_data_invalidated_rkey_union.imm_data = immediate.to_be();
    }
    request
}

fn blank() -> ibv_qp_attr {
    // SAFETY: a structure of numbers; zero is a valid value of each.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
