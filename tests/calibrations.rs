//! Calibrations through the built binary: taken from a detector's packets, uploaded, picked by runs on their own, refused
//! where they cannot be right, and what they do to pixels.

use fluxline_tests::{Server, binary, check, folder, python};
use pipeline::feedback::pictures::npy;
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn configuration(folder: &Path, source: &str, recipe: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\n{source}\n[store]\npath = \"store\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.look]\ntechnique = \"diffraction\"\n{recipe}"
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// A run from arming to its end: its record's parameters and its summary.
fn run(server: &Server, name: &str) -> (Value, Value) {
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
    assert_eq!(status, 201, "{armed}");
    ended(server, name)
}

fn ended(server: &Server, name: &str) -> (Value, Value) {
    let detail = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
    (detail["record"]["parameters"].clone(), detail["summary"].clone())
}

fn floats(rows: usize, columns: usize, value: impl Fn(usize) -> f32) -> Vec<u8> {
    let bytes: Vec<u8> = (0..rows * columns)
        .flat_map(|pixel| value(pixel).to_le_bytes())
        .collect();
    npy("<f4", &[rows, columns], &bytes)
}

const SIMULATED: &str = "kind = \"simulate\"\nscene = \"pattern\"\nrows = 32\ncolumns = 48\nframes = 5";
const STATISTICS: &str = "operations = [\"correct\", \"statistics\"]\n";

#[test]
fn bad_calibrations_are_refused_with_a_sentence() {
    let folder = folder("bad_calibrations");
    let server = Server::start(&configuration(&folder, SIMULATED, STATISTICS));
    let refused = |path: &str, body: &[u8], words: &[&str]| {
        let (status, answer) = server.post_bytes(&format!("/api/v1/calibrations/{path}"), body);
        assert_eq!(status, 422, "{path}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default().to_string();
        for word in words {
            assert!(message.contains(word), "{path}: {message:?} has no {word:?}");
        }
    };
    let nan = |pixel: usize| if pixel < 1000 { f32::NAN } else { 1.0 };
    refused(
        "dark",
        &floats(32, 48, nan),
        &["dark", "1000 of 1536", "row 0, column 0", "NaN"],
    );
    refused("flat", &floats(32, 48, |_| 0.0), &["flat", "1536 of 1536", "above 0"]);
    refused("flat", &floats(32, 50, |_| 1.0), &["32x50", "32x48", "must be equal"]);
    refused(
        "pedestal?gain=0",
        &floats(32, 48, |_| 20_000.0),
        &["pedestal", "0 to 16383 ADU", "20000"],
    );
    refused("pedestal", &floats(32, 48, |_| 2000.0), &["gain: 0, 1 or 2"]);
    refused("pedestal?gain=5", &floats(32, 48, |_| 2000.0), &["gain = 5"]);
    refused("mask", &floats(32, 48, |_| 1.0), &["leaves none of 1536 pixels"]);
    refused("mask", &floats(32, 48, |_| -1.0), &["whole numbers", "-1"]);
    let zeros = vec![0u8; 3 * 32 * 48 * 8];
    refused(
        "gain",
        &npy("<f8", &[3, 32, 48], &zeros),
        &["gain", "1536 of 1536", "other than 0"],
    );
    refused("gain", &floats(32, 48, |_| 40.0), &["[32, 48]", "3 or 6 planes"]);
    let poni = |detector: &str, config: &str| {
        format!(
            "poni_version: 2\nDetector: {detector}\nDetector_config: {config}\nDistance: 0.1\nPoni1: 0.02\nPoni2: 0.03\n\
             Rot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
        )
    };
    refused(
        "poni",
        poni("Pilatus1M", "{}").as_bytes(),
        &["another detector", "1043x981", "32x48"],
    );
    let other = poni(
        "Detector",
        "{\"pixel1\": 1e-3, \"pixel2\": 1e-3, \"max_shape\": [32, 40]}",
    );
    refused("poni", other.as_bytes(), &["another detector", "32x40"]);
    refused("poni", b"hello", &["no distance"]);
    refused("dark", b"", &["empty"]);
    refused("dark", b"what is this", &["12 bytes", "expected"]);
    let good = floats(32, 48, |_| 2.0);
    refused("dark?valid_to=2001-01-01T00:00:00Z", &good, &["valid_to", "later than"]);
    refused(
        "dark?valid_from=yesterday",
        &good,
        &["valid_from", "yesterday", "UTC time"],
    );
    let (status, answer) = server.post_bytes("/api/v1/calibrations/whatever", &good);
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = server.post("/api/v1/calibrations/poni", &object!({}));
    assert_eq!(
        (status, answer["error"].as_str()),
        (422, Some("calibration")),
        "{answer}"
    );
    let (status, answer) = server.post("/api/v1/calibrations/dark", &object!({ "frames": 0 }));
    assert_eq!(status, 422, "{answer}");
    assert_eq!(server.get("/api/v1/calibrations")["total"], 0, "nothing of it was kept");
}

#[test]
fn runs_pick_the_newest_version_that_holds_and_fits() {
    let test = "runs_pick_the_newest_version_that_holds_and_fits";
    let folder = folder(test);
    let recipe = "operations = [\"correct\", \"statistics\", \"azimuthal\"]\n[recipe.look.azimuthal]\nbins = 20\nunit = \"r_mm\"\n";
    let server = Server::start(&configuration(&folder, SIMULATED, recipe));
    let keep = |path: &str, body: &[u8]| {
        let (status, answer) = server.post_bytes(&format!("/api/v1/calibrations/{path}"), body);
        assert_eq!(status, 201, "{path}: {answer}");
        answer
    };
    let poni = "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, \"pixel2\": 1e-4, \
                \"max_shape\": [32, 48]}\nDistance: 0.1\nPoni1: 0.0016\nPoni2: 0.0024\nRot1: 0\nRot2: 0\nRot3: 0\n\
                Wavelength: 1e-10\n";
    let poni = keep("poni", poni.as_bytes())["version"].clone();
    // Three pixels cannot be calibrated by the flat, and the mask leaves out two more.
    let flat = |pixel: usize| match pixel {
        5 => f32::NAN,
        6 => 0.0,
        7 => -1.0,
        _ => 1.0,
    };
    let first = keep("flat", &floats(32, 48, flat));
    assert_eq!(first["unusable_pixels"], 3, "{first}");
    let mask = keep(
        "mask",
        &floats(32, 48, |pixel| f32::from(u8::from(pixel == 0 || pixel == 9))),
    );
    assert_eq!(mask["unusable_pixels"], 2);
    let dark = keep("dark?comment=first", &floats(32, 48, |_| 1.0));
    // Those that do not hold now, or not for these conditions, or are for other frames, are passed over.
    keep("dark?valid_from=2100-01-01T00:00:00Z", &floats(32, 48, |_| 2.0));
    keep(
        "dark?valid_from=2020-01-01T00:00:00Z&valid_to=2020-01-02T00:00:00Z",
        &floats(32, 48, |_| 3.0),
    );
    let (parameters, summary) = run(&server, "one");
    let versions: Vec<&Value> = parameters["calibrations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| &c["version"])
        .collect();
    assert_eq!(
        versions,
        [&mask["version"], &dark["version"], &first["version"], &poni],
        "{parameters}"
    );
    assert_eq!(parameters["uncalibrated_pixels"], 3);
    let second = keep("flat", &floats(32, 48, |_| 2.0));
    assert!(second["warnings"].to_string().is_empty() || second["median"] == 2.0);
    let (parameters, _) = run(&server, "two");
    assert!(
        parameters["calibrations"]
            .to_string()
            .contains(second["version"].as_str().expect("text"))
    );
    let listed = server.get("/api/v1/calibrations?kind=flat");
    assert_eq!(
        (&listed["total"], &listed["calibrations"][0]["version"]),
        (&object!(2), &second["version"])
    );
    if let Some(python) = python(test) {
        let master = summary["files"][0].as_str().expect("a file");
        println!("{}", check(&python, "calibrations.py", &["curve", master, "5"]));
    }
    // A version that somebody changed afterwards is not used, and the run says why.
    let file = folder
        .join("store/.calibrations")
        .join(second["file"].as_str().expect("text"));
    std::fs::write(&file, floats(32, 48, |_| 9.0)).expect("a changed file");
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    assert_eq!(status, 422, "{answer}");
    assert!(
        answer["message"].to_string().contains("was changed after it was kept"),
        "{answer}"
    );
}

#[test]
fn darks_flats_and_masks_are_taken_from_the_source_and_a_drift_is_warned_of() {
    let folder = folder("taken_from_the_source");
    let source =
        "kind = \"simulate\"\nscene = \"diffraction\"\ndetector = \"custom\"\nrows = 64\ncolumns = 64\nframes = 40";
    let server = Server::start(&configuration(&folder, source, STATISTICS));
    let take = |kind: &str, body: Value| {
        let (status, answer) = server.post(&format!("/api/v1/calibrations/{kind}"), &body);
        assert_eq!(status, 201, "{kind}: {answer}");
        answer
    };
    let dark = take("dark", object!({ "frames": 30, "comment": "shutter closed" }));
    assert_eq!(
        (&dark["frames_used"], &dark["frames_left_out"]),
        (&object!(30), &object!(0)),
        "{dark}"
    );
    assert_eq!(
        (&dark["shape"], &dark["comment"]),
        (&object!([64, 64]), &object!("shutter closed"))
    );
    assert!(dark["noise_file"].is_string() && dark["drift_sigmas"].is_null());
    let again = take("dark", object!({}));
    assert_eq!(again["frames_used"], 40, "the source ends before 200 frames");
    let moved = again["drift_sigmas"].as_f64().expect("a number");
    assert!(moved < 1.0 && again["compared_with"] == dark["version"], "{again}");
    // Far away from the one before: warned of here, in the metric, and in every run that uses it.
    let (status, answer) = server.post_bytes("/api/v1/calibrations/dark", &floats(64, 64, |_| 5000.0));
    assert_eq!(status, 201, "{answer}");
    assert!(answer["drift_sigmas"].as_f64().expect("a number") > 3.0, "{answer}");
    let warning = answer["warnings"][0].as_str().expect("a warning").to_string();
    assert!(
        warning.contains("sigma of one frame since") && warning.contains("drift_sigmas = 3"),
        "{warning}"
    );
    let metric = "fluxline_calibration_drift_sigmas{kind=\"dark\"} ";
    let text = server.text("/metrics");
    let shown = text.lines().find_map(|line| line.strip_prefix(metric)).expect(metric);
    assert!(shown.parse::<f64>().expect("a number") > 3.0, "{shown}");
    let (parameters, summary) = run(&server, "drifted");
    assert!(
        parameters["calibrations"]
            .to_string()
            .contains(answer["version"].as_str().expect("text"))
    );
    assert!(
        summary["warnings"].to_string().contains("sigma of one frame since"),
        "{summary}"
    );
    take("mask", object!({ "frames": 10, "lit": true }));
    let (status, answer) = server.post("/api/v1/calibrations/pedestal", &object!({ "frames": 10 }));
    assert!(
        status == 422 && answer["message"].to_string().contains("gain = (missing)"),
        "{answer}"
    );
}

#[test]
fn a_jungfrau_is_calibrated_by_its_packets_and_measured_in_photons() {
    let test = "a_jungfrau_is_calibrated_by_its_packets_and_measured_in_photons";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let place = folder.display().to_string();
    check(&python, "calibrations.py", &["make", &place]);
    let address = format!("127.0.0.1:{}", fluxline_tests::port());
    let source = format!(
        "kind = \"udp\"\ndetector = \"jungfrau\"\naddresses = [\"{address}\"]\nframes = 12\nsilence_timeout_s = 20.0\nframe_timeout_s = 20.0\n\
         wavelength_m = 0.9998725680096795e-10\ndistance_m = 0.1\nbeam_center_x_px = 500.0\nbeam_center_y_px = 250.0"
    );
    let port: u16 = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let bound = format!("0100007F:{port:04X} ");
    let listens = || std::fs::read_to_string("/proc/net/udp").is_ok_and(|sockets| sockets.contains(&bound));
    let operations = "operations = [\"gain\", \"correct\", \"statistics\", \"spots\", \"azimuthal\"]\n";
    let recipe = format!(
        "{operations}[recipe.look.azimuthal]\nbins = 100\n[recipe.wide]\ntechnique = \"diffraction\"\n{operations}\
         [recipe.wide.azimuthal]\nbins = 100\n[recipe.wide.gain]\nsplit_pixels = true\n[run]\nrecipe = \"look\"\n"
    );
    let server = Server::start(&configuration(&folder, &source, &recipe));
    let send = |file: &str| {
        let path = folder.join(file);
        let mut command = Command::new(binary());
        command.args([
            "emulate",
            "--json",
            "--udp",
            &address,
            "--detector",
            "jungfrau",
            "--rate",
            "40",
        ]);
        let output = command
            .arg("--file")
            .arg(path)
            .args(["--dataset", "/data"])
            .output()
            .expect("the emulator");
        fluxline_tests::json(&output);
    };
    // Without a pedestal a run is refused.
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    assert!(
        status == 422 && answer["message"].to_string().contains("no pedestal of G0"),
        "{answer}"
    );
    let mut pedestals = Vec::new();
    for gain in 0..3u8 {
        let request = object!({ "gain": gain, "frames": 12, "patience_s": 20.0 });
        let record = std::thread::scope(|scope| {
            let taken = scope.spawn(|| server.post("/api/v1/calibrations/pedestal", &request));
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while !listens() {
                assert!(std::time::Instant::now() < end, "nobody listens at {address}");
                std::thread::sleep(Duration::from_millis(10));
            }
            // It throws away what comes until it has been quiet for a while.
            std::thread::sleep(Duration::from_millis(1500));
            send(&format!("pedestal{gain}.h5"));
            let (status, answer) = taken.join().expect("an answer");
            assert_eq!(status, 201, "{answer}");
            answer
        });
        assert_eq!(record["frames_used"], 12, "{record}");
        assert!(
            record["comment"].to_string().contains("words were in another gain"),
            "{record}"
        );
        pedestals.push(
            folder
                .join("store/.calibrations")
                .join(record["file"].as_str().expect("text"))
                .display()
                .to_string(),
        );
    }
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    assert!(
        status == 422 && answer["message"].to_string().contains("no gains that fit"),
        "{answer}"
    );
    let gains = std::fs::read(folder.join("gains.h5")).expect("a file");
    let (status, answer) = server.post_bytes("/api/v1/calibrations/gain", &gains);
    assert_eq!((status, &answer["unusable_pixels"]), (201, &object!(30)), "{answer}");
    assert!(
        answer["warnings"].to_string().contains("1 pixels have no gain in G1"),
        "{answer}"
    );
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "photons" }));
    assert_eq!(status, 201, "{armed}");
    send("words.h5");
    let (_, summary) = ended(&server, "photons");
    assert_eq!(summary["frames"]["complete"], 12, "{summary}");
    let mut arguments = vec!["check", &place, summary["files"][0].as_str().expect("a file")];
    arguments.extend(pedestals.iter().map(String::as_str));
    let said = check(&python, "calibrations.py", &arguments);
    assert!(
        said.contains("[\"pedestal\", \"pedestal\", \"pedestal\", \"gain\"]"),
        "{said}"
    );
    // The same with the large pixels shared among their places: the files keep words and mask as they were measured.
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "wide", "recipe": "wide" }));
    assert_eq!(status, 201, "{armed}");
    send("words.h5");
    let (_, wide) = ended(&server, "wide");
    let files = [&summary, &wide].map(|summary| summary["files"][0].as_str().expect("a file"));
    check(&python, "calibrations.py", &["wide", files[0], files[1]]);
}

