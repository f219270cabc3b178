//! Everything of OpenCL that needs `unsafe`: buffers, mappings, transfers and launches, behind calls that
//! check their arguments. The rest of the crate is safe Rust.
//!
//! ```text
//!   HostRegion (ring, huge pages) ──USE_HOST_PTR──▶ Buffer<u8>   device reads where the host wrote
//!   Pinned (ALLOC_HOST_PTR, mapped for life) ─────▶ &mut [u8]    host decodes here, then it is copied
//!   Buffer<T>  ◀──write / read / map──▶  &[T]                    blocking: the slice is free on return
//! ```
//!
//! Rules that the blocks below rely on:
//! 1. A buffer over a [`HostRegion`] holds the region until OpenCL destroys the memory object (its destructor
//!    callback drops the last handle), so no command can outlive the memory.
//! 2. Transfers from or into borrowed slices block; only `Queue::write_from_region` and
//!    `Queue::write_from_pinned` do not, and their sources are kept by the queue until it is finished.
//! 3. Kernels are this crate's own sources or binaries that the operator named, and address memory only
//!    through indices that their host side has checked; pixel values never become addresses.
#![allow(unsafe_code)]

use crate::accelerator::AcceleratorError;
use crate::deadline;
use crate::status::{check, failed};
use frame::HostRegion;
use ocl::core::{self, ArgVal, CommandQueue, Context, Event, Mem, MemFlags, OclPrm, PlatformId, Program as RawProgram};
use ocl::ffi;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that page-aligned host memory is rounded to.
pub const PAGE_BYTES: usize = 4096;
/// How long a queue that goes waits for its device.
const DROP_LIMIT: Duration = Duration::from_secs(1);
const PLATFORM_NOT_FOUND_KHR: i32 = -1001;
const NO_EVENTS: Option<&[Event]> = None;
const NO_EVENT: Option<&mut Event> = None;

/// Platforms of this machine; empty where no driver is installed. Does not wait for one to appear, as
/// `ocl::core::get_platform_ids` does for ten seconds.
pub(crate) fn platforms() -> Vec<PlatformId> {
    let mut count = 0;
    // SAFETY: a count alone is asked for; `count` outlives the call.
    let code = unsafe { ffi::clGetPlatformIDs(0, ptr::null_mut(), &mut count) };
    if code == PLATFORM_NOT_FOUND_KHR || code != 0 || count == 0 {
        return Vec::new();
    }
    core::get_platform_ids().unwrap_or_default()
}

/// Device memory for `len` values of `T`. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Buffer<T: OclPrm> {
    mem: Mem,
    len: usize,
    pixel: PhantomData<T>,
}

impl<T: OclPrm> Buffer<T> {
    /// Device memory, contents undefined until written: [`crate::Accelerator::buffer`] clears it.
    pub(crate) fn new(context: &Context, len: usize, flags: MemFlags) -> Result<Self, AcceleratorError> {
        // SAFETY: no host pointer is given, so the memory belongs to OpenCL.
        let mem = unsafe { core::create_buffer::<_, T>(context, flags, len.max(1), None) };
        Ok(Self {
            mem: mem.map_err(failed("clCreateBuffer"))?,
            len,
            pixel: PhantomData,
        })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer holds no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn check_range(&self, offset: usize, count: usize) -> Result<(), AcceleratorError> {
        match offset.checked_add(count) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(AcceleratorError::OutOfRange {
                what: "buffer",
                offset,
                count,
                len: self.len,
            }),
        }
    }
}

/// Held by a memory object made over a region, dropped by OpenCL when it destroys the object.
extern "C" fn release_region(_mem: ffi::cl_mem, user_data: *mut c_void) {
    // SAFETY: `user_data` is the box that `Buffer::over_region` leaked for this one call.
    drop(unsafe { Box::from_raw(user_data.cast::<Arc<dyn HostRegion>>()) });
}

