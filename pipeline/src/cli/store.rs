//! `fluxline store`

use super::Failure;
use crate::config::Config;
use crate::keep::{Catalogue, KeepError, KeepStatus, Keeper, Query, Settings, State};
use crate::metrics::Metrics;
use crate::storage::Store;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the catalogue of any store to be made anew.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// `fluxline store`
#[derive(Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    what: What,
    /// configuration file of the appliance
    #[arg(long, global = true, default_value = "/etc/fluxline/fluxline.toml")]
    config: PathBuf,
    /// print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// How full it is, how many runs are in which state, where they are pushed to, and which are damaged
    Status {
        /// list the runs that this asks for, as GET /runs?query= does, for example "sample:lyso life:closed"
        #[arg(long)]
        query: Option<String>,
        /// most runs to list
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Reads the copies of verified runs at the central store again and compares them
    Verify {
        /// runs by name; all that have a copy here unless given
        runs: Vec<String>,
    },
    /// Reads the files here and compares them with their hashes; repairs from the verified copy
    Scrub {
        /// runs by name; all that were not read for a day unless given
        runs: Vec<String>,
    },
    /// Pushes what waits, until nothing does or the central store does not answer
    Push,
    /// Hours of room that are left at the present rate
    Forecast,
    /// Deletes runs that are verified and old enough, as far as there must be room
    Gc {
        /// only say what would be deleted
        #[arg(long)]
        dry_run: bool,
    },
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        let text = error.to_string();
        match error {
            KeepError::Config(_) | KeepError::Query { .. } => Failure::Usage(text),
            _ => Failure::Work(text),
        }
    }
}

pub(crate) fn store(args: &StoreArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let failed = |error: &dyn std::fmt::Display| Failure::Work(error.to_string());
    let store = Store::open(&config.resolve(&config.store.path)).map_err(|error| failed(&error))?;
    let metrics = Metrics::new().map_err(|error| failed(&error))?;
    let catalogue = Arc::new(Catalogue::open(store.root())?);
    // Looking is free; who changes something must be alone.
    let alone = !matches!(
        args.what,
        What::Status { .. } | What::Forecast | What::Gc { dry_run: true }
    );
    let keeper = Keeper::open(&store, catalogue, Settings::of(&config), metrics.keep, alone)?;
    keeper.refresh(PATIENCE)?;
    let (document, text, bad) = match &args.what {
        What::Status { query, limit } => status(&keeper, query.as_deref(), *limit)?,
        What::Verify { runs } => verify(&keeper, runs)?,
        What::Scrub { runs } => scrub(&keeper, runs)?,
        What::Push => push(&keeper)?,
        What::Forecast => forecast(&keeper)?,
        What::Gc { dry_run } => gc(&keeper, *dry_run)?,
    };
    match args.json {
        true => println!("{document:#}"),
        false => println!("{}", text.trim_end()),
    }
    match bad {
        None => Ok(()),
        Some(message) => Err(Failure::Work(message)),
    }
}

/// What a command has to say: as JSON, for people, and what was wrong.
type Said = (Value, String, Option<String>);

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn status(keeper: &Keeper, query: Option<&str>, limit: usize) -> Result<Said, Failure> {
    let status: KeepStatus = keeper.look()?;
    let mut text = format!(
        "room      {:.1} GB of {:.1} GB taken ({:.1} %), {}\n",
        gb(status.used_bytes),
        gb(status.capacity_bytes),
        status.percent,
        status.level
    );
    text += &forecast(keeper)?.1;
    for (state, count) in &status.runs {
        text += &format!("{state:15} {:>8} runs {:>10.1} GB\n", count.runs, gb(count.bytes));
    }
    let to = status
        .push
        .destination
        .as_deref()
        .unwrap_or("nowhere: push.to is not set");
    text += &format!("pushed to {to}; {} runs wait\n", status.push.waiting_runs);
    if !status.clock_trusted {
        text += "the clock cannot be trusted with the age of runs: nothing is deleted\n";
    }
    let damaged = keeper.catalogue().damaged_runs(limit)?;
    for run in &damaged {
        text += &format!(
            "DAMAGED   {}: {}\n",
            run.path,
            run.damaged.as_deref().unwrap_or_default()
        );
    }
    if status.damaged_runs > damaged.len() as u64 {
        text += &format!("{} runs are damaged in all\n", status.damaged_runs);
    }
    let mut document = json!(status);
    document["damaged"] = json!(damaged);
    if let Some(query) = query {
        let (runs, total) = keeper.catalogue().search(&Query::parse(query)?, limit, 0)?;
        for run in &runs {
            text += &format!("{:15} {:>10.3} GB  {}\n", run.life, gb(run.bytes), run.path);
        }
        text += &format!("{} of {total} runs\n", runs.len());
        document["found"] = json!({ "runs": runs, "total": total });
    }
    Ok((document, text, None))
}

