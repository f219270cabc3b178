//! The thread that makes frames safe: it hears of every frame that was written, syncs data and journal at
//! least twice a second, says which frames are safe and which are not, and lets readers see them.

use super::error::StoreError;
use super::frame_writer::{Common, Done};
use super::head::Place;
use super::io::{Aligned, BLOCK_BYTES};
use super::journal::{Chunk, Journal, Record, SYNC_AFTER_NS};
use super::journal_file::JournalFile;
use super::master::Frames;
use super::results_journal::Durable;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use driver::clock::monotonic_ns;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// Segments of the journal that are tried, before its frames are given up.
const JOURNAL_TRIES: u32 = 3;
/// A write or sync that takes longer is slow; so many of a hundred for so long, and somebody should know.
const SLOW_NS: u64 = 100_000_000;
const SLOW_WINDOW_NS: u64 = 5_000_000_000;
/// After the disk was full, so much must be free before frames are written again.
const ROOM_BYTES: u64 = 64 << 20;

/// Who wants to know what became of the frames.
pub trait Outcomes: Send + Sync {
    /// `bytes` of payload were written, which took so many seconds; not safe yet
    fn written(&self, bytes: u64, seconds: f64);
    /// the frame is on the disk and the journal knows it (level L2)
    fn synced(&self, frame: u64);
    /// the frame is not stored
    fn failed(&self, frame: u64, error: &StoreError);
    /// so many more results survive a power cut, too
    fn results_synced(&self, results: u64);
    /// one sync of data and journal took so many seconds
    fn sync_took(&self, seconds: f64);
    /// something that somebody should know
    fn degraded(&self, text: String);
}

/// Nobody.
#[derive(Debug)]
pub(super) struct NoOutcomes;

impl Outcomes for NoOutcomes {
    fn written(&self, _: u64, _: f64) {}
    fn synced(&self, _: u64) {}
    fn failed(&self, _: u64, _: &StoreError) {}
    fn results_synced(&self, _: u64) {}
    fn sync_took(&self, _: f64) {}
    fn degraded(&self, _: String) {}
}

/// The thread's state.
pub(super) struct Keeper {
    pub(super) common: Arc<Common>,
    pub(super) journal: Journal,
    pub(super) journal_file: JournalFile,
    pub(super) outcomes: Arc<dyn Outcomes>,
    /// what is safe
    pub(super) frames: Frames,
    results: Option<Arc<Durable>>,
    spare: Aligned,
    slow: Slow,
}

/// How slow the disk is.
#[derive(Default)]
struct Slow {
    window_began_ns: u64,
    writes: u64,
    slow: u64,
}

impl Keeper {
    pub(super) fn new(
        common: Arc<Common>,
        journal: Journal,
        journal_file: JournalFile,
        frames: Frames,
        results: Option<Arc<Durable>>,
        outcomes: Arc<dyn Outcomes>,
    ) -> Self {
        Self {
            common,
            journal,
            journal_file,
            outcomes,
            frames,
            results,
            spare: Aligned::new(BLOCK_BYTES),
            slow: Slow::default(),
        }
    }

