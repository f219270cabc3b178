//! What the facility's catalogues are told of a verified run: payloads for SciCat and for ICAT as files, and a command that
//! takes them there.

mod icat;
mod scicat;

use super::KeepError;
use super::config::AnnounceConfig;
use super::push::Job;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds that the command may take unless the configuration says otherwise.
const HOOK_TIMEOUT_S: f64 = 60.0;

/// Writes the payloads of a run and, where there is one, lets the command take them. When this returns the facility has
/// been told.
pub fn announce(config: &AnnounceConfig, base: &Path, job: &Job) -> Result<(), KeepError> {
    let Some(folder) = &config.folder else { return Ok(()) };
    let at = crate::config::resolve(base, folder).join(&job.path);
    let file = |suffix: &str| PathBuf::from(format!("{}{suffix}", at.display()));
    let (scicat, icat) = (file(".scicat.json"), file(".icat.xml"));
    write(&scicat, scicat::payload(job, &config.fields).as_bytes())?;
    write(&icat, icat::payload(job, &config.fields).as_bytes())?;
    let Some((program, arguments)) = config.hook.split_first() else {
        return Ok(());
    };
    let fill = |text: &String| {
        text.replace("{scicat}", &scicat.display().to_string())
            .replace("{icat}", &icat.display().to_string())
            .replace("{run_json}", &job.folder.join("run.json").display().to_string())
            .replace("{run}", &job.path)
    };
    let mut command = Command::new(program);
    command.args(arguments.iter().map(fill));
    let timeout = Duration::from_secs_f64(config.hook_timeout_s.unwrap_or(HOOK_TIMEOUT_S));
    run(command, timeout).map_err(|reason| KeepError::Away {
        destination: format!("announce.hook {program:?} for {}", job.path),
        reason,
    })
}

/// Where the copy is, as the facility finds it.
fn location(job: &Job) -> String {
    let destination = job.life.destination.as_deref().unwrap_or_default();
    format!("{}/{}", destination.trim_end_matches('/'), job.path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), KeepError> {
    let draft = PathBuf::from(format!("{}.part", path.display()));
    let write = || -> std::io::Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|source| KeepError::io("writing", path, source))
}

fn run(mut command: Command, timeout: Duration) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it ended with {status}")),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                // It may have ended in this moment.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", timeout.as_secs_f64()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