#[test]
fn pedestals_follow_the_frames_while_a_run_measures() {
    let test = "pedestals_follow_the_frames_while_a_run_measures";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let place = folder.display().to_string();
    check(&python, "calibrations.py", &["drifting", &place]);
    let source = "kind = \"replay\"\npath = \"drifting.h5\"\ndataset = \"/data\"";
    let gain =
        "pedestals = [\"pedestals.npy\"]\nnominal_gains_adu_per_kev = [41.0, -1.439, -0.1145]\nenergy_kev = 12.4\n";
    let recipe = |batch: usize, window: u32| {
        let operations = "operations = [\"gain\", \"correct\", \"statistics\"]\n";
        format!(
            "{operations}[recipe.look.gain]\n{gain}track_window = {window}\n[recipe.still]\ntechnique = \"diffraction\"\n\
             {operations}[recipe.still.gain]\n{gain}[run]\nrecipe = \"look\"\n[accelerator]\nbatch_limit = {batch}\n"
        )
    };
    let path = configuration(&folder, source, &recipe(32, 1));
    let (status, said) =
        fluxline_tests::complaint(&fluxline_tests::fluxline(&["validate", &path.display().to_string()]));
    assert!(
        status == 2 && said.contains("track_window = 1") && said.contains("2 to 16777216"),
        "{said}"
    );

    let server = Server::start(&configuration(&folder, source, &recipe(32, 40)));
    let (parameters, summary) = run(&server, "follows");
    assert_eq!(parameters["gain"]["track_window"], 40, "{parameters}");
    let master = |summary: &Value| summary["files"][0].as_str().expect("a file").to_string();
    let follows = master(&summary);
    let said = check(&python, "calibrations.py", &["followed", &place, &follows]);
    let expected: Value = serde_json::from_str(&said).expect("JSON");
    // The same numbers in summary, status and metrics, and a warning, for they are large.
    let results = &summary["results"];
    let near = |found: &Value, key: &str, within: f64| {
        let (found, expected) = (
            found.as_f64().expect("a number"),
            expected[key].as_f64().expect("a number"),
        );
        assert!(
            (found - expected).abs() <= within,
            "{key}: {found}, expected {expected}"
        );
    };
    let status = server.get("/api/v1/status");
    for told in [results, &status["run"]] {
        near(&told["counters"]["pedestal_words"], "words", 10.0);
        near(&told["levels"]["pedestal_drift_mean_adu"], "mean_adu", 0.01);
        near(&told["levels"]["pedestal_drift_largest_adu"], "largest_adu", 0.01);
        near(&told["levels"]["pedestal_drifted_pixels"], "drifted", 1.0);
    }
    let metrics = server.text("/metrics");
    let shown = |metric: &str| -> Value {
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(metric))
            .expect(metric);
        object!(value.trim().parse::<f64>().expect("a number"))
    };
    near(
        &shown("fluxline_recipe_total{counter=\"pedestal_words\"}"),
        "words",
        10.0,
    );
    near(
        &shown("fluxline_recipe_level{level=\"pedestal_drift_mean_adu\"}"),
        "mean_adu",
        0.01,
    );
    let warnings = summary["warnings"].to_string();
    assert!(
        warnings.contains("pedestals of G0 have moved by") && warnings.contains("take new ones"),
        "{warnings}"
    );
    // Off unless asked for, and then the drift is in the photons.
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "still", "recipe": "still" }));
    assert_eq!(status, 201, "{armed}");
    let (_, summary) = ended(&server, "still");
    assert_eq!(summary["results"]["levels"], object!({}), "{summary}");
    println!(
        "{said}{}",
        check(
            &python,
            "calibrations.py",
            &["apart", &place, &follows, &master(&summary)]
        )
    );
    drop(server);

    // However the batches fall, the same bits; and so again from the stored run.
    let server = Server::start(&configuration(&folder, source, &recipe(3, 40)));
    let (_, summary) = run(&server, "again");
    let bytes = |run: &str| server.bytes(&format!("/api/v1/runs/{run}/slices/pedestal_drift.npy"));
    assert_eq!(bytes("again"), bytes("follows"));
    check(&python, "calibrations.py", &["followed", &place, &master(&summary)]);
}