impl Buffer<u8> {
    /// Device view of `bytes` bytes of `region` from `offset`; the device reads the host's own memory where it can.
    pub(crate) fn over_region(
        context: &Context,
        region: &Arc<dyn HostRegion>,
        offset: usize,
        bytes: usize,
    ) -> Result<Self, AcceleratorError> {
        if offset.checked_add(bytes).is_none_or(|end| end > region.bytes()) || bytes == 0 {
            return Err(AcceleratorError::OutOfRange {
                what: "host region",
                offset,
                count: bytes,
                len: region.bytes(),
            });
        }
        let flags = MemFlags::new().read_only().use_host_ptr();
        let start = (region.address() + offset) as *mut c_void;
        let mut code = 0;
        // SAFETY: `HostRegion` promises `start..start + bytes` mapped and in place while it lives; the destructor
        // callback below keeps it alive as long as the memory object. No Rust slice is made of the region.
        let raw = unsafe { ffi::clCreateBuffer(context.as_ptr(), flags.bits(), bytes, start, &mut code) };
        check("clCreateBuffer over host memory", code)?;
        // SAFETY: `raw` was just created and is owned by nobody else.
        let mem = unsafe { Mem::from_raw_create_ptr(raw) };
        let keep = Box::into_raw(Box::new(region.clone())).cast::<c_void>();
        // SAFETY: `mem` is valid; `keep` is owned by the callback, which OpenCL calls once.
        let code = unsafe { ffi::clSetMemObjectDestructorCallback(mem.as_ptr(), Some(release_region), keep) };
        if code != 0 {
            // SAFETY: the callback was refused, so the box is still ours.
            drop(unsafe { Box::from_raw(keep.cast::<Arc<dyn HostRegion>>()) });
            check("clSetMemObjectDestructorCallback", code)?;
        }
        Ok(Self {
            mem,
            len: bytes,
            pixel: PhantomData,
        })
    }
}

/// Page-aligned host memory as a [`HostRegion`], zeroed: for probes, tests and small machines without a ring.
pub struct HostPages {
    start: ptr::NonNull<u8>,
    layout: std::alloc::Layout,
}

impl HostPages {
    /// `bytes` bytes, rounded up to whole pages.
    pub fn new(bytes: usize) -> Result<Self, AcceleratorError> {
        let short = AcceleratorError::HostMemory { bytes };
        let rounded = bytes.max(1).checked_next_multiple_of(PAGE_BYTES);
        let layout = rounded.and_then(|bytes| std::alloc::Layout::from_size_align(bytes, PAGE_BYTES).ok());
        let Some(layout) = layout else { return Err(short) };
        // SAFETY: the layout's size is at least one page.
        let start = ptr::NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        start.map(|start| Self { start, layout }).ok_or(short)
    }

    /// Copies `data` to `offset`; the caller sees to it that no device reads there meanwhile.
    pub fn fill(&self, offset: usize, data: &[u8]) -> Result<(), AcceleratorError> {
        let len = self.layout.size();
        if offset.checked_add(data.len()).is_none_or(|end| end > len) {
            return Err(AcceleratorError::OutOfRange {
                what: "host pages",
                offset,
                count: data.len(),
                len,
            });
        }
        // SAFETY: the range was checked, `data` cannot overlap memory that only raw pointers reach, and a device
        // that reads here at the same time sees torn pixels at worst (rule 3).
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.start.as_ptr().add(offset), data.len()) };
        Ok(())
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

// SAFETY: the pages are reached through raw pointers only, and never move.
unsafe impl Send for HostPages {}
// SAFETY: as above; `fill` from two threads is the caller's race on plain bytes, which nobody borrows.
unsafe impl Sync for HostPages {}
// SAFETY: page-aligned by its layout, mapped and in place until dropped.
unsafe impl HostRegion for HostPages {
    fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }
    fn bytes(&self) -> usize {
        self.layout.size()
    }
}

/// Host memory that the driver allocated for fast transfers, mapped for its whole life.
pub(crate) struct Pinned {
    buffer: Buffer<u8>,
    start: *mut u8,
    queue: Queue,
}

