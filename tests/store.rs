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
    find_run(folder, run).expect("the run's folder")
}

/// The same where there may be none.
fn find_run(folder: &Path, run: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = vec![folder.join("store")];
    for _ in 0..2 {
        let listed = found.iter().filter_map(|path| std::fs::read_dir(path).ok());
        found = listed
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .collect();
    }
    let mut runs = found.into_iter().map(|day| day.join(run));
    runs.rfind(|path| path.is_dir())
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
                let end = Instant::now() + Duration::from_secs(300);
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

/// What a start takes behind a run of many bytes: its files are whole before anybody is answered, without reading all of them.
/// FLUXLINE_RECOVERED_GB is its size; 10 s and 1 s for every 10 GB are wanted.
#[test]
fn a_large_interrupted_run_is_whole_soon_after_the_next_start() {
    const FRAME_BYTES: u64 = 2 * 2167 * 2070;
    let gb: f64 = std::env::var("FLUXLINE_RECOVERED_GB")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.3);
    let folder = folder("recovered");
    let bytes = (gb * 1e9) as u64;
    // Some more than are needed: it does not end by itself.
    let frames = bytes * 11 / 10 / FRAME_BYTES + 100;
    // A small run comes slowly: a machine that stalls must not see its end.
    let rate_hz = if gb < 1.0 { 10.0 } else { 100.0 };
    let source = format!("rows = 2167\ncolumns = 2070\nframes = {frames}\nrate_hz = {rate_hz:?}\n");
    let config = configuration(&folder, &source, "frames_per_file = 200\n");
    // Spots and curves would only make the run longer.
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let (text, _) = text.split_once("operations = ").expect("a recipe");
    std::fs::write(&config, format!("{text}operations = []\n")).expect("a configuration");
    let server = Server::start(&config);
    assert_eq!(server.post("/api/v1/runs", &json!({ "name": "large" })).0, 201);
    let mut synced = 0;
    let mut seen = Instant::now();
    while synced * FRAME_BYTES < bytes {
        std::thread::sleep(Duration::from_millis(100));
        let run = server.get("/api/v1/runs/large");
        let now = number(&run["outcomes"]["synced"]);
        if now > synced {
            (synced, seen) = (now, Instant::now());
        }
        assert!(seen.elapsed() < Duration::from_secs(300), "it records no longer: {run}");
    }
    drop(server);
    let run = run_folder(&folder, "large");
    let length = |entry: std::fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    let on_disk: u64 = std::fs::read_dir(&run).expect("a folder").flatten().map(length).sum();
    let begun = Instant::now();
    let server = Server::start(&config);
    let back_s = begun.elapsed().as_secs_f64();
    assert!(back_s < BACK_S, "back only after {back_s} s");
    let python = python("a_large_interrupted_run_is_whole_soon_after_the_next_start");
    if let Some(python) = &python {
        let opens = format!("{}={synced}", run.display());
        println!("{}", check(python, "store_check.py", &["opens", &opens]).trim());
    }
    let end = begun + Duration::from_secs(600 + bytes / 100_000_000);
    while server.try_get("/api/v1/runs/large").1["state"] != "interrupted" {
        assert!(Instant::now() < end, "it is not closed");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!(
        "recovery of {:.1} GB: {synced} frames acknowledged, answers and whole files after {back_s:.2} s, hashed and closed after {:.1} s",
        on_disk as f64 / 1e9,
        begun.elapsed().as_secs_f64()
    );
    drop(server);
    hashes_hold(&run);
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
    let config = configuration(&folder, source, store);
    (run_on_a_disk(&folder, &config, rules), folder)
}

/// A run of this configuration; what was asked of the disk is in `trace`.
fn run_on_a_disk(folder: &Path, config: &Path, rules: &str) -> Value {
    let library = interposed(folder, "disk.c", &[]);
    let output = Command::new(binary())
        .args(["run", "--once", "--json"])
        .arg(config)
        .env("LD_PRELOAD", &library)
        .env("FLUXLINE_DISK", rules)
        .env("FLUXLINE_DISK_TRACE", folder.join("trace"))
        .output()
        .expect("the built binary");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)))
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
    // Not over before the third sync, however slow this disk is.
    let longer = SOURCE.replace("frames = 600", "frames = 3000");
    let (summary, _) = on_a_disk("sync-fails", "sync _data_000001.h5 3 1 5", &longer, "");
    let (synced, failed) = closes(&summary);
    assert!(failed > 0 && synced > 100, "{summary}");
    assert_eq!(summary["state"], "failed", "the run is flagged: {summary}");
    let files = summary["files"].to_string();
    assert!(files.contains("_data_000001_2.h5"), "a new file: {files}");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("count as failed"), "{warnings}");
    verified(test, &summary);
}

