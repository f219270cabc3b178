//! Memory that a device may reach.

use super::{ProtectionDomain, VerbsError};
use frame::HostRegion;
use rdma_sys::*;
use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Who may reach registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// the own device reads
    LocalRead,
    /// the own device reads and writes (receives land there)
    LocalWrite,
    /// peers write too
    RemoteWrite,
}

/// Memory registered with a device. It keeps the memory alive and at its place.
pub struct MemoryRegion {
    mr: *mut ibv_mr,
    memory: Arc<dyn HostRegion>,
    _domain: ProtectionDomain,
}

// SAFETY: verbs handles may be used from any thread; the bytes are reached only through their owner.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above; `&MemoryRegion` gives out addresses and keys, no bytes.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Registers memory.
    pub fn register(
        domain: &ProtectionDomain,
        memory: Arc<dyn HostRegion>,
        access: Access,
    ) -> Result<Self, VerbsError> {
        let flags = match access {
            Access::LocalRead => ibv_access_flags(0),
            Access::LocalWrite => ibv_access_flags::IBV_ACCESS_LOCAL_WRITE,
            Access::RemoteWrite => ibv_access_flags::IBV_ACCESS_LOCAL_WRITE | ibv_access_flags::IBV_ACCESS_REMOTE_WRITE,
        };
        let bytes = memory.bytes();
        // SAFETY: a HostRegion stays mapped at its place while the value lives, and this value holds it.
        let mr = unsafe { ibv_reg_mr(domain.raw(), memory.address() as *mut _, bytes, flags.0 as i32) };
        if mr.is_null() {
            return Err(VerbsError::Register {
                bytes,
                reason: io::Error::last_os_error(),
            });
        }
        Ok(Self {
            mr,
            memory,
            _domain: domain.clone(),
        })
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.memory.address() as u64
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// The key that a peer needs.
    pub fn rkey(&self) -> u32 {
        // SAFETY: the handle lives as long as the value.
        unsafe { (*self.mr).rkey }
    }

    /// One piece of it, for a work request.
    pub(super) fn piece(&self, offset: usize, bytes: usize) -> Result<ibv_sge, VerbsError> {
        let end = offset.saturating_add(bytes);
        if end > self.bytes() || u32::try_from(bytes).is_err() {
            return Err(VerbsError::Limit {
                what: "the end of a message in registered memory",
                value: end,
                limit: self.bytes(),
            });
        }
        Ok(ibv_sge {
            addr: self.address() + offset as u64,
            length: bytes as u32,
            // SAFETY: as in `rkey`.
            lkey: unsafe { (*self.mr).lkey },
        })
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: queue pairs that use it are destroyed before (rule 2); the memory is still there.
        unsafe { ibv_dereg_mr(self.mr) };
    }
}

/// A little memory of our own for messages, page-aligned and zeroed.
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to the value alone.
unsafe impl Send for Buffer {}
// SAFETY: bytes are reached only by `read` and `write`, whose callers promise that nobody else touches the piece.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `bytes` rounded up to whole pages.
    pub fn new(bytes: usize) -> Result<Self, VerbsError> {
        let limit = VerbsError::Limit {
            what: "a message buffer",
            value: bytes,
            limit: 1 << 30,
        };
        if bytes == 0 || bytes > 1 << 30 {
            return Err(limit);
        }
        let layout = Layout::from_size_align(bytes.next_multiple_of(4096), 4096).map_err(|_| limit)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(VerbsError::Call {
            call: "alloc",
            reason: io::ErrorKind::OutOfMemory.into(),
        })?;
        Ok(Self { start, layout })
    }

    /// Copies a piece out.
    ///
    /// # Safety
    /// Nobody writes the piece meanwhile: its completion has come and it is not posted again yet.
    pub unsafe fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= self.layout.size());
        // SAFETY: inside the buffer, and nobody writes it as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), out.as_mut_ptr(), out.len()) };
    }

    /// Copies a piece in.
    ///
    /// # Safety
    /// Nobody else reads or writes the piece meanwhile: it is not posted.
    pub unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.layout.size());
        // SAFETY: inside the buffer, and nobody else touches it as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }
}

// SAFETY: allocated once, page-aligned, freed when the value is dropped.
unsafe impl HostRegion for Buffer {
    fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}
