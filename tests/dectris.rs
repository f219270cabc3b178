//! DECTRIS streams through the built binary: the emulator, senders and receivers that are not ours, real messages, faults.

use fluxline_tests::{Server, check, data, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An address that nobody uses now.
fn address() -> String {
    format!("tcp://127.0.0.1:{}", fluxline_tests::port())
}

fn configuration(folder: &Path, address: &str, more: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"dectris\"\naddresses = [\"{address}\"]\n\
         start_timeout_s = 60.0\n{more}\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// A process that ends when the test does.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Background {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Background(child.expect("a process"))
    }

    /// What it printed; it must succeed.
    fn output(mut self) -> String {
        let mut out = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut out).expect("its output");
        }
        assert!(self.0.wait().expect("its end").success(), "{out}");
        out
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn emulate(address: &str, arguments: &[&str]) -> Background {
    Background::start(
        Command::new(fluxline_tests::binary())
            .args(["emulate", "--json", "--dectris", address])
            .args(arguments),
    )
}

fn script(python: &Path, arguments: &[&str]) -> Background {
    let path = fluxline_tests::workspace().join("tests/python/dectris_stream.py");
    Background::start(Command::new(python).arg(path).args(arguments))
}

fn once(config: &Path) -> Value {
    json(&fluxline(&["run", "--once", "--json", &config.display().to_string()]))
}

fn master(summary: &Value) -> &str {
    summary["files"][0].as_str().expect("a master file")
}

fn simulation(folder: &Path, more: &str) -> String {
    let path = folder.join("simulate.toml");
    let text = format!("scene = \"diffraction\"\ndetector = \"custom\"\nrows = 66\ncolumns = 50\ndistinct = 4\n{more}");
    std::fs::write(&path, text).expect("a simulation");
    path.display().to_string()
}

#[test]
fn a_file_sent_as_either_stream_is_stored_pixel_for_pixel() {
    let test = "a_file_sent_as_either_stream_is_stored_pixel_for_pixel";
    let Some(python) = python(test) else { return };
    for (stream, dtype, packed) in [
        ("v2", "uint16", "packed"),
        ("v2", "uint32", "plain"),
        ("v1", "uint32", "packed"),
        ("v1", "uint8", "plain"),
    ] {
        let folder = folder(&format!("{test}-{stream}-{dtype}"));
        let file = folder.join("frames.h5").display().to_string();
        check(&python, "dectris_stream.py", &["make", &file, dtype, "40", packed]);
        let address = address();
        let sender = emulate(&address, &["--file", &file, "--dataset", "/data", "--stream", stream]);
        let summary = once(&configuration(&folder, &address, ""));
        assert_eq!(summary["state"], "complete");
        assert_eq!(summary["frames"]["complete"], 40, "{summary}");
        assert_eq!(summary["dectris"]["series"], 1, "{summary}");
        assert_eq!(summary["dectris"]["stray_images"], Value::Null);
        check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
        let report: Value = serde_json::from_str(&sender.output()).expect("JSON");
        assert_eq!(report["images"], 40);
    }
}

#[test]
fn real_messages_of_an_eiger_become_the_run_that_others_decode() {
    let test = "real_messages_of_an_eiger_become_the_run_that_others_decode";
    let (Some(python), Some(messages)) = (python(test), data(test, "wire-dectris-v2/msgs")) else {
        return;
    };
    let (folder, messages) = (folder(test), messages.display().to_string());
    let address = address();
    let sender = script(&python, &["send_real", &address, &messages]);
    let summary = once(&configuration(&folder, &address, ""));
    assert_eq!(
        (&summary["state"], &summary["frames"]["complete"]),
        (&object!("complete"), &object!(10))
    );
    println!(
        "{}",
        check(
            &python,
            "dectris_stream.py",
            &["check_real", master(&summary), &messages]
        )
    );
    sender.output();
}

