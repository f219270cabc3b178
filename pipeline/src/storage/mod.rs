//! Where runs are kept, and how they are written.
//!
//! ```text
//! STORE/PROPOSAL/YYYYMMDD/RUN/
//!     RUN_master.h5          NeXus: what people open; results, ledger, and the frames by reference
//!     RUN_data_000001.h5 …   raw frames, one chunk each, written directly
//!     RUN_journal_0001.bin   where every stored frame lies, with its checksum
//!     state.jsonl            one line per change of state, only ever appended
//!     run.json               what the run is; written last, by rename, then never changed
//! ```
//!
//! Every file has its final name from the start. A folder without `run.json` is a run that still records or
//! that was interrupted; its presence means that every file is closed, on the disk, and as `run.json` says.
//!
//! Frame `n` of the run has index `n` in `/entry/data/data`, whatever came in between. The chunk of a frame
//! that was never stored is not written: it reads as the largest value of an integer type (the mask value)
//! or NaN, and `/entry/ledger` says which frames those are. A run that ends early keeps the frames up to the
//! last one that was stored or analysed.
//!
//! A run that was interrupted is finished from its journal at the next start ([`Store::recover`]). What it takes for that
//! lies beside the data until the run is closed (`start`).
//!
//! `unsafe` lives in `h5` and `io` only.

mod azint;
mod browse;
mod codec;
mod data_file;
mod data_files;
mod disk_watch;
mod error;
mod facts;
mod frame_writer;
mod h5;
mod hash;
mod head;
mod io;
pub mod journal;
mod journal_file;
mod keeper;
mod ledger;
mod master;
mod nexus;
mod nexus_detector;
mod nxmx;
mod nxtomo;
mod open;
mod read;
mod read_ahead;
mod read_chunks;
mod recover;
mod reduced;
mod reserve;
mod results;
mod results_journal;
mod run_json;
mod seal;
mod sparse;
mod start;
pub(crate) mod state_jsonl;
mod store;
mod volume;
mod whole;
mod writer;

pub use browse::{BrowseError, Browser, Values};
pub use disk_watch::DiskWatch;
use error::At;
pub use error::StoreError;
pub use journal_file::JournalRecords;
pub use keeper::{Outcomes, results_not_kept};
pub use nexus_detector::{NexusDetector, read_nexus_detector};
pub use nxtomo::read_tomography_columns;
pub use read::{frames_of, read_array, read_dataset_f32, read_frame, read_ledger};
pub use read_chunks::{StoredChunk, find_file, read_chunks, read_file};
pub use recover::Recovered;
pub use reduced::{FrameFacts, StoredCurve, list_datasets, list_images};
pub use reduced::{
    read_curve, read_curve_row, read_frame_facts, read_frame_metadata, read_image, read_mask, read_names, read_scalar,
};
pub use results::{curve_path, final_path, image_path, scalar_path};
pub use run_json::{FileRecord, RunRecord, hex};
pub use sparse::{SparseConfig, SparseFrame, SparseWriter};
pub use store::{Store, StoredRun, check_name};
pub use volume::{SLAB_SLICES, VolumeConfig, VolumeFormat, VolumeRange, VolumeWriter};
pub use whole::check_whole;
pub use writer::RunWriter;

use std::collections::BTreeMap;

/// What is known about a run when it is armed.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// name of the run, see [`check_name`]; unique within its day and proposal
    pub id: String,
    /// proposal, see [`check_name`]
    pub proposal: String,
    /// sample name
    pub sample: String,
    /// technique of the recipe
    pub technique: String,
    /// NeXus application definition: `NXmx` or `NXtomo`; `NXtomoproc` of a volume, `sparse_frames` of sparse ones
    pub definition: String,
    /// UTC time of arming
    pub start_time: jiff::Timestamp,
    /// one line for people
    pub title: String,
    /// beamline or instrument
    pub instrument: String,
    /// facility or source
    pub source: String,
    /// anything else worth keeping
    pub metadata: BTreeMap<String, String>,
    /// recipe and parameters as used
    pub parameters: serde_json::Value,
    /// program and version
    pub software: String,
    /// SHA-256 of the configuration file
    pub configuration_sha256: String,
    /// host name
    pub host: String,
    /// accelerator
    pub device: String,
}

