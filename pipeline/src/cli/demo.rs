//! `fluxline demo`: the appliance with a simulated detector. Diffraction and tomography take turns.

use super::Failure;
use crate::active_run::Summary;
use crate::appliance::{Appliance, RunRequest};
use crate::config::{Config, SourceConfig};
use crate::feedback::server::{Guarded, Server};
use clap::Args;
use driver::simulate::Simulate;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Runs of the demo that its store keeps; older ones are removed, so that a demo may run for days.
const RUNS_KEPT: usize = 6;

/// `fluxline demo`
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// end by itself after so many seconds and print a summary
    #[arg(long)]
    seconds: Option<f64>,
    /// folder of the demo's store; its oldest runs are removed while it runs
    #[arg(long, default_value = "demo-store")]
    store: PathBuf,
    /// address and port of the page; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// print the last summaries as JSON
    #[arg(long)]
    json: bool,
}

/// The two configurations that take turns.
const TURNS: [(&str, &str); 2] = [
    ("diffraction", include_str!("demo_diffraction.toml")),
    ("tomography", include_str!("demo_tomography.toml")),
];

fn configuration(text: &str, name: &str, args: &DemoArgs, work: &Path) -> Result<Config, Failure> {
    let store = std::path::absolute(&args.store).unwrap_or_else(|_| args.store.clone());
    let text = text
        .replace("{store}", &store.display().to_string())
        .replace("{listen}", &args.listen);
    Ok(Config::parse(
        &text,
        Path::new(&format!("the demo's {name}.toml")),
        work,
    )?)
}

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    if let Some(seconds) = args.seconds.filter(|seconds| !(*seconds > 0.0 && *seconds <= 1e9)) {
        return Err(Failure::Usage(format!(
            "--seconds {seconds}: a number of seconds above 0"
        )));
    }
    let folder = std::env::current_dir().unwrap_or_default();
    let configs: Vec<Config> = TURNS
        .iter()
        .map(|(name, text)| configuration(text, name, args, &folder))
        .collect::<Result<_, _>>()?;
    // One appliance serves both: it takes the recipes of all turns, and each turn brings its own source.
    let mut merged = configs[0].clone();
    merged.recipe = configs.iter().flat_map(|config| config.recipe.clone()).collect();
    let door = Guarded::open(&merged)?;
    let appliance = Appliance::start(merged)?;
    let server = Server::start(appliance.clone(), door).map_err(Failure::Work)?;
    eprintln!("Fluxline's demo: look at {} (Ctrl-C ends it)", server.url());
    let scenes = scenes(&configs)?;
    let ended = ends_at(args.seconds, super::signals::ended());
    let mut summaries = Vec::new();
    for turn in (0..TURNS.len()).cycle() {
        if ended.load(SeqCst) {
            break;
        }
        let summary = one_turn(&appliance, &configs[turn], &scenes[turn], turn, &ended)?;
        let failed = summary.state == "failed";
        summaries.push(summary);
        if failed {
            break;
        }
        tidy(&appliance);
    }
    let shown = summaries.len().saturating_sub(TURNS.len());
    conclude(&summaries[shown..], args.json)
}

/// Makes the simulated frames of all turns, beside each other; they serve every time the turn comes.
fn scenes(configs: &[Config]) -> Result<Vec<Simulate>, Failure> {
    let made: Vec<Result<Simulate, Failure>> = std::thread::scope(|scope| {
        let makers: Vec<_> = configs.iter().map(|config| scope.spawn(|| scene(config))).collect();
        let gone = || Failure::Work("a simulation panicked".into());
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap_or_else(|_| Err(gone())))
            .collect()
    });
    made.into_iter().collect()
}

fn scene(config: &Config) -> Result<Simulate, Failure> {
    match config.source.first().map(|entry| &entry.source) {
        Some(SourceConfig::Simulate(source)) => {
            Simulate::new(source.simulate.clone()).map_err(|error| Failure::Work(error.to_string()))
        }
        _ => Err(Failure::Work("the demo simulates its detectors".into())),
    }
}

/// A flag that is set when the time is over or somebody wants the end.
fn ends_at(seconds: Option<f64>, interrupted: Arc<AtomicBool>) -> Arc<AtomicBool> {
    if let Some(seconds) = seconds {
        let ended = interrupted.clone();
        // The process ends with the demo, and this thread with it.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            ended.store(true, SeqCst);
        });
    }
    interrupted
}

/// Arms and records one run; stops it when the demo ends.
fn one_turn(
    appliance: &Arc<Appliance>,
    config: &Config,
    scene: &Simulate,
    turn: usize,
    ended: &AtomicBool,
) -> Result<Summary, Failure> {
    let request = RunRequest {
        recipe: Some(TURNS[turn].0.into()),
        sample: Some(config.run.sample.clone()),
        ..RunRequest::default()
    };
    let run = appliance.arm_with(Box::new(scene.clone()), &request, None)?;
    let active = run.active.clone();
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| appliance.record(run));
        while !recording.is_finished() {
            if ended.load(SeqCst) {
                active.stop();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        recording.join().map_err(|_| Failure::Work("the run panicked".into()))
    })
}

/// Removes the demo's own oldest runs. Only a demo's store is ever tidied up like this.
fn tidy(appliance: &Appliance) {
    let Ok(runs) = appliance.store().runs() else { return };
    for run in runs.iter().filter(|run| run.record.proposal == "demo").skip(RUNS_KEPT) {
        // A run that somebody looks at may be in the way; it goes next time.
        let _ = std::fs::remove_dir_all(&run.folder);
    }
}

fn conclude(summaries: &[Summary], json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(summaries).map_err(|error| Failure::Work(error.to_string()))?;
        println!("{text}");
    } else {
        for summary in summaries {
            println!("{}", super::summary::text(summary));
        }
    }
    match summaries.iter().find(|summary| summary.state == "failed") {
        Some(failed) => Err(Failure::Work(format!("run {} failed", failed.run))),
        None => Ok(()),
    }
}
