//! Which way frames are analysed. Compressed ones are reduced while they are decoded, where that gives what the kernels give.
//! A device that fails while a run records: frames keep being stored, the host takes its place with the same bits, the ledger
//! says which frames that were, and the device is tried again. The failing device is the real one behind a library that
//! answers for it.

use fluxline_tests::{Server, binary, check, folder, interposed, json, python};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that `folder` made.
fn folder_of(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fluxline-test-{}-{test}", std::process::id()))
}

fn failing_device(folder: &Path) -> PathBuf {
    interposed(folder, "device.c", &["-ldl", "-lpthread"])
}

/// A simulated run of `frames` frames at `rate_hz` (0: as fast as it goes), whose device is tried again after `retry_s`.
/// `recipe` is what stands in its table.
fn paced(folder: &Path, recipe: &str, (frames, rate_hz, retry_s): (u64, f64, f64)) -> PathBuf {
    let config = folder.join("fluxline.toml");
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[accelerator]\ndevice = \"cpu\"\ntune = false\nbatch_limit = 4\nretry_s = {retry_s:?}\n[[source]]\n\
         kind = \"simulate\"\nscene = \"diffraction\"\ndetector = \"custom\"\nrows = {ROWS}\ncolumns = {COLUMNS}\nframes = {frames}\n\
         rate_hz = {rate_hz:?}\ndistinct = 8\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.powder]\n\
         technique = \"diffraction\"\n{recipe}",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("a configuration");
    pedestals(folder, ROWS, COLUMNS);
    config
}

const ROWS: usize = 211;
const COLUMNS: usize = 199;

/// Pedestals of nothing, which the frames' counts move.
fn pedestals(folder: &Path, rows: usize, columns: usize) {
    let pedestal = pipeline::feedback::pictures::npy("<f4", &[rows, columns], &vec![0; rows * columns * 4]);
    std::fs::write(folder.join("pedestal.npy"), pedestal).expect("pedestals");
}

fn configuration(folder: &Path, recipe: &str) -> PathBuf {
    paced(folder, recipe, (200, 0.0, 3600.0))
}

