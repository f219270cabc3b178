//! Results beside the data, so that a crash does not cost them: `.results.bin`, one record per result as it comes, until the run
//! is closed.
//!
//! What libhdf5 holds of a file that it writes is of no use after a crash. So every result is appended here, too, which takes it
//! out of the process, and the thread that makes frames safe syncs it at least twice a second. At the next start the results are put into the
//! master file. Records have one length, that of the run's layout; one that is torn or rotten costs itself. Little-endian:
//!
//! ```text
//!  0  CRC32C        of the rest, begun with the run's tag
//!  4  parameters version
//!  8  frame
//! 16  result latency, ns (u32)
//! 20  flags         1: the frame lacked parts, 2: the recipe decided against storing it
//! 21  frame kind, 2 bytes of zeros
//! 24  angle, degrees (f64)
//! 32  scalars (f64), then curves (f32), in the order of the layout
//! ```

use super::error::{At, StoreError};
use super::io;
use driver::clock::monotonic_ns;
use frame::{FrameKind, FrameResult, ResultLayout};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use zerocopy::IntoBytes;

// Numbers go into the record as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// Name of the file in the run's folder.
pub(super) const FILE_NAME: &str = ".results.bin";
const HEAD_BYTES: usize = 32;
const PARTIAL: u8 = 1;
const VETOED: u8 = 2;
/// Bytes that are read at once.
const READ_BYTES: usize = 4 << 20;

/// Bytes of a record.
fn record_bytes(layout: &ResultLayout) -> usize {
    HEAD_BYTES + layout.frame_bytes() as usize
}

fn seed(tag: u64) -> u32 {
    crc32c::crc32c(&tag.to_le_bytes())
}

/// The side of the thread that has the results.
#[derive(Debug)]
pub(super) struct ResultsJournal {
    durable: Arc<Durable>,
    seed: u32,
    record: Vec<u8>,
    offset: u64,
}

/// The side of the thread that syncs.
#[derive(Debug)]
pub(super) struct Durable {
    file: File,
    path: PathBuf,
    /// results in the file, and those that a sync has covered
    written: AtomicU64,
    synced: AtomicU64,
    /// since when one waits for a sync; 0: none does
    oldest_ns: AtomicU64,
    /// the disk has refused something here: nothing more is written, or asked of it
    failed: AtomicBool,
}

impl ResultsJournal {
    /// Creates the file; none for a recipe without results.
    pub(super) fn create(folder: &Path, layout: &ResultLayout, tag: u64) -> Result<Option<Self>, StoreError> {
        if layout.frame_bytes() == 0 {
            return Ok(None);
        }
        let path = folder.join(FILE_NAME);
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = made.map_err(|source| StoreError::io("creating", &path, source, 0))?;
        Ok(Some(Self {
            durable: Arc::new(Durable {
                file,
                path,
                written: AtomicU64::new(0),
                synced: AtomicU64::new(0),
                oldest_ns: AtomicU64::new(0),
                failed: AtomicBool::new(false),
            }),
            seed: seed(tag),
            record: Vec::with_capacity(record_bytes(layout)),
            offset: 0,
        }))
    }

    /// For the thread that syncs.
    pub(super) fn durable(&self) -> Arc<Durable> {
        self.durable.clone()
    }

