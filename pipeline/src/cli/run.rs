//! `fluxline run`

use super::Failure;
use crate::appliance::{Appliance, RunRequest};
use crate::config::Config;
use crate::feedback::server::{Guarded, Server};
use crate::watchdog::{self, Watchdog};
use clap::Args;
use sd_notify::NotifyState;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Time between two looks at the stages, and two pings of the watchdog.
const LOOK: Duration = Duration::from_secs(1);

/// `fluxline run`
#[derive(Args)]
pub(crate) struct RunArgs {
    /// configuration file
    config: PathBuf,
    /// arm one run at once, end when it has ended, and print its summary
    #[arg(long)]
    once: bool,
    /// with --once: print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let autostart = config.run.autostart;
    let door = Guarded::open(&config)?;
    let sentence = door.access.sentence();
    let appliance = Appliance::start(config)?;
    appliance.connect()?;
    let server = Server::start(appliance.clone(), door).map_err(Failure::Work)?;
    eprintln!("fluxline: {sentence}");
    eprintln!("fluxline {} listens at {}", env!("CARGO_PKG_VERSION"), server.url());
    if args.once {
        server.shared.begin(&RunRequest::default())?;
        let summary = super::progress::follow(&server, &appliance, args.json)
            .ok_or_else(|| Failure::Work("the run left no summary".into()))?;
        appliance.close();
        return super::summary::conclude(&summary, args.json);
    }
    if let Err(error) = appliance.keep() {
        eprintln!("fluxline: closed runs are neither pushed nor deleted by this process: {error}");
    }
    tell(&[NotifyState::Ready]);
    if autostart {
        arm_at_start(&server)?;
    }
    serve(&server, &appliance);
    tell(&[NotifyState::Stopping]);
    if let Some(run) = appliance.current().filter(|run| !run.state().ended()) {
        eprintln!("fluxline: stopping run {}", run.info.id);
        run.stop();
    }
    server.shared.recorder.wait();
    if let Some(derived) = appliance
        .afterwards()
        .derived()
        .filter(|_| appliance.afterwards().busy())
    {
        eprintln!("fluxline: ending {}", derived.status().id);
        derived.cancel();
        appliance.afterwards().wait();
    }
    appliance.close();
    Ok(())
}

/// Arms a run beside the server, since a source may let it wait for its sender. Where it cannot be armed the appliance
/// serves on: somebody has to see why.
fn arm_at_start(server: &Server) -> Result<(), Failure> {
    let shared = server.shared.clone();
    std::thread::Builder::new()
        .name("fluxline-arm".into())
        .spawn(move || match shared.begin(&RunRequest::default()) {
            Ok(()) => eprintln!("fluxline: a run is armed"),
            Err(error) => eprintln!("fluxline: no run is armed at start: {error}"),
        })
        .map_err(|error| Failure::Work(error.to_string()))?;
    Ok(())
}

/// Serves until Ctrl-C or SIGTERM, and tells the service manager what happens. Its watchdog hears nothing while a stage
/// hangs.
fn serve(server: &Server, appliance: &Appliance) {
    let ended = super::signals::ended();
    let started = Instant::now();
    let mut watchdog = Watchdog::default();
    let (mut next_look, mut status, mut stuck) = (Duration::ZERO, String::new(), None);
    while !ended.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(50));
        let now = started.elapsed();
        if now < next_look {
            continue;
        }
        next_look = now + LOOK;
        let run = appliance.current();
        let beats = server.shared.beats.load(Relaxed);
        match watchdog.look(now, watchdog::seen(run.as_deref(), beats)) {
            Ok(()) => {
                tell(&[NotifyState::Watchdog]);
                stuck = None;
            }
            Err(found) if stuck != Some(found.stage) => {
                eprintln!("fluxline: {} stands still for {} s", found.stage, found.seconds);
                stuck = Some(found.stage);
            }
            Err(_) => {}
        }
        let state = run.map_or_else(
            || "idle".into(),
            |run| format!("{} {}", run.info.id, run.state().name()),
        );
        if state != status {
            tell(&[NotifyState::Status(&state)]);
            status = state;
        }
    }
}

/// To the service manager, where there is one that listens.
fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, what) {
        tracing::warn!("the service manager does not listen: {error}");
    }
}
