//! How files of the store are created and opened: without libhdf5's file locks. Some network file systems have
//! none, a process that was started meanwhile keeps them alive, and who reads before `run.json` is there reads
//! at their own risk anyway.

use hdf5::plist::FileAccess;
use hdf5::plist::file_access::FileAccessBuilder;
use std::path::Path;

type Result<T> = std::result::Result<T, hdf5::Error>;

/// Creates a file that every reader of the last fifteen years knows (format of libhdf5 1.8).
pub(super) fn create_v18(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options()
        .with_fapl(|fapl| unlocked(fapl).libver_v18())
        .create_excl(path)
}

/// Creates a file that may hold virtual datasets (format of libhdf5 1.10).
pub(super) fn create_v110(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options()
        .with_fapl(|fapl| unlocked(fapl).libver_v110())
        .create_excl(path)
}

/// Opens a file for reading.
pub(super) fn read(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options().with_fapl(unlocked).open(path)
}

/// Opens a file for writing.
pub(super) fn write(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options().with_fapl(unlocked).open_rw(path)
}

/// The property list that the others use.
pub(super) fn access() -> Result<FileAccess> {
    unlocked(&mut FileAccessBuilder::new()).finish()
}

fn unlocked(fapl: &mut FileAccessBuilder) -> &mut FileAccessBuilder {
    fapl.file_locking(false)
}