// SAFETY: `start` is owned by this value alone; OpenCL objects may move between threads.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(crate) fn new(context: &Context, queue: &Queue, bytes: usize) -> Result<Self, AcceleratorError> {
        let buffer = Buffer::<u8>::new(context, bytes, MemFlags::new().read_write().alloc_host_ptr())?;
        queue.clear(&buffer)?;
        let flags = ffi::CL_MAP_READ | ffi::CL_MAP_WRITE;
        let start = queue.map_raw(&buffer, true, flags, 0, bytes)?;
        Ok(Self {
            buffer,
            start,
            queue: queue.clone(),
        })
    }

    pub(crate) fn slice_mut(&mut self, offset: usize, count: usize) -> Result<&mut [u8], AcceleratorError> {
        self.buffer.check_range(offset, count)?;
        // SAFETY: mapped for reading and writing over `buffer.len` bytes, initialised in `new`, checked above,
        // borrowed uniquely; transfers out of it are finished before a caller gets here again (`Stager::begin`).
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), count) })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Transfers out of the mapping must be over; an error here has nobody left to report to.
        let _ = self.queue.finish();
        let _ = self.queue.unmap_raw(&self.buffer, self.start);
        let _ = self.queue.finish();
    }
}

/// Counts the markers of a queue that the device has reached.
#[derive(Default)]
struct Reached {
    markers: Mutex<u64>,
    more: Condvar,
}

/// Called by the driver when the device reaches a marker, or when it never will.
extern "C" fn marker_reached(_event: ffi::cl_event, _status: i32, user_data: *mut c_void) {
    // SAFETY: `user_data` is the handle that `Queue::settle` leaked for this one call.
    let reached = unsafe { Arc::from_raw(user_data.cast::<Reached>()) };
    *reached.markers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    reached.more.notify_all();
}

struct QueueInner {
    raw: CommandQueue,
    /// markers that were set, and those that were reached
    set: AtomicU64,
    reached: Arc<Reached>,
    /// whether a marker was not reached in time: nobody waits for this queue until it is
    hung: AtomicBool,
    /// Sources of transfers in flight.
    sources: Mutex<Vec<Arc<dyn HostRegion>>>,
}

impl Drop for QueueInner {
    fn drop(&mut self) {
        // Nothing that the commands use may go before they end; an error has nobody left to report to. OpenCL holds its own
        // objects as long as a hung device may use them; what it does not know of stays with it for good.
        if self.settle(Some(DROP_LIMIT)).is_err() {
            std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner))
                .into_iter()
                .for_each(std::mem::forget);
            return;
        }
        let _ = core::finish(&self.raw);
    }
}

impl QueueInner {
    /// Waits until the device has done all that was asked of it, `limit` at most; for ever where there is none.
    fn settle(&self, limit: Option<Duration>) -> Result<(), AcceleratorError> {
        let hung = |waited: Duration| AcceleratorError::Hung {
            waited_ms: waited.as_millis() as u64,
        };
        if self.hung.load(Relaxed) {
            // Where the device has come back by itself, it has reached what it was asked for since.
            let markers = *self.reached.markers.lock().unwrap_or_else(PoisonError::into_inner);
            if markers < self.set.load(Relaxed) {
                return Err(hung(Duration::ZERO));
            }
            self.hung.store(false, Relaxed);
        }
        let Some(limit) = limit else { return Ok(()) };
        let mut event = ptr::null_mut();
        // SAFETY: the queue is valid; `event` outlives the call.
        let code = unsafe { ffi::clEnqueueMarkerWithWaitList(self.raw.as_ptr(), 0, ptr::null(), &mut event) };
        check("clEnqueueMarkerWithWaitList", code)?;
        let wanted = self.set.fetch_add(1, Relaxed) + 1;
        let handle = Arc::into_raw(self.reached.clone()).cast_mut().cast::<c_void>();
        // SAFETY: `event` was just made; `handle` is owned by the callback, which OpenCL calls once. The queue's own
        // reference is all that is needed afterwards.
        let code = unsafe {
            let code = ffi::clSetEventCallback(event, ffi::CL_COMPLETE, Some(marker_reached), handle);
            ffi::clReleaseEvent(event);
            code
        };
        if code != 0 {
            // SAFETY: the callback was refused, so the handle is still ours.
            drop(unsafe { Arc::from_raw(handle.cast::<Reached>()) });
            self.set.fetch_sub(1, Relaxed);
            check("clSetEventCallback", code)?;
        }
        core::flush(&self.raw).map_err(failed("clFlush"))?;
        let markers = self.reached.markers.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |markers: &mut u64| *markers < wanted;
        let waited = self.reached.more.wait_timeout_while(markers, limit, waiting);
        let timeout = waited.unwrap_or_else(PoisonError::into_inner).1;
        if timeout.timed_out() {
            self.hung.store(true, Relaxed);
            return Err(hung(limit));
        }
        Ok(())
    }
}

