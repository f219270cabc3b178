//! Who may read a closed run, and where: owner and group by proposal, and an export that shows closed runs only.
//!
//! The export has the store's folders with hard links to the files of closed runs, `run.json` last. A client of NFS or SMB
//! that is given the export and not the store never sees a run that is being written, half deleted, or half exported.

use super::KeepError;
use super::config::AccessConfig;
use super::push::Job;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Gives a closed run its owner and group and shows it in the export. Doing it again changes nothing.
pub fn publish(config: &AccessConfig, store: &Path, job: &Job) -> Result<(), KeepError> {
    let proposal = &job.record.proposal;
    let group = config
        .group
        .as_deref()
        .map(|name| number("group", name, proposal))
        .transpose()?;
    let owner = config
        .owner
        .as_deref()
        .map(|name| number("passwd", name, proposal))
        .transpose()?;
    let give = |path: &Path, mode: u32| -> Result<(), KeepError> {
        if owner.is_none() && group.is_none() {
            return Ok(());
        }
        chown(path, owner, group).map_err(|source| KeepError::io("changing the owner of", path, source))?;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, mode).map_err(|source| KeepError::io("changing the mode of", path, source))
    };
    let names: Vec<&str> = job.all_files().map(|file| file.name.as_str()).collect();
    for name in &names {
        give(&job.folder.join(name), 0o640)?;
    }
    give(&job.folder, 0o750)?;
    let Some(export) = export(config, store) else {
        return Ok(());
    };
    let folder = export.join(&job.path);
    fs::create_dir_all(&folder).map_err(|source| KeepError::io("creating", &folder, source))?;
    give(&folder, 0o750)?;
    for name in names {
        let link = folder.join(name);
        show(&job.folder.join(name), &link).map_err(|source| KeepError::io("linking", &link, source))?;
    }
    Ok(())
}

/// Links a file, in the place of one that was shown before it was repaired.
fn show(file: &Path, link: &Path) -> std::io::Result<()> {
    match fs::hard_link(file, link) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    if fs::symlink_metadata(link)?.ino() == fs::metadata(file)?.ino() {
        return Ok(());
    }
    let mut draft = link.as_os_str().to_owned();
    draft.push(".part");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(file, &draft)?;
    fs::rename(&draft, link)
}

/// Takes a run out of the export, `run.json` first.
pub fn withdraw(config: &AccessConfig, store: &Path, path: &str) -> Result<(), KeepError> {
    let Some(export) = export(config, store) else {
        return Ok(());
    };
    let folder = export.join(path);
    let gone = |done: std::io::Result<()>| match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(KeepError::io("removing", &folder, error)),
        _ => Ok(()),
    };
    gone(fs::remove_file(folder.join("run.json")))?;
    gone(fs::remove_dir_all(&folder))
}

fn export(config: &AccessConfig, store: &Path) -> Option<PathBuf> {
    config
        .export
        .as_ref()
        .map(|export| crate::config::resolve(store, export))
}

/// Number of a user or group, asked where the machine asks: files, LDAP, whatever it is set up for. A number is taken as it
/// is: a server of files need not know who its clients' users are.
fn number(database: &str, name: &str, proposal: &str) -> Result<u32, KeepError> {
    let name = name.replace("{proposal}", proposal);
    if let Ok(number) = name.parse() {
        return never_root(&name, number);
    }
    let unknown = || {
        let what = if database == "group" { "group" } else { "user" };
        KeepError::Config(format!(
            "the {what} {name:?} is not known on this machine: access.group and access.owner name it"
        ))
    };
    let output = Command::new("getent").args([database, "--", &name]).output();
    let output = output.map_err(|source| KeepError::io("running", Path::new("getent"), source))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split(':').nth(2).and_then(|number| number.parse().ok());
    never_root(&name, number.ok_or_else(unknown)?)
}

fn never_root(name: &str, number: u32) -> Result<u32, KeepError> {
    match number {
        0 => Err(KeepError::Config(format!(
            "{name:?} is root: runs never belong to root"
        ))),
        number => Ok(number),
    }
}
