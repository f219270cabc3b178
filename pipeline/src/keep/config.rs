//! `[push]`, `[retention]`, `[access]` and `[announce]`.

use super::retention::Watermarks;
use crate::config::ConfigError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `[push]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// Central store: the folder where it is mounted, or `s3://BUCKET/PREFIX`. Nothing is pushed, and nothing ever deleted,
    /// unless it is given.
    pub to: Option<String>,
    /// S3: address of the service, for example `https://s3.example.org:9000`. AWS unless it is given.
    pub endpoint: Option<String>,
    /// S3: region.
    pub region: String,
    /// S3: TOML file with `access_key_id` and `secret_access_key`, readable by this program only; the environment's
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` unless it is given.
    pub credentials: Option<PathBuf>,
    /// Files on their way at once (1 to 32).
    pub parallel: usize,
    /// Most bytes per second, in MB/s; 0 is no limit.
    pub rate_mb_s: f64,
    /// S3: MiB in one part of an upload; an interrupted push goes on after the last part that arrived (5 to 1024).
    pub part_mib: u64,
    /// Seconds after which one request that does not move has failed (1 to 3600).
    pub timeout_s: f64,
    /// Take a folder on the same file system as the store. A copy on the same disk protects from nothing.
    pub same_file_system: bool,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            to: None,
            endpoint: None,
            region: "us-east-1".into(),
            credentials: None,
            parallel: 4,
            rate_mb_s: 0.0,
            part_mib: 32,
            timeout_s: 60.0,
            same_file_system: false,
        }
    }
}

/// `[retention]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Hours that a run stays after it was closed, however full the store is (0 to 8760).
    pub min_age_h: f64,
    /// Percent of the store from which on runs that are safe to delete are deleted, oldest first.
    pub delete_percent: f64,
    /// Percent of the store from which on somebody should be called.
    pub urgent_percent: f64,
    /// Percent of the store from which on no run is armed.
    pub refuse_percent: f64,
    /// GB that the store may take; all of its file system unless it is given.
    pub capacity_gb: Option<f64>,
    /// Read the copy a second time before a run is safe to delete.
    pub verify_again: bool,
    /// Delete without a clock that follows a time server. Ages may then be wrong.
    pub trust_clock: bool,
    /// Hours within which every file here is read and compared with its hash (0.1 to 8760).
    pub scrub_h: f64,
    /// Most bytes per second that this reads, in MB/s; 0 is no limit.
    pub scrub_mb_s: f64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            min_age_h: 48.0,
            delete_percent: 70.0,
            urgent_percent: 85.0,
            refuse_percent: 95.0,
            capacity_gb: None,
            verify_again: true,
            trust_clock: false,
            scrub_h: 24.0,
            scrub_mb_s: 0.0,
        }
    }
}

impl RetentionConfig {
    /// The percents.
    pub fn watermarks(&self) -> Watermarks {
        Watermarks {
            delete: self.delete_percent,
            urgent: self.urgent_percent,
            refuse: self.refuse_percent,
        }
    }

    /// Age that a run must have.
    pub fn min_age(&self) -> Duration {
        Duration::from_secs_f64(self.min_age_h * 3600.0)
    }
}

/// `[access]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Group that closed runs are given to, by name or number, `{proposal}` for the proposal's name; others may then not read them. This
    /// program must be in the group. Never root.
    pub group: Option<String>,
    /// User that closed runs are given to, by name or number, `{proposal}` for the proposal's name; needs the right to give files away. Never root.
    pub owner: Option<String>,
    /// Folder on the same file system where closed runs appear, whole, for NFS and SMB; a folder of the store begins with a dot.
    pub export: Option<PathBuf>,
}

/// `[announce]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnnounceConfig {
    /// Folder for what SciCat and ICAT are told of verified runs, `PROPOSAL/YYYYMMDD/RUN.scicat.json` and `.icat.xml`.
    /// Nothing is told unless it is given.
    pub folder: Option<PathBuf>,
    /// Command that takes them there: program and arguments; `{scicat}`, `{icat}`, `{run_json}` and `{run}` are filled in. Tried again until it ends with 0.
    pub hook: Vec<String>,
    /// Seconds that the command may take (1 to 3600).
    pub hook_timeout_s: Option<f64>,
    /// SciCat's and ICAT's own words that are the same for every run, for example `contactEmail`; they go before what Fluxline says.
    pub fields: BTreeMap<String, String>,
}

/// Checks what one section alone cannot say.
pub fn check(
    push: &PushConfig,
    retention: &RetentionConfig,
    access: &AccessConfig,
    announce: &AnnounceConfig,
) -> Result<(), ConfigError> {
    within("push.parallel", push.parallel as f64, 1.0, 32.0)?;
    within("push.rate_mb_s", push.rate_mb_s, 0.0, 1e6)?;
    within("push.part_mib", push.part_mib as f64, 5.0, 1024.0)?;
    within("push.timeout_s", push.timeout_s, 1.0, 3600.0)?;
    within("retention.min_age_h", retention.min_age_h, 0.0, 8760.0)?;
    within("retention.scrub_h", retention.scrub_h, 0.1, 8760.0)?;
    within("retention.scrub_mb_s", retention.scrub_mb_s, 0.0, 1e6)?;
    within("retention.delete_percent", retention.delete_percent, 0.0, 100.0)?;
    within(
        "retention.urgent_percent",
        retention.urgent_percent,
        retention.delete_percent,
        100.0,
    )?;
    within(
        "retention.refuse_percent",
        retention.refuse_percent,
        retention.urgent_percent,
        100.0,
    )?;
    if let Some(gb) = retention.capacity_gb {
        within("retention.capacity_gb", gb, 1e-6, 1e9)?;
    }
    within(
        "announce.hook_timeout_s",
        announce.hook_timeout_s.unwrap_or(60.0),
        1.0,
        3600.0,
    )?;
    if !announce.hook.is_empty() && announce.folder.is_none() {
        let expected = "the command takes files: name the folder for them as announce.folder";
        return Err(ConfigError::value(
            "announce.hook",
            format!("{:?}", announce.hook),
            expected,
        ));
    }
    for (key, name) in [("access.group", &access.group), ("access.owner", &access.owner)] {
        if name.as_deref().is_some_and(|name| matches!(name, "root" | "0" | "")) {
            return Err(ConfigError::value(
                key,
                format!("{name:?}"),
                "runs never belong to root: name another",
            ));
        }
    }
    let Some(to) = &push.to else { return Ok(()) };
    let folder = std::path::Path::new(to).is_absolute();
    let bucket = to
        .strip_prefix("s3://")
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    match folder || bucket {
        true => Ok(()),
        false => Err(ConfigError::value(
            "push.to",
            format!("{to:?}"),
            "the absolute path of a mounted folder, or s3://BUCKET/PREFIX",
        )),
    }
}

fn within(key: &str, value: f64, low: f64, high: f64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(key, value, format!("allowed is {low} to {high}")))
}
