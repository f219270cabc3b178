//! How files of the store are created and opened: without libhdf5's file locks. Some network file systems have
//! none, a process that was started meanwhile keeps them alive, and who reads before `run.json` is there reads
//! at their own risk anyway.

use hdf5::plist::file_access::FileAccessBuilder;
use std::path::Path;

type Result<T> = std::result::Result<T, hdf5::Error>;

/// Creates a file that every reader knows, with the oldest structures: without checksums in them, so that numbers of
/// the head can be changed in place.
pub(super) fn create_earliest(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options()
        .with_fapl(|fapl| unlocked(fapl).libver_earliest())
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

/// Opens a file that [`create_v110`] has created, for writing.
pub(super) fn write(path: &Path) -> Result<hdf5::File> {
    hdf5::File::with_options()
        .with_fapl(|fapl| unlocked(fapl).libver_v110())
        .open_rw(path)
}

fn unlocked(fapl: &mut FileAccessBuilder) -> &mut FileAccessBuilder {
    fapl.file_locking(false)
}
