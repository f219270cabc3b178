//! Files that the body of a request names. Whoever asks over the network may name what the configuration names, and what they
//! could read over the network as well: a file of a run that they may see, or a calibration's. Every other name is refused in
//! the same words, whether there is such a file or not.

use super::error::ApiError;
use super::server::Shared;
use crate::config::resolve;
use crate::recipes::files;
use crate::reprocess::ReprocessRequest;
use crate::storage::{RunRecord, check_name, find_file};
use axum::http::StatusCode;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Refuses a request that names a file which whoever asks may not name.
///
/// # Errors
/// 422 with the parameter, what it was, and what would have been taken.
pub(super) fn check(shared: &Shared, request: &ReprocessRequest) -> Result<(), ApiError> {
    let config = shared.appliance.config();
    let mut configured: Option<Vec<PathBuf>> = None;
    for (operation, keys) in &request.parameters {
        for (key, value) in keys {
            for name in files::named_by(operation, key, value) {
                let path = resolve(&config.folder, Path::new(name));
                let configured =
                    configured.get_or_insert_with(|| files::of_recipes(config.recipe.values(), &config.folder));
                if configured.contains(&path) || is_readable(shared, &path).is_some() {
                    continue;
                }
                let message = format!(
                    "parameters.{operation}.{key} = {name:?}: expected the whole path of a file of a run that you may see, or \
                     of a calibration, or a file that the configuration names"
                );
                return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "file", message));
            }
        }
    }
    Ok(())
}

/// Whether this is a file, with or without `::dataset`, that whoever asks may read over the network: `Some` where it is.
fn is_readable(shared: &Shared, path: &Path) -> Option<()> {
    let text = path.to_str()?;
    let file = Path::new(text.split_once("::").map_or(text, |(file, _)| file));
    let store = shared.appliance.store().root();
    let given = resolve(&shared.appliance.config().folder, &shared.appliance.config().store.path);
    let beneath = file.strip_prefix(store).or_else(|_| file.strip_prefix(given)).ok()?;
    let names: Option<Vec<&str>> = beneath
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match names?[..] {
        [_, name] => {
            let calibrations = shared.appliance.calibrations();
            let known = store.join(beneath).parent() == Some(calibrations.folder())
                && calibrations.list().ok()?.iter().any(|record| record.file == name);
            known.then_some(())?;
        }
        [proposal, day, run, name] => {
            let named = [("proposal", proposal), ("day", day), ("run name", run)];
            let plain = named.iter().all(|(what, name)| check_name(what, name).is_ok());
            (plain && shared.scope.sees(proposal, run)).then_some(())?;
            let folder = store.join(proposal).join(day).join(run);
            // A link would lead to a folder of another name.
            (folder.canonicalize().ok()? == folder).then_some(())?;
            find_file(&folder, &RunRecord::read(&folder).ok()?, name).ok()??;
        }
        _ => return None,
    }
    let found = fs::symlink_metadata(store.join(beneath)).ok()?;
    found.is_file().then_some(())
}