/// The summary of a run whose device fails from launch `from` on, `count` times, and how often it did.
fn recorded(name: &str, recipe: &str, failing: Option<(&str, u64, u64)>) -> (Value, String) {
    let folder = folder(name);
    let config = configuration(&folder, recipe);
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

const OPERATIONS: &str = "operations = [\"correct\", \"statistics\", \"azimuthal\"]\n";

/// Recipes that no host way is there for: spots and hits with split pixels, photons whose pedestals follow the frames, true
/// counts with a picture. The rate of hits looks back on one frame, so that workers make no difference.
const NEED_KERNELS: [(&str, &str); 3] = [
    (
        "spots",
        "operations = [\"correct\", \"spots\", \"hits\", \"azimuthal\"]\n[recipe.powder.hits]\nmin_spots = 3\nwindow_frames = 1\n\
         [recipe.powder.azimuthal]\nbins = 300\nsplitting = \"bbox\"\n",
    ),
    (
        "photons",
        "operations = [\"gain\", \"correct\", \"statistics\", \"azimuthal\"]\n[recipe.powder.azimuthal]\nbins = 300\n\
         [recipe.powder.gain]\npedestals = [\"pedestal.npy\", \"pedestal.npy\", \"pedestal.npy\"]\n\
         nominal_gains_adu_per_kev = [1.0, -1.4, -0.1]\ntrack_window = 50\n",
    ),
    (
        "counts",
        "operations = [\"countrate\", \"correct\", \"statistics\", \"azimuthal\"]\n[recipe.powder.countrate]\n\
         dead_time_ns = 200.0\nexposure_s = 0.001\n[recipe.powder.azimuthal]\nbins = 100\nazimuthal_bins = 12\n\
         splitting = \"full\"\nerror_model = \"azimuthal\"\n[recipe.powder.azimuthal.sigma_clip]\ncutoff = 4.0\n",
    ),
];

#[test]
fn the_host_takes_the_place_of_a_device_out_of_resources_with_the_same_bits() {
    recorded("device-well", OPERATIONS, None);
    for (name, from, count) in [("device-once", 40, 1), ("device-gone", 40, 1_000_000)] {
        let (summary, said) = recorded(name, OPERATIONS, Some(("out of resources", from, count)));
        assert!(
            said.contains("failed: 1\n"),
            "tried once, and again after an hour only: {said}"
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
fn a_kernel_that_never_ends_is_given_up_and_the_host_goes_on() {
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
    // Wanted are 2 s; a busy machine may need longer.
    println!("slowest result after {slowest_us} us");
    assert!(slowest_us > 900_000.0 && slowest_us < 20_000_000.0, "{summary}");
}

/// Frames of a stored run that the device has failed on.
fn marked(summary: &Value) -> usize {
    let master = summary["files"][0].as_str().expect("a master file");
    let stored = pipeline::storage::read_ledger(Path::new(master)).expect("its ledger");
    stored.device_failed.iter().filter(|failed| **failed > 0).count()
}

#[test]
fn every_recipe_goes_on_by_the_processor_with_the_same_bits() {
    for (recipe, operations) in NEED_KERNELS {
        let well = format!("device-{recipe}-well");
        let (summary, said) = recorded(&well, operations, None);
        assert_eq!(
            (&summary["outcomes"]["done"], marked(&summary)),
            (&200.into(), 0),
            "{summary}"
        );
        println!("{recipe}: {said}");
        for (how, from, count) in [("out of resources", 120, 1), ("hang", 130, 1), ("lost", 140, 1_000_000)] {
            let name = format!("device-{recipe}-{}", how.replace(' ', "-"));
            let (summary, said) = recorded(&name, operations, Some((how, from, count)));
            assert!(said.contains("failed: 1\n"), "{name}: {said}");
            assert_eq!(summary["state"], "complete", "{name}: {summary}");
            assert_eq!(summary["outcomes"]["done"], 200, "{name}: {summary}");
            assert_eq!(summary["outcomes"]["synced"], 200, "{name}: {summary}");
            let marked = marked(&summary);
            println!(
                "{name}: {marked} frames by the processor, the slowest {} us",
                summary["latency_us"]["max"]
            );
            assert!((1..200).contains(&marked), "{name}: {marked} of them are marked");
            let warnings = summary["warnings"].to_string();
            assert!(
                warnings.contains("the host analyses in its place"),
                "{name}: {warnings}"
            );
            same("device", &name, &well);
        }
    }
}

#[test]
fn photons_rest_on_the_frames_before_whichever_launch_fails() {
    let (_, operations) = NEED_KERNELS[1];
    recorded("device-launches-well", operations, None);
    // One of the launches of a batch after another: behind the first of them pedestals have moved already.
    for from in 120..126 {
        let (summary, said) = recorded("device-launches", operations, Some(("out of resources", from, 1)));
        assert!(said.contains("failed: 1\n"), "launch {from}: {said}");
        assert_eq!(summary["outcomes"]["done"], 200, "launch {from}: {summary}");
        same("device", "device-launches", "device-launches-well");
    }
}

#[test]
fn a_recipe_that_neither_device_nor_processor_takes_keeps_storing_and_is_analysed_again_by_what_works() {
    let spots = "operations = [\"correct\", \"statistics\", \"spots\"]\n";
    // Making the recipe ready on the processor takes launches, too.
    let (summary, _) = recorded("device-spots", spots, Some(("out of resources", 40, 5)));
    let (done, failed) = (&summary["outcomes"]["done"], &summary["outcomes"]["analysis_failed"]);
    assert_eq!(summary["outcomes"]["synced"], 200, "{summary}");
    assert_eq!(done.as_u64().unwrap() + failed.as_u64().unwrap(), 200, "{summary}");
    assert!(
        (1..=20).contains(&failed.as_u64().unwrap()),
        "five batches of up to four frames: {summary}"
    );
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("OUT_OF_RESOURCES"), "{warnings}");
    assert!(warnings.contains("cannot take the device's place"), "{warnings}");
}

#[test]
fn a_batch_that_fails_behind_the_hits_counts_once() {
    let operations = "operations = [\"spots\", \"hits\", \"azimuthal\"]\n";
    let (summary, _) = recorded("device-counted", operations, None);
    let well = summary["results"]["counters"].clone();
    // One of the launches of a batch after another, and so that of the curve, which comes last.
    for from in 60..68 {
        let (summary, said) = recorded("device-counted", operations, Some(("out of resources", from, 1)));
        assert!(said.contains("failed: 1\n"), "{said}");
        assert_eq!(summary["outcomes"]["synced"], 200, "{summary}");
        assert_eq!(summary["outcomes"]["done"], 200, "{summary}");
        assert_eq!(summary["results"]["counters"], well, "launch {from}");
    }
}

/// A detector that cannot wait and a ring with room for a tenth of its frames, while neither the device nor what would take
/// its place ends anything more.
fn behind_a_device_that_hangs(name: &str, recipe: &str) {
    let folder = folder(name);
    let address = format!("tcp://127.0.0.1:{}", fluxline_tests::port());
    let text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[accelerator]\ndevice = \"cpu\"\ntune = false\nbatch_limit = 2\n[[source]]\n\
         kind = \"dectris\"\naddresses = [\"{address}\"]\nstart_timeout_s = 60.0\n[store]\npath = \"{}\"\n[feedback]\n\
         listen = \"127.0.0.1:0\"\n[recipe.mx]\n{recipe}",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    pedestals(&folder, 66, 50);
    let simulation = folder.join("simulate.toml");
    let scene = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 66\ncolumns = 50\ndistinct = 4\n";
    std::fs::write(&simulation, scene).expect("a simulation");
    let mut program = Command::new(binary());
    program.env("LD_PRELOAD", failing_device(&folder)).envs([
        ("FLUXLINE_FAIL_FROM", "50"),
        ("FLUXLINE_FAIL_HOW", "hang"),
        ("FLUXLINE_FAIL_COUNT", "1000000"),
    ]);
    let server = Server::start_by(program, &config);
    let mut detector = Command::new(binary())
        .args([
            "emulate",
            "--json",
            "--dectris",
            &address,
            "--frames",
            "160",
            "--simulate",
        ])
        .arg(&simulation)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the emulator");
    // Answered when the series has begun.
    let (status, armed) = server.post("/api/v1/runs", &serde_json::json!({ "name": "run" }));
    assert_eq!(status, 201, "{name}: {armed}");
    // While the device hangs: half a minute.
    server.wait("/api/v1/status", |status| status["analysis"]["shed"].as_u64() > Some(0));
    let run = server.wait("/api/v1/runs/run", |run| !run["summary"].is_null());
    assert!(detector.wait().expect("its end").success());
    let (summary, outcomes) = (&run["summary"], &run["summary"]["outcomes"]);
    let count = |key: &str| {
        outcomes[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {key}: {summary}"))
    };
    println!("{name}: {outcomes}");
    assert_eq!(summary["frames"]["lost"], 0, "{name}: {summary}");
    assert_eq!(count("synced"), 160, "{name}: {summary}");
    assert_eq!(
        count("done") + count("shed") + count("analysis_failed"),
        160,
        "{name}: {summary}"
    );
    assert!(count("shed") > 40, "{name}: what the ring could not hold: {summary}");
    assert!(count("analysis_failed") > 0, "{name}: {summary}");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("has not ended its work within"), "{name}: {summary}");
}

#[test]
fn a_device_that_hangs_keeps_no_frame_of_a_detector_from_the_disk() {
    let spots = "technique = \"diffraction\"\noperations = [\"spots\"]\n";
    behind_a_device_that_hangs("device-late", spots);
}

#[test]
fn a_device_that_hangs_keeps_no_frame_from_the_disk_where_frames_go_in_order() {
    let photons = "technique = \"diffraction\"\noperations = [\"gain\", \"statistics\"]\n[recipe.mx.gain]\n\
                   pedestals = [\"pedestal.npy\", \"pedestal.npy\", \"pedestal.npy\"]\n\
                   nominal_gains_adu_per_kev = [1.0, -1.4, -0.1]\ntrack_window = 50\n";
    let slices = "technique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n[recipe.mx.correct]\n\
                  flat_field = false\n[recipe.mx.backproject]\nstart_deg = 0.0\nstep_deg = 1.0\n";
    std::thread::scope(|scope| {
        scope.spawn(|| behind_a_device_that_hangs("device-late-photons", photons));
        scope.spawn(|| behind_a_device_that_hangs("device-late-slices", slices));
    });
}

/// Nobody takes the device's place with slices: a batch is lost to them, or none where projections are kept, and they go on.
#[test]
fn slices_go_on_behind_a_launch_that_fails() {
    let test = "slices_go_on_behind_a_launch_that_fails";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let scan = |name: &str, history: &str, from: Option<u64>| {
        let store = folder.join(name);
        let config = folder.join(format!("{name}.toml"));
        let text = format!(
            "[ring]\nslots = 32\nallow_transparent = true\n[accelerator]\ndevice = \"cpu\"\ntune = false\nbatch_limit = 2\n\
             [[source]]\nkind = \"simulate\"\nscene = \"tomography\"\nrows = 16\ncolumns = 96\nframes = 180\nrate_hz = 0.0\n\
             darks = 2\nflats = 2\n\
             [store]\npath = \"{}\"\n[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n\
             [recipe.ct.backproject]\n{history}",
            store.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut command = Command::new(binary());
        command.args(["run", "--once", "--json"]).arg(&config);
        if let Some(from) = from {
            command
                .env("LD_PRELOAD", failing_device(&folder))
                .env("FLUXLINE_FAIL_HOW", "out of resources")
                .env("FLUXLINE_FAIL_FROM", from.to_string())
                .env("FLUXLINE_FAIL_COUNT", "1");
        }
        let output = command.output().expect("the built binary");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(from.is_none() || said.contains("failed: 1\n"), "{said}");
        json(&output)
    };
    let master = |summary: &Value| summary["files"][0].as_str().expect("a master file").to_string();
    let healthy = scan("healthy", "", None);
    let mut at_slices = 0;
    // One launch corrects a batch, three smear 16 projections back.
    for from in 60..70 {
        let failed = scan(&format!("kept-{from}"), "", Some(from));
        let warnings = failed["warnings"].to_string();
        assert!(warnings.contains("OUT_OF_RESOURCES"), "{warnings}");
        let lost = failed["outcomes"]["analysis_failed"].as_u64();
        assert!(lost > Some(0) && lost <= Some(2), "one batch: {failed}");
        assert_eq!(failed["outcomes"]["synced"], 184, "{failed}");
        let used = &failed["results"]["images"][0]["frames_used"];
        let of_slices = warnings.contains("backproject: ");
        at_slices += u32::from(of_slices);
        assert!(used.as_u64() >= Some(178), "{from}: {failed}");
        let arguments = ["alike", &master(&healthy), &master(&failed), "0.02"];
        println!(
            "{from}, of slices {of_slices}: {}",
            check(&python, "tomography.py", &arguments)
        );
    }
    assert!((1..10).contains(&at_slices), "launches of both kinds: {at_slices}");
    // Without what came before they begin again.
    let forgetful = scan("forgetful", "history_mib = 0\n", Some(69));
    let used = forgetful["results"]["images"][0]["frames_used"].as_u64();
    println!("without history: {used:?} of 180");
    assert!(used >= Some(60) && used < Some(178), "{forgetful}");
}

/// Runs with a device that fails once; what the ledger says of every frame, and which way the last ones went.
fn failing_once(
    name: &str,
    recipe: &str,
    pace: (u64, f64, f64),
    failure: &[(&str, &str)],
) -> (Vec<bool>, Value, Value) {
    let folder = folder(name);
    let config = paced(&folder, recipe, pace);
    let mut program = Command::new(binary());
    program
        .env("LD_PRELOAD", failing_device(&folder))
        .env("FLUXLINE_FAIL_COUNT", "1")
        .envs(failure.iter().copied());
    let server = Server::start_by(program, &config);
    let (status, armed) = server.post("/api/v1/runs", &serde_json::json!({ "name": "run" }));
    assert_eq!(status, 201, "{armed}");
    let run = server.wait("/api/v1/runs/run", |run| !run["summary"].is_null());
    let ledger = server.get("/api/v1/runs/run/ledger?limit=1000");
    let frames = ledger["entries"].as_array().unwrap_or_else(|| panic!("{ledger}"));
    assert_eq!(frames.len() as u64, pace.0);
    assert!(frames.iter().all(|frame| frame["analysis"] == "done"), "{ledger}");
    let master = run["summary"]["files"][0].as_str().expect("a master file");
    let stored = pipeline::storage::read_ledger(std::path::Path::new(master)).expect("its ledger");
    for (frame, failed) in frames.iter().zip(&stored.device_failed) {
        assert_eq!(
            frame["device_failed"],
            *failed > 0,
            "in memory and in the file: {frame}"
        );
    }
    let marked = frames.iter().map(|frame| frame["device_failed"] == true).collect();
    let way = server.get("/api/v1/status")["device"]["analysis"].clone();
    (marked, way, run["summary"].clone())
}

#[test]
fn a_device_that_failed_is_tried_again_and_goes_on() {
    let out = [("FLUXLINE_FAIL_FROM", "40")];
    // It ends what it was given after 6 s; the host has gone on after one.
    let slow = [
        ("FLUXLINE_FAIL_FROM", "40"),
        ("FLUXLINE_FAIL_HOW", "hang"),
        ("FLUXLINE_FAIL_MS", "6000"),
    ];
    // Nobody who had it open has it back: it is opened anew when it has failed again.
    let lost = [
        ("FLUXLINE_FAIL_FROM", "130"),
        ("FLUXLINE_FAIL_HOW", "lost"),
        ("FLUXLINE_FAIL_COUNT", "1000000"),
    ];
    let [(_, spots), (_, photons), _] = NEED_KERNELS;
    let cases = [
        ("device-back", OPERATIONS, (150, 30.0, 0.3), &out[..]),
        ("device-slow", OPERATIONS, (300, 30.0, 0.3), &slow[..]),
        ("device-back-spots", spots, (150, 30.0, 0.3), &out[..]),
        ("device-back-photons", photons, (150, 30.0, 0.3), &out[..]),
        ("device-slow-photons", photons, (300, 30.0, 0.3), &slow[..]),
        ("device-lost", OPERATIONS, (200, 30.0, 0.3), &lost[..]),
        ("device-lost-photons", photons, (200, 30.0, 0.3), &lost[..]),
    ];
    for (name, recipe, pace, failure) in cases {
        let (marked, way, summary) = failing_once(name, recipe, pace, failure);
        let frames = marked.len();
        assert_eq!(summary["outcomes"]["synced"], frames, "{summary}");
        let (first, last) = (marked.iter().position(|m| *m), marked.iter().rposition(|m| *m));
        println!("{name}: the host analysed frames {first:?} to {last:?}");
        assert!(
            first > Some(0) && last < Some(frames - 1),
            "{name}: {first:?} to {last:?}"
        );
        assert_eq!(way, "kernels", "{name}");
        if recipe == photons {
            // There and back: the pedestals went along.
            let well = format!("{name}-well");
            failing_once(&well, recipe, (pace.0, 0.0, pace.2), &[]);
            same("device", name, &well);
        }
    }
}

#[test]
fn the_ledger_names_the_frames_that_the_host_analysed() {
    let (marked, way, _) = failing_once(
        "device-ledger",
        OPERATIONS,
        (200, 0.0, 3600.0),
        &[("FLUXLINE_FAIL_FROM", "40")],
    );
    let first = marked
        .iter()
        .position(|marked| *marked)
        .expect("some after the failure");
    assert!(first > 0, "some before it");
    assert!(marked[first..].iter().all(|marked| *marked), "from frame {first} on");
    assert_eq!(way, "host");
}

#[test]
fn the_host_takes_the_place_of_a_device_whose_programs_do_not_build() {
    let folder = folder("device-unbuilt");
    let config = configuration(&folder, OPERATIONS);
    let output = Command::new(binary())
        .args(["run", "--once", "--json"])
        .arg(&config)
        .env("LD_PRELOAD", failing_device(&folder))
        .env("FLUXLINE_FAIL_BUILD", "1")
        .output();
    let summary = json(&output.expect("the built binary"));
    assert_eq!(summary["outcomes"]["done"], 200, "{summary}");
    let warnings = summary["warnings"].to_string();
    assert!(
        warnings.contains("does not build for") && warnings.contains("the host analyses in its place"),
        "{warnings}"
    );
    recorded("device-built", OPERATIONS, None);
    same("device-unbuilt", "device-unbuilt", "device-built");
}

#[test]
fn a_device_whose_programs_build_only_when_it_is_opened_anew_is_opened_anew() {
    let (name, operations) = NEED_KERNELS[0];
    let folder = folder("device-anew");
    let config = configuration(&folder, operations);
    // A program that was kept and does not load is built from its source, which would not count as a failure.
    let text = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, text.replace("tune = false", "tune = false\ncache_dir = \"\"")).expect("a configuration");
    let summary = |builds: &str| {
        let output = Command::new(binary())
            .args(["run", "--once", "--json"])
            .arg(&config)
            .env("LD_PRELOAD", failing_device(&folder))
            .envs([("FLUXLINE_FAIL_BUILD", "1"), ("FLUXLINE_FAIL_BUILDS", builds)])
            .output();
        output.expect("the built binary")
    };
    let anew = json(&summary("1"));
    assert_eq!(anew["outcomes"]["done"], 200, "{anew}");
    assert!(anew["warnings"].to_string().contains("was opened anew"), "{anew}");
    recorded("device-anew-well", operations, None);
    same("device-anew", "device-anew", "device-anew-well");
    // Where it does not build then either, the run is refused with what the compiler said.
    let refused = summary("1000000");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("does not build for"),
        "{name}: {said}"
    );
}

/// Replays a file of compressed frames with the device's memory shared or its own; says which way they were analysed.
fn reduced(folder: &Path, file: &str, memory: &str, recipe: &str) -> (Value, Value) {
    let config = folder.join(format!("{memory}.toml"));
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[accelerator]\ndevice = \"cpu\"\nmemory = \"{memory}\"\nbatch_limit = 16\n\
         [[source]]\nkind = \"replay\"\npath = \"{file}\"\ndataset = \"/entry/data/data\"\n[store]\npath = \"{memory}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.powder]\ntechnique = \"diffraction\"\n{recipe}"
    );
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let (status, armed) = server.post("/api/v1/runs", &serde_json::json!({ "name": "run" }));
    assert_eq!(status, 201, "{armed}");
    let run = server.wait("/api/v1/runs/run", |run| !run["summary"].is_null());
    let way = server.get("/api/v1/status")["device"]["analysis"].clone();
    (run["summary"].clone(), way)
}

#[test]
fn compressed_frames_give_what_the_kernels_and_numpy_give() {
    let test = "compressed_frames_give_what_the_kernels_and_numpy_give";
    let Some(python) = python(test) else { return };
    let poni = "poni_version: 2\nDetector: Detector\nDetector_config: {\"pixel1\": 1e-4, \"pixel2\": 1e-4, \
                \"max_shape\": [101, 173]}\nDistance: 0.1\nPoni1: 0.005\nPoni2: 0.0081\nRot1: 0\nRot2: 0\nRot3: 0\n\
                Wavelength: 1e-10\n";
    let recipe = "operations = [\"correct\", \"statistics\", \"azimuthal\"]\n[[recipe.powder.statistics.regions]]\n\
                  name = \"middle\"\nrow = 30\ncolumn = 20\nrows = 30\ncolumns = 130\n[recipe.powder.azimuthal]\n\
                  poni = \"d.poni\"\nbins = 100\npolarization = 0.98\n";
    let made = folder(test);
    check(&python, "fused.py", &["make", &made.display().to_string()]);
    for dtype in ["u1", "u2", "u4", "i4"] {
        let (folder, file) = (made.join(dtype), format!("{dtype}.h5"));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::rename(made.join(&file), folder.join(&file)).expect("a file");
        std::fs::write(folder.join("d.poni"), poni).expect("a geometry");
        let stores = ["zero_copy", "copy"].map(|memory| {
            let (summary, way) = reduced(&folder, &file, memory, recipe);
            assert_eq!(summary["outcomes"]["done"], 21, "{summary}");
            assert_eq!(
                way,
                if memory == "copy" { "kernels" } else { "fused" },
                "{dtype}, {memory}"
            );
            let master = summary["files"][0].as_str().expect("a file").to_string();
            let source = folder.join(&file).display().to_string();
            print!("{}", check(&python, "fused.py", &["numbers", &master, &source]));
            folder.join(memory).display().to_string()
        });
        print!("{}", check(&python, "../rdma/compare.py", &[&stores[0], &stores[1]]));
    }
}

#[test]
fn frames_that_are_converted_first_are_not_reduced_while_decoding() {
    let test = "frames_that_are_converted_first_are_not_reduced_while_decoding";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "fused.py", &["make", &folder.display().to_string()]);
    let recipe = "operations = [\"countrate\", \"correct\", \"statistics\"]\n[recipe.powder.countrate]\n\
                  dead_time_ns = 200.0\nexposure_s = 0.001\n";
    let (summary, way) = reduced(&folder, "u2.h5", "zero_copy", recipe);
    assert_eq!(
        (&way, &summary["outcomes"]["done"]),
        (&"kernels".into(), &21.into()),
        "{summary}"
    );
}

