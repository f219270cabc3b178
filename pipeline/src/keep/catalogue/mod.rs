//! The catalogue: every run of the store in one SQLite file, for searching and for the keeper's own questions.
//!
//! It holds nothing that `run.json` and `state.jsonl` do not say, and is made anew from them when it is missing, damaged
//! or of another version. What is looked at to keep it true does not grow with history: a day's folder is listed again
//! when its time of change is another, and runs that were not closed then are looked at one by one.

mod query;
mod scan;

pub use query::Query;

use super::KeepError;
use super::life::{Life, State};
use crate::storage::RunRecord;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes when the tables do: a catalogue of another version is made anew.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE run (
    number INTEGER PRIMARY KEY,          -- grows with the time of arming: newest first is by number
    path TEXT NOT NULL UNIQUE,           -- PROPOSAL/YYYYMMDD/RUN
    id TEXT NOT NULL COLLATE NOCASE, proposal TEXT NOT NULL COLLATE NOCASE, sample TEXT NOT NULL COLLATE NOCASE,
    technique TEXT NOT NULL COLLATE NOCASE, state TEXT NOT NULL COLLATE NOCASE,
    started TEXT NOT NULL,
    frames INTEGER NOT NULL, complete INTEGER NOT NULL, bytes INTEGER NOT NULL,
    life TEXT NOT NULL, closed_us INTEGER NOT NULL, verified_us INTEGER, damaged TEXT, announced INTEGER NOT NULL,
    scrubbed_us INTEGER NOT NULL, exported INTEGER NOT NULL
);
CREATE INDEX run_id ON run (id);
CREATE INDEX run_proposal ON run (proposal);
CREATE INDEX run_sample ON run (sample);
CREATE INDEX run_technique ON run (technique);
CREATE INDEX run_state ON run (state);
CREATE INDEX run_frames ON run (frames);
CREATE INDEX run_bytes ON run (bytes);
CREATE INDEX run_life ON run (life, closed_us, bytes);
CREATE INDEX run_closed ON run (closed_us, bytes);
CREATE INDEX run_scrubbed ON run (scrubbed_us);
CREATE INDEX run_to_export ON run (number) WHERE exported = 0;
CREATE INDEX run_to_announce ON run (closed_us) WHERE announced = 0;
CREATE TABLE metadata (number INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL COLLATE NOCASE, as_number REAL);
CREATE INDEX metadata_number ON metadata (number);
CREATE INDEX metadata_value ON metadata (key, value, number);   -- with the number: the table itself is not looked at
CREATE INDEX metadata_as_number ON metadata (key, as_number, number);
CREATE VIRTUAL TABLE words USING fts5 (text, content='', contentless_delete=1, prefix='1 2 3 4');
CREATE TABLE day (path TEXT PRIMARY KEY, changed TEXT NOT NULL);
CREATE TABLE unclosed (path TEXT PRIMARY KEY);
";

/// A run as the catalogue lists it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// folder within the store: `PROPOSAL/YYYYMMDD/RUN`
    pub path: String,
    /// name
    pub id: String,
    /// technique
    pub technique: String,
    /// sample
    pub sample: String,
    /// proposal
    pub proposal: String,
    /// how it ended
    pub state: String,
    /// where it stands: `closed`, `pushed`, `verified`, `safe_to_delete`, `deleted`
    pub life: String,
    /// what is wrong with its files here
    pub damaged: Option<String>,
    /// UTC time of arming
    pub started: String,
    /// frames that it expected
    pub frames: u64,
    /// frames that were complete
    pub complete: u64,
    /// bytes of its files
    pub bytes: u64,
}

const FOUND: &str = "path, id, technique, sample, proposal, state, life, damaged, started, frames, complete, bytes";

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        path: row.get(0)?,
        id: row.get(1)?,
        technique: row.get(2)?,
        sample: row.get(3)?,
        proposal: row.get(4)?,
        state: row.get(5)?,
        life: row.get(6)?,
        damaged: row.get(7)?,
        started: row.get(8)?,
        frames: row.get(9)?,
        complete: row.get(10)?,
        bytes: row.get(11)?,
    })
}

