//! The command line. `--json` prints one JSON document on stdout at the end and nothing else there. Exit
//! status 0: done, 1: the work failed, 2: the command or the configuration was wrong.

mod demo;
mod doctor;
mod doctor_network;
mod doctor_rdma;
mod emulate;
mod inspect;
mod progress;
mod rdma_rate;
mod replay;
mod reprocess;
mod rules;
mod run;
mod signals;
mod store;
mod summary;

use crate::appliance::ApplianceError;
use crate::config::{Config, ConfigError};
use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "fluxline",
    version,
    about = "Online analysis appliance for synchrotron and XFEL beamlines",
    long_about = "Detector frames arrive in huge-page buffers, are reduced and reconstructed on an OpenCL device while \
                  they are measured, and are stored as NeXus. Results, frames and slices are served over HTTP.\n\n\
                  Exit status: 0 done, 1 the work failed, 2 the command or the configuration was wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The appliance: serves the interface and the page, and records runs
    Run(run::RunArgs),
    /// The appliance with a simulated detector and a page to look at
    Demo(demo::DemoArgs),
    /// Takes a file through the whole appliance: source, ring, kernels, store
    Replay(replay::ReplayArgs),
    /// Takes a stored run through its recipe again with other parameters, as a new run; needs no detector
    Reprocess(reprocess::ReprocessArgs),
    /// Sends frames of a file or of a simulation as a detector does: by RDMA, as a DECTRIS stream, or in UDP packets
    Emulate(Box<emulate::EmulateArgs>),
    /// Receives by RDMA and does nothing else: what the network can do, beside ib_write_bw
    RdmaRate(rdma_rate::RdmaRateArgs),
    /// Shows the ledger of a stored run
    Inspect(inspect::InspectArgs),
    /// Closed runs: where they stand, their copies, what would be deleted, how long there is room
    Store(store::StoreArgs),
    /// Checks rules, or tries them on a stored run
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Checks a configuration without starting anything
    Validate(ValidateArgs),
    /// Checks what the machine has: huge pages, locked memory, OpenCL, RDMA, network, cores, disk, clock
    Doctor(doctor::DoctorArgs),
    /// Prints a file that is generated from the code
    #[command(hide = true)]
    Describe {
        /// openapi, configuration or metrics
        what: String,
    },
}

/// `fluxline validate`
#[derive(Args)]
struct ValidateArgs {
    /// configuration file
    config: PathBuf,
    /// print the configuration as it is understood, with every default
    #[arg(long)]
    json: bool,
}

/// How a command ended badly.
pub(crate) enum Failure {
    /// exit status 1
    Work(String),
    /// exit status 2
    Usage(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<ApplianceError> for Failure {
    fn from(error: ApplianceError) -> Self {
        let text = error.to_string();
        match error {
            ApplianceError::Config(_) | ApplianceError::Recipe(_) => Failure::Usage(text),
            _ => Failure::Work(text),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLUXLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,fluxline=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    // These end in order; everything else may just end.
    if matches!(
        cli.command,
        Command::Run(_) | Command::Demo(_) | Command::Replay(_) | Command::Reprocess(_)
    ) && let Err(error) = signals::take()
    {
        eprintln!("fluxline: Ctrl-C will not end this in order: {error}");
    }
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Reprocess(args) => reprocess::reprocess(&args),
        Command::Emulate(args) => emulate::emulate(&args),
        Command::RdmaRate(args) => rdma_rate::rdma_rate(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Store(args) => store::store(&args),
        Command::Rules(command) => rules::rules(&command),
        Command::Validate(args) => validate(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Describe { what } => describe(&what),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Work(message)) => {
            eprintln!("fluxline: {message}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("fluxline: {message}");
            ExitCode::from(2)
        }
    }
}

fn validate(args: &ValidateArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    if args.json {
        let text = serde_json::to_string_pretty(&config).map_err(|error| Failure::Work(error.to_string()))?;
        println!("{text}");
    } else {
        let recipes: Vec<&str> = config.recipe.keys().map(String::as_str).collect();
        println!("{}: valid; recipes: {}", args.config.display(), recipes.join(", "));
    }
    Ok(())
}

fn describe(what: &str) -> Result<(), Failure> {
    let text = match what {
        "openapi" => crate::feedback::server::openapi(),
        "configuration" => crate::describe::configuration(),
        "metrics" => crate::describe::metrics().map_err(|error| Failure::Work(error.to_string()))?,
        other => return Err(Failure::Usage(format!("{other:?}: openapi, configuration or metrics"))),
    };
    print!("{text}");
    Ok(())
}
