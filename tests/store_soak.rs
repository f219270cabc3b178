//! The store for long: runs as fast as the disk takes them, pushed to a folder and deleted beside that, and what it costs. A
//! few seconds among the other tests; `make soak SOAK=store` for half an hour.

#[path = "keep/support.rs"]
#[allow(dead_code)]
mod support;

use fluxline_tests::Server;
use serde_json::json as object;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::*;

/// Longest time without a frame that need not be told of.
const STALL: Duration = Duration::from_millis(100);
/// Frames of a run, 2 MB each.
const FRAMES: u64 = 400;

/// Memory of a process in use, MiB.
fn memory_mib(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("its memory");
    kib / 1024.0
}

/// Writes and syncs that took longer than a stall, as the appliance has counted them, and what it has said of it.
fn reported(server: &Server) -> u64 {
    let metrics = server.text("/metrics");
    let value = |name: &str| -> u64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).expect(name)
    };
    let long = |name: &str| {
        // The largest bucket that a stall does not fit.
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
        let within = buckets
            .filter(|(le, _)| le.parse::<f64>().is_ok_and(|le| le <= STALL.as_secs_f64()))
            .filter_map(|(_, count)| count.parse::<u64>().ok())
            .max();
        value(&format!("{name}_count")) - within.unwrap_or(0)
    };
    long("fluxline_write_seconds") + long("fluxline_sync_seconds")
}

/// Removes the copies of runs that are deleted here: the central store of this test is no larger than the store.
fn forget_copies(place: &Place, gone: &mut BTreeSet<String>) {
    let proposal = place.store().join("commissioning");
    for day in names(&proposal) {
        for run in names(&proposal.join(&day)) {
            let folder = proposal.join(&day).join(&run);
            if !gone.contains(&run) && deleted(&folder) {
                fs::remove_dir_all(place.copy_of(&folder)).expect("its copy");
                gone.insert(run);
            }
        }
    }
}

fn deleted(folder: &Path) -> bool {
    folder.join("state.jsonl").exists() && states(folder).last().is_some_and(|state| state == "deleted")
}

#[test]
fn the_store_takes_runs_pushes_and_deletes_them_for_as_long_as_it_is_asked() {
    let seconds: u64 = std::env::var("FLUXLINE_STORE_SOAK_S")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    // Ages of seconds in place of days, and room for a handful of runs.
    let place = Place::new(
        "soak",
        "min_age_h = 0.001\ntrust_clock = true\ncapacity_gb = 8.0\ndelete_percent = 30.0\n",
    );
    place.configure("");
    // The time is the machine's: a test's clock would have to be turned all the time.
    let server = Server::start(&place.config());
    let (mut runs, mut bytes, mut gone) = (0u64, 0u64, BTreeSet::new());
    let (mut recording, mut longest, mut stalls, mut unreported) = (Duration::ZERO, Duration::ZERO, 0u64, 0u64);
    let (mut memory, mut waited) = (Vec::new(), 0u64);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let name = format!("run-{runs:05}");
        let request = object!({ "name": name, "frames_expected": FRAMES });
        let (status, armed) = server.post("/api/v1/runs", &request);
        if status == 507 {
            // What is pushed and old enough makes room; the disk is the limit, not this loop.
            waited += 1;
            assert!(waited < 1000 + 10 * seconds, "the store stays full: {armed}");
            forget_copies(&place, &mut gone);
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        assert_eq!(status, 201, "{armed}");
        let (first, known) = (Instant::now(), reported(&server));
        let (mut frames, mut moved, mut stalled) = (0, Instant::now(), 0);
        let run = loop {
            let run = server.get(&format!("/api/v1/runs/{name}"));
            let now = run["frames"]["complete"].as_u64().unwrap_or(0);
            if now > frames || now == FRAMES {
                let gap = moved.elapsed();
                if frames > 0 && now > frames {
                    longest = longest.max(gap);
                    stalled += u64::from(gap > STALL);
                }
                (frames, moved) = (now, Instant::now());
            }
            if !run["summary"].is_null() {
                break run;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        recording += first.elapsed();
        assert_eq!(run["summary"]["state"], "complete", "{run}");
        assert_eq!(run["summary"]["outcomes"]["synced"], FRAMES, "{run}");
        stalls += stalled;
        let told = reported(&server) > known || run["warnings"].to_string().contains("slow");
        unreported += if told { 0 } else { stalled };
        runs += 1;
        bytes += FRAMES * 2_000_000;
        memory.push(memory_mib(server.id()));
        forget_copies(&place, &mut gone);
    }
    // What is left is pushed, and goes as far as there must be room.
    server.wait("/api/v1/status", |status| {
        status["store"]["keep"]["push"]["waiting_runs"] == 0
    });
    let keep = server.get("/api/v1/status")["store"]["keep"].clone();
    assert_eq!(keep["damaged_runs"], 0, "{keep}");
    let (elapsed, warm) = (begun.elapsed().as_secs_f64(), memory.len() / 5);
    let (first, last) = (memory[warm], memory[memory.len() - 1]);
    println!(
        "store: {runs} runs of {FRAMES} frames in {elapsed:.0} s, {:.2} GB/s while they recorded ({:.2} GB/s with arming, pushing and \
         waiting for room {waited} times), all synced; {} runs deleted; memory {first:.0} MiB after {warm} runs, {last:.0} MiB at the end; \
         longest time without a frame {:.0} ms, {stalls} above 100 ms, {unreported} of them without a write or sync that long",
        bytes as f64 / 1e9 / recording.as_secs_f64(),
        bytes as f64 / 1e9 / elapsed,
        keep["runs"]["deleted"]["runs"],
        longest.as_secs_f64() * 1e3,
    );
    assert!(runs > 0);
    if seconds >= 300 {
        assert!(
            keep["runs"]["deleted"]["runs"].as_u64().is_some_and(|runs| runs > 0),
            "{keep}"
        );
        assert!(last < first * 1.1 + 16.0, "memory grew: {memory:?}");
    }
}
