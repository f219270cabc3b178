//! A stored run again with other parameters, as a new run derived from it: no detector is needed, and its frames are not
//! stored a second time.

use crate::appliance::{ApplianceError, RunRequest};
use crate::config::{Config, ConfigError, RecipeConfig};
use crate::storage::{RunRecord, Store, decode_bitshuffle};
use driver::replay::{Replay, ReplayConfig};
use driver::source::FrameSource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Key of a derived run's metadata: the master file that has its frames.
pub const RAW_FILE: &str = "raw_file";
/// Key of a derived run's metadata: the run that it comes from.
pub const DERIVED_FROM: &str = "derived_from";

/// What `POST /runs/{id}/reprocess` takes. Everything has a default.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReprocessRequest {
    /// name of the new run; made from the time where it is not given
    pub name: Option<String>,
    /// recipe of the configuration; the parameters that the run was made with, where it is not given
    pub recipe: Option<String>,
    /// operations, instead of the recipe's
    pub operations: Option<Vec<String>>,
    /// parameters that differ, by operation and key
    #[schema(value_type = Object)]
    pub parameters: BTreeMap<String, BTreeMap<String, Value>>,
}

/// How a run comes from a stored one.
pub struct Derivation {
    /// the stored run
    pub of: String,
    /// master file of the frames
    pub raw: PathBuf,
    /// name of the recipe
    pub recipe_name: String,
    /// the recipe with what differs
    pub recipe: RecipeConfig,
}

/// Finds a stored run by its name, or by its folder or master file, and reads what it is.
///
/// # Errors
/// Names the run where there is none, or where it is a volume or sparse, which has no frames as they came.
pub fn find(store: &Store, run: &str) -> Result<(PathBuf, RunRecord), ApplianceError> {
    let missing = |expected: &str| ApplianceError::from(ConfigError::value("run", format!("{run:?}"), expected));
    let path = Path::new(run);
    let folder = match (path.is_dir(), path.is_file()) {
        (true, _) => path.to_path_buf(),
        (_, true) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        _ => store
            .find(run)?
            .ok_or_else(|| missing("the store has no closed run of this name"))?,
    };
    let record = RunRecord::read(&folder)?;
    if record.files.is_empty() || matches!(record.definition.as_str(), "NXtomoproc" | "sparse_frames") {
        let origin = record.metadata.get(DERIVED_FROM).map_or("the run", String::as_str);
        let expected = format!("it has no frames; reprocess {origin}, from which it was derived");
        return Err(ConfigError::value("run", format!("{:?}", record.id), expected).into());
    }
    Ok((folder, record))
}

/// The source of the stored frames, what the new run is derived from, and the request that arms it.
///
/// # Errors
/// [`find`]'s; those of a recipe that names what there is not; those of files that cannot be read.
pub fn prepare(
    store: &Store,
    config: &Config,
    run: &str,
    request: &ReprocessRequest,
) -> Result<(Box<dyn FrameSource>, Derivation, RunRequest), ApplianceError> {
    let (folder, record) = find(store, run)?;
    let raw = match record.metadata.get(RAW_FILE) {
        Some(raw) => PathBuf::from(raw),
        None => folder.join(record.files.first().map_or("", |file| file.name.as_str())),
    };
    let (recipe_name, mut recipe) = match (&request.recipe, as_used(&record.parameters)) {
        (None, Some(used)) => used,
        (name, _) => {
            let (name, recipe) = config.recipe(name.as_deref(), None)?;
            (name.to_string(), recipe.clone())
        }
    };
    // What was changed while it recorded is how it ended.
    let mut request = request.clone();
    let changed = record.summary["results"]["parameters_changed"].as_object().cloned();
    for (name, value) in changed.into_iter().flatten().filter(|_| request.recipe.is_none()) {
        if let Some((operation, key)) = name.split_once('.') {
            let table = request.parameters.entry(operation.into()).or_default();
            table.entry(key.into()).or_insert(value);
        }
    }
    change(&mut recipe, &recipe_name, &request)?;
    crate::recipes::check(&recipe_name, &recipe)?;
    decode_bitshuffle(&raw)?;
    let source = Replay::open(&raw, &ReplayConfig::default())?;
    let derivation = Derivation {
        of: record.id.clone(),
        raw,
        recipe_name,
        recipe,
    };
    let request = RunRequest {
        name: request.name.clone(),
        proposal: Some(record.proposal),
        sample: Some(record.sample),
        metadata: record.metadata,
        ..RunRequest::default()
    };
    Ok((Box::new(source), derivation, request))
}

/// The recipe that a run was made with, out of its record.
fn as_used(parameters: &Value) -> Option<(String, RecipeConfig)> {
    let text = |key: &str| parameters.get(key)?.as_str().map(str::to_string);
    let operations: Vec<String> = serde_json::from_value(parameters.get("operations")?.clone()).ok()?;
    let tables = operations
        .iter()
        .filter_map(|operation| Some((operation.clone(), to_toml(parameters.get(operation)?)?)));
    let recipe = RecipeConfig {
        technique: text("technique")?,
        parameters: tables.collect(),
        operations,
    };
    Some((text("recipe")?, recipe))
}

fn change(recipe: &mut RecipeConfig, name: &str, request: &ReprocessRequest) -> Result<(), ConfigError> {
    if let Some(operations) = &request.operations {
        recipe.operations = operations.clone();
        recipe.parameters.retain(|operation, _| operations.contains(operation));
    }
    for (operation, keys) in &request.parameters {
        let table = recipe
            .parameters
            .entry(operation.clone())
            .or_insert_with(|| toml::Table::new().into());
        for (key, value) in keys {
            let at = format!("recipe.{name}.{operation}.{key}");
            let Some(table) = table.as_table_mut() else {
                return Err(ConfigError::value(
                    at,
                    value,
                    "the operation's parameters are not a table",
                ));
            };
            match to_toml(value) {
                Some(value) => table.insert(key.clone(), value),
                None => table.remove(key),
            };
        }
    }
    Ok(())
}

/// The same value in TOML; null, which TOML does not have, is left out.
fn to_toml(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::String(value) => value.clone().into(),
        Value::Array(values) => toml::Value::Array(values.iter().filter_map(to_toml).collect()),
        Value::Object(values) => {
            let entries = values
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), to_toml(value)?)));
            toml::Value::Table(entries.collect())
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
    })
}
