//! `fluxline run`

use super::Failure;
use crate::appliance::{Appliance, RunRequest};
use crate::config::Config;
use crate::feedback::server::Server;
use clap::Args;
use std::path::PathBuf;

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
    let autostart = config.run.autostart || args.once;
    let appliance = Appliance::start(config)?;
    appliance.connect()?;
    let server = Server::start(appliance.clone()).map_err(Failure::Work)?;
    eprintln!(
        "fluxline {} listens at http://{}",
        env!("CARGO_PKG_VERSION"),
        server.address
    );
    if autostart {
        server.begin(&RunRequest::default())?;
    }
    if args.once {
        let summary = super::progress::follow(&server, &appliance, args.json)
            .ok_or_else(|| Failure::Work("the run left no summary".into()))?;
        appliance.close();
        return super::summary::conclude(&summary, args.json);
    }
    server.wait_for_signal();
    if let Some(run) = appliance.current().filter(|run| !run.state().ended()) {
        eprintln!("fluxline: stopping run {}", run.info.id);
        run.stop();
    }
    server.shared.recorder.wait();
    appliance.close();
    Ok(())
}
