//! Who may read a closed run, and where: owner and group by proposal, and an export that shows closed runs only.
//!
//! The export has the store's folders with hard links to the files of closed runs, `run.json` last. A client of NFS or SMB
//! that is given the export and not the store never sees a run that is being written, half deleted, or half exported.

use super::KeepError;
use super::config::AccessConfig;
use super::push::Job;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
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
        match fs::hard_link(job.folder.join(name), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(KeepError::io("linking", &link, error));
            }
            _ => {}
        }
    }
    Ok(())
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

/// Number of a user or group, asked where the machine asks: files, LDAP, whatever it is set up for.
fn number(database: &str, name: &str, proposal: &str) -> Result<u32, KeepError> {
    let name = name.replace("{proposal}", proposal);
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
    match number.ok_or_else(unknown)? {
        0 => Err(KeepError::Config(format!(
            "{name:?} is root: runs never belong to root"
        ))),
        number => Ok(number),
    }
}