/// The very first sync fails while frames come as fast as they can: another file is taken in the middle of it, and nobody waits
/// for somebody who waits for him. Often, since it is a matter of moments.
#[test]
fn a_failed_sync_holds_up_nobody() {
    let source = "rows = 64\ncolumns = 64\nframes = 200\nrate_hz = 200.0\n";
    for turn in 0..12 {
        let (summary, _) = on_a_disk(&format!("first-sync-{turn}"), "sync _data_000001.h5 1 1 5", source, "");
        let (_, failed) = closes(&summary);
        assert!(failed > 0, "{summary}");
    }
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
    for turn in 0..5 {
        let (summary, _) = on_a_disk(
            &format!("write-fails-{turn}"),
            "write _data_000001.h5 100 1 5",
            SOURCE,
            "",
        );
        // Now and then that write is one of an index: no frame's.
        let closed = closes(&summary);
        assert!(closed == (599, 1) || closed == (600, 0), "{summary}");
        verified("a_failed_write_costs_its_frame", &summary);
        if closed == (599, 1) {
            return;
        }
    }
    panic!("no frame was hit in five runs");
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

/// Runs that `kill -9` hits while they are armed, and while they are closed.
#[test]
fn kill_9_while_a_run_is_armed_or_closed_leaves_whole_runs_only() {
    let test = "kill_9_while_a_run_is_armed_or_closed_leaves_whole_runs_only";
    let kills: u64 = std::env::var("FLUXLINE_KILLS_BETWEEN")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(6);
    let folder = folder("kills-between");
    let source = "rows = 96\ncolumns = 128\nframes = 400\nrate_hz = 0.0\n";
    let config = configuration(&folder, source, "frames_per_file = 50\n");
    let mut seed = 7u64;
    let mut coin = move |most: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % most.max(1)
    };
    // How long a run takes to be armed, and to be closed.
    let server = Server::start(&config);
    let begun = Instant::now();
    assert_eq!(server.post("/api/v1/runs", &json!({ "name": "whole" })).0, 201);
    let arming = begun.elapsed();
    server.wait("/api/v1/runs/whole", |run| {
        run["outcomes"]["synced"] == 400 || !run["summary"].is_null()
    });
    let begun = Instant::now();
    server.wait("/api/v1/runs/whole", |run| !run["summary"].is_null());
    let closing = begun.elapsed().max(Duration::from_millis(20));
    drop(server);
    let mut runs: Vec<(String, u64)> = Vec::new();
    for kill in 0..kills {
        let (server, run) = (Server::start(&config), format!("armed-{kill:04}"));
        let (url, request) = (format!("{}/api/v1/runs", server.url), json!({ "name": run }));
        // Nobody may be there any more when it is answered.
        let arm = std::thread::spawn(move || ureq::post(url).send_json(request).map(drop).is_ok());
        std::thread::sleep(Duration::from_micros(coin(arming.as_micros() as u64 * 5 / 4)));
        drop(server);
        let _ = arm.join();
        runs.push((run, 0));

        let (server, run) = (Server::start(&config), format!("closed-{kill:04}"));
        assert_eq!(server.post("/api/v1/runs", &json!({ "name": run })).0, 201);
        let mut synced = 0;
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            assert!(Instant::now() < end, "{run} records for ever");
            let now = server.get(&format!("/api/v1/runs/{run}"));
            synced = number(&now["outcomes"]["synced"]).max(synced);
            if now["state"] == "finishing" || !now["summary"].is_null() || synced == 400 {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(coin(closing.as_micros() as u64 * 5 / 4)));
        drop(server);
        runs.push((run, synced));
    }
    // Each has been left at some moment; what that was is told by its folder.
    let mut moments = std::collections::BTreeMap::new();
    for (run, _) in &runs {
        let path = find_run(&folder, run);
        let has = |name: &str| path.as_ref().is_some_and(|path| path.join(name).exists());
        let moment = match () {
            () if path.is_none() => "gone",
            () if has("run.json") => "closed",
            () if has(".creating") => "being armed",
            () => "open",
        };
        *moments.entry(moment).or_insert(0) += 1;
    }
    let server = Server::start(&config);
    let mut whole = Vec::new();
    for (run, synced) in &runs {
        let Some(path) = find_run(&folder, run) else {
            assert_eq!(*synced, 0, "{run} is gone");
            // Its name is free again.
            assert_eq!(
                server
                    .post("/api/v1/runs", &json!({ "name": run, "frames_expected": 1 }))
                    .0,
                201
            );
            server.wait(&format!("/api/v1/runs/{run}"), |run| !run["summary"].is_null());
            continue;
        };
        let end = Instant::now() + Duration::from_secs(300);
        let left = || {
            let names = std::fs::read_dir(&path).expect("a folder").flatten();
            let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let hidden = names.any(|name| name.starts_with('.'));
            hidden || !path.join("run.json").exists()
        };
        while left() {
            assert!(
                Instant::now() < end,
                "{run} is not closed: {:?}",
                std::fs::read_dir(&path)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        hashes_hold(&path);
        whole.push(format!("{}={synced}", path.display()));
    }
    println!(
        "{} kills while arming and closing, which had come to {moments:?}: nothing lost",
        runs.len()
    );
    let Some(python) = python(test) else { return };
    let mut arguments = vec!["runs", "4"];
    arguments.extend(whole.iter().map(String::as_str));
    println!("{}", check(&python, "store_check.py", &arguments).trim());
}

/// What happened to one file: offsets and lengths of writes, with the numbers of the lines of their ends, and the numbers of
/// the lines between which a sync of it went on.
#[derive(Default)]
struct Traced {
    /// begin, end, offset, bytes
    writes: Vec<(usize, usize, u64, u64)>,
    /// begin, end
    syncs: Vec<(usize, usize)>,
    /// begin and end of its becoming what it is
    renamed: Option<(usize, usize)>,
}

impl Traced {
    /// The trace by file names. A call that goes on in several threads at once is told by file, offset and kind.
    fn read(path: &Path) -> std::collections::BTreeMap<String, Traced> {
        let text = std::fs::read_to_string(path).expect("a trace");
        let mut files: std::collections::BTreeMap<String, Traced> = Default::default();
        let mut open: std::collections::BTreeMap<(String, String, u64), Vec<usize>> = Default::default();
        for (at, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            let [when, call, offset, bytes, path] = words[..] else {
                panic!("{line}")
            };
            let (offset, bytes) = (offset.parse().expect(line), bytes.parse().expect(line));
            let name = path.rsplit('/').next().unwrap_or(path).to_string();
            let key = (name.clone(), call.to_string(), offset);
            if when == "begin" {
                open.entry(key).or_default().push(at);
                continue;
            }
            // Of two at once the later one's begin: then less is shown to be safe.
            let begun = open.get_mut(&key).and_then(Vec::pop).expect(line);
            let file = files.entry(name).or_default();
            match call {
                "write" => file.writes.push((begun, at, offset, bytes)),
                "sync" => file.syncs.push((begun, at)),
                _ => file.renamed = Some((begun, at)),
            }
        }
        files
    }

    /// Line at which the last write ended that has any of these bytes; they must all have been written before line `by`.
    fn written(&self, offset: u64, bytes: u64, by: usize) -> Option<usize> {
        let touching = self
            .writes
            .iter()
            .filter(|(_, end, at, length)| *end < by && *at < offset + bytes && at + length > offset);
        let mut parts: Vec<(u64, u64, usize)> = touching.map(|(_, end, at, length)| (*at, at + length, *end)).collect();
        parts.sort();
        let mut covered = offset;
        for (from, to, _) in &parts {
            if *from <= covered {
                covered = covered.max(*to);
            }
        }
        (covered >= offset + bytes).then(|| parts.iter().map(|(.., end)| *end).max())?
    }

    /// Whether a sync began behind line `after` and had ended before line `before`.
    fn synced(&self, after: usize, before: usize) -> bool {
        self.syncs.iter().any(|(begin, end)| *begin > after && *end < before)
    }
}

/// The order on which everything rests, as the system saw it in a whole run: the bytes of a frame are written, then their
/// file is synced, and only then the journal's record of them is written, and synced; `run.json` comes behind all of it.
#[test]
fn every_record_of_the_journal_comes_after_the_sync_of_its_bytes() {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let long = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    // Frames through the page cache, and frames past it.
    for (name, source) in [
        (
            "order-small",
            "rows = 96\ncolumns = 128\nframes = 600\nrate_hz = 400.0\n",
        ),
        (
            "order-large",
            "rows = 512\ncolumns = 512\nframes = 150\nrate_hz = 100.0\n",
        ),
    ] {
        let (summary, folder) = on_a_disk(name, "", source, "compress = false\nframes_per_file = 60\n");
        assert_eq!(summary["state"], "complete", "{summary}");
        let master = PathBuf::from(summary["files"][0].as_str().expect("a file"));
        let (run, id) = (
            master.parent().expect("a folder"),
            summary["run"].as_str().expect("a name"),
        );
        let trace = Traced::read(&folder.join("trace"));
        let journal = std::fs::read(run.join(format!("{id}_journal_0001.bin"))).expect("a journal");
        let of_journal = &trace[&format!("{id}_journal_0001.bin")];
        let (mut frames, mut syncs) = (0, 0);
        for (begin, end, offset, bytes) in &of_journal.writes {
            syncs += 1;
            assert!(of_journal.synced(*end, usize::MAX), "the journal is synced, too");
            for record in journal[*offset as usize..(offset + bytes) as usize].chunks(64) {
                let (kind, file) = (record[0], word(record, 24));
                let data = format!("{id}_data_{:06}.h5", file + 1);
                let data = trace.get(&data).expect(&data);
                let written = match kind {
                    1 => data.written(long(record, 32), word(record, 28).into(), *begin),
                    2 => data
                        .writes
                        .iter()
                        .map(|(_, end, ..)| *end)
                        .filter(|end| end < begin)
                        .max(),
                    kind => panic!("a record of kind {kind}"),
                };
                let written =
                    written.unwrap_or_else(|| panic!("{name}: {record:?}: its bytes were not written before"));
                assert!(
                    data.synced(written, *begin),
                    "{name}: {record:?}: its bytes were not synced before"
                );
                frames += u64::from(kind == 1);
            }
        }
        assert_eq!(frames, number(&summary["outcomes"]["synced"]), "{summary}");
        assert!(syncs > 1, "{syncs} syncs");
        let closed = trace["run.json"].renamed.expect("run.json").0;
        let record: Value =
            serde_json::from_slice(&std::fs::read(run.join("run.json")).expect("run.json")).expect("JSON");
        let files = ["files", "journal"]
            .into_iter()
            .flat_map(|list| record[list].as_array().expect("a list"));
        let names = files.map(|file| file["name"].as_str().expect("a name"));
        for name in names.chain([".run.json.part", "state.jsonl"]) {
            let file = trace.get(name).expect(name);
            let last = file
                .writes
                .iter()
                .map(|(_, end, ..)| *end)
                .filter(|end| *end < closed)
                .max();
            assert!(
                file.synced(last.unwrap_or(0), closed),
                "{name} was not on the disk before run.json"
            );
        }
        println!("{name}: {frames} frames, {syncs} writes of the journal, each behind the sync of what it names");
    }
}

/// A sync that does not come back: said while it lasts, by a thread that does not wait for it.
#[test]
fn a_disk_that_hangs_in_a_sync_is_told_of_while_it_hangs() {
    let folder = folder("sync-hangs");
    let config = configuration(
        &folder,
        "rows = 96\ncolumns = 128\nframes = 100000\nrate_hz = 100.0\n",
        "",
    );
    let mut program = Command::new(binary());
    program
        .env("LD_PRELOAD", interposed(&folder, "disk.c", &[]))
        .env("FLUXLINE_DISK", "sync _data_000001.h5 3 1 ms600000");
    let server = Server::start_by(program, &config);
    assert_eq!(server.post("/api/v1/runs", &json!({ "name": "hangs" })).0, 201);
    let run = server.wait("/api/v1/runs/hangs", |run| {
        run["warnings"]
            .to_string()
            .contains("the disk has been syncing for 5 s")
    });
    let outcomes = &run["outcomes"];
    assert!(
        number(&outcomes["synced"]) < number(&outcomes["received"]),
        "the sync goes on: {run}"
    );
    assert_eq!(run["state"], "recording", "{run}");
}

/// The disk takes nothing for ten seconds: memory that has room for it absorbs that, and what it has no room for is whole
/// frames, each of them counted.
#[test]
fn a_disk_that_stands_still_for_ten_seconds_is_absorbed_or_counted() {
    let source = "rows = 96\ncolumns = 128\nframes = 1600\nrate_hz = 100.0\n";
    // Each of the threads that write is held up once, and the one that syncs if it comes between them.
    let rule = "write _data_000001.h5 40 5 ms10000";
    for (slots, absorbed) in [(2048, true), (64, false)] {
        let folder = folder(&format!("still-{slots}"));
        let config = configuration(&folder, source, "threads = 4\n");
        let text = std::fs::read_to_string(&config).expect("a configuration");
        let ring = format!("slots = {slots}\nwhen_full = \"drop\"\n");
        std::fs::write(&config, text.replace("slots = 64\n", &ring)).expect("a configuration");
        let summary = run_on_a_disk(&folder, &config, rule);
        // Analysis may give way to storage meanwhile.
        let (frames, outcomes) = (&summary["frames"], &summary["outcomes"]);
        let (synced, failed) = (number(&outcomes["synced"]), number(&outcomes["storage_failed"]));
        let (complete, lost) = (number(&frames["complete"]), number(&frames["lost"]));
        assert_eq!((failed, synced, complete + lost), (0, complete, 1600), "{summary}");
        assert_eq!(number(&summary["frames"]["partial"]), 0, "{summary}");
        match absorbed {
            true => assert_eq!(synced, 1600, "{summary}"),
            false => assert!(lost > 100 && synced >= 40, "{summary}"),
        }
        println!("ten seconds, {slots} slots: {synced} stored, {lost} counted as lost");
    }
}
