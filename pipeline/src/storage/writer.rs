//! The run's writer: everything is created before frame 0, frames and results go in without allocation, and
//! the files are closed, verified, synced and described at the end. Frames go through threads of their own
//! (`frame_writer`, `keeper`); results go through libhdf5, on the thread that owns this.

use super::codec;
use super::data_files::{DataFiles, FRAMES, FrameFormat};
use super::disk_watch::DiskWatch;
use super::error::{At, StoreError};
use super::facts::Facts;
use super::frame_writer::{self, Common, Done, Job, Payload};
use super::io::Aligned;
use super::journal::Journal;
use super::journal_file::{self, JournalFile};
use super::keeper::{Keeper, NoOutcomes, Outcomes};
use super::master::{self, Frames, Master};
use super::reserve::Reserve;
use super::results_journal::ResultsJournal;
use super::run_json::{self, RunRecord};
use super::start::{START_MASTER, Start};
use super::{
    CurveAxis, DatasetInfo, LedgerColumns, RunEnd, RunInfo, Store, WriterConfig, h5, read, results, seal, state_jsonl,
};
use crossbeam_channel::{Sender, bounded};
use driver::memory::FrameLease;
use frame::codec::Beneath;
use frame::{Compression, FrameHeader, FrameKind, FrameResult, Image, PixelType, ResultLayout, StreamDescription};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Frames that may wait for a thread; never more than a ring has slots.
const JOBS_MAX: usize = 4096;
/// Threads that write, unless the configuration says otherwise: so many writes are on their way to the disk at once.
const THREADS: usize = 4;
/// Readers of a run that records see what is older than this.
const SHOW_AFTER_NS: u64 = 1_000_000_000;
/// Frames that were written and wait to be made safe, while a sync goes on.
const DONE_MAX: usize = 1 << 15;

/// Writes one run. Not shared: one thread owns it while the run records.
#[derive(Debug)]
pub struct RunWriter {
    folder: PathBuf,
    master_path: PathBuf,
    info: RunInfo,
    layout: ResultLayout,
    format: FrameFormat,
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    master: Master,
    reserve: Reserve,
    store_frames: bool,
    common: Arc<Common>,
    thread_count: usize,
    /// where results are safe from a crash, for recipes that have any
    results: Option<ResultsJournal>,
    /// before the threads are started, and after they have ended
    safe: Option<Safe>,
    threads: Option<Threads>,
}

/// The journal, and the frames that it knows.
#[derive(Debug)]
struct Safe {
    journal_file: JournalFile,
    frames: Frames,
}

/// The threads, and the queue that they end with.
#[derive(Debug)]
struct Threads {
    jobs: Sender<Job>,
    disk: Vec<JoinHandle<()>>,
    keeper: JoinHandle<Keeper>,
}

impl RunWriter {
    /// Creates the run's folder and all of its files and datasets. When it fails nothing is left behind.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::RunExists`], [`StoreError::Description`] for what no file can be made
    /// of, [`StoreError::ReadOnly`], [`StoreError::DiskFull`], [`StoreError::Io`], [`StoreError::Hdf5`].
    pub fn create(
        store: &Store,
        info: &RunInfo,
        stream: &StreamDescription,
        layout: &ResultLayout,
        axes: &[CurveAxis],
        config: &WriterConfig,
    ) -> Result<RunWriter, StoreError> {
        check(info, stream, config)?;
        let folder = store.make_run(info)?;
        Self::create_in(folder.clone(), info, stream, layout, axes, config).inspect_err(|_| {
            // Nothing but empty files of our own is in there. What cannot be removed stays, without run.json.
            let _ = fs::remove_dir_all(&folder);
        })
    }

