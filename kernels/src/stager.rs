//! Makes a micro-batch of frames visible to the device.
//!
//! ```text
//!              in the ring, as pixels             in the ring, compressed
//! zero copy    hand over (map + unmap), 0 copies  decode into mapped device memory, 0 copies
//! copy         ring ─▶ device staging, 1 copy     decode into pinned memory ─▶ device staging, 1 copy
//! ```
//!
//! Invariants: a batch's memory is touched again only after every command of the queue that it was finished on
//! has ended ([`Stager::begin`] waits); frames keep the order in which they were added; the caller holds the
//! frames' leases until it has the results.

use crate::accelerator::{Accelerator, AcceleratorError, MemoryMode};
use crate::host_memory::{Buffer, PAGE_BYTES, Pinned, Queue};
use frame::HostRegion;
use ocl::core::MemFlags;
use std::sync::Arc;
use std::time::Duration;

/// How long a stager that goes waits for the device.
const DROP_LIMIT: Duration = Duration::from_secs(1);
/// Frames in the ring start at multiples of this many bytes, so that a device may read vectors.
pub const FRAME_ALIGNMENT_BYTES: usize = 64;

/// Why a frame could not be added: the device's side or the caller's.
#[derive(Debug, thiserror::Error)]
pub enum AddError<E: std::error::Error + 'static> {
    /// the device's side
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// the caller's `fill` failed; the frame was not added
    #[error(transparent)]
    Fill(E),
}

/// Consecutive frames of a batch in one buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    window: usize,
    /// number of the first frame
    pub(crate) first: usize,
    /// number of frames
    pub(crate) count: usize,
}

/// Frames that the device can read, in the order in which they were added.
pub struct DeviceBatch {
    /// the ring in pieces that the device allows, then the staging memory
    windows: Vec<Buffer<u8>>,
    groups: Vec<Group>,
    offsets_host: Vec<u64>,
    offsets: Buffer<u64>,
    frame_bytes: usize,
}

impl DeviceBatch {
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.offsets_host.len()
    }

    /// Bytes of one decompressed frame.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Where the frames lie, buffer by buffer.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Buffer<u8>, Group)> {
        self.groups.iter().map(|group| (&self.windows[group.window], *group))
    }

    /// Where each frame starts in its buffer, bytes, by number of frame.
    pub(crate) fn offsets(&self) -> &Buffer<u64> {
        &self.offsets
    }

    /// Checks that an operation was prepared for these frames.
    pub(crate) fn check(&self, frame_bytes: usize, batch_limit: usize) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("a frame's size in bytes", self.frame_bytes, frame_bytes)?;
        if self.frames() > batch_limit {
            return Err(AcceleratorError::BatchFull { limit: batch_limit });
        }
        Ok(())
    }

    /// Frames in memory of their own, one after the other, which an operation fills.
    pub(crate) fn made(
        accelerator: &Accelerator,
        frame_bytes: usize,
        batch_limit: usize,
    ) -> Result<DeviceBatch, AcceleratorError> {
        let slot_bytes = frame_bytes.next_multiple_of(FRAME_ALIGNMENT_BYTES);
        let offsets: Vec<u64> = (0..batch_limit).map(|frame| (frame * slot_bytes) as u64).collect();
        Ok(Self {
            windows: vec![accelerator.buffer(slot_bytes * batch_limit)?],
            groups: Vec::with_capacity(1),
            offsets_host: Vec::with_capacity(batch_limit),
            offsets: accelerator.buffer_from(&offsets)?,
            frame_bytes,
        })
    }

    /// How many of a [`DeviceBatch::made`] one's frames are filled; allocates nothing.
    pub(crate) fn set_frames(&mut self, frames: usize) {
        self.groups.clear();
        self.offsets_host.clear();
        for frame in 0..frames {
            self.push(0, (frame * self.slot_bytes()) as u64);
        }
    }

    /// The memory of a [`DeviceBatch::made`] one.
    pub(crate) fn memory(&self) -> &Buffer<u8> {
        &self.windows[0]
    }

    /// Bytes from frame to frame of a [`DeviceBatch::made`] one.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.frame_bytes.next_multiple_of(FRAME_ALIGNMENT_BYTES)
    }

    /// Copies a frame to the host; waits for every command on `queue` before it.
    pub fn read_frame(&self, queue: &Queue, frame: usize, bytes: &mut [u8]) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("the room's size in bytes", bytes.len(), self.frame_bytes)?;
        let holds = |group: &&Group| (group.first..group.first + group.count).contains(&frame);
        let Some(group) = self.groups.iter().find(holds) else {
            let (what, len) = ("batch", self.frames());
            return Err(AcceleratorError::OutOfRange {
                what,
                offset: frame,
                count: 1,
                len,
            });
        };
        queue.read(&self.windows[group.window], self.offsets_host[frame] as usize, bytes)
    }

    fn push(&mut self, window: usize, offset: u64) {
        let first = self.offsets_host.len();
        self.offsets_host.push(offset);
        match self.groups.last_mut() {
            Some(group) if group.window == window => group.count += 1,
            _ => self.groups.push(Group {
                window,
                first,
                count: 1,
            }),
        }
    }
}