#[test]
fn parameters_of_the_device_are_measured_at_the_first_start_and_read_at_the_next() {
    let folder = folder("device-tuned");
    let config = configuration(&folder, OPERATIONS);
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let tuned = text.replace("tune = false", "cache_dir = \"cache\"");
    assert_ne!(tuned, text);
    std::fs::write(&config, &tuned).expect("a configuration");
    let told = || Server::start(&config).get("/api/v1/status")["device"]["tuning"].clone();
    // On a busy machine there may be no time for all of them at once: every start goes on where the last one stopped.
    let mut last = told();
    for _ in 0..30 {
        let begun = last["measured"].as_array().expect("a list").len();
        if begun == 3 {
            break;
        }
        last = told();
        assert!(last["measured"].as_array().expect("a list").len() >= begun, "{last}");
    }
    assert_eq!(last["measured"].as_array().expect("a list").len(), 3, "{last}");
    let next = told();
    assert_eq!(
        (&next["origin"], &next["tuning"]),
        (&Value::from("cached"), &last["tuning"]),
        "{next}"
    );
    assert_eq!(next["remarks"], Value::Array(Vec::new()), "{next}");
    let cache = std::fs::read_dir(folder.join("cache")).expect("a folder");
    let kept = cache.map(|entry| entry.expect("an entry").path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("tuning-")
    });
    std::fs::write(kept.expect("what was measured"), "{").expect("a damaged file");
    let damaged = told();
    assert!(damaged["remarks"].to_string().contains("it is damaged"), "{damaged}");
    assert_ne!(damaged["origin"], "cached", "{damaged}");
    std::fs::write(&config, text).expect("a configuration");
    assert_eq!(told(), Value::Null, "switched off");
}
