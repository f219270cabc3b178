//! `fluxline rules`

use super::Failure;
use crate::config::RecipeConfig;
use crate::decisions::{Decision, Decisions, Fate, Known, Names, RuleConfig, Rules};
use crate::feedback::hub::ResultMessage;
use crate::ledger::{Analysis, Columns};
use crate::recipes;
use crate::storage::{self, StoreError};
use clap::Subcommand;
use frame::FrameKind;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Frames whose results are read at once.
const BLOCK: usize = 1024;

/// `fluxline rules`
#[derive(Subcommand)]
pub(crate) enum RulesCommand {
    /// Checks the rules of a file without a run
    Check {
        /// configuration, or a file of [rule.NAME] tables
        file: PathBuf,
    },
    /// Asks the rules of a file of every result of a stored run, and says what they would have decided
    Try {
        /// configuration, or a file of [rule.NAME] tables
        file: PathBuf,
        /// folder of a stored run, or its RUN_master.h5
        run: PathBuf,
        /// print the decisions as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The rules of a file, and the recipes that they are for, where it is a configuration; whatever else it holds is of no
/// interest here.
#[derive(Deserialize)]
struct RulesFile {
    #[serde(default)]
    rule: BTreeMap<String, RuleConfig>,
    #[serde(default)]
    recipe: BTreeMap<String, RecipeConfig>,
}

pub(crate) fn rules(command: &RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::Check { file } => {
            let configured = load(file)?;
            let known = recipes::results_of(configured.recipe.iter())?;
            let configured = configured.rule;
            Rules::new(&configured, known).map_err(|error| wrong(file, error))?;
            println!(
                "{}: {} rules, valid: {}",
                file.display(),
                configured.len(),
                names_of(&configured)
            );
            Ok(())
        }
        RulesCommand::Try { file, run, json } => {
            let (configured, names) = (load(file)?, storage::read_names(run).map_err(failed)?);
            // What the run has is what can be asked of it, whatever the recipes are now.
            let known = Known::default().and(&names);
            let rules = Rules::new(&configured.rule, known).map_err(|error| wrong(file, error))?;
            let decisions = Decisions::new(Arc::new(rules), names);
            let refused = replay(run, &decisions)?;
            if let Some(sentence) = refused.first() {
                return Err(Failure::Usage(sentence.clone()));
            }
            let (kept, not_kept) = decisions.list();
            match json {
                true => println!("{:#}", serde_json::json!({ "decisions": kept, "not_kept": not_kept })),
                false => show(&kept, not_kept),
            }
            Ok(())
        }
    }
}

fn failed(error: StoreError) -> Failure {
    Failure::Work(error.to_string())
}

fn wrong(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {error}", file.display()))
}

fn load(file: &Path) -> Result<RulesFile, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("cannot read the rules {}: {error}", file.display())))?;
    let parsed: RulesFile = toml::from_str(&text).map_err(|error| wrong(file, error.to_string().trim_end()))?;
    if parsed.rule.is_empty() {
        return Err(wrong(file, "it has no rules, write them as [rule.NAME] tables"));
    }
    Ok(parsed)
}

fn names_of(rules: &BTreeMap<String, RuleConfig>) -> String {
    rules.keys().cloned().collect::<Vec<_>>().join(", ")
}

/// Takes every result of a stored run through the rules; what they could not answer.
fn replay(run: &Path, decisions: &Decisions) -> Result<Vec<String>, Failure> {
    let names = storage::read_names(run).map_err(failed)?;
    let ledger = storage::read_ledger(run).map_err(failed)?;
    let mut refused = Vec::new();
    for first in (0..ledger.frame_state.len()).step_by(BLOCK) {
        let end = ledger.frame_state.len().min(first + BLOCK);
        for result in read_block(run, &names, &ledger, first..end).map_err(failed)? {
            let arrival_ns = ledger.arrival_ns[result.frame_number as usize];
            let decided_ns = arrival_ns + result.age_us * 1000;
            let done = decisions.take(Some((&Arc::new(result), arrival_ns)), |_| Fate::Never, || decided_ns);
            refused.extend(done.refused);
        }
    }
    Ok(refused)
}

/// The results of some frames, as consumers got them.
fn read_block(
    run: &Path,
    names: &Names,
    ledger: &Columns,
    frames: std::ops::Range<usize>,
) -> Result<Vec<ResultMessage>, StoreError> {
    let mut scalars = Vec::new();
    for (name, _) in &names.scalars {
        scalars.push((name.clone(), storage::read_scalar(run, name, frames.clone())?));
    }
    let mut curves = Vec::new();
    if let Some((name, axis)) = &names.curve {
        for curve in [name.clone(), format!("{name}_errors")] {
            // A curve without errors has no such dataset.
            if let Ok((rows, _)) = storage::read_dataset_f32(run, &storage::curve_path(&curve), frames.clone()) {
                curves.push((curve, rows, axis.len()));
            }
        }
    }
    let metadata = storage::read_frame_metadata(run, frames.clone())?;
    let analysed = frames
        .clone()
        .filter(|frame| ledger.analysis[*frame] == Analysis::Done as u8);
    let message = |frame: usize| {
        let row = frame - frames.start;
        let scalar = |(name, values): &(String, Vec<f64>)| Some((name.clone(), *values.get(row)?));
        let curve = |(name, rows, length): &(String, Vec<f32>, usize)| {
            Some((name.clone(), rows.get(row * length..(row + 1) * length)?.to_vec()))
        };
        let told = metadata
            .iter()
            .filter_map(|(name, values)| Some((name.clone(), (*values.get(row)?)?)));
        ResultMessage {
            grid: None,
            sequence: 0,
            frame_number: frame as u64,
            kind: FrameKind::Sample,
            partial: ledger.entry(frame as u64).is_some_and(|entry| entry.state == "partial"),
            parameters_version: 0,
            angle_deg: None,
            age_us: u64::from(ledger.result_latency_ns[frame]) / 1000,
            scalars: scalars.iter().filter_map(scalar).collect(),
            curves: curves.iter().filter_map(curve).collect(),
            metadata: told.collect(),
        }
    };
    Ok(analysed.map(message).collect())
}

fn show(decisions: &[Decision], not_kept: u64) {
    println!("{:>9}  {:24} {:8} {:>6}  evidence", "frame", "rule", "action", "share");
    for decision in decisions {
        let evidence = decision
            .evidence
            .iter()
            .map(|(name, value)| format!("{name} = {value:.6}"));
        println!(
            "{:>9}  {:24} {:8} {:>5.0}%  {}",
            decision.frame_number,
            decision.rule,
            format!("{:?}", decision.action).to_lowercase(),
            decision.share * 100.0,
            evidence.collect::<Vec<_>>().join(", ")
        );
    }
    let more = if not_kept > 0 {
        format!(", and {not_kept} more")
    } else {
        String::new()
    };
    println!("{} decisions{more}", decisions.len());
}