#[test]
fn what_the_emulator_sends_is_read_by_others() {
    let test = "what_the_emulator_sends_is_read_by_others";
    let Some(python) = python(test) else { return };
    for (stream, dtype, packed) in [
        ("v2", "uint16", "packed"),
        ("v2", "uint32", "plain"),
        ("v1", "uint16", "packed"),
    ] {
        let folder = folder(&format!("{test}-{stream}-{dtype}"));
        let file = folder.join("frames.h5").display().to_string();
        check(&python, "dectris_stream.py", &["make", &file, dtype, "20", packed]);
        let address = address();
        let sender = emulate(&address, &["--file", &file, "--dataset", "/data", "--stream", stream]);
        check(
            &python,
            "dectris_stream.py",
            &[&format!("receive_{stream}"), &address, &file],
        );
        sender.output();
    }
}

#[test]
fn channels_and_packings_that_others_send() {
    let test = "channels_and_packings_that_others_send";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let file = folder.join("frames.h5").display().to_string();
    check(&python, "dectris_stream.py", &["make", &file, "uint16", "12", "plain"]);
    let first = address();
    let sender = script(&python, &["send_mixed", &first, &file]);
    let summary = once(&configuration(&folder, &first, "channel = \"threshold_2\""));
    assert_eq!(summary["frames"]["complete"], 12, "{summary}");
    assert_eq!(summary["outcomes"]["done"], 12, "{summary}");
    check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
    check(&python, "dectris_stream.py", &["angles", master(&summary), "5", "0.5"]);
    check(&python, "dectris_stream.py", &["metadata", master(&summary)]);
    let columns = &summary["metadata"]["columns"];
    assert_eq!(columns["I0"]["frames"], 4, "{summary}");
    assert_eq!(
        columns["hardware_time_ns"],
        object!({ "frames": 11, "unit": "ns" }),
        "image 0 began at 0"
    );
    sender.output();
    // Without a choice the error names what is there.
    let second = address();
    let sender = script(&python, &["send_mixed", &second, &file]);
    let config = configuration(&folder, &second, "");
    let (status, said) = fluxline_tests::complaint(&fluxline(&["run", "--once", &config.display().to_string()]));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("\"threshold_1\", \"threshold_2\"; name one of them"),
        "{said}"
    );
    drop(sender);
    // Stream V1 without any detail in its header.
    let third = address();
    let sender = script(&python, &["send_minimal_v1", &third, &file]);
    let summary = once(&configuration(&folder, &third, "images = 12"));
    assert_eq!(summary["frames"]["complete"], 12, "{summary}");
    check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
    sender.output();
}

#[test]
fn messages_that_are_none_are_counted_and_the_run_goes_on() {
    let test = "messages_that_are_none_are_counted_and_the_run_goes_on";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let file = folder.join("frames.h5").display().to_string();
    check(&python, "dectris_stream.py", &["make", &file, "uint16", "15", "plain"]);
    let address = address();
    let sender = script(&python, &["send_rubbish", &address, &file]);
    let summary = once(&configuration(&folder, &address, ""));
    assert_eq!(
        (&summary["state"], &summary["frames"]["complete"]),
        (&object!("complete"), &object!(15))
    );
    check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
    let sent: u64 = sender.output().trim().parse().expect("a number");
    assert_eq!(summary["dectris"]["malformed"], sent, "{summary}");
}

/// A sender that shares no code with any library: pieces of all sizes, heartbeats, pixels before other fields, and a connection
/// that breaks within an image, twice.
#[test]
fn images_in_pieces_over_broken_connections_land_where_they_belong() {
    let test = "images_in_pieces_over_broken_connections_land_where_they_belong";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let file = folder.join("frames.h5").display().to_string();
    let size = ["300", "220"];
    check(
        &python,
        "dectris_stream.py",
        &[&["make", &file, "uint16", "40", "plain"][..], &size].concat(),
    );
    let address = address();
    let sender = script(&python, &["send_by_hand", &address, &file]);
    let summary = once(&configuration(&folder, &address, ""));
    assert_eq!(summary["state"], "complete", "{summary}");
    assert_eq!(summary["frames"]["complete"], 40, "{summary}");
    check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
    sender.output();
    // Every fifth image has its pixels in its midst, and is received whole first; so is what came before the run was armed.
    let placed = summary["dectris"]["placed"].as_u64();
    assert!((Some(1)..=Some(32)).contains(&placed), "{summary}");
    assert_eq!(summary["dectris"]["messages"], 42, "{summary}");
    assert!(summary["dectris"]["disconnects"].as_u64() >= Some(2), "{summary}");
    assert_eq!(summary["dectris"]["malformed"], Value::Null, "{summary}");
}