    /// Until every frame has been written or refused, and is safe or not.
    pub(super) fn serve(mut self, done: &Receiver<Done>) -> Self {
        self.slow.window_began_ns = monotonic_ns();
        loop {
            let now = monotonic_ns();
            let wait = self
                .journal
                .due_ns()
                .map_or(LOOK, |due| Duration::from_nanos(due.saturating_sub(now)).min(LOOK));
            match done.recv_timeout(wait) {
                Ok(done) => self.take(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = monotonic_ns();
            if self.journal.due_ns().is_some_and(|due| due <= now) {
                self.sync();
            }
            let results = self.results.as_ref().and_then(|results| results.due_ns(SYNC_AFTER_NS));
            if results.is_some_and(|due| due <= now) {
                self.sync_results();
            }
            self.watch(now);
        }
        while self.journal.waiting() > 0 {
            self.sync();
        }
        self.sync_results();
        self
    }

    /// Makes safe the results so far. Frames and the master file do not depend on it.
    fn sync_results(&self) {
        let Some(results) = &self.results else { return };
        self.common.syncs.begin();
        let synced = results.sync();
        self.common.syncs.end();
        match synced {
            Ok(synced) => self.outcomes.results_synced(synced),
            Err(error) => self.outcomes.degraded(results_not_kept(&error)),
        }
    }

    /// A frame was written, or was not.
    fn take(&mut self, done: Done) {
        let Done {
            chunk,
            result,
            reply,
            bytes,
            took_ns,
        } = done;
        let now = monotonic_ns();
        self.slow.writes += 1;
        self.slow.slow += u64::from(took_ns > SLOW_NS);
        self.outcomes
            .written(if result.is_ok() { bytes } else { 0 }, took_ns as f64 / 1e9);
        let replacements = {
            let mut files = self.common.files();
            if result.is_ok() {
                let place = Place {
                    offset: chunk.offset,
                    bytes: chunk.bytes,
                    filters_skipped: u32::from(chunk.filters_skipped),
                };
                files.files[chunk.file as usize].written(chunk.frame, place);
            }
            std::mem::take(&mut files.replacements)
        };
        for record in replacements {
            // Only a chunk is ever refused.
            let _ = self.journal.written(record, now);
            self.outcomes
                .degraded("the disk refused a data file: another one goes on in its place".into());
        }
        match &result {
            Ok(()) if self.journal.written(Record::Chunk(chunk), now) => {}
            Ok(()) => self.lost(&[chunk], &refused(&self.common, chunk.file)),
            Err(error) => self.outcomes.failed(chunk.frame, error),
        }
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }

    /// These chunks do not count, although they were written.
    fn lost(&self, chunks: &[Chunk], error: &StoreError) {
        let mut files = self.common.files();
        for chunk in chunks {
            files.files[chunk.file as usize].unwritten(chunk.frame);
            self.outcomes.failed(chunk.frame, error);
        }
    }

    /// Makes safe what was written so far.
    fn sync(&mut self) {
        let Some(sync) = self.journal.begin() else { return };
        self.common.syncs.begin();
        let begun = monotonic_ns();
        for file in &sync.files {
            let disk = self.common.files().files[*file as usize].disk();
            // A file is closed by this thread only, and then it has been synced. It is let go before the list of files is
            // asked for again: whoever holds the list may be about to take another file into its place.
            let synced = {
                let disk = disk.read().unwrap_or_else(PoisonError::into_inner);
                disk.as_ref().map(|disk| disk.sync())
            };
            let Some(Err(source)) = synced else { continue };
            let error = {
                let mut files = self.common.files();
                let failed = &mut files.files[*file as usize];
                failed.failed = true;
                StoreError::io("syncing", &failed.path, source, 0)
            };
            let lost = self.journal.data_failed(*file);
            self.outcomes.degraded(format!(
                "{error}: {} frames since the last sync are not safe and count as failed; another file goes on",
                lost.len()
            ));
            self.lost(&lost, &error);
        }
        if self.write_journal() {
            for chunk in self.journal.synced() {
                let index = chunk.frame as usize;
                self.frames.stored[index] = true;
                self.frames.kinds[index] = chunk.kind;
                self.frames.angles_deg[index] = chunk.angle_deg;
                self.outcomes.synced(chunk.frame);
            }
        }
        let took_ns = monotonic_ns() - begun;
        self.outcomes.sync_took(took_ns as f64 / 1e9);
        self.show(&sync.files);
        self.common.syncs.end();
    }

    /// Brings the records of the sync that goes on to the disk; false when their frames had to be given up.
    fn write_journal(&mut self) -> bool {
        let mut tries = JOURNAL_TRIES;
        loop {
            let Err(error) = self.journal_file.append(self.journal.place(), &self.journal.records()) else {
                return true;
            };
            tries -= 1;
            self.outcomes.degraded(format!(
                "{error}: this part of the journal is given up, another one begins"
            ));
            if tries == 0 {
                let chunks = self.journal.abandoned();
                self.lost(&chunks, &error);
                return false;
            }
            self.journal.journal_failed();
        }
    }

    /// Lets readers see what is safe, and closes files that are complete or that no more frames are expected for.
    fn show(&mut self, touched: &[u32]) {
        let furthest = self.common.files().furthest;
        let count = self.common.files().files.len() as u32;
        for number in 0..count {
            let (index, complete) = {
                let mut files = self.common.files();
                let file = &mut files.files[number as usize];
                let passed = file.slot + 1 < furthest && file.stored > 0;
                let complete = !file.sealed() && !file.failed && (file.full() || passed) && file.stored > 0;
                let shown = touched.contains(&number) && !file.failed && file.wants_index();
                if !complete && !shown {
                    continue;
                }
                (file.next_index(), complete)
            };
            let written = index.and_then(|index| {
                index.write(&mut self.spare)?;
                if complete {
                    self.common.files().files[number as usize].cut()?;
                    index.sync()?;
                }
                Ok(())
            });
            let mut files = self.common.files();
            let file = &mut files.files[number as usize];
            match written {
                Ok(()) if complete && file.quiet() => {
                    let digest = file.digest();
                    file.seal();
                    if let Some((bytes, hash)) = digest {
                        let record = Record::Sealed {
                            file: number,
                            bytes,
                            hash,
                        };
                        let _ = self.journal.written(record, monotonic_ns());
                    }
                }
                Ok(()) => {}
                Err(source) => {
                    // Frames and journal are not touched by this; the index is made again at the end.
                    file.distrust();
                    file.failed |= complete;
                    let error = StoreError::io("writing the index of", &file.path, source, 0);
                    drop(files);
                    self.outcomes.degraded(error.to_string());
                }
            }
        }
    }

    /// Says when the disk is slow, and looks whether a full one has room again.
    fn watch(&mut self, now: u64) {
        let slow = &mut self.slow;
        if now - slow.window_began_ns > SLOW_WINDOW_NS {
            if slow.slow * 100 > slow.writes {
                let (writes, slow) = (slow.writes, slow.slow);
                self.outcomes.degraded(format!(
                    "the disk is slow: {slow} of {writes} frames took more than 0.1 s to write"
                ));
            }
            (slow.window_began_ns, slow.writes, slow.slow) = (now, 0, 0);
        }
        if self.common.full.load(Relaxed) {
            let free = super::h5::free_bytes(self.journal_file.folder()).unwrap_or(0);
            let room = ROOM_BYTES.max(16 * self.common.format.frame_bytes() as u64);
            if free > room {
                self.common.full.store(false, Relaxed);
            }
        }
    }
}

/// What is said when results can no longer be kept safe from a crash.
pub fn results_not_kept(error: &StoreError) -> String {
    format!("{error}: a crash would cost the results from now on; they are written when the run ends")
}

fn refused(common: &Common, file: u32) -> StoreError {
    let source = std::io::Error::other("the disk has refused this file before");
    StoreError::io("writing to", &common.files().files[file as usize].path, source, 0)
}