    /// Appends a result. Allocates nothing. After a failure nothing more is appended.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::DiskFull`], once.
    pub(super) fn append(&mut self, result: &FrameResult) -> Result<(), StoreError> {
        let durable = &*self.durable;
        if durable.failed.load(Relaxed) {
            return Ok(());
        }
        let record = &mut self.record;
        record.clear();
        let latency_ns = result.result_time_ns.saturating_sub(result.arrival_time_ns);
        let flags = u8::from(result.partial) * PARTIAL + u8::from(result.vetoed) * VETOED;
        record.extend([0; 4]);
        record.extend(result.parameters_version.to_le_bytes());
        record.extend(result.frame_number.to_le_bytes());
        record.extend(u32::try_from(latency_ns).unwrap_or(u32::MAX).to_le_bytes());
        record.extend([flags, result.kind as u8, 0, 0]);
        record.extend(result.angle_deg.to_le_bytes());
        record.extend_from_slice(result.scalars.as_bytes());
        for curve in &result.curves {
            record.extend_from_slice(curve.as_bytes());
        }
        let crc = crc32c::crc32c_append(self.seed, &record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        if let Err(source) = durable.file.write_all_at(record, self.offset) {
            durable.failed.store(true, Relaxed);
            let bytes = record.len() as u64;
            return Err(StoreError::io("keeping results safe in", &durable.path, source, bytes));
        }
        self.offset += record.len() as u64;
        durable.written.fetch_add(1, SeqCst);
        let _ = durable.oldest_ns.compare_exchange(0, monotonic_ns(), SeqCst, Relaxed);
        Ok(())
    }
}

impl Durable {
    /// When a sync must begin so that no result waits longer than `after_ns`; none while nothing waits.
    pub(super) fn due_ns(&self, after_ns: u64) -> Option<u64> {
        let oldest_ns = self.oldest_ns.load(Relaxed);
        (oldest_ns > 0 && !self.failed.load(Relaxed)).then_some(oldest_ns + after_ns)
    }