    fn create_in(
        folder: PathBuf,
        info: &RunInfo,
        stream: &StreamDescription,
        layout: &ResultLayout,
        axes: &[CurveAxis],
        config: &WriterConfig,
    ) -> Result<RunWriter, StoreError> {
        h5::register_bitshuffle().at("registering filter 32008 for", &folder)?;
        let format = FrameFormat {
            shape: stream.shape,
            pixel_type: stream.pixel_type,
            filter: Beneath::of(stream.compression).or(config.compress.then_some(Beneath::Lz4)),
            frames: stream.frames_expected,
            frames_per_file: config.frames_per_file,
        };
        let creating = Start::begin(&folder)?;
        state_jsonl::append_state(&folder, "recording", serde_json::json!({}))?;
        let data = DataFiles::create(&folder, &info.id, format)?;
        let files = std::iter::once(folder.join(format!("{}_master.h5", info.id)))
            .chain(data.paths().map(Path::to_path_buf))
            .collect::<Vec<_>>();
        let master_path = files[0].clone();
        let facts = Facts::new(stream, config.geometry.as_ref());
        let made = master::create(&master_path, info, stream, layout, axes, &facts, format)?;
        let end = RunEnd {
            state: "recording".into(),
            end_time: info.start_time,
            counts: serde_json::Value::Null,
            summary: serde_json::Value::Null,
            metadata: Vec::new(),
            grid: None,
        };
        let record = RunRecord::new(info, end, Vec::new(), made.warnings.clone());
        let results = (layout, config.store_frames);
        let start = Start::new(record, format, made.per_frame, made.end_estimated, results);
        // One copy stays closed, for a start that has to finish the run.
        let kept = folder.join(START_MASTER);
        fs::rename(&master_path, &kept).at("renaming to", &kept)?;
        fs::File::open(&kept)
            .and_then(|file| file.sync_all())
            .at("syncing", &kept)?;
        fs::copy(&kept, &master_path).at("copying to", &master_path)?;
        let master = Master::begin(&master_path, format, &start, axes)?;
        let expected = stream.frames_expected as usize;
        let known = |index: usize| stream.kinds.get(index).copied().unwrap_or(FrameKind::Sample) as u8;
        let frames = Frames {
            stored: vec![false; expected],
            kinds: (0..expected).map(known).collect(),
            angles_deg: (0..expected)
                .map(|i| stream.angles_deg.get(i).copied().unwrap_or(f64::NAN))
                .collect(),
        };
        // What comes unpacked into a file of Zstandard chunks is stored as it is: Zstandard is not made here.
        let compress = config.compress && format.filter == Some(Beneath::Lz4);
        let (info, layout) = (info.clone(), layout.clone());
        let reserve = Reserve::take(&folder, format.frames)?;
        let journal_file = JournalFile::create(&folder, &info.id, format.frames)?;
        let tag = journal_file::tag(&info.proposal, &info.id, info.start_time);
        let results = ResultsJournal::create(&folder, &layout, tag)?;
        start.publish(&folder)?;
        drop(creating);
        let thread_count = match config.threads {
            0 => THREADS,
            threads => threads,
        };
        Ok(RunWriter {
            folder,
            master_path,
            info,
            layout,
            format,
            files,
            warnings: made.warnings,
            master,
            reserve,
            common: Arc::new(Common::new(data, compress)),
            thread_count,
            results,
            safe: Some(Safe { journal_file, frames }),
            threads: None,
            store_frames: config.store_frames,
        })
    }

    /// Whether frames are stored; those of a derived run stay where they are.
    pub fn stores_frames(&self) -> bool {
        self.store_frames
    }

