//! What looks after closed runs when something is wrong with one of them, with the clock, or with the way to the central
//! store: through the built binary, with time from a file as in `keep`.

#[path = "keep/support.rs"]
#[allow(dead_code)]
mod support;

use fluxline_tests::{Server, binary, complaint, interposed, json};
use serde_json::{Value, json as object};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

const HOUR: u64 = 3600;

/// A metric without labels, or with these behind its name.
fn metric(server: &Server, name: &str) -> f64 {
    let metrics = server.text("/metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).expect(name)
}

fn keep(server: &Server) -> Value {
    server.get("/api/v1/status")["store"]["keep"].clone()
}

fn store_state(server: &Server, run: &str) -> Value {
    server.get(&format!("/api/v1/runs/{run}"))["store_state"].clone()
}

fn verified(server: &Server, run: &str) {
    server.wait(&format!("/api/v1/runs/{run}"), |run| run["store_state"] == "verified");
}

/// Ten frames per second: a run of 3000 outlives its test.
fn slowly(place: &Place) {
    place.configure("");
    let text = fs::read_to_string(place.config()).expect("a configuration");
    fs::write(place.config(), text.replace("rate_hz = 0.0", "rate_hz = 10.0")).expect("a configuration");
}

/// One bit of `run.json`: of the oldest run, repaired from the copy; of the next, whose copy is bad, too, said and kept. No
/// other run waits for them: the newest is told to the facility and deleted.
#[test]
fn a_flipped_bit_in_run_json_holds_up_no_other_run() {
    let place = Place::new("record", "delete_percent = 0.0\n");
    let (hook, told) = (place.folder.join("hook"), place.folder.join("told"));
    let go = place.folder.join("go");
    // Nobody is told anything before the bits have flipped.
    let script = format!(
        "#!/bin/sh\n[ -e {} ] || exit 1\necho $1 >> {}\n",
        go.display(),
        told.display()
    );
    fs::write(&hook, script).expect("a hook");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("a program");
    place.configure(&format!(
        "[announce]\nfolder = \"{}\"\nhook = [\"{}\", \"{{run}}\"]\n",
        place.folder.join("payloads").display(),
        hook.display()
    ));
    let server = place.serve();
    for run in ["one", "two", "three"] {
        record(&server, run, 5);
        verified(&server, run);
    }
    drop(server);
    let record_of = |run: &str| place.run_folder(run).join("run.json");
    let good = fs::read(record_of("one")).expect("run.json");
    flip(&record_of("one"));
    flip(&record_of("two"));
    flip(&place.copy_of(&place.run_folder("two")).join("run.json"));
    fs::write(&go, "").expect("a file");
    place.pass(48 * HOUR);
    let server = place.serve();
    // Told and deleted as if nothing were wrong with the others; what was repaired goes the same way.
    for run in ["three", "one"] {
        until(run, || {
            place.pass(10);
            let told = fs::read_to_string(&told).unwrap_or_default();
            told.contains(run) && states(&place.run_folder(run)).contains(&"deleted".to_string())
        });
    }
    assert!(fs::read(record_of("one")).expect("run.json") == good, "not repaired");
    let life = states(&place.run_folder("one"));
    let at = |state: &str| life.iter().position(|found| found == state).expect(state);
    assert!(
        at("damaged") < at("repaired") && at("repaired") < at("safe_to_delete"),
        "{life:?}"
    );
    // The other one calls for somebody, and stays.
    server.wait("/api/v1/status", |status| status["store"]["keep"]["damaged_runs"] == 1);
    assert_eq!(metric(&server, "fluxline_store_damaged_runs"), 1.0);
    let listed = server.get("/api/v1/runs?query=id=two");
    let why = listed["runs"][0]["damaged"].as_str().unwrap_or_default();
    assert!(why.contains("run.json is not what was written"), "{listed}");
    assert!(names(&place.run_folder("two")).len() > 3);
    assert!(!fs::read_to_string(&told).expect("told").contains("two"));
    drop(server);
    let said = place.store_command(&["status"]);
    let status: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!(status["damaged"][0]["id"], "two", "{status}");
}

/// A full disk cuts the line that says that a run is closed. The next start closes the run; its line is read.
#[test]
fn a_state_that_was_cut_off_swallows_no_other() {
    let place = Place::new("torn-state", "");
    slowly(&place);
    let server = place.serve();
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "torn", "frames_expected": 3000 }));
    assert_eq!(status, 201, "{armed}");
    drop(server);
    let states_file = place.run_folder("torn").join("state.jsonl");
    let mut lines = fs::read_to_string(&states_file).expect("state.jsonl");
    lines += "{\"state\":\"closed\",\"time\":\"2026-11-29T1";
    fs::write(&states_file, lines).expect("written");
    let server = place.serve();
    until("the run to be closed", || {
        let (code, run) = server.try_get("/api/v1/runs/torn");
        code == 200 && run["store_state"] == "verified"
    });
    place.copy_is_right("torn");
}