#[test]
fn faults_on_the_way_leave_an_exact_ledger() {
    let test = "faults_on_the_way_leave_an_exact_ledger";
    let folder = folder(test);
    let address = address();
    let frames = simulation(&folder, "frames = 2000\nrate_hz = 0.0\ncompressed = true\n");
    let faults = [
        "--lose",
        "0.02",
        "--duplicate",
        "0.5",
        "--reorder",
        "0.1",
        "--corrupt",
        "0.02",
        "--late-start",
        "20",
    ];
    let sender = emulate(&address, &[&["--simulate", &frames][..], &faults].concat());
    let summary = once(&configuration(&folder, &address, ""));
    let report: Value = serde_json::from_str(&sender.output()).expect("JSON");
    let (got, seen) = (&summary["frames"], &summary["dectris"]);
    let of = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
    // A duplicate may stand in for a frame whose message was cut short, or be the broken one itself.
    assert_eq!(
        of(got, "expected"),
        of(got, "complete") + of(got, "corrupt") + of(got, "lost")
    );
    assert!(
        of(&report, "lost") > 10 && of(&report, "forged") > 5 && of(&report, "truncated") > 5,
        "{report}"
    );
    assert!(
        of(got, "lost") >= of(&report, "lost") && of(got, "lost") <= of(&report, "lost") + of(&report, "truncated")
    );
    assert_eq!(of(seen, "malformed"), of(&report, "truncated"));
    assert_eq!(of(seen, "damaged"), of(&report, "forged"));
    assert!(of(got, "corrupt") <= of(&report, "forged") && of(got, "corrupt") > 0);
    assert!((1..=20).contains(&of(seen, "early_images")), "{summary}");
    assert_eq!(
        of(got, "complete") + of(got, "corrupt") + of(got, "duplicate"),
        of(&report, "images") - of(&report, "truncated"),
        "every message is one receipt: {summary} {report}"
    );
    assert_eq!(summary["state"], "complete");
}

#[test]
fn half_of_all_frames_twice_and_reordered_is_the_same_run() {
    let test = "half_of_all_frames_twice_and_reordered_is_the_same_run";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let file = folder.join("frames.h5").display().to_string();
    check(
        &python,
        "dectris_stream.py",
        &["make", &file, "uint16", "200", "packed"],
    );
    let address = address();
    let sender = emulate(
        &address,
        &[
            "--file",
            &file,
            "--dataset",
            "/data",
            "--duplicate",
            "0.5",
            "--reorder",
            "0.3",
            "--no-end",
        ],
    );
    let summary = once(&configuration(&folder, &address, ""));
    assert_eq!(
        (&summary["frames"]["complete"], &summary["frames"]["lost"]),
        (&object!(200), &object!(0))
    );
    assert!(summary["frames"]["duplicate"].as_u64() > Some(50));
    assert_eq!(summary["dectris"]["missing_ends"], 1, "{summary}");
    assert!(
        summary["warnings"]
            .to_string()
            .contains("never said that the series has ended"),
        "{summary}"
    );
    check(&python, "dectris_stream.py", &["same", &file, master(&summary)]);
    sender.output();
}

