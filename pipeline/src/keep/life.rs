//! The states of a run after its files are closed, and `state.jsonl`, which says how it came there.
//!
//! ```text
//! recording ──▶ closed ──▶ pushed ──▶ verified ──▶ safe_to_delete ──▶ deleted
//!                 ▲           │           │               │
//!                 └───────────┴───────────┴───────────────┘   the copy is not what it should be
//! ```
//!
//! A line counts only when it follows from what came before: `verified` names the `run.json` that was closed, and
//! nothing is `safe_to_delete` that is not verified. A line that was torn by a crash is no line.

use super::KeepError;
use crate::storage::state_jsonl::{self, STATE_JSONL};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// its files are being written, or an interruption left them so
    #[default]
    Recording,
    /// its files are closed, on the disk, and described by `run.json`
    Closed,
    /// every byte was sent to the central store
    Pushed,
    /// the central store was read again and has what `run.json` says
    Verified,
    /// verified and old enough
    SafeToDelete,
    /// its data are gone from here; `run.json` and `state.jsonl` stay
    Deleted,
}

impl State {
    /// Every state in order.
    pub const ALL: [State; 6] = [
        State::Recording,
        State::Closed,
        State::Pushed,
        State::Verified,
        State::SafeToDelete,
        State::Deleted,
    ];

    /// The word that files, interface and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            State::Recording => "recording",
            State::Closed => "closed",
            State::Pushed => "pushed",
            State::Verified => "verified",
            State::SafeToDelete => "safe_to_delete",
            State::Deleted => "deleted",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// The life of a run as its lines tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// where it stands
    pub state: State,
    /// when it was closed first
    pub closed: Option<Timestamp>,
    /// when the copy was last read and found right
    pub verified: Option<Timestamp>,
    /// when its data were deleted
    pub deleted: Option<Timestamp>,
    /// SHA-256 of the `run.json` that was closed
    pub run_json_sha256: Option<String>,
    /// where the copy is
    pub destination: Option<String>,
    /// what is wrong with the files here; empty where nothing is
    pub damaged: Option<String>,
    /// whether the catalogues of the facility have been told
    pub announced: bool,
}

impl Life {
    /// The life that `folder`'s lines tell; of a run without lines it records.
    pub fn read(folder: &Path) -> Result<Life, KeepError> {
        let path = folder.join(STATE_JSONL);
        match fs::read(&path) {
            Ok(bytes) => Ok(Life::of(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Life::default()),
            Err(source) => Err(KeepError::io("reading", &path, source)),
        }
    }

    /// The life that these lines tell.
    pub fn of(lines: &[u8]) -> Life {
        let mut life = Life::default();
        for line in lines.split(|byte| *byte == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Value>(line) {
                life.follow(&line);
            }
        }
        life
    }

    /// One line more. A line that does not follow from the life so far changes nothing.
    pub fn follow(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().map(str::to_string);
        let time = line["time"].as_str().and_then(|time| time.parse().ok());
        let same_run = self.run_json_sha256.is_some() && text("run_json_sha256") == self.run_json_sha256;
        match line["state"].as_str().unwrap_or_default() {
            "closed" if self.state < State::Deleted => {
                self.state = State::Closed;
                self.closed = self.closed.or(time);
                self.verified = None;
                self.run_json_sha256 = text("run_json_sha256").or(self.run_json_sha256.take());
            }
            "pushed" if self.state == State::Closed && same_run => {
                self.state = State::Pushed;
                self.destination = text("destination");
            }
            "verified" if same_run && matches!(self.state, State::Pushed | State::Verified) && time.is_some() => {
                self.state = State::Verified;
                self.verified = time;
            }
            "safe_to_delete" if self.state == State::Verified && same_run => self.state = State::SafeToDelete,
            "deleted" if self.state == State::SafeToDelete => {
                self.state = State::Deleted;
                self.deleted = time;
            }
            "damaged" => self.damaged = Some(text("reason").unwrap_or_default()),
            "repaired" => self.damaged = None,
            "announced" => self.announced = true,
            _ => {}
        }
    }

    /// Appends a line to `folder`'s file, on the disk when this returns, and follows it.
    pub fn append(&mut self, folder: &Path, now: Timestamp, state: &str, detail: Value) -> Result<(), KeepError> {
        let mut line = state_jsonl::line(now, state, detail);
        if let (Some(hash), Value::Object(fields)) = (&self.run_json_sha256, &mut line) {
            fields.insert("run_json_sha256".into(), json!(hash));
        }
        state_jsonl::append_line(folder, &line)
            .map_err(|source| KeepError::io("appending to", &folder.join(STATE_JSONL), source))?;
        self.follow(&line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(state: &str, hash: &str) -> String {
        format!(
            "{}\n",
            json!({ "time": "2026-11-28T10:00:00.000Z", "state": state, "run_json_sha256": hash, "destination": "/central" })
        )
    }

    #[test]
    fn a_life_is_followed_line_by_line() {
        let mut text = String::from("{\"state\":\"recording\",\"time\":\"2026-11-28T09:00:00.000Z\"}\n");
        for state in ["closed", "pushed", "verified", "safe_to_delete", "deleted"] {
            text += &line(state, "aa");
            assert_eq!(Life::of(text.as_bytes()).state.name(), state);
        }
    }

    #[test]
    fn a_proof_of_another_run_and_a_torn_line_prove_nothing() {
        let text = line("closed", "aa") + &line("pushed", "aa") + &line("verified", "bb");
        assert_eq!(Life::of(text.as_bytes()).state, State::Pushed);
        let torn = line("closed", "aa") + &line("pushed", "aa") + &line("verified", "aa")[..40];
        assert_eq!(Life::of(torn.as_bytes()).state, State::Pushed);
    }

    #[test]
    fn a_copy_that_went_bad_makes_the_run_closed_again_but_no_younger() {
        let text = line("closed", "aa") + &line("pushed", "aa") + &line("verified", "aa");
        let again =
            text + "{\"state\":\"closed\",\"time\":\"2026-12-01T10:00:00.000Z\",\"reason\":\"the copy differs\"}\n";
        let life = Life::of(again.as_bytes());
        assert_eq!((life.state, life.verified), (State::Closed, None));
        assert_eq!(life.closed, "2026-11-28T10:00:00Z".parse().ok());
    }

    #[test]
    fn a_line_after_a_torn_one_is_read() {
        let folder = std::env::temp_dir().join(format!("fluxline-life-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(STATE_JSONL), line("closed", "aa") + "{\"state\":\"pus").unwrap();
        let mut life = Life::read(&folder).unwrap();
        life.append(&folder, Timestamp::UNIX_EPOCH, "pushed", json!({}))
            .unwrap();
        assert_eq!(Life::read(&folder).unwrap(), life);
        assert_eq!(life.state, State::Pushed);
        fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        /// Whatever lines a file has, nothing is safe to delete without a proof of this very run before it.
        #[test]
        fn nothing_is_safe_without_a_proof(steps in prop::collection::vec((0..6usize, any::<bool>()), 0..24)) {
            let (mut text, mut proven) = (String::new(), false);
            for (step, ours) in steps {
                let state = State::ALL[step].name();
                text += &line(state, if ours { "aa" } else { "bb" });
                let life = Life::of(text.as_bytes());
                match state {
                    "closed" => proven = false,
                    "verified" if life.state == State::Verified => proven = true,
                    _ => {}
                }
                if life.state >= State::SafeToDelete {
                    prop_assert!(proven, "{text}");
                    if life.state == State::Deleted { break; }
                }
            }
        }
    }
}