/// The axis that a result curve is drawn over.
#[derive(Clone, Debug, PartialEq)]
pub struct CurveAxis {
    /// name of the curve in the [`frame::ResultLayout`]
    pub curve: String,
    /// name of the axis, for example `q` or `2theta`
    pub name: String,
    /// its unit as NeXus writes it
    pub unit: String,
    /// one value per point of the curve: bin centres
    pub values: Vec<f64>,
}

/// How frames are written.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// compress frames that arrive uncompressed with bitshuffle-LZ4
    pub compress: bool,
    /// frames in one data file
    pub frames_per_file: u64,
    /// whether frames are stored; a derived run leaves them where they are
    pub store_frames: bool,
    /// threads that compress and write; 0: four
    pub threads: usize,
    /// calibrated geometry, where the recipe has one: it goes before what the detector says
    pub geometry: Option<frame::Geometry>,
}

/// One dataset of a run, as it is known before frame 0.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DatasetInfo {
    /// file that holds it
    pub file: String,
    /// path within the file
    pub path: String,
    /// shape when every expected frame arrives; the first number counts frames
    pub shape: Vec<u64>,
    /// NumPy's array-protocol string, for example `<u2`
    pub dtype: String,
    /// shape of a chunk
    pub chunk_shape: Vec<u64>,
}

/// The ledger's columns, one value per expected frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerColumns<'a> {
    /// 0 expected, 1 complete, 2 partial, 3 corrupt, 4 lost
    pub frame_state: &'a [u8],
    /// 0 pending, 1 done, 2 shed, 3 failed
    pub analysis: &'a [u8],
    /// 0 pending, 1 synced, 2 vetoed, 3 failed
    pub storage: &'a [u8],
    /// arrival after the start of the run, ns; 0 where it never arrived
    pub arrival_ns: &'a [u64],
    /// arrival to result, ns; 0 where there is none
    pub result_latency_ns: &'a [u32],
    /// packets or modules that never came of a received frame
    pub parts_missing: &'a [u32],
    /// bytes of the frame, once decompressed, that never came
    pub missing_bytes: &'a [u32],
    /// 1 where the host analysed the frame because the device had failed
    pub device_failed: &'a [u8],
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunEnd {
    /// `complete`, or how it ended early: `stopped`, `aborted`, `failed`
    pub state: String,
    /// UTC time when the last frame had been settled
    pub end_time: jiff::Timestamp,
    /// frames by state
    pub counts: serde_json::Value,
    /// the run's summary
    pub summary: serde_json::Value,
    /// values by frame number, one per expected frame
    pub metadata: Vec<crate::frame_metadata::MetadataColumn>,
    /// where the crystals of a grid scan are
    pub grid: Option<std::sync::Arc<crate::grid::GridAnswer>>,
}

/// The journal of a closed run: where every stored frame lies, with the checksum of its bytes.
///
/// # Errors
/// [`StoreError::Io`] where a segment cannot be read.
pub fn read_journal(folder: &std::path::Path, record: &RunRecord) -> Result<JournalRecords, StoreError> {
    let tag = journal_file::tag(&record.proposal, &record.id, record.start_time);
    journal_file::read(folder, &record.id, tag)
}

/// Name of a data file of a run: which one, from 0 on, and which of those that took over from each other, from 1 on (see
/// [`journal::Record::Replaced`]).
pub fn data_file_name(run: &str, slot: u64, generation: u32) -> String {
    data_files::file_name(run, slot, generation)
}

/// Lets libhdf5 decode bitshuffle-LZ4 in this process, also without plugins on the machine; `file` is about to be read.
pub fn decode_bitshuffle(file: &std::path::Path) -> Result<(), StoreError> {
    h5::register_bitshuffle().at("registering filter 32008 for", file)
}
