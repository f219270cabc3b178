//! Decoding and reducing at once, on the host: a compressed block is decoded into 8 KiB that stay in the processor's
//! cache, reduced there, and never written back to memory as pixels. Statistics and azimuthal integration without
//! splitting, for whole-number pixels, bit for bit what [`crate::Statistics`] and [`crate::AzimuthalIntegrator`] give:
//! sums of whole numbers are exact in any order, and the last division is the same.
//!
//! ```text
//! chunk ──LZ4──▶ bit planes (8 KiB) ──counting bits──▶ sum, maximum          no pixel is ever put together
//!                     │ only the bytes that hold something
//!                     ▼
//!               bytes of 16 frames ──side by side──▶ sums[bin][16 frames]    one vector addition for 16 pixels
//! ```
//!
//! Counts are small nearly everywhere: where no pixel of a block that takes part is above 255, its upper bytes are not
//! even transposed. Pixels that are saturated, negative, dummies or above 65535 are found by their bit planes and go one
//! by one, the others of their block do not: where nobody masked the gaps, every block has such pixels.
//!
//! A frame is shared out by blocks among threads that live as long as the reducer. Nothing is allocated after `new`,
//! but where a chunk has blocks larger than bitshuffle's own.

mod loops;
mod part;
mod tables;

use crate::accelerator::AcceleratorError;
use crate::azimuthal::AzimuthalConfig;
use crate::statistics::{FrameStatistics, StatisticsConfig};
use frame::codec::{Beneath, CodecError, Cursor, LANES};
use frame::{PixelMask, PixelType, Shape};
use part::Part;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tables::Tables;

/// Frames from which on they go side by side; fewer go one by one.
const LANES_WORTH: usize = 4;

/// Bytes of a frame that threads may share: cheap to clone.
pub trait Payload: Clone + Send + 'static {
    /// the frame's bytes as they came
    fn bytes(&self) -> &[u8];
    /// how they are compressed; `None`: pixels
    fn beneath(&self) -> Option<Beneath>;
}

/// What to reduce to.
#[derive(Clone, Debug, Default)]
pub struct FusedConfig {
    /// sums and maxima
    pub statistics: Option<StatisticsConfig>,
    /// curves
    pub azimuthal: Option<AzimuthalConfig>,
}

/// What became of one frame.
#[derive(Debug)]
pub struct FusedFrame<'a> {
    /// numbers; empty where none were asked for
    pub statistics: FrameStatistics,
    /// mean of each bin; empty where no curve was asked for
    pub intensity: &'a [f32],
    /// its standard error
    pub sigma: &'a [f32],
    /// pixels of each bin that took part
    pub count: &'a [f32],
}

/// A thread that takes parts and gives them back.
struct Helper<P: Payload> {
    to: Option<SyncSender<Box<Part<P>>>>,
    back: Receiver<Box<Part<P>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The operation; see the module.
pub struct FusedReducer<P: Payload> {
    tables: Arc<Tables>,
    /// one per thread, the first for the caller's own; `None` while a helper has it
    parts: Vec<Option<Box<Part<P>>>>,
    helpers: Vec<Helper<P>>,
    curves: Vec<f32>,
}

impl<P: Payload> FusedReducer<P> {
    /// Prepares tables and `threads` - 1 threads beside the caller's.
    pub fn new(
        config: &FusedConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        threads: usize,
    ) -> Result<Self, AcceleratorError> {
        let tables = Arc::new(Tables::new(config, shape, pixel_type, mask)?);
        let threads = threads.clamp(1, 64);
        let parts = (0..threads).map(|_| Some(Box::new(Part::new(&tables)))).collect();
        let helpers = (1..threads)
            .map(|number| helper(number, tables.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            curves: vec![0.0; 3 * tables.bins],
            tables,
            parts,
            helpers,
        })
    }

    /// Bin centres of the curve, in the configuration's unit.
    pub fn radial(&self) -> Vec<f64> {
        self.tables.radial.clone()
    }

    /// Threads that share the work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.parts.len()
    }