/// An in-order command queue: one per worker. Cloning shares the queue.
#[derive(Clone)]
pub struct Queue(Arc<QueueInner>);

impl Queue {
    pub(crate) fn new(raw: CommandQueue) -> Self {
        Self(Arc::new(QueueInner {
            raw,
            set: AtomicU64::new(0),
            reached: Arc::default(),
            hung: AtomicBool::new(false),
            sources: Mutex::new(Vec::with_capacity(8)),
        }))
    }

    /// Hands commands to the device without waiting.
    pub fn flush(&self) -> Result<(), AcceleratorError> {
        core::flush(&self.0.raw).map_err(failed("clFlush"))
    }

    /// Waits until every command has ended.
    pub fn finish(&self) -> Result<(), AcceleratorError> {
        self.0.settle(deadline::left())?;
        core::finish(&self.0.raw).map_err(failed("clFinish"))?;
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// Sets every byte of `buffer` to zero, in order with other commands.
    pub(crate) fn clear<T: OclPrm>(&self, buffer: &Buffer<T>) -> Result<(), AcceleratorError> {
        let bytes = buffer.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        let zero = 0u8;
        let pattern = (&raw const zero).cast::<c_void>();
        // SAFETY: the pattern is one byte that OpenCL copies during the call; the range is the whole buffer.
        let code = unsafe {
            let raw = self.0.raw.as_ptr();
            ffi::clEnqueueFillBuffer(
                raw,
                buffer.mem.as_ptr(),
                pattern,
                1,
                0,
                bytes,
                0,
                ptr::null(),
                ptr::null_mut(),
            )
        };
        check("clEnqueueFillBuffer", code)
    }

    /// Copies `data` to `buffer` from its value number `offset` on; returns when `data` is free again.
    pub fn write<T: OclPrm>(&self, buffer: &Buffer<T>, offset: usize, data: &[T]) -> Result<(), AcceleratorError> {
        buffer.check_range(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        self.0.settle(deadline::left())?;
        // SAFETY: checked range; the call blocks until `data` has been read.
        let done =
            unsafe { core::enqueue_write_buffer(&self.0.raw, &buffer.mem, true, offset, data, NO_EVENTS, NO_EVENT) };
        done.map_err(failed("clEnqueueWriteBuffer"))
    }

    /// Copies from `buffer`'s value number `offset` on into `data`; waits for every command before it.
    pub fn read<T: OclPrm>(&self, buffer: &Buffer<T>, offset: usize, data: &mut [T]) -> Result<(), AcceleratorError> {
        buffer.check_range(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        // With a limit on it: a transfer that has begun cannot be called back.
        self.0.settle(deadline::left())?;
        // SAFETY: checked range; the call blocks until `data` has been written; every bit pattern is a valid `T`
        // (`OclPrm` types are plain numbers).
        let done =
            unsafe { core::enqueue_read_buffer(&self.0.raw, &buffer.mem, true, offset, data, NO_EVENTS, NO_EVENT) };
        done.map_err(failed("clEnqueueReadBuffer"))
    }

    fn write_raw(&self, to: &Buffer<u8>, at: usize, from: *const u8, bytes: usize) -> Result<(), AcceleratorError> {
        to.check_range(at, bytes)?;
        // SAFETY: both callers guarantee `from..from + bytes` until the queue is finished (rule 2).
        let code = unsafe {
            let (raw, from) = (self.0.raw.as_ptr(), from.cast::<c_void>().cast_mut());
            ffi::clEnqueueWriteBuffer(
                raw,
                to.mem.as_ptr(),
                0,
                at,
                bytes,
                from,
                0,
                ptr::null(),
                ptr::null_mut(),
            )
        };
        check("clEnqueueWriteBuffer", code)
    }

    /// Starts the copy of `bytes` bytes of `region` from `offset` to `to`; the region is kept until [`Queue::finish`].
    pub(crate) fn write_from_region(
        &self,
        to: &Buffer<u8>,
        at: usize,
        region: &Arc<dyn HostRegion>,
        offset: usize,
        bytes: usize,
    ) -> Result<(), AcceleratorError> {
        if offset.checked_add(bytes).is_none_or(|end| end > region.bytes()) {
            return Err(AcceleratorError::OutOfRange {
                what: "host region",
                offset,
                count: bytes,
                len: region.bytes(),
            });
        }
        {
            let mut sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
            if !sources.iter().any(|kept| Arc::ptr_eq(kept, region)) {
                sources.push(region.clone());
            }
        }
        self.write_raw(to, at, (region.address() + offset) as *const u8, bytes)
    }

    /// Starts the copy of a part of `from`, which finishes its queue before it goes: give it the same queue.
    pub(crate) fn write_from_pinned(
        &self,
        to: &Buffer<u8>,
        at: usize,
        from: &Pinned,
        offset: usize,
        bytes: usize,
    ) -> Result<(), AcceleratorError> {
        from.buffer.check_range(offset, bytes)?;
        if !Arc::ptr_eq(&self.0, &from.queue.0) {
            return Err(AcceleratorError::ForeignQueue);
        }
        self.write_raw(to, at, from.start.wrapping_add(offset), bytes)
    }

    fn map_raw(
        &self,
        buffer: &Buffer<u8>,
        block: bool,
        flags: u64,
        offset: usize,
        bytes: usize,
    ) -> Result<*mut u8, AcceleratorError> {
        buffer.check_range(offset, bytes)?;
        if block {
            self.0.settle(deadline::left())?;
        }
        let mut code = 0;
        // SAFETY: checked range; nothing is read through the pointer in here.
        let start = unsafe {
            let (raw, mem, none) = (self.0.raw.as_ptr(), buffer.mem.as_ptr(), ptr::null_mut());
            ffi::clEnqueueMapBuffer(
                raw,
                mem,
                u32::from(block),
                flags,
                offset,
                bytes,
                0,
                ptr::null(),
                none,
                &mut code,
            )
        };
        check("clEnqueueMapBuffer", code)?;
        Ok(start.cast())
    }

    fn unmap_raw(&self, buffer: &Buffer<u8>, start: *mut u8) -> Result<(), AcceleratorError> {
        // SAFETY: `start` came from `map_raw` on this buffer; OpenCL refuses any other.
        let code = unsafe {
            let (raw, mem) = (self.0.raw.as_ptr(), buffer.mem.as_ptr());
            ffi::clEnqueueUnmapMemObject(raw, mem, start.cast(), 0, ptr::null(), ptr::null_mut())
        };
        check("clEnqueueUnmapMemObject", code)
    }

    /// Shows the device what the host wrote at `offset..offset + bytes` of a buffer over host memory, without a
    /// copy: maps the range as overwritten by the host and gives it back. Returns the address that it was mapped at.
    pub(crate) fn hand_over(
        &self,
        buffer: &Buffer<u8>,
        offset: usize,
        bytes: usize,
    ) -> Result<usize, AcceleratorError> {
        let start = self.map_raw(buffer, false, ffi::CL_MAP_WRITE_INVALIDATE_REGION, offset, bytes)?;
        self.unmap_raw(buffer, start)?;
        Ok(start as usize)
    }

    /// Lets the host read and write part of a buffer; waits for every command before it.
    pub(crate) fn map<'a, T: OclPrm>(
        &self,
        buffer: &'a mut Buffer<T>,
        offset: usize,
        count: usize,
    ) -> Result<Mapped<'a, T>, AcceleratorError> {
        let bytes = self.as_bytes(buffer);
        let (first, length) = (offset * size_of::<T>(), count * size_of::<T>());
        buffer.check_range(offset, count)?;
        let start = self.map_raw(&bytes, true, ffi::CL_MAP_READ | ffi::CL_MAP_WRITE, first, length)?;
        Ok(Mapped {
            start: start.cast(),
            count,
            bytes,
            queue: self.clone(),
            given_back: false,
            buffer: PhantomData,
        })
    }

    /// As [`Queue::map`], for a host that overwrites what is there.
    pub(crate) fn map_to_write<'a>(
        &self,
        buffer: &'a mut Buffer<u8>,
        offset: usize,
        count: usize,
    ) -> Result<Mapped<'a, u8>, AcceleratorError> {
        let bytes = self.as_bytes(buffer);
        let start = self.map_raw(&bytes, true, ffi::CL_MAP_WRITE_INVALIDATE_REGION, offset, count)?;
        Ok(Mapped {
            start,
            count,
            bytes,
            queue: self.clone(),
            given_back: false,
            buffer: PhantomData,
        })
    }

    fn as_bytes<T: OclPrm>(&self, buffer: &Buffer<T>) -> Buffer<u8> {
        Buffer {
            mem: buffer.mem.clone(),
            len: buffer.len * size_of::<T>(),
            pixel: PhantomData,
        }
    }

    /// Starts `kernel` over `global` work items in groups of `local`, with all its arguments in order.
    pub(crate) fn launch(
        &self,
        kernel: &mut Kernel,
        arguments: &[Arg<'_>],
        global: [usize; 3],
        local: [usize; 3],
    ) -> Result<(), AcceleratorError> {
        for (index, argument) in arguments.iter().enumerate() {
            kernel.set(index as u32, argument)?;
        }
        // SAFETY: rule 3: the kernel is ours and its arguments have been set in its host side's order.
        let done = unsafe {
            let (raw, kernel) = (&self.0.raw, &kernel.raw);
            core::enqueue_kernel(raw, kernel, 3, None, &global, Some(local), NO_EVENTS, NO_EVENT)
        };
        done.map_err(failed("clEnqueueNDRangeKernel"))
    }
}