#[test]
fn counts_are_corrected_for_dead_time_once_and_not_twice() {
    let test = "counts_are_corrected_for_dead_time_once_and_not_twice";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "calibrations.py", &["rates", &folder.display().to_string()]);
    for (name, parameters) in [("applied", ""), ("table", ""), ("bare", "dead_time_ns = 200.0\n")] {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let source = format!("kind = \"replay\"\npath = \"../{name}.h5\"\ndataset = \"/entry/data/data\"");
        let recipe =
            format!("operations = [\"countrate\", \"correct\", \"statistics\"]\n[recipe.look.countrate]\n{parameters}");
        let server = Server::start(&configuration(&folder, &source, &recipe));
        let (_, summary) = run(&server, name);
        let said = summary["warnings"]
            .to_string()
            .contains("corrected for its dead time already");
        assert_eq!(said, name == "applied", "{summary}");
        let file = folder.with_extension("h5").display().to_string();
        check(
            &python,
            "calibrations.py",
            &["rate", summary["files"][0].as_str().expect("a file"), &file],
        );
    }
    // What is below the limit is a count, whatever somebody says.
    let source = "kind = \"replay\"\npath = \"table.h5\"\ndataset = \"/entry/data/data\"";
    let recipe = "operations = [\"correct\", \"statistics\"]\n[recipe.look.correct]\ninvalid = 7.0\n";
    let server = Server::start(&configuration(&folder, source, recipe));
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    let message = answer["message"].to_string();
    assert!(
        status == 422 && message.contains("correct.invalid = 7: 1100 or more"),
        "{answer}"
    );
    drop(server);
    // Without a table somebody must say how long a counter is busy.
    let source = "kind = \"replay\"\npath = \"bare.h5\"\ndataset = \"/entry/data/data\"";
    let server = Server::start(&configuration(
        &folder,
        source,
        "operations = [\"countrate\", \"statistics\"]\n",
    ));
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    assert!(
        status == 422 && answer["message"].to_string().contains("dead_time_ns"),
        "{answer}"
    );
}