/// Stages micro-batches from one ring for one worker. To stage a batch while another is computed, use two.
pub struct Stager {
    region: Arc<dyn HostRegion>,
    /// transfers and mappings, apart from the worker's kernels
    queue: Queue,
    last: Option<Queue>,
    batch: DeviceBatch,
    batch_limit: usize,
    /// bytes from window to window; the windows of a ring larger than the device's limit overlap by a frame
    window_step: usize,
    /// number of ring windows; the staging memory's window comes next
    ring_windows: usize,
    pinned: Option<Pinned>,
    slot_bytes: usize,
    mode: MemoryMode,
    reason: Option<String>,
    copies: u64,
}

impl Stager {
    /// A stager for batches of up to `batch_limit` frames of `frame_bytes` bytes (decompressed) out of `region`.
    /// `decoded`: frames may need decoding, so [`Stager::add_decoded`] will be used.
    pub fn new(
        accelerator: &Accelerator,
        region: Arc<dyn HostRegion>,
        frame_bytes: usize,
        batch_limit: usize,
        decoded: bool,
    ) -> Result<Stager, AcceleratorError> {
        let limit = accelerator.info().max_alloc_bytes as usize;
        Self::with_limit(accelerator, region, frame_bytes, batch_limit, decoded, limit)
    }

    /// The same for a device whose buffers hold `limit` bytes at most.
    fn with_limit(
        accelerator: &Accelerator,
        region: Arc<dyn HostRegion>,
        frame_bytes: usize,
        batch_limit: usize,
        decoded: bool,
        limit: usize,
    ) -> Result<Stager, AcceleratorError> {
        if batch_limit == 0 || frame_bytes == 0 {
            let value = format!("{batch_limit} frames of {frame_bytes} bytes");
            return Err(AcceleratorError::Value {
                name: "batch",
                value,
                allowed: "at least 1 frame of 1 byte",
            });
        }
        let queue = accelerator.queue()?;
        let slot_bytes = frame_bytes.next_multiple_of(PAGE_BYTES);
        let limit = limit / PAGE_BYTES * PAGE_BYTES;
        let staging_bytes = slot_bytes.saturating_mul(batch_limit);
        let staged = decoded || accelerator.memory() == MemoryMode::Copy;
        if slot_bytes * 2 > limit || (staged && staging_bytes > limit) {
            let (needed, device) = (staging_bytes as u64, accelerator.info().name.clone());
            return Err(AcceleratorError::BufferTooLarge {
                needed,
                limit: limit as u64,
                device,
            });
        }
        let mut windows = Vec::new();
        let (mut mode, mut reason) = (accelerator.memory(), accelerator.memory_reason().map(str::to_owned));
        let window_step = if region.bytes() <= limit {
            limit
        } else {
            limit - slot_bytes
        };
        if mode == MemoryMode::ZeroCopy {
            match ring_windows(accelerator, &queue, &region, window_step, limit)? {
                Ok(ring) => windows = ring,
                Err(obstacle) if accelerator.config().memory == MemoryMode::ZeroCopy => {
                    let device = accelerator.info().name.clone();
                    return Err(AcceleratorError::ZeroCopy {
                        device,
                        reason: obstacle,
                    });
                }
                Err(obstacle) => (mode, reason) = (MemoryMode::Copy, Some(obstacle)),
            }
        }
        let ring_windows = windows.len();
        let mut pinned = None;
        if mode == MemoryMode::Copy {
            windows.push(accelerator.buffer(staging_bytes)?);
            if decoded {
                pinned = Some(Pinned::new(accelerator.context(), &queue, staging_bytes)?);
            }
        } else if decoded {
            let staging = Buffer::new(
                accelerator.context(),
                staging_bytes,
                MemFlags::new().read_write().alloc_host_ptr(),
            )?;
            queue.clear(&staging)?;
            windows.push(staging);
        }
        queue.finish()?;
        let batch = DeviceBatch {
            windows,
            groups: Vec::with_capacity(batch_limit),
            offsets_host: Vec::with_capacity(batch_limit),
            offsets: accelerator.buffer(batch_limit)?,
            frame_bytes,
        };
        let last = None;
        let copies = 0;
        Ok(Self {
            region,
            queue,
            last,
            batch,
            batch_limit,
            window_step,
            ring_windows,
            pinned,
            slot_bytes,
            mode,
            reason,
            copies,
        })
    }

    /// How frames reach the device here.
    pub fn memory(&self) -> MemoryMode {
        self.mode
    }

    /// Why frames are copied, where they are.
    pub fn memory_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Payload-sized copies made so far, one per frame at most.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// Frames per batch.
    pub fn batch_limit(&self) -> usize {
        self.batch_limit
    }

    /// Starts a new batch. Waits for commands on the last one.
    pub fn begin(&mut self) -> Result<(), AcceleratorError> {
        if let Some(last) = self.last.take() {
            last.finish()?;
        }
        // Transfers of a batch that was begun and never finished.
        self.queue.finish()?;
        self.batch.groups.clear();
        self.batch.offsets_host.clear();
        Ok(())
    }