    /// Makes safe what was appended so far; how many results that are. A sync that failed is never repeated.
    pub(super) fn sync(&self) -> Result<u64, StoreError> {
        self.oldest_ns.store(0, SeqCst);
        let written = self.written.load(SeqCst);
        if self.failed.load(Relaxed) {
            return Ok(0);
        }
        if let Err(source) = self.file.sync_data().and_then(|()| io::still_there(&self.file)) {
            self.failed.store(true, Relaxed);
            return Err(StoreError::io("syncing", &self.path, source, 0));
        }
        Ok(written - self.synced.swap(written, Relaxed))
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// records as they were written
    pub(super) results: u64,
    /// records that are not, although later ones are: bit rot
    pub(super) damaged: u64,
}

/// Hands every result of an interrupted run to `each`, in the order in which they came. Latency is all that is known of its times.
/// What was cut off at the end is left out.
pub(super) fn read(
    folder: &Path,
    layout: &ResultLayout,
    tag: u64,
    each: &mut dyn FnMut(&FrameResult) -> Result<(), StoreError>,
) -> Result<Found, StoreError> {
    let path = folder.join(FILE_NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::default()),
        opened => opened.at("opening", &path)?,
    };
    let whole = file.metadata().at("looking at", &path)?.len() / record_bytes(layout) as u64;
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut record = vec![0; record_bytes(layout)];
    let mut result = FrameResult::empty(layout);
    let (mut found, mut bad) = (Found::default(), 0);
    for _ in 0..whole {
        reader.read_exact(&mut record).at("reading", &path)?;
        if u32::from_le_bytes(get(&record, 0)) != crc32c::crc32c_append(seed(tag), &record[4..]) {
            bad += 1;
            continue;
        }
        found.damaged += std::mem::take(&mut bad);
        found.results += 1;
        decode(&record, &mut result);
        each(&result)?;
    }
    Ok(found)
}

fn decode(record: &[u8], result: &mut FrameResult) {
    result.parameters_version = u32::from_le_bytes(get(record, 4));
    result.frame_number = u64::from_le_bytes(get(record, 8));
    result.arrival_time_ns = 0;
    result.result_time_ns = u32::from_le_bytes(get(record, 16)).into();
    result.partial = record[20] & PARTIAL != 0;
    result.vetoed = record[20] & VETOED != 0;
    result.kind = FrameKind::from_code(record[21]).unwrap_or(FrameKind::Invalid);
    result.angle_deg = f64::from_le_bytes(get(record, 24));
    let (scalars, curves) = record[HEAD_BYTES..].split_at(8 * result.scalars.len());
    for (value, bytes) in result.scalars.iter_mut().zip(scalars.as_chunks().0) {
        *value = f64::from_le_bytes(*bytes);
    }
    let values = result.curves.iter_mut().flat_map(|curve| curve.iter_mut());
    for (value, bytes) in values.zip(curves.as_chunks().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> ResultLayout {
        let mut layout = ResultLayout::default();
        layout.scalar("sum", "counts");
        layout.scalar("peaks", "");
        layout.curve("intensity", "counts", 5);
        layout
    }

    fn result(frame: u64) -> FrameResult {
        let mut result = FrameResult::empty(&layout());
        result.frame_number = frame;
        result.parameters_version = 1 + frame as u32 % 3;
        result.partial = frame.is_multiple_of(4);
        result.vetoed = frame % 5 == 1;
        result.angle_deg = frame as f64 / 8.0;
        (result.arrival_time_ns, result.result_time_ns) = (1000 * frame, 1000 * frame + 77 + frame);
        result.scalars = [frame as f64, f64::NAN].into();
        for (at, value) in result.curves[0].iter_mut().enumerate() {
            *value = (10 * frame) as f32 + at as f32;
        }
        result
    }

    fn found(folder: &Path, tag: u64) -> (Vec<u64>, Found) {
        let mut frames = Vec::new();
        let said = read(folder, &layout(), tag, &mut |found| {
            let expected = result(found.frame_number);
            assert_eq!(found.parameters_version, expected.parameters_version);
            assert_eq!((found.partial, found.vetoed), (expected.partial, expected.vetoed));
            assert_eq!(found.angle_deg, expected.angle_deg);
            assert_eq!(found.result_time_ns, 77 + found.frame_number);
            assert!(found.scalars[0] == expected.scalars[0] && found.scalars[1].is_nan());
            assert_eq!(found.curves, expected.curves);
            frames.push(found.frame_number);
            Ok(())
        });
        (frames, said.unwrap())
    }

    #[test]
    fn what_was_appended_is_found_and_what_is_torn_or_rotten_costs_itself() {
        let folder = std::env::temp_dir().join(format!("fluxline-results-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(FILE_NAME);
        let _ = std::fs::remove_file(&path);
        assert_eq!(found(&folder, 7).1, Found::default());
        assert!(
            ResultsJournal::create(&folder, &ResultLayout::default(), 7)
                .unwrap()
                .is_none()
        );
        let mut journal = ResultsJournal::create(&folder, &layout(), 7).unwrap().unwrap();
        let durable = journal.durable();
        assert_eq!((durable.due_ns(5), durable.sync().unwrap()), (None, 0));
        for frame in 0..20 {
            journal.append(&result(frame)).unwrap();
        }
        assert!(durable.due_ns(5).is_some());
        assert_eq!((durable.sync().unwrap(), durable.due_ns(5)), (20, None));
        let all: Vec<u64> = (0..20).collect();
        let good = Found {
            results: 20,
            damaged: 0,
        };
        assert_eq!(found(&folder, 7), (all.clone(), good));
        assert_eq!(found(&folder, 8).1, Found::default(), "another run's");
        // Cut anywhere, the records before it are there.
        let bytes = std::fs::read(&path).unwrap();
        let length = bytes.len() / 20;
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(found(&folder, 7).0, all[..cut / length], "{cut}");
        }
        // A flipped bit costs one record, wherever it is; at the end it counts as torn.
        for at in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 4;
            std::fs::write(&path, &rotten).unwrap();
            let (frames, said) = found(&folder, 7);
            let hit = (at / length) as u64;
            assert_eq!(
                frames,
                all.iter().copied().filter(|frame| *frame != hit).collect::<Vec<_>>()
            );
            assert_eq!((said.results, said.damaged), (19, u64::from(hit != 19)));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
