//! The appliance as its users meet it: `fluxline run`, the HTTP interface, and the books that must close.

use fluxline_tests::{Server, fluxline, folder, json};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

fn configuration(folder: &Path, source: &str, recipe: &str, more: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 192\nallow_transparent = true\n{more}[[source]]\nkind = \"simulate\"\n{source}\n\
         [store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

const STATISTICS: &str = "[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";
const POWDER: &str = "[recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
                      [recipe.powder.azimuthal]\nbins = 300\n";
const TOMOGRAPHY: &str = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n";

fn once(config: &Path) -> Value {
    json(&fluxline(&["run", "--once", "--json", &config.display().to_string()]))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// expected = complete + partial + corrupt + lost; received = done + shed + failed = synced + vetoed + failed.
fn closes(frames: &Value, outcomes: &Value) {
    let f = |key: &str| number(&frames[key]);
    let o = |key: &str| number(&outcomes[key]);
    assert_eq!(
        f("expected"),
        f("complete") + f("partial") + f("corrupt") + f("lost"),
        "{frames}"
    );
    assert_eq!(
        o("received"),
        f("complete") + f("partial") + f("corrupt"),
        "{frames} {outcomes}"
    );
    assert_eq!(
        o("received"),
        o("done") + o("shed") + o("analysis_failed"),
        "{outcomes}"
    );
    assert_eq!(
        o("received"),
        o("synced") + o("vetoed") + o("storage_failed"),
        "{outcomes}"
    );
}

#[test]
fn the_books_close_for_100_000_frames_with_drops_duplicates_and_reordering() {
    let folder = folder("books");
    let source = "scene = \"pattern\"\nrows = 32\ncolumns = 32\nframes = 100000\nrate_hz = 0.0\nchecksum = true\n\
                  [source.faults]\nseed = 5\ndrop = 0.003\nduplicate = 0.01\nreorder = 0.05\nreorder_depth = 30\ncorrupt = 0.0005\n";
    let config = configuration(&folder, source, STATISTICS, "");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("[store]", "[store]\nframes_per_file = 40000")).expect("a configuration");
    let server = Server::start(&config);
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "books" }));
    assert_eq!(status, 201, "{armed}");
    assert_eq!(armed["datasets"][0]["shape"][0], 100_000);
    let run = server.wait("/api/v1/runs/books", |run| !run["summary"].is_null());
    let summary = &run["summary"];
    closes(&summary["frames"], &summary["outcomes"]);
    assert_eq!(summary["state"], "complete");
    let frames = &summary["frames"];
    for (state, least, most) in [
        ("lost", 200, 400),
        ("duplicate", 800, 1200),
        ("corrupt", 20, 90),
        ("late", 0, 0),
    ] {
        let count = number(&frames[state]);
        assert!((least..=most).contains(&count), "{state}: {count}");
    }
    // The API's ledger, frame by frame.
    let lost = server.get("/api/v1/runs/books/ledger?state=lost&limit=10000");
    assert_eq!(
        lost["entries"].as_array().map(Vec::len),
        Some(number(&frames["lost"]) as usize)
    );
    // The metrics.
    let metrics = server.text("/metrics");
    let metric = |name: &str| -> u64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    for state in ["complete", "corrupt", "lost", "duplicate"] {
        let name = format!("fluxline_frames_total{{state=\"{state}\"}}");
        assert_eq!(metric(&name), number(&frames[state]), "{name}");
    }
    let outcomes = &summary["outcomes"];
    assert_eq!(
        metric("fluxline_frames_analysed_total{outcome=\"done\"}"),
        number(&outcomes["done"])
    );
    assert_eq!(
        metric("fluxline_frames_stored_total{outcome=\"synced\"}"),
        number(&outcomes["synced"])
    );
    assert_eq!(metric("fluxline_device_copies_total"), 0, "memory is shared here");
    // The file, by the command that reads it.
    let master = summary["files"][0].as_str().expect("a file");
    let inspected = json(&fluxline(&[
        "inspect", master, "--state", "lost", "--limit", "1000000", "--json",
    ]));
    assert_eq!(inspected["record"]["frames"]["lost"], frames["lost"]);
    assert_eq!(
        inspected["ledger"].as_array().map(Vec::len),
        Some(number(&frames["lost"]) as usize)
    );
}