/// Part of a buffer while the host may read and write it. Give it back with [`Mapped::unmap`], which reports
/// errors; dropping it gives it back, too, and cannot.
pub struct Mapped<'a, T: OclPrm> {
    start: *mut T,
    count: usize,
    bytes: Buffer<u8>,
    queue: Queue,
    given_back: bool,
    buffer: PhantomData<&'a mut Buffer<T>>,
}

impl<T: OclPrm> Mapped<'_, T> {
    /// Gives the range back to the device.
    pub fn unmap(mut self) -> Result<(), AcceleratorError> {
        self.given_back = true;
        self.queue.unmap_raw(&self.bytes, self.start.cast())
    }
}

impl<T: OclPrm> Drop for Mapped<'_, T> {
    fn drop(&mut self) {
        if !self.given_back {
            let _ = self.queue.unmap_raw(&self.bytes, self.start.cast());
        }
    }
}

impl<T: OclPrm> Deref for Mapped<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: mapped for reading over `count` values by a blocking call; `Accelerator::buffer` cleared the
        // memory when it was made; the buffer is borrowed uniquely meanwhile.
        unsafe { std::slice::from_raw_parts(self.start, self.count) }
    }
}

impl<T: OclPrm> DerefMut for Mapped<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and mapped for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.count) }
    }
}

