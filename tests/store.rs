//! The store of the built binary against crashes and disks that fail: nothing that was acknowledged is lost.

use fluxline_tests::{Server, binary, check, folder, interposed, python};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Limits of time are tested at ten times the promise: the machine may be busy. The true figures are printed.
const BACK_S: f64 = 10.0 * 5.0;

fn configuration(folder: &Path, source: &str, store: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\n{source}distinct = 4\n[store]\npath = \"{}\"\n{store}\
         [feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"spots\", \"azimuthal\"]\n\
         [recipe.look.azimuthal]\nbins = 50\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The folder of the only run of this name.
fn run_folder(folder: &Path, run: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = vec![folder.join("store")];
    for _ in 0..2 {
        found = found
            .iter()
            .flat_map(|path| {
                std::fs::read_dir(path)
                    .expect("a folder")
                    .flatten()
                    .map(|entry| entry.path())
            })
            .collect();
    }
    let mut runs = found.into_iter().map(|day| day.join(run));
    runs.rfind(|path| path.is_dir()).expect("the run's folder")
}

/// Results that the appliance says are synced, of all runs since its start.
fn results_synced(server: &Server) -> u64 {
    let metrics = server.text("/metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("fluxline_results_synced_total "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .expect("a number")
}

/// `kill -9` at random moments: whatever was acknowledged before is in the files after the next start, in plain h5py, and every
/// result that had been synced is there as a run has it that was not killed.
#[test]
fn kill_9_loses_no_frame_that_was_acknowledged() {
    let kills: u64 = std::env::var("FLUXLINE_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let folder = folder("kills");
    let source = "rows = 96\ncolumns = 128\nframes = 20000\nrate_hz = 2000.0\n";
    let config = configuration(&folder, source, "frames_per_file = 500\n");
    let mut seed = 1u64;
    let mut runs: Vec<(String, u64, u64)> = Vec::new();
    let (mut slowest_s, mut acknowledged, mut results) = (0f64, 0, 0);
    let mut whole = Value::Null;
    for kill in 0..=kills {
        let begun = Instant::now();
        let server = Server::start(&config);
        let back_s = begun.elapsed().as_secs_f64();
        slowest_s = slowest_s.max(back_s);
        assert!(back_s < BACK_S, "back only after {back_s} s");
        if kill == kills {
            for (run, synced, kept) in &runs {
                let end = Instant::now() + Duration::from_secs(60);
                while server.try_get(&format!("/api/v1/runs/{run}")).1["state"] != "interrupted" {
                    assert!(Instant::now() < end, "{run} is not closed");
                    std::thread::sleep(Duration::from_millis(100));
                }
                acknowledged += synced;
                results += kept;
            }
            // As long as the longest that was killed, or as long as matters.
            let request = json!({ "name": "whole", "frames_expected": 4000 });
            assert_eq!(server.post("/api/v1/runs", &request).0, 201);
            whole = server.wait("/api/v1/runs/whole", |run| !run["summary"].is_null());
            break;
        }
        let run = format!("kill-{kill:04}");
        let (status, armed) = server.post("/api/v1/runs", &json!({ "name": run }));
        assert_eq!(status, 201, "{armed}");
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis(seed >> 33 & 0x3ff));
        // What it says last is what it has promised.
        let kept = results_synced(&server);
        let synced = number(&server.get(&format!("/api/v1/runs/{run}"))["outcomes"]["synced"]);
        drop(server);
        runs.push((run, synced, kept));
    }
    println!(
        "{kills} kills: {acknowledged} frames acknowledged, {results} results synced, 0 lost; back after at most {slowest_s:.2} s"
    );
    let Some(python) = python("kill_9_loses_no_frame_that_was_acknowledged") else {
        return;
    };
    let list = |number: fn(&(String, u64, u64)) -> u64| -> Vec<String> {
        let of = |run: &(String, u64, u64)| format!("{}={}", run_folder(&folder, &run.0).display(), number(run));
        runs.iter().map(of).collect()
    };
    let (frames, results) = (list(|run| run.1), list(|run| run.2));
    let mut arguments = vec!["runs", "4"];
    arguments.extend(frames.iter().map(String::as_str));
    println!("{}", check(&python, "store_check.py", &arguments).trim());
    let mut arguments = vec![whole["summary"]["files"][0].as_str().expect("a master file")];
    arguments.extend(results.iter().map(String::as_str));
    println!("{}", check(&python, "results_check.py", &arguments).trim());
    runs.iter().for_each(|(run, ..)| hashes_hold(&run_folder(&folder, run)));
}

/// Every file is as long as `run.json` says, with the hash that it says.
fn hashes_hold(run: &Path) {
    let record: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).expect("run.json")).expect("JSON");
    let files = ["files", "journal"]
        .into_iter()
        .flat_map(|list| record[list].as_array().expect("a list"));
    for file in files {
        let bytes = std::fs::read(run.join(file["name"].as_str().expect("a name"))).expect("a file");
        assert_eq!(bytes.len() as u64, number(&file["bytes"]), "{file}");
        assert_eq!(file["algorithm"], "blake3");
        assert_eq!(file["hash"], blake3::hash(&bytes).to_hex().as_str(), "{file}");
    }
}