    /// Starts the threads that write, compress and sync; `outcomes` hears what becomes of every frame. Without this they
    /// start with the first frame, and nobody hears.
    ///
    /// # Errors
    /// [`StoreError::Io`] where no thread can be started.
    pub fn begin(&mut self, outcomes: Arc<dyn Outcomes>) -> Result<(), StoreError> {
        if self.threads.is_some() {
            return Ok(());
        }
        let Some(Safe { journal_file, frames }) = self.safe.take() else {
            return Err(self.ended());
        };
        let (jobs, to_do) = bounded::<Job>(JOBS_MAX);
        let (done, to_keeper) = bounded::<Done>(DONE_MAX);
        let disk = frame_writer::start(&self.common, &to_do, &done, self.thread_count, &self.folder)?;
        let tag = journal_file::tag(&self.info.proposal, &self.info.id, self.info.start_time);
        let journal = Journal::new(tag, DONE_MAX);
        let results = self.results.as_ref().map(ResultsJournal::durable);
        let keeper = Keeper::new(self.common.clone(), journal, journal_file, frames, results, outcomes);
        let keeper = std::thread::Builder::new()
            .name("fluxline-sync".into())
            .spawn(move || keeper.serve(&to_keeper))
            .at("starting a thread for", &self.folder)?;
        self.threads = Some(Threads { jobs, disk, keeper });
        Ok(())
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The master file, then every data file, as they are planned.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Values that the definition requires and that nobody told; they are in the file as NaN or `unknown`.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every dataset that the run writes per frame: the frames in the master and in each data file, scalars, curves.
    pub fn datasets(&self) -> Vec<DatasetInfo> {
        let FrameFormat {
            shape,
            pixel_type,
            frames,
            frames_per_file,
            ..
        } = self.format;
        let (rows, columns) = (shape.rows as u64, shape.columns as u64);
        let info = |file: &Path, path: String, shape: Vec<u64>, dtype: &str, chunk_shape: Vec<u64>| DatasetInfo {
            file: file.display().to_string(),
            path,
            shape,
            dtype: dtype.into(),
            chunk_shape,
        };
        let pixels = |file: &Path, frames| {
            let chunk = vec![1, rows, columns];
            info(
                file,
                FRAMES.into(),
                vec![frames, rows, columns],
                pixel_type.numpy_descr(),
                chunk,
            )
        };
        let data = self.files[1..]
            .iter()
            .zip(0u64..)
            .map(|(file, index)| pixels(file, frames_per_file.min(frames - index * frames_per_file)));
        let scalars = self.layout.scalars.iter().map(|scalar| {
            let path = results::scalar_path(&scalar.name);
            info(
                &self.master_path,
                path,
                vec![frames],
                "<f8",
                vec![results::column_chunk(frames)],
            )
        });
        let block_rows = self.master.block_rows();
        let curves = self.layout.curves.iter().map(|curve| {
            let path = results::curve_path(&curve.name);
            let of = |rows: u64, inner: Vec<u64>| [vec![rows], inner].concat();
            let (chunk_rows, inner) = match curve.rows {
                1 => (block_rows, vec![curve.length as u64]),
                rows => (1, vec![rows as u64, (curve.length / rows) as u64]),
            };
            let (shape, chunk) = (of(frames, inner.clone()), of(chunk_rows, inner));
            info(&self.master_path, path, shape, "<f4", chunk)
        });
        std::iter::once(pixels(&self.master_path, frames))
            .chain(data)
            .chain(scalars)
            .chain(curves)
            .collect()
    }

    /// Hands a frame over to be stored under its number, from where it lies. A compressed payload is passed through as it
    /// is; an uncompressed one is compressed where the run says so. Allocates nothing. What becomes of the frame
    /// is told to the [`Outcomes`] of [`RunWriter::begin`].
    ///
    /// # Errors
    /// [`StoreError::FrameNumber`], [`StoreError::FrameMismatch`] when shape, type or size differ from the
    /// stream; the frame is not taken then.
    pub fn store(&mut self, lease: FrameLease) -> Result<(), StoreError> {
        self.check_frame(lease.header(), lease.payload())?;
        self.submit(frame_writer::job_of(lease))
    }

    /// Stores a copy of one frame and waits until it is written, though not yet synced.
    ///
    /// # Errors
    /// As [`RunWriter::store`], and [`StoreError::Codec`], [`StoreError::DiskFull`], [`StoreError::Io`]. The other frames
    /// are untouched.
    pub fn write_frame(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), StoreError> {
        self.check_frame(header, payload)?;
        let mut copy = Aligned::new(payload.len());
        copy.bytes_mut()[..payload.len()].copy_from_slice(payload);
        let (reply, answer) = bounded(1);
        self.submit(Job {
            chunk: frame_writer::chunk_of(header),
            packed: header.compression != Compression::None as u8,
            payload: Payload::Copy(copy, payload.len()),
            reply: Some(reply),
        })?;
        answer.recv().unwrap_or_else(|_| Err(self.ended()))
    }

    fn submit(&mut self, job: Job) -> Result<(), StoreError> {
        if self.threads.is_none() {
            self.begin(Arc::new(NoOutcomes))?;
        }
        let Some(threads) = &self.threads else {
            return Err(self.ended());
        };
        self.common.writes.begin();
        threads.jobs.send(job).map_err(|_| self.ended())
    }

    /// Tells whether the disk stands still, to a thread that does not wait for it.
    pub fn disk(&self) -> DiskWatch {
        DiskWatch::new(self.common.clone())
    }

    fn ended(&self) -> StoreError {
        ended(&self.folder)
    }

    /// Waits until every frame that was handed over is safe or has failed. No frame is taken any more.
    ///
    /// # Errors
    /// [`StoreError::Io`] where a thread has panicked.
    pub fn drain(&mut self) -> Result<(), StoreError> {
        let Some(Threads { jobs, disk, keeper }) = self.threads.take() else {
            return Ok(());
        };
        drop(jobs);
        let panicked = disk.into_iter().filter_map(|thread| thread.join().err()).count();
        let Ok(keeper) = keeper.join() else {
            return Err(self.ended());
        };
        self.safe = Some(Safe {
            journal_file: keeper.journal_file,
            frames: keeper.frames,
        });
        if panicked > 0 { Err(self.ended()) } else { Ok(()) }
    }

    /// Stores one result under its frame's number; rows are buffered and written in blocks. Allocates nothing.
    ///
    /// # Errors
    /// [`StoreError::FrameNumber`], [`StoreError::ResultLayout`], [`StoreError::DiskFull`], [`StoreError::Hdf5`].
    pub fn write_result(&mut self, result: &FrameResult) -> Result<(), StoreError> {
        self.master.write_result(result)
    }

    /// Takes a result that [`RunWriter::write_result`] has taken out of the process, so that a crash does not cost it;
    /// [`Outcomes::results_synced`] tells when a power cut does not either. Allocates nothing. After a failure, which is
    /// told once, nothing more is kept like this.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn keep_result(&mut self, result: &FrameResult) -> Result<(), StoreError> {
        self.results.as_mut().map_or(Ok(()), |results| results.append(result))
    }

