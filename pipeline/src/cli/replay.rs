//! `fluxline replay`

use super::Failure;
use crate::appliance::{Appliance, RunRequest};
use crate::config::{Config, ConfigError};
use clap::Args;
use std::path::{Path, PathBuf};

/// `fluxline replay`
#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// the file, or the first of a numbered series: HDF5, TIFF, CBF
    file: PathBuf,
    /// configuration with the recipe; its [[source]], if it has one, is replaced by the file
    #[arg(long)]
    config: PathBuf,
    /// folder of the store, instead of the configuration's
    #[arg(long)]
    store: Option<PathBuf>,
    /// recipe, where the configuration has several
    #[arg(long)]
    recipe: Option<String>,
    /// dataset of an HDF5 file, where it is not in a place that a standard names
    #[arg(long)]
    dataset: Option<String>,
    /// frames per second; 0 is as fast as the ring allows
    #[arg(long)]
    rate: Option<f64>,
    /// first frame of the file
    #[arg(long)]
    first: Option<u64>,
    /// last frame of the file, itself included
    #[arg(long)]
    last: Option<u64>,
    /// name of the run
    #[arg(long)]
    name: Option<String>,
    /// sample name
    #[arg(long)]
    sample: Option<String>,
    /// print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let config = configuration(args)?;
    let appliance = Appliance::start(config)?;
    let request = RunRequest {
        name: args.name.clone(),
        sample: args.sample.clone(),
        recipe: args.recipe.clone(),
        ..RunRequest::default()
    };
    let run = appliance.arm(&request)?;
    let summary = super::progress::record(&appliance, run, args.json)?;
    super::summary::conclude(&summary, args.json)
}

/// The configuration with its source replaced by the file of the command line.
fn configuration(args: &ReplayArgs) -> Result<Config, Failure> {
    let path = &args.config;
    let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::Read {
        path: path.clone(),
        reason,
    })?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.clone(),
        message: error.to_string(),
    })?;
    // The options of the configuration's own replay source stay in force for this file.
    let mut source = match table
        .get("source")
        .and_then(|sources| sources.get(0))
        .and_then(toml::Value::as_table)
    {
        Some(source) if source.get("kind").and_then(toml::Value::as_str) == Some("replay") => source.clone(),
        _ => toml::Table::new(),
    };
    source.insert("kind".into(), "replay".into());
    let file = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    source.insert("path".into(), file.display().to_string().into());
    let mut option = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            source.insert(key.into(), value);
        }
    };
    option("dataset", args.dataset.clone().map(toml::Value::from));
    option("rate_hz", args.rate.map(toml::Value::from));
    option("first", args.first.map(|n| toml::Value::from(n as i64)));
    option("last", args.last.map(|n| toml::Value::from(n as i64)));
    table.insert("source".into(), toml::Value::Array(vec![source.into()]));
    if let Some(store) = &args.store {
        let store = std::path::absolute(store).unwrap_or_else(|_| store.clone());
        let entry = table.entry("store").or_insert_with(|| toml::Table::new().into());
        if let Some(entry) = entry.as_table_mut() {
            entry.insert("path".into(), store.display().to_string().into());
        }
    }
    let text = toml::to_string(&table).map_err(|error| Failure::Work(error.to_string()))?;
    Ok(Config::parse(&text, path, path.parent().unwrap_or(Path::new(".")))?)
}