#[test]
fn a_run_is_sent_on_to_programs_that_are_not_ours_and_waits_for_none() {
    let test = "a_run_is_sent_on_to_programs_that_are_not_ours_and_waits_for_none";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let file = folder.join("frames.h5").display().to_string();
    check(
        &python,
        "dectris_stream.py",
        &["make", &file, "uint16", "100", "packed"],
    );
    let (source, onward) = (address(), address());
    let config = configuration(&folder, &source, "");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    // Frames that came while the run was armed come at once: room for all of them.
    let emit = format!("[emit]\ndectris = \"{onward}\"\nqueue_frames = 128\n[store]");
    let text = text.replace("[store]", &emit).replace("slots = 64", "slots = 512");
    std::fs::write(&config, text).expect("a configuration");
    let sent = ["--file", &file, "--dataset", "/data", "--rate", "100"];
    // Nobody listens: the run does not care, and says how many frames nobody took.
    let sender = emulate(&source, &sent);
    let summary = once(&config);
    assert_eq!(
        (&summary["frames"]["complete"], &summary["emitted"]["sent"]),
        (&object!(100), &object!(0))
    );
    assert_eq!(summary["emitted"]["dropped"], 100, "{summary}");
    assert!(
        summary["warnings"].to_string().contains("100 frames were not sent on"),
        "{summary}"
    );
    sender.output();
    // Somebody listens and gets every frame.
    let connected = folder.join("connected");
    let receiver = script(
        &python,
        &["receive_v2", &onward, &file, &connected.display().to_string()],
    );
    let summary = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !connected.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            emulate(&source, &sent).output()
        });
        let summary = once(&config);
        sender.join().expect("the sender");
        summary
    });
    assert_eq!(summary["emitted"], object!({ "sent": 100, "dropped": 0 }), "{summary}");
    println!("{}", receiver.output());
}

/// Open files and threads of the server, and its memory in bytes.
fn held(server: &Server) -> (usize, usize, u64) {
    let proc = PathBuf::from(format!("/proc/{}", server.id()));
    let count = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, Iterator::count);
    let pages = std::fs::read_to_string(proc.join("statm")).unwrap_or_default();
    let resident: u64 = pages.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    (count("fd"), count("task"), 4096 * resident)
}

/// RELIABILITY 28 and 29: arm → abort → arm, with strays of the old series; FLUXLINE_CYCLES=1000 for the whole of it.
#[test]
fn no_frame_of_an_aborted_series_enters_the_next_run() {
    let test = "no_frame_of_an_aborted_series_enters_the_next_run";
    let cycles: u64 = std::env::var("FLUXLINE_CYCLES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let folder = folder(test);
    let address = address();
    let server = Server::start(&configuration(&folder, &address, "end_timeout_s = 0.1"));
    let frames = simulation(&folder, "frames = 40\nrate_hz = 0.0\ncompressed = true\n");
    let series = (2 * cycles + 3).to_string();
    // Every series stops after 30 of 40 images without an end; each is disturbed by 8 images of the one before.
    let sender = emulate(
        &address,
        &[
            "--simulate",
            &frames,
            "--series",
            &series,
            "--abort-after",
            "30",
            "--stray",
            "8",
            "--pause",
            "0.02",
        ],
    );
    let mut baseline = (0, 0, 0);
    let (mut strays, mut ended_by_abort) = (0, 0);
    for cycle in 0..cycles {
        for aborted in [true, false] {
            let name = format!("cycle-{cycle}-{aborted}");
            let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
            assert_eq!(status, 201, "{armed}");
            if aborted {
                server.post(&format!("/api/v1/runs/{name}/abort"), &object!({}));
            }
            let run = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
            let summary = &run["summary"];
            let got = &summary["frames"];
            assert_eq!(
                (&got["stale"], &got["duplicate"], &got["unexpected"]),
                (&object!(0), &object!(0), &object!(0))
            );
            // The next series may have ended it before the abort came: its start is there at once.
            let ended_first = aborted && summary["state"] == "complete";
            let expected = if aborted && !ended_first { "aborted" } else { "complete" };
            assert_eq!(summary["state"], expected, "{summary}");
            ended_by_abort += u64::from(aborted && !ended_first);
            if !aborted || ended_first {
                assert_eq!(
                    (&got["complete"], &got["lost"]),
                    (&object!(30), &object!(10)),
                    "{summary}"
                );
                assert_eq!(summary["dectris"]["superseded"], 1, "{summary}");
            }
            strays += summary["dectris"]["stray_images"].as_u64().unwrap_or(0);
            std::fs::remove_dir_all(Path::new(master(summary)).parent().expect("a folder")).expect("the run's folder");
        }
        if cycle == 4.min(cycles / 2) {
            baseline = held(&server);
        }
    }
    // The last run's thread and the last connection may still be on their way out.
    let (mut now, end) = (held(&server), std::time::Instant::now() + Duration::from_secs(30));
    while (now.0 > baseline.0 || now.1 > baseline.1) && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        now = held(&server);
    }
    assert!(ended_by_abort > 0, "{ended_by_abort} of {cycles} were aborted");
    assert!(strays > 8 * cycles, "{strays} strays came and stayed outside");
    assert!(
        now.0 <= baseline.0 && now.1 <= baseline.1,
        "files and threads: {baseline:?}, then {now:?}"
    );
    let grown = now.2.saturating_sub(baseline.2);
    assert!(grown < (32 << 20) + cycles * 4096, "memory: {baseline:?}, then {now:?}");
    let status = server.get("/api/v1/status");
    println!(
        "{cycles} cycles, {strays} strays, {baseline:?} then {now:?}, ring {}",
        status["ring"]
    );
    drop(sender);
}