/// One argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    /// device memory
    Memory(&'a Mem),
    /// `uint`
    U32(u32),
    /// `int`
    I32(i32),
    /// `float`
    F32(f32),
}

impl<'a, T: OclPrm> From<&'a Buffer<T>> for Arg<'a> {
    fn from(buffer: &'a Buffer<T>) -> Self {
        Arg::Memory(&buffer.mem)
    }
}

/// A kernel of a built program; launching needs it uniquely, because its arguments are set first.
pub(crate) struct Kernel {
    raw: core::Kernel,
}

impl Kernel {
    pub(crate) fn new(program: &RawProgram, name: &str) -> Result<Self, AcceleratorError> {
        core::create_kernel(program, name)
            .map(|raw| Self { raw })
            .map_err(|error| AcceleratorError::Kernel {
                name: name.into(),
                reason: failed("")(error).to_string(),
            })
    }

    fn set(&mut self, index: u32, argument: &Arg<'_>) -> Result<(), AcceleratorError> {
        let value = match argument {
            Arg::Memory(mem) => ArgVal::mem(mem),
            Arg::U32(value) => ArgVal::scalar(value),
            Arg::I32(value) => ArgVal::scalar(value),
            Arg::F32(value) => ArgVal::scalar(value),
        };
        core::set_kernel_arg(&self.raw, index, value).map_err(failed("clSetKernelArg"))
    }
}
