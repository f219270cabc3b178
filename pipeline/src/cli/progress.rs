//! A progress bar for people who watch a run on a terminal.

use crate::active_run::{ActiveRun, Summary};
use crate::appliance::Appliance;
use crate::feedback::server::Server;
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
    server.shared.recorder.wait()
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