    /// Touches what this thread would otherwise make at the first frame.
    pub fn warm(&mut self) {
        for helper in &self.helpers {
            // Nothing comes: a thread that has waited once waits without allocating.
            let _ = helper.back.recv_timeout(Duration::from_millis(1));
        }
    }

    /// Reduces frames and hands each one's numbers, or why it could not be decoded, to `put`, in their order.
    pub fn run(
        &mut self,
        payloads: &[P],
        mut put: impl FnMut(usize, Result<FusedFrame<'_>, CodecError>),
    ) -> Result<(), AcceleratorError> {
        let mut first = 0;
        while first < payloads.len() {
            let count = self.alike(&payloads[first..]);
            // Side by side the unused places cost as much as the used ones.
            let count = if count < LANES_WORTH { 1 } else { count };
            self.group(&payloads[first..first + count])?;
            for lane in 0..count {
                let outcome = self.outcome(lane);
                put(first + lane, outcome);
            }
            first += count;
        }
        Ok(())
    }

    /// How many of the first frames have blocks of one size, and so can go side by side.
    fn alike(&self, payloads: &[P]) -> usize {
        let layout = |payload: &P| {
            let cursor = Cursor::new(
                payload.beneath()?,
                payload.bytes(),
                self.tables.pixel_bytes,
                self.tables.frame_bytes,
            );
            Some(cursor.ok()?.block_bytes())
        };
        let Some(first) = payloads.first().and_then(&layout) else {
            return 1;
        };
        let same = payloads.iter().take_while(|payload| layout(payload) == Some(first));
        same.take(LANES).count()
    }

    /// Sums a group on all threads.
    fn group(&mut self, payloads: &[P]) -> Result<(), AcceleratorError> {
        let ended = || AcceleratorError::Value {
            name: "fused",
            value: "a thread that has ended".into(),
            allowed: "threads that live as long as the reducer",
        };
        let threads = self.parts.len();
        for (number, part) in self.parts.iter_mut().enumerate() {
            let part = part.as_mut().ok_or_else(ended)?;
            part.prepare(payloads, number, threads);
        }
        let mut given = 0;
        for (helper, part) in self.helpers.iter().zip(&mut self.parts[1..]) {
            let (Some(to), Some(work)) = (&helper.to, part.take()) else {
                return Err(ended());
            };
            to.send(work).map_err(|_| ended())?;
            given += 1;
        }
        if let Some(own) = self.parts[0].as_mut() {
            own.sum(&self.tables);
        }
        for (helper, part) in self.helpers.iter().zip(&mut self.parts[1..]).take(given) {
            *part = Some(helper.back.recv().map_err(|_| ended())?);
        }
        Ok(())
    }

    /// Merges what the threads found of one frame.
    fn outcome(&mut self, lane: usize) -> Result<FusedFrame<'_>, CodecError> {
        let parts = || self.parts.iter().flatten();
        if let Some(error) = parts().find_map(|part| part.error(lane)) {
            return Err(error.clone());
        }
        let statistics = self.tables.numbers(parts().map(|part| part.counted(lane)));
        self.tables
            .curve(|bin| part::merged(parts(), lane, bin), &mut self.curves);
        let (intensity, rest) = self.curves.split_at(self.tables.bins);
        let (sigma, count) = rest.split_at(self.tables.bins);
        Ok(FusedFrame {
            statistics,
            intensity,
            sigma,
            count,
        })
    }
}

fn helper<P: Payload>(number: usize, tables: Arc<Tables>) -> Result<Helper<P>, AcceleratorError> {
    let (to, work) = sync_channel::<Box<Part<P>>>(1);
    let (done, back) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("fluxline-fused-{number}"))
        .spawn(move || {
            while let Ok(mut part) = work.recv() {
                part.sum(&tables);
                if done.send(part).is_err() {
                    break;
                }
            }
        });
    let thread = thread.map_err(|error| AcceleratorError::Value {
        name: "fused",
        value: format!("no thread could be started: {error}"),
        allowed: "a system that lets one more thread start",
    })?;
    Ok(Helper {
        to: Some(to),
        back,
        thread: Some(thread),
    })
}

impl<P: Payload> Drop for Helper<P> {
    fn drop(&mut self) {
        // The thread ends when nobody can send to it.
        self.to = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
