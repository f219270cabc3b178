//! `fluxline reprocess`

use super::Failure;
use crate::appliance::Appliance;
use crate::config::Config;
use crate::reprocess::ReprocessRequest;
use clap::Args;
use std::path::PathBuf;

/// `fluxline reprocess`
#[derive(Args)]
pub(crate) struct ReprocessArgs {
    /// name of a closed run in the store, or its folder or master file
    run: String,
    /// configuration: the store, the device, and recipes
    #[arg(long)]
    config: PathBuf,
    /// folder of the store, instead of the configuration's
    #[arg(long)]
    store: Option<PathBuf>,
    /// recipe of the configuration, instead of the parameters that the run was made with
    #[arg(long)]
    recipe: Option<String>,
    /// operations in order, with commas between, instead of the recipe's
    #[arg(long, value_delimiter = ',')]
    operations: Option<Vec<String>>,
    /// a parameter that differs, as OPERATION.KEY=VALUE with a value as in the configuration; may be repeated
    #[arg(long = "set", value_name = "OPERATION.KEY=VALUE")]
    set: Vec<String>,
    /// name of the new run
    #[arg(long)]
    name: Option<String>,
    /// print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn reprocess(args: &ReprocessArgs) -> Result<(), Failure> {
    let mut request = ReprocessRequest {
        name: args.name.clone(),
        recipe: args.recipe.clone(),
        operations: args.operations.clone(),
        ..ReprocessRequest::default()
    };
    for entry in &args.set {
        let (operation, key, value) = parse(entry)?;
        request.parameters.entry(operation).or_default().insert(key, value);
    }
    let mut config = Config::load(&args.config)?;
    if let Some(store) = &args.store {
        config.store.path = std::path::absolute(store).unwrap_or_else(|_| store.clone());
    }
    let appliance = Appliance::start(config)?;
    let run = appliance.reprocess(&args.run, &request)?;
    let summary = super::progress::record(&appliance, run, args.json)?;
    super::summary::conclude(&summary, args.json)
}

/// `OPERATION.KEY=VALUE`; a value that is none of TOML's is a text.
fn parse(entry: &str) -> Result<(String, String, serde_json::Value), Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "--set {entry}: expected OPERATION.KEY=VALUE, as backproject.filter=hann"
        ))
    };
    let (name, value) = entry.split_once('=').ok_or_else(wrong)?;
    let (operation, key) = name.split_once('.').ok_or_else(wrong)?;
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
    let value = match parsed.and_then(|mut table| table.remove("value")) {
        Some(value) => serde_json::to_value(value).map_err(|error| Failure::Usage(error.to_string()))?,
        None => value.into(),
    };
    Ok((operation.trim().into(), key.trim().into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_in_the_configuration() {
        let value = |entry: &str| parse(entry).ok().map(|(_, _, value)| value);
        assert_eq!(value("a.b=1.5"), Some(1.5.into()));
        assert_eq!(value("a.b=[1, 2]"), Some(vec![1, 2].into()));
        assert_eq!(value("a.b=hann"), Some("hann".into()));
        assert_eq!(value("a.b=\"hann\""), Some("hann".into()));
        assert_eq!(value("a.b=true"), Some(true.into()));
        assert!(value("ab=1").is_none() && value("a.b").is_none());
    }
}
