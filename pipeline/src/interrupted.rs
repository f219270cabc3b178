//! Runs that an interruption left open, at the start of the program.

use crate::appliance::ApplianceError;
use crate::keep::Catalogue;
use crate::storage::Store;
use std::time::Duration;

/// How long a start waits for the catalogue to know every run.
const CATALOGUE_PATIENCE: Duration = Duration::from_secs(1);

/// Makes the files of interrupted runs whole, before anything else is written; their hashes follow beside the service.
pub fn finish(store: &Store, catalogue: &Catalogue) -> Result<(), ApplianceError> {
    let mut whole = Vec::new();
    // The catalogue knows which runs were open; where it is made anew every folder is looked at.
    let found = match catalogue.refresh(CATALOGUE_PATIENCE)? {
        true => store.recover_among(catalogue.unclosed_folders()?),
        false => store.recover()?,
    };
    for run in found {
        match run {
            Ok(run) => {
                let (stored, expected) = run.frames;
                tracing::warn!(
                    "{}: interrupted; {stored} of {expected} frames are stored, {} results",
                    run.folder.display(),
                    run.results
                );
                whole.push(run);
            }
            Err(error) => tracing::error!("an interrupted run cannot be finished: {error}"),
        }
    }
    if whole.is_empty() {
        return Ok(());
    }
    let publish = move || {
        for run in whole {
            let folder = run.folder.clone();
            match run.publish() {
                Ok(_) => tracing::info!("{} is closed", folder.display()),
                Err(error) => tracing::error!("{} cannot be closed: {error}", folder.display()),
            }
        }
    };
    let started = std::thread::Builder::new()
        .name("fluxline-recover".into())
        .spawn(publish);
    started
        .map(drop)
        .map_err(|error| ApplianceError::Start(error.to_string()))
}
