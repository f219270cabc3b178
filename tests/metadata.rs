//! Values by frame number through the built binary: by HTTP in any order, in ledger, results and files.

use fluxline_tests::{Server, check, folder, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

const STATISTICS: &str = "[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";

fn configuration(folder: &Path, source: &str, recipe: &str, wait_s: f64) -> PathBuf {
    let text = format!(
        "[run]\nmetadata_wait_s = {wait_s:?}\n[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\n\
         {source}\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn slow(frames: u64, rate_hz: f64) -> String {
    format!("scene = \"pattern\"\nrows = 32\ncolumns = 32\nframes = {frames}\nrate_hz = {rate_hz:?}")
}

fn ended(server: &Server, run: &str) -> Value {
    let detail = server.wait(&format!("/api/v1/runs/{run}"), |run| !run["summary"].is_null());
    detail["summary"].clone()
}

#[test]
fn values_before_with_and_after_their_frames_are_joined_by_number() {
    let test = "values_before_with_and_after_their_frames_are_joined_by_number";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let server = Server::start(&configuration(&folder, &slow(60, 5.0), STATISTICS, 600.0));
    let (status, _) = server.post("/api/v1/runs", &object!({ "name": "scan" }));
    assert_eq!(status, 201);
    let path = "/api/v1/runs/scan/frame-metadata";
    let take = |body: Value| {
        let (status, answer) = server.post(path, &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    // The last frames long before they come, backwards.
    let late: Vec<u64> = (40..60).rev().collect();
    let angles: Vec<f64> = late.iter().map(|frame| *frame as f64 / 2.0).collect();
    let answer =
        take(object!({ "frame_numbers": late, "values": { "angle_deg": angles }, "units": { "angle_deg": "deg" } }));
    assert_eq!(answer, object!({ "values": 20, "replaced": 0 }));
    let (mut socket, _) = tungstenite::connect(format!(
        "{}/api/v1/runs/scan/results?policy=lossless&from=0",
        server.url.replace("http", "ws")
    ))
    .expect("a WebSocket");
    let seen = loop {
        let message = socket.read().expect("a result");
        let result: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        if result["frame_number"].as_u64().is_some_and(|frame| frame >= 40) {
            break result;
        }
    };
    let frame = seen["frame_number"].as_f64().expect("a number");
    assert_eq!(seen["angle_deg"], frame / 2.0, "the result was made with it");
    assert_eq!(seen["metadata"]["angle_deg"], frame / 2.0);
    drop(socket);
    // The first ones after every frame has come.
    server.wait("/api/v1/runs/scan", |run| run["state"] == "finishing");
    let early: Vec<u64> = (0..20).collect();
    let counts: Vec<f64> = early.iter().map(|frame| 1000.25 + *frame as f64).collect();
    let times: Vec<u64> = early.iter().map(|frame| u64::MAX - 2 - frame).collect();
    take(
        object!({ "frame_numbers": early, "values": { "I0": counts, "hardware_time_ns": times }, "units": { "I0": "counts" } }),
    );
    assert_eq!(
        take(object!({ "frame_numbers": [3, 3], "values": { "I0": [1.0, 2.0] } }))["replaced"],
        2
    );
    let ledger = server.get("/api/v1/runs/scan/ledger?first=3&limit=1");
    assert_eq!(
        ledger["entries"][0]["metadata"],
        object!({ "I0": 2.0, "hardware_time_ns": u64::MAX - 5 })
    );
    assert_eq!(ledger["entries"][0]["state"], "complete");
    take(object!({ "last": true }));
    let summary = ended(&server, "scan");
    assert_eq!(summary["state"], "complete", "{summary}");
    assert_eq!(
        summary["metadata"]["columns"]["angle_deg"],
        object!({ "frames": 20, "unit": "deg" })
    );
    assert_eq!(
        summary["metadata"]["columns"]["I0"],
        object!({ "frames": 20, "unit": "counts" })
    );
    assert_eq!(summary["metadata"]["replaced"], 2);
    assert!(
        summary["seconds"].as_f64().expect("seconds") < 300.0,
        "\"last\" ends the wait"
    );
    let none = |of: std::ops::Range<u64>| of.map(|_| Value::Null).collect::<Vec<_>>();
    let mut counts: Vec<Value> = counts.into_iter().map(Value::from).collect();
    counts[3] = 2.0.into();
    counts.extend(none(20..60));
    let mut times: Vec<Value> = times.into_iter().map(Value::from).collect();
    times.extend(none(20..60));
    let mut angles = none(0..40);
    angles.extend((40..60).map(|frame| Value::from(f64::from(frame) / 2.0)));
    let expected = object!({ "omega": angles, "columns": {
        "I0": { "values": counts, "unit": "counts" },
        "hardware_time_ns": { "values": times, "unit": "ns" },
        "angle_deg": { "values": angles, "unit": "deg" },
    } });
    let master = summary["files"][0].as_str().expect("a master file");
    check(&python, "frame_metadata.py", &[master, &expected.to_string()]);
    // Too late, and it says until when.
    let (status, error) = server.post(path, &object!({ "frame_numbers": [1], "values": { "I0": [1.0] } }));
    assert_eq!((status, &error["error"]), (409, &object!("sealed")), "{error}");
    assert_eq!(error["allowed_states"], object!(["armed", "recording", "finishing"]));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("metadata_wait_s")),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_refused_whole_with_field_value_and_what_was_expected() {
    let folder = folder("metadata-refused");
    let server = Server::start(&configuration(&folder, &slow(100, 1.0), STATISTICS, 0.0));
    server.post("/api/v1/runs", &object!({ "name": "scan" }));
    let path = "/api/v1/runs/scan/frame-metadata";
    for (body, status, said) in [
        (
            object!({ "frame_numbers": [5, 100], "values": { "I0": [1.0, 2.0] } }),
            422,
            "frame_numbers[1] = 100: expected a frame of the run: 0 to 99",
        ),
        (
            object!({ "frame_numbers": [5, 6], "values": { "I0": [1.0, "NaN"] } }),
            422,
            "values.I0[1] = \"NaN\": expected a finite number",
        ),
        (
            object!({ "frame_numbers": [5.5], "values": { "I0": [1.0] } }),
            422,
            "frame_numbers[0] = 5.5: expected the number of a frame",
        ),
        (
            object!({ "frame_numbers": [5], "values": { "I0": [1.0], "a b": [1.0] } }),
            422,
            "values = a b: expected a letter",
        ),
        (
            object!({ "frame_numbers": [5], "values": { "angle_deg": [1.0] }, "units": { "angle_deg": "rad" } }),
            422,
            "units.angle_deg = \"rad\": expected \"deg\"",
        ),
        (object!({ "frame_number": [5] }), 422, "unknown field `frame_number`"),
        (object!([1]), 422, "the body"),
    ] {
        let (found, error) = server.post(path, &body);
        assert_eq!(found, status, "{body}: {error}");
        assert_eq!(error["error"], "frame_metadata");
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains(said)),
            "{body}: {error}"
        );
    }
    // More than 1 MiB is refused.
    let address = server.url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let heading = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1048577\r\n\r\n");
    std::io::Write::write_all(&mut stream, heading.as_bytes()).expect("a heading");
    std::io::Write::write_all(&mut stream, &vec![b' '; 1_048_577]).expect("a body");
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .expect("a timeout");
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    let (status, _) = server.post("/api/v1/runs/nobody/frame-metadata", &object!({}));
    assert_eq!(status, 404);
    let ledger = server.get("/api/v1/runs/scan/ledger?first=5&limit=1");
    let found = &ledger["entries"][0]["metadata"]["I0"];
    assert_eq!(found, &Value::Null, "none of a refused request was taken");
    server.post("/api/v1/runs/scan/stop", &object!({}));
    let columns = &ended(&server, "scan")["metadata"]["columns"];
    assert_eq!(columns["I0"], Value::Null, "{columns}");
    // A run that is in the store only.
    server.post("/api/v1/runs", &object!({ "name": "next" }));
    let (status, error) = server.post(path, &object!({ "frame_numbers": [1], "values": { "I0": [1.0] } }));
    assert_eq!((status, &error["error"]), (409, &object!("sealed")), "{error}");
}

#[test]
fn a_tomogram_is_made_with_the_angles_that_were_told() {
    let test = "a_tomogram_is_made_with_the_angles_that_were_told";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n";
    let source = "scene = \"tomography\"\nrows = 8\ncolumns = 64\nframes = 90\nrate_hz = 10.0";
    let server = Server::start(&configuration(&folder, source, recipe, 0.0));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "scan" }));
    assert_eq!(status, 201, "{armed}");
    let frames = armed["frames"]["expected"].as_u64().expect("a number");
    let told = [frames - 1, frames - 2];
    let body = object!({ "frame_numbers": told, "values": { "angle_deg": [270.5, 271.25] } });
    let (status, answer) = server.post("/api/v1/runs/scan/frame-metadata", &body);
    assert_eq!(status, 200, "{answer}");
    let summary = ended(&server, "scan");
    assert_eq!(summary["state"], "complete", "{summary}");
    let mut values = vec![Value::Null; frames as usize];
    values[told[0] as usize] = 270.5.into();
    values[told[1] as usize] = 271.25.into();
    let mut angles = object!({});
    angles[told[0].to_string()] = 270.5.into();
    angles[told[1].to_string()] = 271.25.into();
    let expected =
        object!({ "columns": { "angle_deg": { "values": values, "unit": "deg" } }, "rotation_angle": angles });
    check(
        &python,
        "frame_metadata.py",
        &[summary["files"][0].as_str().expect("a file"), &expected.to_string()],
    );
}