    /// Whether it is time for [`RunWriter::show`], and so to bring what it is to show.
    pub fn show_is_due(&self) -> bool {
        !self.master.shown_within(SHOW_AFTER_NS)
    }

    /// Rows of the ledger, from row `first` on, for readers of the master file (SWMR). Those of the end are written by
    /// [`RunWriter::finish`]. Allocates nothing.
    ///
    /// # Errors
    /// [`StoreError::Hdf5`], [`StoreError::DiskFull`].
    pub fn write_ledger(&mut self, first: u64, rows: &LedgerColumns<'_>) -> Result<(), StoreError> {
        self.master.write_ledger(first, rows)
    }

    /// Lets readers of the master file (SWMR) see what was written to it, once a second; whether there is something that
    /// they do not see yet. To be called again and again while the run records.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Hdf5`].
    pub fn show(&mut self) -> Result<bool, StoreError> {
        self.master.show(SHOW_AFTER_NS).map(|()| self.master.changed())
    }

    /// Notes which packets of a frame never came, one bit each. Allocates nothing.
    ///
    /// # Errors
    /// [`StoreError::Hdf5`], [`StoreError::DiskFull`].
    pub fn write_missing(&mut self, frame: u64, bits: &[u8]) -> Result<(), StoreError> {
        self.master.write_missing(frame, bits)
    }

