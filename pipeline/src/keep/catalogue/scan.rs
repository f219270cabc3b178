//! Keeping the catalogue true to the folders.

use super::super::KeepError;
use super::super::life::Life;
use super::{Catalogue, enter, remove};
use crate::storage::RunRecord;
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Runs that are entered in one transaction.
const BATCH: usize = 500;
/// A folder that changed this recently may change again within the same tick of its file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

impl Catalogue {
    /// Looks for runs that were closed or removed since the last time, for `patience` at most; whether all is known now.
    pub fn refresh(&self, patience: Duration) -> Result<bool, KeepError> {
        let end = Instant::now() + patience;
        for path in self.unclosed()? {
            if Instant::now() > end {
                return Ok(false);
            }
            self.look(&path)?;
        }
        let days = self.days()?;
        let mut known = self.known_days()?;
        let here: BTreeSet<&String> = days.iter().collect();
        let gone: Vec<String> = known.keys().filter(|day| !here.contains(day)).cloned().collect();
        for gone in gone {
            self.read_day(&gone, &self.folder(&gone), end)?;
            self.with(|connection| {
                connection
                    .execute("DELETE FROM day WHERE path = ?", [&gone])
                    .map(|_| ())
            })?;
        }
        for day in days {
            let folder = self.folder(&day);
            let Ok(changed) = fs::metadata(&folder).and_then(|data| data.modified()) else {
                continue;
            };
            let stamp = stamp(changed);
            if known.remove(&day).as_ref() == Some(&stamp) {
                continue;
            }
            if !self.read_day(&day, &folder, end)? {
                return Ok(false);
            }
            if changed.elapsed().is_ok_and(|age| age > SETTLED) {
                self.with(|connection| {
                    let text = "INSERT OR REPLACE INTO day VALUES (?, ?)";
                    connection.execute(text, params![day, stamp]).map(|_| ())
                })?;
            }
        }
        Ok(true)
    }

    /// Looks at one run's folder again: it was closed, changed, or removed.
    pub fn look(&self, path: &str) -> Result<(), KeepError> {
        self.look_at(&[path.to_string()])
    }

    fn look_at(&self, paths: &[String]) -> Result<(), KeepError> {
        let mut read = Vec::with_capacity(paths.len());
        for path in paths {
            let folder = self.folder(path);
            let record = RunRecord::read(&folder);
            let life = Life::read(&folder).unwrap_or_default();
            read.push((path, folder, record, life));
        }
        self.with(|connection| {
            let transaction = connection.transaction()?;
            for (path, folder, record, life) in &read {
                match record {
                    Ok(record) => {
                        enter(&transaction, path, record, life)?;
                        transaction
                            .prepare_cached("DELETE FROM unclosed WHERE path = ?")?
                            .execute([path])?;
                    }
                    // Records, was interrupted, or cannot be read: looked at again the next time.
                    Err(_) if folder.is_dir() => {
                        transaction
                            .prepare_cached("INSERT OR IGNORE INTO unclosed VALUES (?)")?
                            .execute([path])?;
                    }
                    Err(_) => forget(&transaction, path)?,
                }
            }
            transaction.commit()
        })
    }

    /// Lists a day's folder: new runs are entered, runs that are gone forgotten. Whether there was time for all.
    fn read_day(&self, day: &str, folder: &Path, end: Instant) -> Result<bool, KeepError> {
        let here: BTreeSet<String> = folders_in(folder).map(|name| format!("{day}/{name}")).collect();
        let known: BTreeSet<String> = self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT path FROM run WHERE path >= ?1 AND path < ?2 UNION SELECT path FROM unclosed WHERE path >= ?1 AND path < ?2",
            )?;
            // '0' comes right after '/'.
            let rows = statement.query_map([format!("{day}/"), format!("{day}0")], |row| row.get(0))?;
            rows.collect()
        })?;
        self.with(|connection| {
            let transaction = connection.transaction()?;
            for path in known.difference(&here) {
                forget(&transaction, path)?;
            }
            transaction.commit()
        })?;
        let new: Vec<String> = here.difference(&known).cloned().collect();
        for some in new.chunks(BATCH) {
            if Instant::now() > end {
                return Ok(false);
            }
            self.look_at(some)?;
        }
        Ok(true)
    }

    /// Folders of the runs that were not closed when they were last looked at: what an interruption may have left.
    pub fn unclosed_folders(&self) -> Result<Vec<PathBuf>, KeepError> {
        Ok(self.unclosed()?.iter().map(|path| self.folder(path)).collect())
    }

    fn unclosed(&self) -> Result<Vec<String>, KeepError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT path FROM unclosed")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Days that were listed once, with their folders' times of change then.
    fn known_days(&self) -> Result<BTreeMap<String, String>, KeepError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT path, changed FROM day")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// `PROPOSAL/YYYYMMDD`, newest day first.
    fn days(&self) -> Result<Vec<String>, KeepError> {
        let proposals = folders_in(self.store());
        let mut days: Vec<(String, String)> = proposals
            .flat_map(|proposal| {
                let days = folders_in(&self.store().join(&proposal)).collect::<Vec<_>>();
                days.into_iter().map(move |day| (day, proposal.clone()))
            })
            .collect();
        days.sort_by(|a, b| b.cmp(a));
        Ok(days
            .into_iter()
            .map(|(day, proposal)| format!("{proposal}/{day}"))
            .collect())
    }
}

fn forget(connection: &rusqlite::Connection, path: &str) -> rusqlite::Result<()> {
    let number = connection
        .prepare_cached("SELECT number FROM run WHERE path = ?")?
        .query_row([path], |row| row.get(0));
    if let Ok(number) = number {
        remove(connection, number)?;
    }
    connection
        .prepare_cached("DELETE FROM unclosed WHERE path = ?")?
        .execute([path])?;
    Ok(())
}

/// Names of the folders in a folder that are names of proposals, days and runs. A link is not followed.
fn folders_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).ok().into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| crate::storage::check_name("folder", name).is_ok())
}

fn stamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}
