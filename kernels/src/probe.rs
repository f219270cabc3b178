//! Shows where a device reads frames: zero copy is measured, not claimed.

use crate::accelerator::{Accelerator, AcceleratorError, PROBE_SOURCE};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::stager::DeviceBatch;

/// Asks the device for the address at which it reads each frame of a batch.
pub struct AddressProbe {
    kernel: Kernel,
    seen: Buffer<u64>,
    seen_host: Vec<u64>,
}

impl AddressProbe {
    /// For batches of up to `batch_limit` frames.
    pub fn new(accelerator: &Accelerator, batch_limit: usize) -> Result<Self, AcceleratorError> {
        let program = accelerator.program("probe", PROBE_SOURCE, "")?;
        Ok(Self {
            kernel: program.kernel("probe_addresses")?,
            seen: accelerator.buffer(batch_limit)?,
            seen_host: vec![0; batch_limit],
        })
    }

    /// Addresses by number of frame. On a device that shares memory, zero copy means that they are the host's own.
    pub fn addresses(&mut self, queue: &Queue, batch: &DeviceBatch) -> Result<&[u64], AcceleratorError> {
        batch.check(batch.frame_bytes(), self.seen_host.len())?;
        for (frames, group) in batch.groups() {
            let first = Arg::U32(group.first as u32);
            let arguments = [frames.into(), batch.offsets().into(), first, (&self.seen).into()];
            queue.launch(&mut self.kernel, &arguments, [group.count, 1, 1], [1; 3])?;
        }
        let seen = &mut self.seen_host[..batch.frames()];
        queue.read(&self.seen, 0, seen)?;
        Ok(seen)
    }
}