/// Number and bytes of the runs in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// the state
    pub life: State,
    /// runs
    pub runs: u64,
    /// bytes of their files
    pub bytes: u64,
}

/// The catalogue of one store.
#[derive(Debug)]
pub struct Catalogue {
    file: PathBuf,
    store: PathBuf,
    connection: Mutex<Connection>,
}

impl Catalogue {
    /// The catalogue of the store at `store`, made where it is missing, damaged or of another version. Takes the same
    /// time however many runs there are.
    pub fn open(store: &Path) -> Result<Catalogue, KeepError> {
        let folder = store.join(super::KEEP_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|source| KeepError::io("creating", &folder, source))?;
        let file = folder.join("catalogue.sqlite");
        let connection = match connect(&file) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(target: "fluxline", "the catalogue {} is made anew: {error}", file.display());
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(folder.join(format!("catalogue.sqlite{suffix}")));
                }
                connect(&file).map_err(|source| KeepError::Catalogue {
                    path: file.clone(),
                    source,
                })?
            }
        };
        Ok(Catalogue {
            file,
            store: store.to_path_buf(),
            connection: Mutex::new(connection),
        })
    }

    /// The store that it is of.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Folder of a run that it lists.
    pub fn folder(&self, path: &str) -> PathBuf {
        self.store.join(path)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, KeepError> {
        work(&mut self.connection()).map_err(|source| KeepError::Catalogue {
            path: self.file.clone(),
            source,
        })
    }

    /// The runs that `query` asks for, newest first, and how many there are on all pages.
    pub fn search(&self, query: &Query, limit: usize, offset: usize) -> Result<(Vec<Found>, usize), KeepError> {
        // SQLite's numbers end there.
        let (limit, offset) = (limit.min(i64::MAX as usize), offset.min(i64::MAX as usize));
        let (condition, values) = query.condition();
        self.with(|connection| {
            let values = || rusqlite::params_from_iter(values.iter());
            let total: usize = connection
                .prepare_cached(&format!("SELECT count(*) FROM {condition}"))?
                .query_row(values(), |row| row.get(0))?;
            let numbers = format!("SELECT number FROM {condition} ORDER BY number DESC LIMIT {limit} OFFSET {offset}");
            let text = format!("SELECT {FOUND} FROM run WHERE number IN ({numbers}) ORDER BY number DESC");
            let mut statement = connection.prepare_cached(&text)?;
            let rows = statement.query_map(values(), found)?;
            Ok((rows.collect::<rusqlite::Result<Vec<_>>>()?, total))
        })
    }

    /// The newest closed run of this name.
    pub fn find(&self, id: &str) -> Result<Option<Found>, KeepError> {
        self.find_of(id, |_| true)
    }

    /// The newest closed run of this name whose proposal is one of those wanted.
    pub fn find_of(&self, id: &str, wanted: impl Fn(&str) -> bool) -> Result<Option<Found>, KeepError> {
        self.with(|connection| {
            let text = format!("SELECT {FOUND} FROM run WHERE id = ? COLLATE BINARY ORDER BY number DESC");
            let mut statement = connection.prepare_cached(&text)?;
            let mut rows = statement.query_map([id], found)?;
            rows.find(|row| row.as_ref().map_or(true, |found| wanted(&found.proposal)))
                .transpose()
        })
    }

    /// Runs in any of these states, oldest first, at most `limit`.
    pub fn in_states(&self, states: &[State], limit: usize) -> Result<Vec<Found>, KeepError> {
        let names: Vec<String> = states.iter().map(|state| format!("'{}'", state.name())).collect();
        let text = format!(
            "SELECT {FOUND} FROM run WHERE life IN ({}) ORDER BY closed_us, path LIMIT {limit}",
            names.join(",")
        );
        self.list(&text, [])
    }

    /// Runs here that nobody looked over since `before_us` (microseconds of 1970), the one that waits longest first.
    pub fn unscrubbed(&self, before_us: i64, limit: usize) -> Result<Vec<Found>, KeepError> {
        let text = format!(
            "SELECT {FOUND} FROM run WHERE life != 'deleted' AND scrubbed_us < ? ORDER BY scrubbed_us LIMIT {limit}"
        );
        self.list(&text, [before_us])
    }

    /// Verified runs that the facility's catalogues have not been told of, oldest first; those that went before it could be told, too.
    pub fn unannounced(&self, limit: usize) -> Result<Vec<Found>, KeepError> {
        let text = format!(
            "SELECT {FOUND} FROM run WHERE announced = 0 AND life IN ('verified', 'safe_to_delete', 'deleted') \
             ORDER BY closed_us LIMIT {limit}"
        );
        self.list(&text, [])
    }

    /// Runs here that do not have their owner and their place in the export yet.
    pub fn unexported(&self, limit: usize) -> Result<Vec<Found>, KeepError> {
        let text = format!("SELECT {FOUND} FROM run WHERE exported = 0 AND life != 'deleted' LIMIT {limit}");
        self.list(&text, [])
    }

    /// Whether a run that is listed has its owner and its place in the export.
    pub fn set_exported(&self, path: &str, exported: bool) -> Result<(), KeepError> {
        self.with(|connection| {
            let text = "UPDATE run SET exported = ? WHERE path = ?";
            let mut statement = connection.prepare_cached(text)?;
            statement.execute(rusqlite::params![exported, path]).map(|_| ())
        })
    }

    fn list<P: rusqlite::Params>(&self, text: &str, values: P) -> Result<Vec<Found>, KeepError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(text)?;
            let rows = statement.query_map(values, found)?;
            rows.collect()
        })
    }

    /// Runs and bytes by state.
    pub fn totals(&self) -> Result<Vec<Total>, KeepError> {
        self.with(|connection| {
            let text = "SELECT life, count(*), coalesce(sum(bytes), 0) FROM run GROUP BY life";
            let mut statement = connection.prepare_cached(text)?;
            let rows = statement.query_map([], |row| {
                let life: String = row.get(0)?;
                let life = State::named(&life).unwrap_or_default();
                Ok(Total {
                    life,
                    runs: row.get(1)?,
                    bytes: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Bytes of the runs that were closed since `since_us` (microseconds of 1970).
    pub fn bytes_since(&self, since_us: i64) -> Result<u64, KeepError> {
        self.with(|connection| {
            let text = "SELECT coalesce(sum(bytes), 0) FROM run WHERE closed_us >= ?";
            connection.prepare_cached(text)?.query_row([since_us], |row| row.get(0))
        })
    }

    /// Runs whose files here are not what they should be.
    pub fn damaged(&self) -> Result<u64, KeepError> {
        self.with(|connection| {
            let text = "SELECT count(*) FROM run WHERE damaged IS NOT NULL";
            connection.prepare_cached(text)?.query_row([], |row| row.get(0))
        })
    }

    /// Those runs, oldest first, at most `limit`.
    pub fn damaged_runs(&self, limit: usize) -> Result<Vec<Found>, KeepError> {
        let text = format!("SELECT {FOUND} FROM run WHERE damaged IS NOT NULL ORDER BY number LIMIT {limit}");
        self.list(&text, [])
    }

    /// When the oldest run that is not verified was closed, microseconds of 1970.
    pub fn oldest_unverified_us(&self) -> Result<Option<i64>, KeepError> {
        self.with(|connection| {
            let text = "SELECT min(closed_us) FROM run WHERE life IN ('closed', 'pushed')";
            connection.prepare_cached(text)?.query_row([], |row| row.get(0))
        })
    }

    /// The life of a run that is listed has gone on.
    pub fn set_life(&self, path: &str, life: &Life) -> Result<(), KeepError> {
        self.with(|connection| {
            let text = "UPDATE run SET life = ?, verified_us = ?, damaged = ?, announced = ? WHERE path = ?";
            let verified = life.verified.map(|time| time.as_microsecond());
            let values = params![life.state.name(), verified, life.damaged, life.announced, path];
            connection.prepare_cached(text)?.execute(values).map(|_| ())
        })
    }

    /// A run that is listed was looked over at `at_us` (microseconds of 1970).
    pub fn set_scrubbed(&self, path: &str, at_us: i64) -> Result<(), KeepError> {
        self.with(|connection| {
            let text = "UPDATE run SET scrubbed_us = ? WHERE path = ?";
            connection
                .prepare_cached(text)?
                .execute(params![at_us, path])
                .map(|_| ())
        })
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    // What a power cut takes from it is read again from the runs themselves.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == VERSION {
        connection.query_row("SELECT count(*) FROM day", [], |_| Ok(()))?;
        return Ok(connection);
    }
    if version != 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;{TABLES}PRAGMA user_version = {VERSION};COMMIT;"
    ))?;
    Ok(connection)
}

/// Enters a closed run, or what has changed of it.
fn enter(connection: &Connection, path: &str, record: &RunRecord, life: &Life) -> rusqlite::Result<()> {
    let start_us = record.start_time.as_microsecond();
    let known: Option<(i64, i64, bool)> = connection
        .prepare_cached("SELECT number, scrubbed_us, exported FROM run WHERE path = ?")?
        .query_row([path], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let closed_us = life.closed.unwrap_or(record.end_time).as_microsecond();
    let (number, scrubbed_us, exported) = match known {
        Some(known) => {
            remove(connection, known.0)?;
            known
        }
        // Two runs armed in the same microsecond take the next free number.
        None => {
            let mut taken = connection.prepare_cached("SELECT 1 FROM run WHERE number = ?")?;
            let mut number = start_us;
            while taken.exists([number])? {
                number += 1;
            }
            (number, closed_us, false)
        }
    };
    let bytes: u64 = record.files.iter().chain(&record.journal).map(|file| file.bytes).sum();
    let count = |key: &str| record.frames[key].as_u64().unwrap_or(0);
    connection
        .prepare_cached("INSERT INTO run VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")?
        .execute(params![
            number,
            path,
            record.id,
            record.proposal,
            record.sample,
            record.technique,
            record.state,
            record.start_time.to_string(),
            count("expected"),
            count("complete"),
            bytes,
            life.state.name(),
            closed_us,
            life.verified.map(|time| time.as_microsecond()),
            life.damaged,
            life.announced,
            scrubbed_us,
            exported
        ])?;
    let mut text = [
        &record.id,
        &record.proposal,
        &record.sample,
        &record.technique,
        &record.title,
        &record.instrument,
    ]
    .map(String::as_str)
    .join(" ");
    let mut insert = connection.prepare_cached("INSERT INTO metadata VALUES (?,?,?,?)")?;
    for (key, value) in &record.metadata {
        let as_number = value.parse::<f64>().ok().filter(|number| number.is_finite());
        insert.execute(params![number, key, value, as_number])?;
        text.push(' ');
        text.push_str(value);
    }
    let text = query::words_of(&text).join(" ");
    connection
        .prepare_cached("INSERT INTO words (rowid, text) VALUES (?, ?)")?
        .execute(params![number, text])?;
    Ok(())
}

fn remove(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    for text in [
        "DELETE FROM run WHERE number = ?",
        "DELETE FROM metadata WHERE number = ?",
        "DELETE FROM words WHERE rowid = ?",
    ] {
        connection.prepare_cached(text)?.execute([number])?;
    }
    Ok(())
}