/// Addresses of every kind: a file, a name without a file, a host's name, and one that is libzmq's business.
#[test]
fn every_kind_of_address_leads_to_the_detector() {
    let test = "every_kind_of_address_leads_to_the_detector";
    let folder = folder(test);
    let frames = simulation(&folder, "frames = 30\nrate_hz = 0.0\n");
    let (socket, name) = (folder.join("s").display().to_string(), std::process::id());
    let (by_name, from) = (fluxline_tests::port(), fluxline_tests::port());
    for (bound, connected) in [
        (format!("ipc://{socket}"), format!("ipc://{socket}")),
        (format!("ipc://@fluxline-{name}"), format!("ipc://@fluxline-{name}")),
        (
            format!("tcp://127.0.0.1:{by_name}"),
            format!("tcp://localhost:{by_name}"),
        ),
        (
            format!("tcp://127.0.0.1:{from}"),
            format!("tcp://127.0.0.1:0;127.0.0.1:{from}"),
        ),
    ] {
        let sender = emulate(&bound, &["--simulate", &frames]);
        let summary = once(&configuration(&folder, &connected, ""));
        assert_eq!(summary["frames"]["complete"], 30, "{connected}: {summary}");
        sender.output();
    }
}

/// A detector that was started anew between two runs is found, and what it sends is kept for the next run.
#[test]
fn a_series_that_comes_while_no_run_is_armed_waits_for_the_next() {
    let test = "a_series_that_comes_while_no_run_is_armed_waits_for_the_next";
    let folder = folder(test);
    let address = address();
    let server = Server::start(&configuration(&folder, &address, ""));
    let frames = simulation(&folder, "frames = 30\nrate_hz = 0.0\n");
    for name in ["first", "second"] {
        // It ends when all of its messages are gone: somebody has taken them.
        let sender = emulate(&address, &["--simulate", &frames]);
        sender.output();
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
        assert_eq!(status, 201, "{armed}");
        let run = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
        assert_eq!(run["summary"]["frames"]["complete"], 30, "{run}");
    }
}