#[test]
fn the_record_names_a_geometry_of_the_store_where_one_was_used() {
    let folder = folder("the_record_names_a_geometry_of_the_store_where_one_was_used");
    let recipe = |name: &str, operations: &str, keys: &str| {
        format!("[recipe.{name}]\ntechnique = \"diffraction\"\noperations = [{operations}]\n{keys}")
    };
    let recipes = [
        recipe("plain", "\"spots\"", ""),
        recipe("ice", "\"spots\"", "[recipe.ice.spots]\nice_rings = true\n"),
        recipe("lossy", "\"sparse\"", ""),
    ];
    let text = format!("{STATISTICS}{}[run]\nrecipe = \"look\"\n", recipes.concat());
    let server = Server::start(&configuration(&folder, SIMULATED, &text));
    let poni = "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, \"pixel2\": 1e-4, \
                \"max_shape\": [32, 48]}\nDistance: 0.1\nPoni1: 0.0016\nPoni2: 0.0024\nRot1: 0\nRot2: 0\nRot3: 0\n\
                Wavelength: 1e-10\n";
    let (status, kept) = server.post_bytes("/api/v1/calibrations/poni", poni.as_bytes());
    assert_eq!(status, 201, "{kept}");
    for (name, used) in [("look", false), ("plain", false), ("ice", true), ("lossy", true)] {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name, "recipe": name }));
        assert_eq!(status, 201, "{armed}");
        let (parameters, _) = ended(&server, name);
        let versions: Vec<&Value> = parameters["calibrations"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|calibration| &calibration["version"])
            .collect();
        let expected = if used { vec![&kept["version"]] } else { Vec::new() };
        assert_eq!(versions, expected, "{name}: {parameters}");
    }
}

