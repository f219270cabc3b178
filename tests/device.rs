//! A device that fails while a run records: frames keep being stored, the host takes its place with the same bits, and the
//! ledger says which frames that were. The failing device is the real one behind a library that answers for it.

use fluxline_tests::{Server, binary, check, folder, json, python, workspace};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that `folder` made.
fn folder_of(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fluxline-test-{}-{test}", std::process::id()))
}

fn failing_device(folder: &Path) -> PathBuf {
    let library = folder.join("device.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(workspace().join("tests/interpose/device.c"))
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(built.success());
    library
}

fn configuration(folder: &Path, operations: &str) -> PathBuf {
    let config = folder.join("fluxline.toml");
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[accelerator]\ndevice = \"cpu\"\nbatch_limit = 4\n[[source]]\n\
         kind = \"simulate\"\nscene = \"diffraction\"\ndetector = \"custom\"\nrows = 211\ncolumns = 199\nframes = 200\n\
         rate_hz = 0.0\ndistinct = 8\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.powder]\n\
         technique = \"diffraction\"\noperations = {operations}\n",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("a configuration");
    config
}

/// The summary of a run whose device fails from launch `from` on, `count` times, and how often it did.
fn recorded(name: &str, operations: &str, failing: Option<(&str, u64, u64)>) -> (Value, String) {
    let folder = folder(name);
    let config = configuration(&folder, operations);
    let mut command = Command::new(binary());
    command.args(["run", "--once", "--json"]).arg(&config);
    if let Some((how, from, count)) = failing {
        command
            .env("FLUXLINE_FAIL_HOW", how)
            .env("LD_PRELOAD", failing_device(&folder))
            .env("FLUXLINE_FAIL_FROM", from.to_string())
            .env("FLUXLINE_FAIL_COUNT", count.to_string());
    }
    let output = command.output().expect("the built binary");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (json(&output), said)
}

/// That two runs stored the same: frames, every frame's results, the mean curve.
fn same(test: &str, name: &str, other: &str) {
    let Some(python) = python(test) else { return };
    let stores = [name, other].map(|name| folder_of(name).join("store").display().to_string());
    let said = check(&python, "../rdma/compare.py", &[&stores[0], &stores[1]]);
    println!("{name}: {said}");
}

const OPERATIONS: &str = "[\"correct\", \"statistics\", \"azimuthal\"]";

#[test]
fn the_host_takes_the_place_of_a_device_out_of_resources_with_the_same_bits() {
    recorded("device-well", OPERATIONS, None);
    for (name, from, count) in [("device-once", 40, 1), ("device-gone", 40, 1_000_000)] {
        let (summary, said) = recorded(name, OPERATIONS, Some(("out of resources", from, count)));
        assert!(
            said.contains("failed: 1\n"),
            "tried once, and again after 30 s only: {said}"
        );
        assert_eq!(summary["state"], "complete", "{summary}");
        assert_eq!(summary["outcomes"]["done"], 200, "{summary}");
        assert_eq!(summary["outcomes"]["synced"], 200, "{summary}");
        same("device", name, "device-well");
        let warnings = summary["warnings"].to_string();
        assert!(
            warnings.contains("CL_OUT_OF_RESOURCES") || warnings.contains("OUT_OF_RESOURCES"),
            "{warnings}"
        );
        assert!(warnings.contains("the host analyses in its place"), "{warnings}");
    }
}

#[test]
fn a_kernel_that_never_ends_is_given_up_and_the_host_goes_on_within_two_seconds() {
    recorded("device-quick", OPERATIONS, None);
    let (summary, said) = recorded("device-hung", OPERATIONS, Some(("hang", 40, 1)));
    assert!(said.contains("failed: 1\n"), "{said}");
    assert_eq!(summary["state"], "complete", "{summary}");
    assert_eq!(summary["outcomes"]["done"], 200, "{summary}");
    assert_eq!(summary["outcomes"]["synced"], 200, "{summary}");
    same("device", "device-hung", "device-quick");
    assert!(
        summary["warnings"]
            .to_string()
            .contains("has not ended its work within"),
        "{summary}"
    );
    let slowest_us = summary["latency_us"]["max"].as_f64().unwrap();
    println!("slowest result after {slowest_us} us");
    assert!(slowest_us > 900_000.0 && slowest_us < 2_000_000.0, "{summary}");
}

#[test]
fn a_recipe_that_cannot_go_on_without_the_device_keeps_storing() {
    let spots = "[\"correct\", \"statistics\", \"spots\"]";
    let (summary, _) = recorded("device-spots", spots, Some(("out of resources", 40, 1_000_000)));
    let (done, failed) = (&summary["outcomes"]["done"], &summary["outcomes"]["analysis_failed"]);
    assert_eq!(summary["outcomes"]["synced"], 200, "{summary}");
    assert_eq!(done.as_u64().unwrap() + failed.as_u64().unwrap(), 200, "{summary}");
    assert!(failed.as_u64().unwrap() > 0, "{summary}");
    assert!(
        summary["warnings"].to_string().contains("cannot go on without it"),
        "{summary}"
    );
}

#[test]
fn the_ledger_names_the_frames_that_the_host_analysed() {
    let folder = folder("device-ledger");
    let config = configuration(&folder, OPERATIONS);
    let library = failing_device(&folder);
    let mut program = Command::new(binary());
    program
        .env("LD_PRELOAD", library)
        .env("FLUXLINE_FAIL_FROM", "40")
        .env("FLUXLINE_FAIL_COUNT", "1");
    let server = Server::start_by(program, &config);
    let (status, armed) = server.post("/api/v1/runs", &serde_json::json!({ "name": "run" }));
    assert_eq!(status, 201, "{armed}");
    server.wait("/api/v1/runs/run", |run| !run["summary"].is_null());
    let ledger = server.get("/api/v1/runs/run/ledger?limit=1000");
    let frames = ledger["entries"].as_array().unwrap_or_else(|| panic!("{ledger}"));
    let marked = frames.iter().filter(|frame| frame["device_failed"] == true).count();
    assert!(
        marked > 0 && marked < 200,
        "{marked}: some before the failure, the others after it"
    );
    assert!(frames.iter().all(|frame| frame["analysis"] == "done"));
    let state = server.get("/api/v1/status");
    assert_eq!(state["device"]["analysis"], "host", "{state}");
}