/// The EIGER simulator of tickit-devices: armed and triggered over its SIMPLON interface, 16 million pixels an image.
#[test]
fn a_simulated_eiger_16m_feeds_a_run_from_arm_to_end() {
    let test = "a_simulated_eiger_16m_feeds_a_run_from_arm_to_end";
    let tickit = std::env::var_os("FLUXLINE_TICKIT_PYTHON").map_or_else(
        || fluxline_tests::workspace().join(".venv-tickit/bin/python"),
        PathBuf::from,
    );
    if !tickit.exists() {
        eprintln!(
            "SKIPPED {test}: there is no {}; make python installs it",
            tickit.display()
        );
        return;
    }
    let folder = folder(test);
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_string();
    let (control, stream, legacy) = (port(&address()), address(), port(&address()));
    let text = format!(
        "- type: tickit_devices.eiger.Eiger\n  name: eiger\n  inputs: {{}}\n  host: 127.0.0.1\n  port: {control}\n  \
         stream_host: 127.0.0.1\n  stream_legacy_port: {legacy}\n  stream_cbor_port: {}\n",
        port(&stream)
    );
    let described = folder.join("eiger.yaml");
    std::fs::write(&described, text).expect("a description");
    let mut simulator = Command::new(&tickit);
    simulator
        .args(["-m", "tickit", "--log-level", "ERROR", "all"])
        .arg(&described);
    let _simulator = Background::start(&mut simulator);
    let put = |path: &str, value: Value| {
        let url = format!("http://127.0.0.1:{control}/{path}");
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let done = if value.is_null() {
                ureq::put(&url).send_empty().is_ok()
            } else {
                ureq::put(&url).send_json(object!({ "value": value })).is_ok()
            };
            if done {
                return;
            }
            assert!(std::time::Instant::now() < until, "{url} does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    put("stream/api/1.8.0/config/format", object!("cbor"));
    let detector = "detector/api/1.8.0";
    put(&format!("{detector}/command/initialize"), Value::Null);
    put(&format!("{detector}/config/nimages"), object!(5));
    put(&format!("{detector}/config/trigger_mode"), object!("ints"));
    let server = Server::start(&configuration(&folder, &stream, ""));
    // It is armed when the series has begun; nobody waits for that here.
    let (status, arming) = server.post("/api/v1/runs?timeout_s=0", &object!({ "name": "eiger" }));
    assert_eq!(status, 202, "{arming}");
    put(&format!("{detector}/command/arm"), Value::Null);
    // The simulator joins what it has not sent yet to one message of several parts, as no EIGER does: the series' start
    // must be here before there are images.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while server
        .text("/metrics")
        .contains("fluxline_dectris{what=\"messages\"} 0\n")
    {
        assert!(
            std::time::Instant::now() < until,
            "no series began: {}",
            server.try_get("/api/v1/runs/eiger").1
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    put(&format!("{detector}/command/trigger"), Value::Null);
    let (status, run) = server.try_get("/api/v1/runs/eiger?timeout_s=120");
    assert_eq!(status, 200, "{run}");
    let summary = &run["summary"];
    assert_eq!(
        (&summary["state"], &summary["frames"]["complete"]),
        (&object!("complete"), &object!(5))
    );
    assert_eq!(summary["outcomes"]["done"], 5, "decoded by the recipe: {summary}");
    // The first image says the pixels' type, and is received before there is a slot for it.
    let counts = object!({ "messages": 7, "placed": 4, "series": 1 });
    assert_eq!(summary["dectris"], counts, "{summary}");
}

#[test]
fn a_detector_that_is_not_there_is_said_in_one_sentence() {
    let test = "a_detector_that_is_not_there_is_said_in_one_sentence";
    let folder = folder(test);
    let config = configuration(&folder, &address(), "");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("start_timeout_s = 60.0", "start_timeout_s = 0.3")).expect("a configuration");
    let (status, said) = fluxline_tests::complaint(&fluxline(&["run", "--once", &config.display().to_string()]));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("no series began within 0.3 s on tcp://127.0.0.1:"),
        "{said}"
    );
    for (more, wanted) in [
        ("channels = 1", "unknown field `channels`"),
        (
            "queue_messages = 0",
            "source.queue_messages = 0: allowed is 2 to 100000",
        ),
        ("pixel_type = \"float\"", "source.pixel_type = \"float\""),
    ] {
        let config = configuration(&folder, "tcp://127.0.0.1:9", more);
        let (status, said) = fluxline_tests::complaint(&fluxline(&["validate", &config.display().to_string()]));
        assert_eq!(status, 2);
        assert!(said.contains(wanted), "{said}");
    }
    let config = configuration(&folder, "10.0.0.5:31001", "");
    let (_, said) = fluxline_tests::complaint(&fluxline(&["validate", &config.display().to_string()]));
    assert!(said.contains("a ZeroMQ address"), "{said}");
}