#[test]
fn one_absurd_pixel_of_a_flat_or_dark_is_masked_and_the_curve_stays_right() {
    let test = "one_absurd_pixel_of_a_flat_or_dark_is_masked_and_the_curve_stays_right";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let place = folder.display().to_string();
    check(&python, "calibrations.py", &["absurd", &place]);
    let poni = "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, \"pixel2\": 1e-4, \
                \"max_shape\": [32, 48]}\nDistance: 0.1\nPoni1: 0.0016\nPoni2: 0.0024\nRot1: 0\nRot2: 0\nRot3: 0\n\
                Wavelength: 1e-10\n";
    std::fs::write(folder.join("d.poni"), poni).expect("a geometry");
    let source = "kind = \"replay\"\npath = \"counts.h5\"\ndataset = \"/data\"";
    let operations = "operations = [\"correct\", \"statistics\", \"azimuthal\"]\n";
    let azimuthal = "azimuthal]\nponi = \"d.poni\"\nbins = 20\nunit = \"r_mm\"\n";
    let recipe = format!(
        "{operations}[recipe.look.correct]\nflat = \"flat.npy\"\ndark = \"dark.npy\"\n[recipe.look.{azimuthal}\
         [recipe.stored]\ntechnique = \"diffraction\"\n{operations}[recipe.stored.{azimuthal}[run]\nrecipe = \"look\"\n"
    );
    let server = Server::start(&configuration(&folder, source, &recipe));
    let right = |run: &str, recipe: &str| {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": run, "recipe": recipe }));
        assert_eq!(status, 201, "{armed}");
        let (parameters, summary) = ended(&server, run);
        assert_eq!(parameters["uncalibrated_pixels"], 4, "{parameters}");
        let warnings = summary["warnings"].to_string();
        for kind in ["flat", "dark"] {
            assert!(
                warnings.contains(&format!("the {kind} of 2 pixels is not within")),
                "{warnings}"
            );
        }
        let master = summary["files"][0].as_str().expect("a file");
        println!(
            "{}",
            check(&python, "calibrations.py", &["beside", &place, master]).trim()
        );
    };
    right("files", "look");
    // The same of the store, which counts them when they are kept.
    for kind in ["flat", "dark"] {
        let bytes = std::fs::read(folder.join(format!("{kind}.npy"))).expect("a file");
        let (status, answer) = server.post_bytes(&format!("/api/v1/calibrations/{kind}"), &bytes);
        assert_eq!((status, &answer["unusable_pixels"]), (201, &object!(2)), "{answer}");
    }
    right("kept", "stored");
}