#[test]
fn a_diffraction_run_is_seen_while_it_records() {
    let folder = folder("live");
    let source = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 300\ncolumns = 400\nframes = 4000\nrate_hz = 100.0\ndistinct = 8\n";
    let server = Server::start(&configuration(&folder, source, POWDER, ""));
    assert_eq!(server.get("/api/v1/status")["state"], "idle");
    assert_eq!(server.try_get("/api/v1/runs/live").0, 404);
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "live", "sample": "powder" }));
    assert_eq!(status, 201, "{armed}");
    assert_eq!(server.post("/api/v1/runs", &object!({})).0, 409, "one run at a time");
    server.wait("/api/v1/status", |status| {
        status["state"] == "recording" && number(&status["analysis"]["done"]) > 20
    });
    // Results, all of them and in order while we keep up.
    let address = server.url.replace("http://", "ws://");
    let (mut socket, _) = tungstenite::connect(format!(
        "{address}/api/v1/runs/live/results?policy=lossless&curves=true"
    ))
    .expect("a socket");
    let mut last = None;
    for _ in 0..20 {
        let text = socket.read().expect("a result").into_text().expect("text");
        let result: Value = serde_json::from_str(text.as_str()).expect("JSON");
        let sequence = number(&result["sequence"]);
        assert!(last.is_none_or(|last| sequence == last + 1), "{last:?} {sequence}");
        last = Some(sequence);
        assert!(result["scalars"]["sum"].as_f64().is_some_and(|counts| counts > 0.0));
        assert_eq!(result["curves"]["intensity"].as_array().map(Vec::len), Some(300));
    }
    drop(socket);
    let info = server.get("/api/v1/runs/live/frames/latest.json");
    assert_eq!(
        (&info["shape"], &info["dtype"]),
        (&object!([300, 400]), &object!("uint16"))
    );
    let npy = server.bytes("/api/v1/runs/live/frames/latest.npy?max_pixels=30000");
    assert!(npy.starts_with(b"\x93NUMPY") && npy.len() < 2 * 30_000 + 200);
    assert!(
        server
            .bytes("/api/v1/runs/live/frames/latest.png")
            .starts_with(b"\x89PNG")
    );
    let profile = server.get("/api/v1/runs/live/profiles/sum");
    assert!(number(&profile["frames_used"]) > 0 && profile["axis"]["name"] == "q");
    let (status, later) = server.try_get("/api/v1/runs/live/frames/3999.npy");
    assert_eq!((status, &later["error"]), (425, &object!("not_yet")), "not there yet");
    let (status, never) = server.try_get("/api/v1/runs/live/frames/4000.npy");
    assert_eq!((status, &never["error"]), (404, &object!("not_found")), "never will be");
    let (status, gone) = server.try_get("/api/v1/runs/live/frames/0.npy");
    assert_eq!(
        (status, &gone["error"]),
        (409, &object!("on_disk")),
        "gone from memory but on disk"
    );
    let (status, _) = server.post("/api/v1/runs/live/stop", &object!({}));
    assert_eq!(status, 200);
    let run = server.wait("/api/v1/runs/live", |run| !run["summary"].is_null());
    closes(&run["summary"]["frames"], &run["summary"]["outcomes"]);
    assert_eq!(
        (&run["summary"]["state"], &run["summary"]["frames"]["lost"]),
        (&object!("stopped"), &object!(0))
    );
    // Closed: the same frame is served from the disk now.
    assert!(server.bytes("/api/v1/runs/live/frames/0.npy").starts_with(b"\x93NUMPY"));
    let events = server.text("/api/v1/runs/live/events");
    for event in ["armed", "first_frame", "file_closed", "end"] {
        assert!(events.contains(&format!("event: {event}\n")), "no {event} in {events}");
    }
    let listed = server.get("/api/v1/runs?query=powder");
    assert_eq!(
        (&listed["total"], &listed["runs"][0]["id"]),
        (&object!(1), &object!("live"))
    );
    assert!(server.text("/").contains("<!doctype html>") || server.text("/").contains("<!DOCTYPE html>"));
}