    /// Adds the uncompressed frame that lies `payload_offset` bytes into the region.
    pub fn add_in_region(&mut self, payload_offset: usize) -> Result<(), AcceleratorError> {
        let (frame_bytes, slot) = (self.batch.frame_bytes, self.free_slot()?);
        if payload_offset
            .checked_add(frame_bytes)
            .is_none_or(|end| end > self.region.bytes())
        {
            let len = self.region.bytes();
            return Err(AcceleratorError::OutOfRange {
                what: "frame ring",
                offset: payload_offset,
                count: frame_bytes,
                len,
            });
        }
        if !payload_offset.is_multiple_of(FRAME_ALIGNMENT_BYTES) {
            let (offset, alignment) = (payload_offset, FRAME_ALIGNMENT_BYTES);
            return Err(AcceleratorError::Unaligned { offset, alignment });
        }
        if self.mode == MemoryMode::Copy {
            let at = slot * self.slot_bytes;
            self.queue
                .write_from_region(&self.batch.windows[0], at, &self.region, payload_offset, frame_bytes)?;
            self.queue.flush()?;
            self.copies += 1;
            self.batch.push(0, at as u64);
            return Ok(());
        }
        let window = (payload_offset / self.window_step).min(self.ring_windows - 1);
        let offset = payload_offset - window * self.window_step;
        self.queue.hand_over(&self.batch.windows[window], offset, frame_bytes)?;
        self.batch.push(window, offset as u64);
        Ok(())
    }

    /// Adds a frame that `fill` writes into a slice of one frame's size. In copy mode that slice is pinned host
    /// memory, which one copy follows; else it is the device's memory itself.
    pub fn add_decoded<E: std::error::Error + 'static>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), AddError<E>> {
        let (frame_bytes, slot) = (self.batch.frame_bytes, self.free_slot()?);
        let at = slot * self.slot_bytes;
        let window = self.ring_windows;
        let unprepared = || AcceleratorError::Mismatch {
            what: "a frame to decode",
            found: "added".into(),
            expected: "frames in the ring only (decoded = false)".into(),
        };
        if self.mode == MemoryMode::Copy {
            let pinned = self.pinned.as_mut().ok_or_else(unprepared)?;
            fill(pinned.slice_mut(at, frame_bytes)?).map_err(AddError::Fill)?;
            self.queue
                .write_from_pinned(&self.batch.windows[window], at, pinned, at, frame_bytes)?;
            self.queue.flush().map_err(AddError::Accelerator)?;
            self.copies += 1;
        } else {
            let staging = self.batch.windows.get_mut(window).ok_or_else(unprepared)?;
            let mut mapped = self.queue.map_to_write(staging, at, frame_bytes)?;
            let filled = fill(&mut mapped);
            mapped.unmap()?;
            filled.map_err(AddError::Fill)?;
        }
        self.batch.push(window, at as u64);
        Ok(())
    }

    /// Ends the batch: every frame is visible to commands on `queue` from here on.
    pub fn finish(&mut self, queue: &Queue) -> Result<&DeviceBatch, AcceleratorError> {
        self.queue.write(&self.batch.offsets, 0, &self.batch.offsets_host)?;
        self.queue.finish()?;
        self.last = Some(queue.clone());
        Ok(&self.batch)
    }

    /// The batch that was last finished.
    pub fn batch(&self) -> &DeviceBatch {
        &self.batch
    }

    fn free_slot(&self) -> Result<usize, AcceleratorError> {
        match self.batch.frames() {
            frames if frames < self.batch_limit => Ok(frames),
            _ => Err(AcceleratorError::BatchFull {
                limit: self.batch_limit,
            }),
        }
    }
}

impl Drop for Stager {
    fn drop(&mut self) {
        // An error has nobody left to report to; OpenCL keeps the memory as long as its commands may use it.
        let _ = crate::within(DROP_LIMIT, || self.begin());
    }
}

/// Device views of the whole ring, or why there can be none.
fn ring_windows(
    accelerator: &Accelerator,
    queue: &Queue,
    region: &Arc<dyn HostRegion>,
    step: usize,
    limit: usize,
) -> Result<Result<Vec<Buffer<u8>>, String>, AcceleratorError> {
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let bytes = (region.bytes() - start).min(limit);
        let window = match Buffer::over_region(accelerator.context(), region, start, bytes) {
            Ok(window) => window,
            Err(error) => return Ok(Err(format!("the device refuses the frame ring: {error}"))),
        };
        let (mapped, host) = (queue.hand_over(&window, 0, 1)?, region.address() + start);
        queue.finish()?;
        if mapped != host {
            return Ok(Err(format!("the frame ring at {host:#x} was mapped at {mapped:#x}")));
        }
        windows.push(window);
        if start + bytes == region.bytes() {
            return Ok(Ok(windows));
        }
        start += step;
    }
}

#[cfg(test)]
#[path = "stager_tests.rs"]
mod tests;
