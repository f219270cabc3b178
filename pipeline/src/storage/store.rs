//! The folders of the store.

use super::RunInfo;
use super::error::{At, StoreError};
use super::run_json::RunRecord;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the file whose presence means that a run is whole.
pub(super) const RUN_JSON: &str = "run.json";

/// Whether `value` may name a run or a proposal: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`, without `..`.
pub fn check_name(what: &'static str, value: &str) -> Result<(), StoreError> {
    let head = value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let tail = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if head && tail && value.len() <= 64 && !value.contains("..") {
        return Ok(());
    }
    Err(StoreError::Name {
        what,
        value: value.chars().take(80).collect(),
    })
}

/// The folder that holds every run.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A closed run.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// its folder
    pub folder: PathBuf,
    /// its `run.json`
    pub record: RunRecord,
}

impl Store {
    /// The store at `root`, which is made where it is missing. Checks that it can be written.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        fs::create_dir_all(root).map_err(|source| StoreError::ReadOnly {
            path: root.into(),
            source,
        })?;
        let root = root.canonicalize().at("opening the store", root)?;
        let probe = root.join(format!(".writable-{}", std::process::id()));
        fs::write(&probe, b"").map_err(|source| StoreError::io("writing to the store", &root, source, 0))?;
        fs::remove_file(&probe).at("removing", &probe)?;
        Ok(Store { root })
    }

    /// Absolute path of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of a run: `ROOT/PROPOSAL/YYYYMMDD/RUN`.
    pub fn run_dir(&self, proposal: &str, date: jiff::civil::Date, run: &str) -> PathBuf {
        self.root
            .join(proposal)
            .join(date.strftime("%Y%m%d").to_string())
            .join(run)
    }

    /// Makes the folder of a new run, empty: the one way in which a run comes to be.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::RunExists`], [`StoreError::Io`].
    pub(super) fn make_run(&self, info: &RunInfo) -> Result<PathBuf, StoreError> {
        check_name("run name", &info.id)?;
        check_name("proposal", &info.proposal)?;
        let date = info.start_time.to_zoned(jiff::tz::TimeZone::UTC).date();
        let folder = self.run_dir(&info.proposal, date, &info.id);
        let above = folder.parent().unwrap_or(&self.root);
        fs::create_dir_all(above).at("creating the folder", above)?;
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(StoreError::RunExists { path: folder })
            }
            made => made.at("creating the folder", &folder).map(|()| folder),
        }
    }

    /// Bytes that the file system has left for this process.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        super::h5::free_bytes(&self.root).at("asking for the free space of", &self.root)
    }

    /// Every closed run, newest first. A run whose `run.json` cannot be read is left out: [`RunRecord::read`]
    /// on its folder says why.
    pub fn runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        let mut runs: Vec<StoredRun> = self
            .run_folders()?
            .into_iter()
            .filter_map(|folder| RunRecord::read(&folder).ok().map(|record| StoredRun { folder, record }))
            .collect();
        runs.sort_by(|a, b| (b.record.start_time, &b.record.id).cmp(&(a.record.start_time, &a.record.id)));
        Ok(runs)
    }

    /// The `run.json` of every closed run as it is, newest first.
    pub fn records(&self) -> Result<Vec<serde_json::Value>, StoreError> {
        let json = |run: StoredRun| {
            let path = run.folder.join(RUN_JSON);
            serde_json::to_value(run.record).map_err(|error| StoreError::Record {
                path,
                reason: error.to_string(),
            })
        };
        self.runs()?.into_iter().map(json).collect()
    }

    /// Folder of the newest closed run with this name; none for what is no name.
    pub fn find(&self, id: &str) -> Result<Option<PathBuf>, StoreError> {
        self.find_of(id, |_| true)
    }

    /// Folder of the newest closed run with this name whose proposal is one of those wanted.
    pub fn find_of(&self, id: &str, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, StoreError> {
        if check_name("run name", id).is_err() {
            return Ok(None);
        }
        let folders = self
            .run_folders()?
            .into_iter()
            .filter(|f| f.file_name().is_some_and(|n| n == id));
        // ROOT/PROPOSAL/YYYYMMDD/RUN
        let proposal = |folder: &Path| Some(folder.ancestors().nth(2)?.file_name()?.to_str()?.to_string());
        let closed = folders.filter(|f| f.join(RUN_JSON).is_file() && proposal(f).is_some_and(|name| wanted(&name)));
        Ok(closed.max_by_key(|f| f.parent().and_then(Path::file_name).map(|day| day.to_os_string())))
    }

    /// Every folder three levels down, closed or not. A folder that this process may not look into, as a disk's
    /// `lost+found`, holds no run of its own.
    pub(super) fn run_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let proposals = folders_in(fs::read_dir(&self.root).at("listing", &self.root)?);
        let below = |folders: Vec<PathBuf>| {
            let listed = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok());
            listed.flat_map(folders_in).collect::<Vec<_>>()
        };
        Ok(below(below(proposals)))
    }
}

/// The folders among the entries. A link is not followed: the store's runs are its own.
fn folders_in(entries: fs::ReadDir) -> Vec<PathBuf> {
    let folder = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path());
    entries.flatten().filter_map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folder_names_and_nothing_else() {
        for good in ["a", "run_0001", "mx-1234.v2", "9", &"x".repeat(64)] {
            assert!(check_name("run name", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "../a",
            &"x".repeat(65),
        ] {
            let error = check_name("run name", bad).unwrap_err().to_string();
            assert!(error.starts_with("the run name \""), "{error}");
        }
    }
}