/// A run on a disk that fails as `rules` say; the summary and what is in the folder.
fn on_a_disk(test: &str, rules: &str, source: &str, store: &str) -> (Value, PathBuf) {
    let folder = folder(test);
    let library = interposed(&folder, "disk.c", &[]);
    let config = configuration(&folder, source, store);
    let output = Command::new(binary())
        .args(["run", "--once", "--json"])
        .arg(&config)
        .env("LD_PRELOAD", &library)
        .env("FLUXLINE_DISK", rules)
        .output()
        .expect("the built binary");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (summary, folder)
}

const SOURCE: &str = "rows = 96\ncolumns = 128\nframes = 600\nrate_hz = 300.0\n";

fn closes(summary: &Value) -> (u64, u64) {
    let (frames, outcomes) = (&summary["frames"], &summary["outcomes"]);
    let (synced, failed) = (number(&outcomes["synced"]), number(&outcomes["storage_failed"]));
    assert_eq!(number(&frames["complete"]), synced + failed, "{summary}");
    assert_eq!(
        number(&frames["complete"]),
        number(&outcomes["done"]),
        "analysis goes on: {summary}"
    );
    (synced, failed)
}

fn verified(test: &str, summary: &Value) {
    let master = PathBuf::from(summary["files"][0].as_str().expect("a file"));
    let run = master.parent().expect("a folder");
    hashes_hold(run);
    let run = run.display().to_string();
    let (synced, _) = closes(summary);
    let Some(python) = python(test) else { return };
    check(&python, "store_check.py", &["runs", "4", &format!("{run}={synced}")]);
}

/// The disk refuses one sync of a data file: never asked again, its frames count as failed, another file goes on.
#[test]
fn a_failed_sync_costs_its_frames_and_nothing_else() {
    let test = "a_failed_sync_costs_its_frames_and_nothing_else";
    let (summary, _) = on_a_disk("sync-fails", "sync _data_000001.h5 3 1 5", SOURCE, "");
    let (synced, failed) = closes(&summary);
    assert!(failed > 0 && synced > 100, "{summary}");
    assert_eq!(summary["state"], "failed", "the run is flagged: {summary}");
    let files = summary["files"].to_string();
    assert!(files.contains("_data_000001_2.h5"), "a new file: {files}");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("count as failed"), "{warnings}");
    verified(test, &summary);
}

/// The journal's own sync fails: the records go into another segment, no frame is lost.
#[test]
fn a_journal_that_fails_is_followed_by_another() {
    let test = "a_journal_that_fails_is_followed_by_another";
    let (summary, _) = on_a_disk("journal-fails", "sync _journal_0001 2 1 5", SOURCE, "");
    assert_eq!(closes(&summary), (600, 0), "{summary}");
    assert!(
        summary["warnings"].to_string().contains("another one begins"),
        "{summary}"
    );
    verified(test, &summary);
}

