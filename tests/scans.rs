//! Tomography scans that tests take.

use crate::{fluxline, json};
use serde_json::Value;
use std::path::Path;

/// A recipe with slices and the volume.
pub const VOLUME: &str =
    "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\", \"volume\"]\n";
/// A source whose file the command line names.
pub const REPLAY: &str = "kind = \"replay\"\npath = \"none\"\n";

/// Writes a configuration with this source and recipe; answers its path.
pub fn configuration(folder: &Path, source: &str, recipe: &str) -> String {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\n{source}[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path.display().to_string()
}

/// The summary of one run.
pub fn once(config: &str) -> Value {
    json(&fluxline(&["run", "--once", "--json", config]))
}

/// A value that is a text.
pub fn text<'a>(value: &'a Value, what: &str) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{what}: {value}"))
}

/// The master file of a summary.
pub fn master(summary: &Value) -> &str {
    text(&summary["files"][0], "a master file")
}

/// The volume file of a summary.
pub fn volume(summary: &Value) -> &str {
    text(&summary["derived"]["results"]["files"][0], "a volume file")
}
