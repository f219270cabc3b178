//! Files that a recipe names, and which of them somebody may name over the network.

use crate::config::resolve;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Most bytes of a file of values that is read whole: six planes of 16 million pixels have 0.8 GB.
pub(crate) const FILE_BYTES_MAX: u64 = 2 << 30;
/// Format that a file has in the parameters' schemas; what has it is a file, whatever its name is.
const FORMAT: &str = "path";

/// A file that a recipe names, relative to the configuration. The only kind that [`super::Setup::path`] takes, so that every
/// parameter that opens a file says so in its schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct NamedFile(PathBuf);

impl Deref for NamedFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl JsonSchema for NamedFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NamedFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": FORMAT })
    }
}

/// Whether a parameter's schema says that it names files.
fn names_files(schema: &Value) -> bool {
    match schema {
        Value::Object(entries) => {
            entries.get("format").is_some_and(|format| format == FORMAT) || entries.values().any(names_files)
        }
        Value::Array(values) => values.iter().any(names_files),
        _ => false,
    }
}

/// Keys of an operation's parameters that name files, of whatever technique.
fn file_keys(operation: &str) -> Vec<String> {
    let heading = format!("[recipe.NAME.{operation}]");
    let of_operation = super::schemas()
        .into_iter()
        .filter(|(title, _)| title.starts_with(&heading));
    let keys = of_operation.flat_map(|(_, schema)| {
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        properties.into_iter().filter(|(_, schema)| names_files(schema))
    });
    keys.map(|(key, _)| key).collect()
}

/// The files that a parameter of an operation names.
pub(crate) fn named_by<'a>(operation: &str, key: &str, value: &'a Value) -> Vec<&'a str> {
    if !file_keys(operation).iter().any(|known| known == key) {
        return Vec::new();
    }
    let mut found = Vec::new();
    texts(value, &mut found);
    found
}

fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(entries) => entries.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// Every file that these recipes name, resolved.
pub(crate) fn of_recipes<'a>(
    recipes: impl Iterator<Item = &'a crate::config::RecipeConfig>,
    folder: &Path,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for recipe in recipes {
        for (operation, table) in &recipe.parameters {
            let table = serde_json::to_value(table).unwrap_or_default();
            for (key, value) in table.as_object().into_iter().flatten() {
                let named = named_by(operation, key, value);
                found.extend(named.iter().map(|name| resolve(folder, Path::new(name))));
            }
        }
    }
    found
}

/// Whether `path`, or the file before its `::dataset`, is a file: neither a folder nor a device, which has no end.
pub(crate) fn check_regular(path: &Path) -> Result<u64, String> {
    let found = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    match found.is_file() {
        true => Ok(found.len()),
        false => Err("it is not a file".into()),
    }
}

/// A file's bytes, where it is one and has no more than `bytes_max`.
pub(crate) fn read_whole(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let too_large = |bytes: u64| format!("it has {bytes} bytes or more; at most {bytes_max} are read");
    let bytes = check_regular(path)?;
    if bytes > bytes_max {
        return Err(too_large(bytes));
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut content));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    // It may have grown meanwhile.
    match content.len() as u64 > bytes_max {
        true => Err(too_large(content.len() as u64)),
        false => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_name_files_are_known_by_their_type() {
        let keys = |operation| {
            let mut keys = file_keys(operation);
            keys.sort();
            keys.dedup();
            keys
        };
        assert_eq!(keys("correct"), ["dark", "flat", "mask"]);
        assert_eq!(keys("gain"), ["gains", "pedestals"]);
        for operation in ["spots", "azimuthal", "sparse"] {
            assert_eq!(keys(operation), ["poni"], "{operation}");
        }
        let value = serde_json::json!(["a", ["b"], { "c": "d" }, 1]);
        assert_eq!(named_by("gain", "pedestals", &value), ["a", "b", "d"]);
        assert!(named_by("gain", "track_window", &value).is_empty());
    }

    #[test]
    fn what_has_no_end_is_not_read() {
        assert!(
            read_whole(Path::new("/dev/zero"), 10)
                .unwrap_err()
                .contains("not a file")
        );
        assert!(read_whole(Path::new("/"), 10).unwrap_err().contains("not a file"));
        let path = std::env::temp_dir().join(format!("fluxline-files-{}", std::process::id()));
        std::fs::write(&path, [7; 11]).unwrap();
        assert!(read_whole(&path, 10).unwrap_err().contains("at most 10"));
        assert_eq!(read_whole(&path, 11).unwrap(), [7; 11]);
        std::fs::remove_file(&path).unwrap();
    }
}
