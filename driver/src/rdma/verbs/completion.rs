//! Completion queues: asked in a loop, or waited for through a channel.

use super::{Device, Opcode, Status, VerbsError, check, errno, readable};
use rdma_sys::*;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

/// Completions taken by one call at most.
const POLL_MAX: usize = 16;

/// A file descriptor that becomes readable when a completion queue has something.
pub struct Channel {
    raw: *mut ibv_comp_channel,
    _device: Device,
}

// SAFETY: verbs handles may be used from any thread.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// A channel of the device.
    pub fn new(device: &Device) -> Result<Self, VerbsError> {
        // SAFETY: the context is open, and the channel keeps it open.
        let raw = unsafe { ibv_create_comp_channel(device.context()) };
        if raw.is_null() {
            return Err(errno("ibv_create_comp_channel"));
        }
        Ok(Self {
            raw,
            _device: device.clone(),
        })
    }

    /// Waits for an event of any queue of the channel and takes it; false after `wait`. The queue must be armed again
    /// and then asked once more, in this order: what came between would be overlooked otherwise.
    pub fn wait(&self, wait: Duration) -> Result<bool, VerbsError> {
        // SAFETY: the handle lives as long as the value.
        if !readable(unsafe { (*self.raw).fd }, wait)? {
            return Ok(false);
        }
        let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the channel is readable, so the call returns at once with one of the channel's queues.
        check("ibv_get_cq_event", unsafe {
            ibv_get_cq_event(self.raw, &raw mut queue, &raw mut context)
        })?;
        // SAFETY: acknowledged at once, so that destroying the queue never waits.
        unsafe { ibv_ack_cq_events(queue, 1) };
        Ok(true)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every queue of the channel held it, so none is left.
        unsafe { ibv_destroy_comp_channel(self.raw) };
    }
}

/// One thing that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// the number given with the work
    pub id: u64,
    /// how it ended
    pub status: Status,
    /// what it was; only where the status is success
    pub opcode: Opcode,
    /// bytes received; only where the status is success
    pub bytes: usize,
    /// immediate data, where there is some
    pub immediate: Option<u32>,
    /// the queue pair
    pub queue_pair: u32,
}

/// Where the ends of work are told.
pub struct CompletionQueue {
    raw: *mut ibv_cq,
    _channel: Option<Arc<Channel>>,
    _device: Device,
}

// SAFETY: verbs handles may be used from any thread.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above; the library locks the queue.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    /// A queue for `entries` completions; events go to `channel` where there is one.
    pub fn new(device: &Device, entries: usize, channel: Option<Arc<Channel>>) -> Result<Self, VerbsError> {
        let raw_channel = channel.as_ref().map_or(std::ptr::null_mut(), |channel| channel.raw);
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: context and channel are open, and the queue keeps them open.
        let raw = unsafe { ibv_create_cq(device.context(), entries, std::ptr::null_mut(), raw_channel, 0) };
        if raw.is_null() {
            return Err(errno("ibv_create_cq"));
        }
        Ok(Self {
            raw,
            _channel: channel,
            _device: device.clone(),
        })
    }

    pub(super) fn raw(&self) -> *mut ibv_cq {
        self.raw
    }

    /// Asks for one event when the next completion comes.
    pub fn arm(&self) -> Result<(), VerbsError> {
        // SAFETY: the queue is open.
        check("ibv_req_notify_cq", unsafe { ibv_req_notify_cq(self.raw, 0) })
    }

    /// Takes what has ended, in order; as many as `out` holds, at most 16.
    pub fn poll(&self, out: &mut [Completion]) -> Result<usize, VerbsError> {
        let mut raw = [const { MaybeUninit::<ibv_wc>::uninit() }; POLL_MAX];
        let most = out.len().min(POLL_MAX);
        // SAFETY: the queue is open and `raw` has room for `most` completions.
        let count = unsafe { ibv_poll_cq(self.raw, most as i32, raw.as_mut_ptr().cast()) };
        if count < 0 {
            return Err(errno("ibv_poll_cq"));
        }
        for (out, raw) in out.iter_mut().zip(&raw).take(count as usize) {
            // SAFETY: the call filled the first `count`; where the status is an error some fields have no meaning,
            // and those are plain numbers that are not looked at.
            let wc = unsafe { raw.as_ptr().read() };
            let status = Status::from_code(wc.status);
            let done = status == Status::Success;
            let immediate = done && wc.wc_flags & ibv_wc_flags::IBV_WC_WITH_IMM.0 != 0;
            *out = Completion {
                id: wc.wr_id,
                status,
                opcode: if done {
                    Opcode::from_code(wc.opcode)
                } else {
                    Opcode::Other(u32::MAX)
                },
                bytes: if done { wc.byte_len as usize } else { 0 },
                // SAFETY: the flag says which variant it is; both are a u32. On the wire it is big-endian.
                immediate: immediate.then(|| u32::from_be(unsafe { wc.imm_data_invalidated_rkey_union.imm_data })),
                queue_pair: wc.qp_num,
            };
        }
        Ok(count as usize)
    }
}

impl Default for Completion {
    fn default() -> Self {
        Self {
            id: 0,
            status: Status::Success,
            opcode: Opcode::Other(u32::MAX),
            bytes: 0,
            immediate: None,
            queue_pair: 0,
        }
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // SAFETY: every queue pair that used it held it, so none is left; all its events are acknowledged.
        unsafe { ibv_destroy_cq(self.raw) };
    }
}