#[test]
fn a_tomography_sharpens_and_repeats_bit_for_bit_whatever_the_order() {
    let folder = folder("tomography");
    let source =
        "scene = \"tomography\"\nrows = 40\ncolumns = 96\nframes = 120\nrate_hz = 0.0\nrotation_axis_px = 49.0\n";
    let plain = once(&configuration(&folder, source, TOMOGRAPHY, ""));
    let shuffled = format!("{source}[source.faults]\nreorder = 0.5\nreorder_depth = 40\nduplicate = 0.2\n");
    let mixed = once(&configuration(&folder, &shuffled, TOMOGRAPHY, ""));
    let copied = once(&configuration(
        &folder,
        source,
        TOMOGRAPHY,
        "[accelerator]\nmemory = \"copy\"\n",
    ));
    let volumes: Vec<Vec<u8>> = [&plain, &mixed, &copied]
        .iter()
        .map(|summary| {
            closes(&summary["frames"], &summary["outcomes"]);
            assert_eq!(summary["results"]["images"][0]["frames_used"], 120);
            slice_bytes(summary["files"][0].as_str().expect("a file"))
        })
        .collect();
    assert!(volumes[0] == volumes[1], "reordering and duplicates change nothing");
    assert!(volumes[0] == volumes[2], "nor does the way to the device");
    assert_eq!(
        (&plain["device_copies"], &copied["device_copies"]),
        (&object!(0), &object!(140))
    );
}

/// The final slices' bytes, as h5py finds them.
fn slice_bytes(master: &str) -> Vec<u8> {
    bytes_of(
        master,
        "g=h['entry/results/images']\n  b=b''.join(g[k][k][()].tobytes() for k in sorted(g))",
    )
}

/// What two lines of Python find in a file `h`, in `b`.
fn bytes_of(master: &str, finding: &str) -> Vec<u8> {
    let Some(python) = fluxline_tests::python("bytes_of") else {
        return Vec::new();
    };
    let script = format!(
        "import h5py,hdf5plugin,sys\nwith h5py.File(sys.argv[1]) as h:\n  {finding}\n  sys.stdout.buffer.write(b)"
    );
    let output = std::process::Command::new(python)
        .args(["-c", &script, master])
        .output()
        .expect("python");
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn without_operations_frames_are_recorded_as_they_come() {
    let folder = folder("recorded");
    let source = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 130\ncolumns = 170\nframes = 60\nrate_hz = 0.0\n\
                  distinct = 7\ncompressed = true\n";
    let nothing = "[recipe.none]\ntechnique = \"diffraction\"\noperations = []\n";
    let frames: Vec<Vec<u8>> = [nothing, STATISTICS]
        .iter()
        .map(|recipe| {
            let summary = once(&configuration(&folder, source, recipe, ""));
            closes(&summary["frames"], &summary["outcomes"]);
            assert_eq!(
                (&summary["state"], &summary["outcomes"]["synced"]),
                (&object!("complete"), &object!(60))
            );
            bytes_of(
                summary["files"][0].as_str().expect("a file"),
                "b=h['entry/data/data'][()].tobytes()",
            )
        })
        .collect();
    assert!(frames[0] == frames[1], "the same frames, analysed or not");
    assert!(frames[0].is_empty() || frames[0].iter().any(|byte| *byte > 0));
}

#[test]
fn zero_copy_is_counted_and_copy_mode_copies_exactly_once() {
    let folder = folder("copies");
    let source = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 200\ncolumns = 200\nframes = 150\nrate_hz = 0.0\ndistinct = 4\n";
    let shared = once(&configuration(&folder, source, POWDER, ""));
    assert_eq!(shared["device_copies"], 0);
    let copied = once(&configuration(
        &folder,
        source,
        POWDER,
        "[accelerator]\nmemory = \"copy\"\n",
    ));
    assert_eq!(copied["device_copies"], 150);
}

#[test]
fn a_source_that_cannot_wait_loses_whole_frames_and_every_one_is_counted() {
    let folder = folder("overload");
    let source = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 600\ncolumns = 600\nframes = 3000\nrate_hz = 0.0\ndistinct = 2\n";
    let config = configuration(&folder, source, POWDER, "when_full = \"drop\"\n");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("slots = 192", "slots = 16")).expect("a configuration");
    let summary = once(&config);
    closes(&summary["frames"], &summary["outcomes"]);
    let frames = &summary["frames"];
    assert!(number(&frames["lost"]) > 0, "{frames}");
    assert!(
        number(&summary["outcomes"]["shed"]) > 0,
        "analysis gives way first: {}",
        summary["outcomes"]
    );
    assert_eq!(number(&summary["outcomes"]["synced"]), number(&frames["complete"]));
    assert!(number(&frames["complete"]) >= 16);
}