#[test]
fn negative_saturated_and_masked_pixels_reach_no_curve_as_what_is_no_number() {
    let test = "negative_saturated_and_masked_pixels_reach_no_curve_as_what_is_no_number";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "calibrations.py", &["frames", &folder.display().to_string()]);
    let poni = "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, \"pixel2\": 1e-4, \
                \"max_shape\": [32, 48]}\nDistance: 0.1\nPoni1: 0.0016\nPoni2: 0.0024\nRot1: 0\nRot2: 0\nRot3: 0\n\
                Wavelength: 1e-10\n";
    std::fs::write(folder.join("d.poni"), poni).expect("a geometry");
    let source = "kind = \"replay\"\npath = \"frames.h5\"\ndataset = \"/data\"";
    let recipe = "operations = [\"correct\", \"statistics\", \"azimuthal\"]\n[recipe.look.correct]\nsaturation = 1000.0\n\
                  [recipe.look.azimuthal]\nponi = \"d.poni\"\nbins = 20\n";
    let server = Server::start(&configuration(&folder, source, recipe));
    let (_, summary) = run(&server, "odd");
    println!(
        "{}",
        check(
            &python,
            "calibrations.py",
            &["odd", summary["files"][0].as_str().expect("a file")]
        )
    );
    // Masks that together leave nothing are refused when the run is armed, though each leaves something.
    let half = |upper: bool| floats(32, 48, |pixel| f32::from(u8::from((pixel < 768) == upper)));
    let flat = floats(32, 48, |pixel| if pixel < 768 { 1.0 } else { 0.0 });
    let (status, answer) = server.post_bytes("/api/v1/calibrations/flat", &flat);
    assert_eq!((status, &answer["unusable_pixels"]), (201, &object!(768)), "{answer}");
    let (status, answer) = server.post_bytes("/api/v1/calibrations/mask", &half(true));
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = server.post("/api/v1/runs", &object!({}));
    assert!(
        status == 422
            && answer["message"]
                .to_string()
                .contains("every one of 1536 pixels is masked"),
        "{answer}"
    );
}