/// The clock is years ahead at a start: nothing is deleted before as much time has really passed. Also after another start,
/// and where the machine was started anew.
#[test]
fn a_clock_that_jumped_while_nobody_looked_deletes_nothing() {
    for boot in ["", "another"] {
        let place = Place::new(&format!("clock{boot}"), "delete_percent = 0.0\n");
        place.configure("");
        let server = place.serve();
        record(&server, "young", 5);
        verified(&server, "young");
        assert_eq!(keep(&server)["clock_trusted"], true);
        drop(server);
        place.reboot(boot);
        place.jump(10 * 8760 * HOUR);
        for start in ["first", "second"] {
            let server = place.serve();
            server.wait("/api/v1/status", |status| {
                status["store"]["keep"]["clock_trusted"] == false
            });
            // Its way there shows that everybody has been at work.
            record(&server, start, 5);
            verified(&server, start);
            assert_eq!(store_state(&server, "young"), "verified");
            assert!(names(&place.run_folder("young")).len() > 3);
        }
        place.pass(49 * HOUR);
        let server = place.serve();
        server.wait("/api/v1/runs/young", |run| run["store_state"] == "deleted");
    }
}

/// The disk refuses what closes a run, once: it is closed beside the next run, by nobody's hand, and pushed. One that cannot
/// be closed is counted until it can.
#[test]
fn a_run_that_was_not_closed_is_closed_without_a_start() {
    let place = Place::new("unclosed", "");
    slowly(&place);
    let library = interposed(&place.folder, "disk.c", &[]);
    let mut program = Command::new(binary());
    program
        .env("LD_PRELOAD", &library)
        .env("FLUXLINE_DISK", "sync /one_master.h5 1 1 5");
    let server = place.serve_by(program);
    let run = record(&server, "one", 5);
    assert_eq!(run["summary"]["state"], "failed", "{run}");
    record(&server, "two", 5);
    until("the first run to be pushed", || {
        let (code, run) = server.try_get("/api/v1/runs/one");
        code == 200 && run["store_state"] == "verified"
    });
    assert_eq!(server.get("/api/v1/runs/one")["state"], "interrupted");
    place.copy_is_right("one");
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "three", "frames_expected": 3000 }));
    assert_eq!(status, 201, "{armed}");
    drop(server);
    // What the next start needs is gone.
    let here = place.run_folder("three");
    let (start, away) = (here.join(".start.h5"), here.join("away"));
    fs::rename(&start, &away).expect("the master file as it was at first");
    let server = place.serve();
    server.wait("/api/v1/status", |status| status["store"]["keep"]["unclosed_runs"] == 1);
    until("the count", || metric(&server, "fluxline_store_unclosed_runs") == 1.0);
    fs::rename(&away, &start).expect("back again");
    until("the run to be pushed", || {
        place.pass(400);
        let (code, run) = server.try_get("/api/v1/runs/three");
        code == 200 && run["store_state"] == "verified"
    });
    until("nothing to be left", || {
        metric(&server, "fluxline_store_unclosed_runs") == 0.0
    });
}

/// Another process on the same store begins a run: its folder is left alone. Once that process is gone it is removed.
#[test]
fn a_run_that_another_process_begins_is_left_alone() {
    let place = Place::new("begins", "");
    place.record_once("first");
    let begun = place.run_folder("first").with_file_name("begun");
    fs::create_dir(&begun).expect("a folder");
    let mark = fs::File::create(begun.join(".creating")).expect("a mark");
    mark.lock().expect("locked");
    place.record_once("second");
    assert!(
        begun.join(".creating").exists(),
        "removed under the hands of its process"
    );
    drop(mark);
    place.record_once("third");
    assert!(!begun.exists(), "nobody fills it any more");
}

/// A central store that is away is away since then, however long the waits between two tries are.
#[test]
fn how_long_the_central_store_is_away_is_told() {
    let place = Place::new("since", "");
    place.configure("");
    let server = place.serve();
    record(&server, "before", 5);
    verified(&server, "before");
    assert_eq!(metric(&server, "fluxline_push_away_seconds"), 0.0);
    let gone = place.folder.join("gone");
    fs::rename(&place.central, &gone).expect("the central store goes away");
    record(&server, "waits", 5);
    let tries = || metric(&server, "fluxline_push_total{outcome=\"away\"}");
    let mut known = 0.0;
    for _ in 0..12 {
        until("another try", || {
            place.pass(if known == 0.0 { 0 } else { 20 });
            tries() > known
        });
        known = tries();
    }
    // Soon it is tried again, and all the same it has been away for long.
    until("the time to be told", || {
        place.pass(5);
        let push = &keep(&server)["push"];
        let (retry, away) = (push["retry_in_s"].as_f64(), push["away_s"].as_f64());
        retry.is_some_and(|retry| retry < 60.0) && away.is_some_and(|away| away > 1000.0)
    });
    assert!(metric(&server, "fluxline_push_away_seconds") > 1000.0);
    fs::rename(&gone, &place.central).expect("the central store comes back");
    place.pass(400);
    verified(&server, "waits");
    until("it to be back", || metric(&server, "fluxline_push_away_seconds") == 0.0);
}