    /// Takes the run back before its first frame: the folder is removed and its name is free again.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder cannot be removed.
    pub fn discard(mut self) -> Result<(), StoreError> {
        self.drain()?;
        let folder = self.folder.clone();
        drop(self);
        fs::remove_dir_all(&folder).at("removing", &folder)
    }

    /// Closes the run: results, ledger, final curves (name, values, unit) and images go into the master file, every
    /// file is closed, read back, synced and hashed, and `run.json` is written last, by rename. Returns the
    /// master file and the data files that are left.
    ///
    /// # Errors
    /// Any; the run then has no `run.json`, and its state says `failed`.
    pub fn finish(
        self,
        ledger: &LedgerColumns<'_>,
        images: &[Image],
        finals: &[(String, Vec<f32>, String)],
        end: RunEnd,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.folder.clone();
        self.close(ledger, images, finals, end).inspect_err(|error| {
            // The first error counts; where even this line cannot be written the missing run.json says enough.
            let _ = state_jsonl::append_state(&folder, "failed", serde_json::json!({ "error": error.to_string() }));
        })
    }

    fn close(
        mut self,
        ledger: &LedgerColumns<'_>,
        images: &[Image],
        finals: &[(String, Vec<f32>, String)],
        end: RunEnd,
    ) -> Result<Vec<PathBuf>, StoreError> {
        self.drain()?;
        self.reserve.release();
        let Some(Safe { journal_file, frames }) = self.safe else {
            return Err(ended(&self.folder));
        };
        let stored_end = frames
            .stored
            .iter()
            .rposition(|stored| *stored)
            .map_or(0, |last| last as u64 + 1);
        let kept = match end.state.as_str() {
            "complete" => self.format.frames,
            _ => stored_end.max(self.master.results_end()),
        };
        let (data, pieces) = {
            let mut files = self.common.files();
            (files.finish(kept), files.pieces(kept))
        };
        let master = self
            .master
            .finish((kept, &pieces), &frames, ledger, images, finals, &end);
        let data = data?;
        master?;
        let (master_path, folder, format) = (&self.master_path, &self.folder, &self.format);
        // Until `run.json` is there nobody else takes the run for one that was interrupted.
        let _closing = journal_file.lock()?;
        // The processor reads the run as others will while the disk takes the last of it.
        let (verified, synced) = std::thread::scope(|scope| {
            let verifying = scope.spawn(|| verify(master_path, kept, &frames, format));
            let synced = seal::seal(master_path).and_then(|master| {
                run_json::sync_folder(folder)?;
                Ok((master, journal_file.close()?))
            });
            (verifying.join(), synced)
        });
        verified.unwrap_or_else(|_| Err(ended(folder)))?;
        let (master, journal) = synced?;
        let mut records = vec![master];
        records.extend(data);
        let left = records.iter().map(|record| self.folder.join(&record.name)).collect();
        let mut record = RunRecord::new(&self.info, end, records, self.warnings);
        record.journal = journal;
        record.publish(&self.folder)?;
        Start::clear(&self.folder);
        Ok(left)
    }

