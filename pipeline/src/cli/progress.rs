//! A progress bar for people who watch a run on a terminal.

use super::Failure;
use crate::active_run::{ActiveRun, Summary};
use crate::appliance::Appliance;
use crate::feedback::server::Server;
use crate::run::Run;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Waits for the run that records now; Ctrl-C stops it and keeps everything.
pub(crate) fn follow(server: &Server, appliance: &Arc<Appliance>, quiet: bool) -> Option<Summary> {
    let interrupted = super::signals::ended();
    let bar = bar(quiet);
    if let Some(run) = appliance.current() {
        bar.set_length(run.ledger.expected());
        while !run.state().ended() {
            show(&bar, &run);
            if interrupted.load(SeqCst) {
                run.stop();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        show(&bar, &run);
    }
    bar.finish_and_clear();
    let mut summary = server.shared.recorder.wait()?;
    conclude(appliance, &mut summary, quiet);
    Some(summary)
}

/// Records an armed run, and what is derived from it, to the end; Ctrl-C stops the run and keeps everything of it.
pub(crate) fn record(appliance: &Arc<Appliance>, run: Run, quiet: bool) -> Result<Summary, Failure> {
    let active = run.active.clone();
    let interrupted = super::signals::ended();
    let bar = bar(quiet);
    bar.set_length(active.ledger.expected());
    let summary = std::thread::scope(|scope| {
        let recording = scope.spawn(|| appliance.record(run));
        while !recording.is_finished() {
            show(&bar, &active);
            if interrupted.load(SeqCst) {
                active.stop();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        recording.join()
    });
    bar.finish_and_clear();
    let mut summary = summary.map_err(|_| Failure::Work("the run panicked".into()))?;
    conclude(appliance, &mut summary, quiet);
    Ok(summary)
}

/// Waits for what is derived from a run; Ctrl-C ends that without keeping it.
pub(crate) fn conclude(appliance: &Appliance, summary: &mut Summary, quiet: bool) {
    let interrupted = super::signals::ended();
    let bar = bar(quiet);
    // The template is a constant; without it the bar is only plainer.
    if let Ok(style) = ProgressStyle::with_template("{msg:40} [{bar:40}] {pos}/{len}") {
        bar.set_style(style.progress_chars("=> "));
    }
    while appliance.afterwards().busy() {
        if let Some(derived) = appliance.afterwards().derived() {
            let status = derived.status();
            bar.set_length(status.total);
            bar.set_position(status.done);
            let left = status
                .seconds_left
                .map_or(String::new(), |left| format!("  {left:.0} s left"));
            bar.set_message(format!("{}{left}", status.id));
            if interrupted.load(SeqCst) {
                derived.cancel();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bar.finish_and_clear();
    appliance.afterwards().conclude(summary);
}

/// A bar on stderr, hidden where nobody looks.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    // The template is a constant; without it the bar is only plainer.
    if let Ok(style) = ProgressStyle::with_template("{msg:24} [{bar:40}] {pos}/{len} frames  {per_sec}  eta {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Shows how far a run is.
pub(crate) fn show(bar: &ProgressBar, run: &ActiveRun) {
    let outcomes = run.ledger.outcomes();
    bar.set_position(outcomes.synced + outcomes.vetoed + outcomes.storage_failed);
    bar.set_message(format!("{} {}", run.info.technique, run.state().name()));
}