/// Writes fail: with an error of the disk another file goes on; the frame that it happened to is counted.
#[test]
fn a_failed_write_costs_its_frame() {
    let test = "a_failed_write_costs_its_frame";
    let (summary, _) = on_a_disk("write-fails", "write _data_000001.h5 100 1 5", SOURCE, "");
    assert_eq!(closes(&summary), (599, 1), "{summary}");
    verified(test, &summary);
}

/// A disk that is full for a while: good frames stay good, no phantom frames, analysis goes on.
#[test]
fn a_full_disk_keeps_the_good_frames_and_shows_no_others() {
    let test = "a_full_disk_keeps_the_good_frames_and_shows_no_others";
    let (summary, _) = on_a_disk("disk-full", "write _data_000001.h5 200 3 28", SOURCE, "");
    let (synced, failed) = closes(&summary);
    assert!(failed >= 1 && synced > 190, "{summary}");
    assert!(
        summary["warnings"].to_string().contains("the disk is full"),
        "{summary}"
    );
    verified(test, &summary);
}

/// A disk that stands still for a second loses nothing and is reported.
#[test]
fn a_slow_disk_is_absorbed_and_reported() {
    let test = "a_slow_disk_is_absorbed_and_reported";
    let source = "rows = 96\ncolumns = 128\nframes = 700\nrate_hz = 100.0\n";
    let (summary, _) = on_a_disk("disk-slow", "write _data_000001.h5 20 12 ms150", source, "");
    assert_eq!(closes(&summary), (700, 0), "{summary}");
    assert!(
        summary["warnings"].to_string().contains("the disk is slow"),
        "{summary}"
    );
    verified(test, &summary);
}

/// The disk refuses to keep results safe: said once, and nothing else changes.
#[test]
fn results_that_cannot_be_kept_safe_cost_nothing_but_that() {
    for rule in ["sync .results.bin 1 0 5", "write .results.bin 100 0 5"] {
        let (summary, folder) = on_a_disk("results-fail", rule, SOURCE, "");
        assert_eq!(closes(&summary), (600, 0), "{summary}");
        assert_eq!(summary["state"], "complete", "{summary}");
        let warnings = summary["warnings"].to_string();
        assert_eq!(
            warnings.matches("a crash would cost the results").count(),
            1,
            "{warnings}"
        );
        let master = PathBuf::from(summary["files"][0].as_str().expect("a file"));
        let left = std::fs::read_dir(master.parent().expect("a folder")).expect("a folder");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert!(
            !left.iter().any(|name| name == ".results.bin"),
            "{left:?} in {}",
            folder.display()
        );
    }
}

/// A reader opens the master file once, as HDF5's SWMR has it, and sees results and frames come.
#[test]
fn a_swmr_reader_follows_a_run_live() {
    let Some(python) = python("a_swmr_reader_follows_a_run_live") else {
        return;
    };
    let folder = folder("swmr");
    let source = "rows = 96\ncolumns = 128\nframes = 100000\nrate_hz = 100.0\n";
    let config = configuration(&folder, source, "frames_per_file = 100\n");
    let server = Server::start(&config);
    assert_eq!(server.post("/api/v1/runs", &json!({ "name": "live" })).0, 201);
    let run = run_folder(&folder, "live");
    let (master, seen) = (
        run.join("live_master.h5").display().to_string(),
        folder.join("seen.npz").display().to_string(),
    );
    println!(
        "{}",
        check(&python, "swmr_reader.py", &["follow", &master, &seen, "4"]).trim()
    );
    assert!(server.post("/api/v1/runs/live/stop", &Value::Null).0 < 300);
    let ended = server.wait("/api/v1/runs/live", |run| !run["summary"].is_null());
    assert_eq!(ended["summary"]["state"], "stopped", "{ended}");
    check(&python, "swmr_reader.py", &["compare", &master, &seen]);
    hashes_hold(&run);
}