    fn check_frame(&self, header: &FrameHeader, payload: &[u8]) -> Result<(), StoreError> {
        let frame = header.frame_number.get();
        let FrameFormat {
            shape,
            pixel_type,
            frames,
            ..
        } = self.format;
        if frame >= frames {
            return Err(StoreError::FrameNumber { frame, frames });
        }
        let differs = |what, found: String, expected: String| {
            Err(StoreError::FrameMismatch {
                frame,
                what,
                found,
                expected,
            })
        };
        if header.shape() != shape {
            return differs("shape", header.shape().to_string(), shape.to_string());
        }
        if header.pixel_type != pixel_type.code() {
            let found = PixelType::from_code(header.pixel_type).map_or("none", PixelType::numpy_name);
            return differs("pixel type", found.into(), pixel_type.numpy_name().into());
        }
        let frame_bytes = self.format.frame_bytes();
        match Compression::from_code(header.compression) {
            Some(Compression::None) if payload.len() == frame_bytes => Ok(()),
            Some(Compression::None) => differs(
                "a payload of",
                format!("{} bytes", payload.len()),
                format!("{frame_bytes} bytes"),
            ),
            Some(packed) if Beneath::of(packed) != self.format.filter => {
                let named = |beneath| match beneath {
                    None => "none",
                    Some(Beneath::Lz4) => "bitshuffle-LZ4",
                    Some(Beneath::Zstd) => "bitshuffle-Zstandard",
                };
                let (found, expected) = (Beneath::of(packed), self.format.filter);
                differs("compression", named(found).into(), named(expected).into())
            }
            Some(packed) => match codec::decompressed_bytes(payload, Beneath::of(packed).unwrap_or(Beneath::Lz4)) {
                Some(bytes) if bytes == frame_bytes => Ok(()),
                Some(bytes) => differs(
                    "a payload for",
                    format!("{bytes} bytes"),
                    format!("{frame_bytes} bytes"),
                ),
                None => differs(
                    "a payload",
                    "without a valid size".into(),
                    format!("{frame_bytes} bytes"),
                ),
            },
            None => differs("compression code", header.compression.to_string(), "0, 1 or 2".into()),
        }
    }
}

fn ended(folder: &Path) -> StoreError {
    let source = std::io::Error::other("the threads that write it have ended");
    StoreError::io("writing to", folder, source, 0)
}

/// What no file can be made of.
fn check(info: &RunInfo, stream: &StreamDescription, config: &WriterConfig) -> Result<(), StoreError> {
    let wrong = |field, value: String, expected| Err(StoreError::Description { field, value, expected });
    if !matches!(info.definition.as_str(), "NXmx" | "NXtomo") {
        return wrong(
            "the NeXus definition",
            format!("{:?}", info.definition),
            "NXmx or NXtomo",
        );
    }
    if stream.frames_expected == 0 {
        return wrong("the number of frames", "0".into(), "at least one");
    }
    if config.frames_per_file == 0 {
        return wrong("[store] frames_per_file", "0".into(), "at least one");
    }
    // libhdf5 keeps the bytes of a chunk in 32 bits.
    if stream.frame_bytes() == 0 || stream.frame_bytes() > u32::MAX as usize {
        return wrong(
            "the size of a frame",
            format!("{} pixels", stream.shape),
            "1 byte to 4 GiB",
        );
    }
    if let Some(mask) = stream.mask.as_ref().filter(|mask| mask.shape() != stream.shape) {
        return wrong("the mask's shape", mask.shape().to_string(), "the shape of a frame");
    }
    Ok(())
}

/// Opens the master file as a reader does: the first and the last frame, seen through it, are those in the data files.
fn verify(master: &Path, kept: u64, frames: &Frames, format: &FrameFormat) -> Result<(), StoreError> {
    let wrong = |reason: String| {
        Err(StoreError::Verify {
            path: master.to_path_buf(),
            reason,
        })
    };
    let expected = [kept as usize, format.shape.rows, format.shape.columns];
    let found = read::frames_shape(master)?;
    if found != expected {
        return wrong(format!("{FRAMES} has shape {found:?}, expected {expected:?}"));
    }
    let first = frames.stored.iter().position(|stored| *stored);
    let last = frames.stored.iter().rposition(|stored| *stored);
    for frame in first.into_iter().chain(last.filter(|last| Some(*last) != first)) {
        let (direct, ..) = read::read_frame(master, frame as u64)?;
        if !read::same_through_master(master, frame as u64, format.pixel_type, &direct)? {
            return wrong(format!("frame {frame} differs from the one in its data file"));
        }
    }
    Ok(())
}