/// While the very first run records, the forecast knows of it.
#[test]
fn the_forecast_sees_the_run_that_records() {
    let place = Place::new("forecast", "");
    slowly(&place);
    let server = place.serve();
    assert_eq!(keep(&server)["forecast"]["hours_left"], Value::Null);
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "long", "frames_expected": 3000 }));
    assert_eq!(status, 201, "{armed}");
    // The files' first bytes are written while the run is still armed: the forecast may come before the first frame.
    server.wait("/api/v1/status", |status| {
        status["state"] == "recording" && status["store"]["keep"]["forecast"]["hours_left"].as_f64().is_some()
    });
    let by_hand = json(&place.store_command(&["forecast"]));
    assert!(
        by_hand["bytes_per_s"].as_f64().is_some_and(|rate| rate > 0.0),
        "{by_hand}"
    );
    assert!(server.post("/api/v1/runs/long/stop", &Value::Null).0 < 300);
    server.wait("/api/v1/runs/long", |run| !run["summary"].is_null());
}

/// The service does not put the parts together just now: the next try asks for that again, and sends nothing twice.
#[test]
fn parts_that_arrived_are_not_sent_again() {
    let Some(s3) = S3::start("parts_that_arrived_are_not_sent_again") else {
        return;
    };
    let place = Place::new("parts", "");
    let keys = place.folder.join("keys.toml");
    fs::write(&keys, "access_key_id = \"a\"\nsecret_access_key = \"b\"\n").expect("keys");
    place.push_to(&format!(
        "to = \"s3://central/beamline\"\nendpoint = \"{}\"\ncredentials = \"{}\"\npart_mib = 5\ntimeout_s = 60.0\n",
        s3.url,
        keys.display()
    ));
    place.record_with("one", 10, "compress = false\n");
    s3.mode("apart");
    for _ in 0..2 {
        let (code, said) = complaint(&place.store_command(&["push"]));
        assert!(code == 1 && said.contains("is tried again"), "{said}");
    }
    s3.mode("noparts");
    json(&place.store_command(&["push"]));
    let here = place.run_folder("one");
    assert_eq!(states(&here).last().map(String::as_str), Some("verified"));
    assert!(names(&place.store().join(".fluxline/uploads")).is_empty());
    let file = "one_data_000001.h5";
    let copy = s3.get(&format!("/central/beamline/{}/{file}", place.relative(&here)));
    assert!(copy == fs::read(here.join(file)).expect(file));
}

/// The copy is read again just when the facility is told: it is told once.
#[test]
fn a_run_is_announced_once() {
    let place = Place::new("once", "");
    let (hook, told, go) = (
        place.folder.join("hook"),
        place.folder.join("told"),
        place.folder.join("go"),
    );
    let script = format!(
        "#!/bin/sh\n[ -e {} ] || exit 1\necho x >> {}\n",
        go.display(),
        told.display()
    );
    fs::write(&hook, script).expect("a hook");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("a program");
    place.configure(&format!(
        "[announce]\nfolder = \"{}\"\nhook = [\"{}\"]\n",
        place.folder.join("payloads").display(),
        hook.display()
    ));
    let server = place.serve();
    record(&server, "one", 5);
    verified(&server, "one");
    // A copy that is read again only when this test lets it: opening a pipe waits for whoever writes to it.
    let copy = place.copy_of(&place.run_folder("one")).join("one_data_000001.h5");
    let (kept, pipe) = (place.folder.join("kept"), place.folder.join("pipe"));
    fs::rename(&copy, &kept).expect("renamed");
    let made = Command::new("mkfifo").arg(&copy).status().expect("mkfifo");
    assert!(made.success());
    place.pass(48 * HOUR);
    // Not seen from outside: whoever reads it again has opened it by now, or this test proves less.
    wait_a_little(Duration::from_secs(3), || false);
    fs::write(&go, "").expect("a file");
    wait_a_little(Duration::from_secs(5), || {
        place.pass(10);
        told.exists()
    });
    fs::rename(&copy, &pipe).expect("renamed");
    fs::rename(&kept, &copy).expect("renamed");
    let_go(&pipe);
    until("it to be safe to delete and told", || {
        place.pass(10);
        store_state(&server, "one") == "safe_to_delete" && told.exists()
    });
    // Time for a second time.
    wait_a_little(Duration::from_secs(3), || {
        place.pass(400);
        fs::read_to_string(&told).expect("told").lines().count() > 1
    });
    assert_eq!(fs::read_to_string(&told).expect("told").lines().count(), 1);
    let life = states(&place.run_folder("one"));
    assert_eq!(life.iter().filter(|state| *state == "announced").count(), 1, "{life:?}");
}

/// Waits until something is so, for so long at most.
fn wait_a_little(time: Duration, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !so() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Opens a pipe for writing where somebody waits to read it.
fn let_go(pipe: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(pipe);
    // Nobody may be waiting.
    drop(opened);
}

/// Of Linux on every machine that this runs on.
const O_NONBLOCK: i32 = 0o4000;
