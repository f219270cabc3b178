//! `/entry/ledger`: what became of every expected frame.

use super::LedgerColumns;
use super::error::{At, StoreError};
use super::h5::RowWriter;
use super::nexus::{self, Nx};
use std::path::Path;

const BITS: &str = "parts_missing_bits";
const STATES: [&str; 5] = ["expected", "complete", "partial", "corrupt", "lost"];
const ANALYSIS: [&str; 4] = ["pending", "done", "shed", "failed"];
const STORAGE: [&str; 4] = ["pending", "synced", "vetoed", "failed"];

/// The ledger in the file: filled by blocks of rows while the run records, and whole at its end.
#[derive(Debug)]
pub(super) struct Ledger {
    group: Nx,
    frame_state: RowWriter<u8>,
    analysis: RowWriter<u8>,
    storage: RowWriter<u8>,
    arrival: RowWriter<u64>,
    latency: RowWriter<u32>,
    parts_missing: RowWriter<u32>,
    missing_bytes: RowWriter<u32>,
    device_failed: RowWriter<u8>,
    /// one bit per packet, where frames come in packets
    bits: Option<RowWriter<u8>>,
}

impl Ledger {
    /// Creates the columns, one value per expected frame; frames come in `parts`, or whole where it is 0.
    pub(super) fn create(entry: &Nx, frames: usize, parts: usize) -> Result<(), hdf5::Error> {
        let group = entry.group("ledger", "NXcollection")?;
        for (name, names) in [
            ("frame_state", &STATES[..]),
            ("analysis", &ANALYSIS[..]),
            ("storage", &STORAGE[..]),
        ] {
            let dataset = group.column::<u8>(name, frames, 0)?;
            let meaning: Vec<String> = names
                .iter()
                .zip(0..)
                .map(|(name, code)| format!("{code} {name}"))
                .collect();
            nexus::attr_text(&dataset, "meaning", &meaning.join(", "))?;
        }
        let arrival = group.column::<u64>("arrival", frames, 0)?;
        nexus::attr_text(&arrival, "units", "ns")?;
        nexus::attr_text(&arrival, "meaning", "after the start of the run; 0: never")?;
        let latency = group.column::<u32>("result_latency", frames, 0)?;
        nexus::attr_text(&latency, "units", "ns")?;
        nexus::attr_text(&latency, "meaning", "from arrival to result; 0: no result")?;
        let parts_missing = group.column::<u32>("parts_missing", frames, 0)?;
        nexus::attr_text(
            &parts_missing,
            "meaning",
            "packets or modules that never came; their pixels hold the mask value",
        )?;
        match parts {
            0 => {}
            _ => {
                // Chunks are made when they are written: frames that are whole take no room.
                let bytes = parts.div_ceil(8);
                let rows = (65_536 / bytes).clamp(1, frames.max(1));
                let dataset = group
                    .group_ref()
                    .new_dataset::<u8>()
                    .chunk((rows, bytes))
                    .fill_value(0u8)
                    .shape((frames, bytes))
                    .create(BITS)?;
                nexus::attr_text(
                    &dataset,
                    "meaning",
                    "one bit per packet, lowest first; 1: it never came",
                )?;
                nexus::attr(&dataset, "parts", &(parts as u64))?;
            }
        }
        let missing_bytes = group.column::<u32>("missing_bytes", frames, 0)?;
        nexus::attr_text(
            &missing_bytes,
            "meaning",
            "bytes of the frame that never came and hold the mask value",
        )?;
        let device_failed = group.column::<u8>("device_failed", frames, 0)?;
        nexus::attr_text(
            &device_failed,
            "meaning",
            "1: the host analysed the frame because the device had failed",
        )?;
        Ok(())
    }

    /// The columns in a file that has them.
    pub(super) fn open(entry: &Nx) -> Result<Self, hdf5::Error> {
        let group = entry.child("ledger").ok_or("/entry/ledger is missing")?;
        let column = |name: &str| group.group_ref().dataset(name);
        // Runs of earlier versions lack it.
        let device_failed = match column("device_failed") {
            Ok(dataset) => dataset,
            Err(_) => group.column::<u8>("device_failed", column("frame_state")?.size(), 0)?,
        };
        Ok(Self {
            frame_state: RowWriter::new(column("frame_state")?)?,
            analysis: RowWriter::new(column("analysis")?)?,
            storage: RowWriter::new(column("storage")?)?,
            arrival: RowWriter::new(column("arrival")?)?,
            latency: RowWriter::new(column("result_latency")?)?,
            parts_missing: RowWriter::new(column("parts_missing")?)?,
            missing_bytes: RowWriter::new(column("missing_bytes")?)?,
            device_failed: RowWriter::new(device_failed)?,
            bits: match group.has(BITS) {
                true => Some(RowWriter::new(column(BITS)?)?),
                false => None,
            },
            group,
        })
    }

    /// Which packets a frame lacks, one bit each.
    pub(super) fn write_missing(&mut self, frame: u64, bits: &[u8]) -> Result<(), hdf5::Error> {
        match &mut self.bits {
            Some(writer) => writer.write(frame as usize, bits),
            None => Ok(()),
        }
    }

    /// Writes rows from row `first` on. Allocates nothing in Rust.
    pub(super) fn write_rows(&mut self, first: u64, rows: &LedgerColumns<'_>) -> Result<(), hdf5::Error> {
        let first = first as usize;
        self.frame_state.write(first, rows.frame_state)?;
        self.analysis.write(first, rows.analysis)?;
        self.storage.write(first, rows.storage)?;
        self.arrival.write(first, rows.arrival_ns)?;
        self.latency.write(first, rows.result_latency_ns)?;
        self.parts_missing.write(first, rows.parts_missing)?;
        self.missing_bytes.write(first, rows.missing_bytes)?;
        self.device_failed.write(first, rows.device_failed)
    }

    /// Writes the columns, and their totals as attributes.
    pub(super) fn write(&mut self, columns: &LedgerColumns<'_>, frames: u64, path: &Path) -> Result<(), StoreError> {
        let lengths = [
            columns.frame_state.len(),
            columns.analysis.len(),
            columns.storage.len(),
            columns.arrival_ns.len(),
            columns.result_latency_ns.len(),
            columns.parts_missing.len(),
            columns.missing_bytes.len(),
            columns.device_failed.len(),
        ];
        if lengths.iter().any(|length| *length as u64 != frames) {
            return Err(StoreError::Description {
                field: "the length of the ledger's columns",
                value: format!("{lengths:?}, the run expects {frames} frames"),
                expected: "one value per expected frame",
            });
        }
        self.write_rows(0, columns)
            .and_then(|()| self.totals(columns))
            .at("writing the ledger to", path)
    }

    fn totals(&self, columns: &LedgerColumns<'_>) -> Result<(), hdf5::Error> {
        let group = self.group.group_ref();
        nexus::attr(group, "expected", &(columns.frame_state.len() as u64))?;
        let totals = [
            ("", columns.frame_state, &STATES[1..]),
            ("analysis_", columns.analysis, &ANALYSIS[1..]),
            ("storage_", columns.storage, &STORAGE[1..]),
        ];
        for (prefix, codes, names) in totals {
            for (code, name) in (1u8..).zip(names) {
                let total = codes.iter().filter(|c| **c == code).count() as u64;
                nexus::attr(group, &format!("{prefix}{name}"), &total)?;
            }
        }
        Ok(())
    }
}
