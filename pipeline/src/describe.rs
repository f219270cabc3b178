//! Files that are generated from the code and compared in the tests: `docs/configuration.md` and
//! `docs/metrics.md`.

use crate::config::{
    AcceleratorConfig, AccessConfig, AnnounceConfig, AssemblySection, CalibrationsConfig, CoresConfig, EmitConfig,
    FeedbackConfig, LimitsConfig, OidcConfig, PlaceConfig, PushConfig, RecipeConfig, RetentionConfig, RingConfig,
    RunConfig, StoreConfig, TlsConfig, ZmqConfig,
};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;
use std::fmt::Write;

/// A row of a table: key, type, default, meaning.
fn rows(out: &mut String, schema: &Value) {
    let empty = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    out.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for (key, property) in properties {
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let default = match &property["default"] {
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{key}` | {} | {default} | {meaning} |", kind(property, schema));
    }
    out.push('\n');
}

/// The type of a property in words.
fn kind(property: &Value, root: &Value) -> String {
    if let Some(reference) = property["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let target = &root["$defs"][name];
        return match choices(target) {
            Some(choices) => choices,
            None => kind(target, root),
        };
    }
    if let Some(choices) = choices(property) {
        return choices;
    }
    for key in ["anyOf", "allOf"] {
        if let Some(alternatives) = property[key].as_array() {
            let named: Vec<String> = alternatives
                .iter()
                .filter(|one| one["type"] != "null")
                .map(|one| kind(one, root))
                .collect();
            return named.join(" or ");
        }
    }
    match &property["type"] {
        Value::String(one) => match (one.as_str(), &property["items"]) {
            ("array", items @ Value::Object(_)) => format!("list of {}", kind(items, root)),
            (one, _) => one.to_string(),
        },
        Value::Array(several) => {
            let named: Vec<&str> = several
                .iter()
                .filter_map(Value::as_str)
                .filter(|one| *one != "null")
                .collect();
            named.join(" or ")
        }
        _ => "table".into(),
    }
}

fn choices(schema: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(|value| format!("`\"{value}\"`"));
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(text).collect::<Vec<_>>().join(", "));
    }
    let alternatives = schema["oneOf"].as_array()?;
    let named: Vec<String> = alternatives
        .iter()
        .flat_map(|one| match one["enum"].as_array() {
            Some(values) => values.iter().filter_map(text).collect(),
            None => text(&one["const"]).into_iter().collect::<Vec<_>>(),
        })
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn section<T: JsonSchema>(out: &mut String, title: &str) {
    let schema = schema_for!(T).to_value();
    let _ = writeln!(out, "## `{title}`\n");
    rows(out, &schema);
}

/// `docs/configuration.md`
pub fn configuration() -> String {
    let mut out = String::from(
        "# Configuration\n\nGenerated from the code by `fluxline describe configuration`; do not edit.\n\n\
         One TOML file. An unknown key, a wrong type or a value out of range is an error that names it. Relative \
         paths are relative to the file. `fluxline validate CONFIG` checks a file without starting anything.\n\n",
    );
    section::<RunConfig>(&mut out, "[run]");
    section::<RingConfig>(&mut out, "[ring]");
    out.push_str("`[[source]]` begins with `kind`: `\"simulate\"`, `\"replay\"`, `\"rdma\"`, `\"dectris\"` or `\"udp\"`. A table `[source.faults]` injects seeded faults.\n\n");
    section::<driver::simulate::SimulateConfig>(&mut out, "[[source]]` with `kind = \"simulate\"");
    out.push_str("`path` names the file; the other keys are\n\n");
    section::<driver::replay::ReplayConfig>(&mut out, "[[source]]` with `kind = \"replay\"");
    section::<driver::rdma::RdmaConfig>(&mut out, "[[source]]` with `kind = \"rdma\"");
    section::<driver::dectris::DectrisConfig>(&mut out, "[[source]]` with `kind = \"dectris\"");
    section::<driver::udp::UdpConfig>(&mut out, "[[source]]` with `kind = \"udp\"");
    section::<driver::udp::PartConfig>(&mut out, "[[source.part]]` with `kind = \"udp\"");
    out.push_str("Where there are several `[[source]]`, each also has its place:\n\n");
    section::<PlaceConfig>(&mut out, "[[source]]` beside `[assembly]");
    section::<AssemblySection>(&mut out, "[assembly]");
    section::<driver::faults::FaultConfig>(&mut out, "[source.faults]");
    section::<AcceleratorConfig>(&mut out, "[accelerator]");
    section::<CoresConfig>(&mut out, "[cores]");
    section::<StoreConfig>(&mut out, "[store]");
    section::<PushConfig>(&mut out, "[push]");
    section::<RetentionConfig>(&mut out, "[retention]");
    section::<AccessConfig>(&mut out, "[access]");
    section::<AnnounceConfig>(&mut out, "[announce]");
    section::<FeedbackConfig>(&mut out, "[feedback]");
    section::<TlsConfig>(&mut out, "[feedback.tls]");
    section::<OidcConfig>(&mut out, "[feedback.oidc]");
    section::<ZmqConfig>(&mut out, "[feedback.zmq]");
    section::<LimitsConfig>(&mut out, "[feedback.limits]");
    section::<EmitConfig>(&mut out, "[emit]");
    section::<CalibrationsConfig>(&mut out, "[calibrations]");
    section::<RecipeConfig>(&mut out, "[recipe.NAME]");
    for (title, schema) in crate::recipes::schemas() {
        let _ = writeln!(out, "## `{title}`\n");
        rows(&mut out, &schema);
    }
    out
}

/// `docs/metrics.md`
pub fn metrics() -> prometheus::Result<String> {
    let mut out = String::from(
        "# Metrics\n\nGenerated from the code by `fluxline describe metrics`; do not edit.\n\n\
         Served at `/metrics` for Prometheus. Counters are of the process, summed over runs.\n\n\
         | metric | labels | meaning |\n| --- | --- | --- |\n",
    );
    for metric in crate::metrics::Metrics::new()?.describe() {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} |",
            metric.name,
            metric.labels.join(", "),
            metric.help
        );
    }
    Ok(out)
}