/// Folders of runs within the store, by name.
fn named(keeper: &Keeper, names: &[String]) -> Result<Vec<String>, Failure> {
    let find = |name: &String| match keeper.catalogue().find(name) {
        Ok(Some(run)) => Ok(run.path),
        Ok(None) => Err(Failure::Usage(format!("there is no closed run {name}"))),
        Err(error) => Err(error.into()),
    };
    names.iter().map(find).collect()
}

fn verify(keeper: &Keeper, names: &[String]) -> Result<Said, Failure> {
    let runs = match names.is_empty() {
        false => named(keeper, names)?,
        true => {
            let kept = keeper
                .catalogue()
                .in_states(&[State::Verified, State::SafeToDelete], usize::MAX >> 1)?;
            kept.into_iter().map(|run| run.path).collect()
        }
    };
    let (mut verified, mut differing, mut text) = (Vec::new(), Vec::new(), String::new());
    for run in runs {
        match keeper.verify(&run) {
            Ok(()) => verified.push(run),
            Err(error @ (KeepError::Differs { .. } | KeepError::Damaged { .. })) => {
                text += &format!("{run}: {error}\n");
                differing.push(json!({ "run": run, "reason": error.to_string() }));
            }
            Err(error) => return Err(error.into()),
        }
    }
    text += &format!("{} runs verified, {} not\n", verified.len(), differing.len());
    let bad = (!differing.is_empty()).then(|| format!("{} copies are not what was sent", differing.len()));
    Ok((json!({ "verified": verified, "differing": differing }), text, bad))
}

fn scrub(keeper: &Keeper, names: &[String]) -> Result<Said, Failure> {
    let mut found = Vec::new();
    match names.is_empty() {
        true => {
            while let Some(one) = keeper.scrub_next()? {
                found.push(one);
            }
        }
        false => {
            for run in named(keeper, names)? {
                let one = keeper.scrub(&run)?;
                found.push((run, one));
            }
        }
    }
    let (mut text, mut damaged) = (String::new(), 0);
    for (run, one) in &found {
        for file in &one.repaired {
            text += &format!("{run}/{file}: repaired from the verified copy\n");
        }
        for file in &one.damaged {
            text += &format!("{run}/{file}\n");
        }
        damaged += one.damaged.len();
    }
    text += &format!("{} runs read\n", found.len());
    let document =
        json!({ "runs": found.iter().map(|(run, one)| json!({ "run": run, "files": one })).collect::<Vec<_>>() });
    let bad = (damaged > 0).then(|| format!("{damaged} files are damaged"));
    Ok((document, text, bad))
}

fn push(keeper: &Keeper) -> Result<Said, Failure> {
    let to = keeper
        .destination()
        .ok_or_else(|| Failure::Usage("push.to is not set: there is nowhere to push to".into()))?;
    let (mut pushed, mut errors) = (Vec::new(), Vec::new());
    loop {
        match keeper.push_next() {
            Ok(Some(run)) => pushed.push(run.path),
            Ok(None) => break,
            // Its turn comes again after its wait; the others go on unless the central store is away.
            Err(error) => errors.push(error.to_string()),
        }
    }
    keeper.mature()?;
    let text = format!("{} runs pushed to {} and verified\n", pushed.len(), to.name());
    let bad = (!errors.is_empty()).then(|| errors.join("\n"));
    Ok((
        json!({ "destination": to.name(), "verified": pushed, "errors": errors }),
        text,
        bad,
    ))
}

fn forecast(keeper: &Keeper) -> Result<Said, Failure> {
    let forecast = keeper.forecast()?;
    let hours = |hours: Option<f64>| hours.map_or("no end".into(), |hours| format!("{hours:.1} h"));
    let text = format!(
        "forecast  {:.3} GB/s: {} left at this rate, {} when everything safe is deleted\n",
        forecast.bytes_per_s / 1e9,
        hours(forecast.hours_left),
        hours(forecast.hours_left_after_deleting)
    );
    Ok((json!(forecast), text, None))
}

fn gc(keeper: &Keeper, dry_run: bool) -> Result<Said, Failure> {
    if !dry_run {
        keeper.mature()?;
    }
    let plan = keeper.plan(0)?;
    let deleted = if dry_run { Vec::new() } else { keeper.collect(0)? };
    let (verb, gone) = if dry_run {
        ("would be deleted", &plan.delete)
    } else {
        ("deleted", &deleted)
    };
    let mut text = String::new();
    for run in gone {
        text += &format!("{} {:.3} GB {verb}\n", run.path, gb(run.bytes));
    }
    text += &format!(
        "{} runs {verb}, {} more are safe to delete, {} with {:.1} GB are not\n",
        gone.len(),
        plan.stay.len(),
        plan.unsafe_runs,
        gb(plan.unsafe_bytes)
    );
    Ok((
        json!({ "dry_run": dry_run, "deleted": deleted, "plan": plan }),
        text,
        None,
    ))
}
