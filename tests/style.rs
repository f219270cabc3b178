//! The style test: what formatting and lints cannot see.

use fluxline_tests::workspace;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files(endings: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(workspace())
        .output()
        .expect("git");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    listed
        .lines()
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|name| workspace().join(name))
        .filter(|path| path.exists())
        .collect()
}

fn complain(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn name(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}

#[test]
fn unsafe_lives_where_the_design_allows_it() {
    let allowed = [
        "frame/src/codec/mod.rs",
        "frame/src/region.rs",
        "driver/src/memory/mod.rs",
        "driver/src/net/mod.rs",
        "driver/src/rdma/mod.rs",
        "kernels/src/host_memory.rs",
        "pipeline/src/storage/h5.rs",
        "pipeline/src/storage/io.rs",
    ];
    let marker = ["allow(", "unsafe_code)"].concat();
    let found: Vec<String> = files(&[".rs"])
        .iter()
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&marker)))
        .map(|path| name(path))
        .filter(|name| !allowed.contains(&name.as_str()) && !name.contains("/tests/") && !name.starts_with("tests/"))
        .collect();
    complain(&found, "these files allow unsafe code and are not on the list");
}

#[test]
fn a_file_that_needs_a_table_of_contents_is_two_files() {
    let found: Vec<String> = files(&[".rs", ".ts", ".tsx", ".py", ".cl"])
        .iter()
        .filter_map(|path| {
            let lines = std::fs::read_to_string(path).ok()?.lines().count();
            (lines > 700).then(|| format!("{}: {lines} lines, at most 700", name(path)))
        })
        .collect();
    complain(&found, "too long");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
    ]
    .map(|m| m.concat());
    let mut found = Vec::new();
    for path in files(&[".rs", ".cl", ".ts", ".tsx", ".py", ".toml", ".md"]) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!("{}:{}: {line}", name(&path), number + 1));
            }
        }
    }
    complain(&found, "finish it, or name it in the note");
}

#[test]
fn techniques_stay_in_their_folders() {
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        let name = name(&path);
        let inside = name.starts_with("pipeline/src/recipes/") || name.starts_with("pipeline/src/cli/demo");
        if !name.starts_with("pipeline/src/") || inside || name.starts_with("pipeline/src/storage/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if line.contains("\"tomography\"") || line.contains("\"diffraction\"") {
                found.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    complain(&found, "a technique must touch one folder");
}

#[test]
fn arrows_point_one_way() {
    let forbidden = [
        ("frame/Cargo.toml", vec!["driver", "kernels", "pipeline"]),
        ("driver/Cargo.toml", vec!["kernels", "pipeline"]),
        ("kernels/Cargo.toml", vec!["driver", "pipeline"]),
    ];
    for (manifest, names) in forbidden {
        let text = std::fs::read_to_string(workspace().join(manifest)).expect(manifest);
        for name in names {
            assert!(
                !text.contains(&format!("{name}.workspace")),
                "{manifest} depends on {name}"
            );
        }
    }
}

#[test]
fn generated_files_are_what_the_program_generates() {
    for (what, file) in [
        ("openapi", "openapi.json"),
        ("configuration", "docs/configuration.md"),
        ("metrics", "docs/metrics.md"),
    ] {
        let output = fluxline_tests::fluxline(&["describe", what]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kept = std::fs::read(workspace().join(file)).unwrap_or_default();
        assert!(
            kept == output.stdout,
            "{file} is not what the program generates: run make describe and look at the change"
        );
    }
}

/// What a dashboard has wrong: panels that lie on each other, have one number, or show nothing.
fn wrong_panels(file: &str, text: &str) -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(text).expect(file);
    let name = file.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    assert_eq!(dashboard["uid"], name, "{file}");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut places = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for panel in panels {
        let place = ["x", "y"].map(|axis| panel["gridPos"][axis].as_u64());
        let targets = panel["targets"].as_array().map_or(0, Vec::len);
        let named = panel["title"].as_str().is_some_and(|title| !title.is_empty());
        if !places.insert((place, None)) || !places.insert(([None; 2], panel["id"].as_u64())) || targets == 0 || !named
        {
            wrong.push(format!("{file}: {}", panel["title"]));
        }
        let of_one =
            |target: &serde_json::Value| target["expr"].as_str().is_some_and(|text| text.contains("$instance"));
        if !panel["targets"]
            .as_array()
            .is_some_and(|targets| targets.iter().all(of_one))
        {
            wrong.push(format!("{file}: {}: it is of every appliance", panel["title"]));
        }
    }
    wrong
}

#[test]
fn dashboards_are_provisioned_from_where_they_are_installed() {
    let share = workspace().join("appliance-image/package/usr/share/fluxline/grafana");
    let provider = std::fs::read_to_string(share.join("provisioning/dashboards/fluxline.yml")).expect("a provider");
    assert!(
        provider
            .lines()
            .any(|line| line.trim() == "path: /usr/share/fluxline/grafana"),
        "{provider}"
    );
    let source = std::fs::read_to_string(share.join("provisioning/datasources/fluxline.yml")).expect("a source");
    for line in ["apiVersion: 1", "type: prometheus"] {
        assert!(source.lines().any(|of| of.trim() == line), "{line}: {source}");
    }
}

#[test]
fn dashboards_and_alerts_name_metrics_that_exist() {
    let folder = workspace().join("appliance-image/package/usr/share/fluxline");
    let metrics = std::fs::read_to_string(workspace().join("docs/metrics.md")).expect("docs/metrics.md");
    let mut found = Vec::new();
    for file in [
        "grafana/fluxline-beamline.json",
        "grafana/fluxline-operations.json",
        "prometheus/fluxline.rules.yml",
        "../../../../../docs/alerts.md",
    ] {
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        if file.ends_with(".json") {
            found.extend(wrong_panels(file, &text));
        }
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        for word in words.filter(|word| word.starts_with("fluxline_")) {
            let histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end));
            if ![Some(word), histogram]
                .into_iter()
                .flatten()
                .any(|name| metrics.contains(&format!("`{name}`")))
            {
                found.push(format!("{file}: {word}"));
            }
        }
    }
    complain(&found, "no such metric in docs/metrics.md");
}
