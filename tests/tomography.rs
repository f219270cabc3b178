//! Volumes, live parameters and reprocessing through the built binary; checked by an independent program.

use fluxline_tests::scans::{REPLAY, VOLUME, configuration, master, once, text, volume};
use fluxline_tests::{Server, check, complaint, data, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

const SCAN: &str = "kind = \"simulate\"\nscene = \"tomography\"\nrate_hz = 0.0\nrotation_axis_px = 49.0\n";

#[test]
fn a_volume_is_what_the_live_slices_are_within_its_memory() {
    let test = "a_volume_is_what_the_live_slices_are_within_its_memory";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source = format!("{SCAN}rows = 400\ncolumns = 160\nframes = 300\n");
    let recipe = |memory: u32| {
        format!("{VOLUME}[recipe.ct.backproject]\nrow = 133\n[recipe.ct.volume]\nmemory_mib = {memory}\nlevels = 2\n")
    };
    let small = once(&configuration(&folder, &source, &recipe(128)));
    let large = once(&configuration(&folder, &source, &recipe(512)));
    let results = &small["derived"]["results"];
    assert!(results["passes"].as_u64() > Some(1), "{results}");
    assert!(results["memory_bytes"].as_u64() <= Some(128 << 20), "{results}");
    // All of it fits at once: it was begun while the run recorded.
    let begun = &large["derived"]["results"]["while_recording"];
    assert!(
        begun["projections"].as_u64() >= Some(128) && begun["not_used"].is_null(),
        "{begun}"
    );
    println!(
        "{}",
        check(
            &python,
            "tomography.py",
            &["volume", master(&small), volume(&small), "133"]
        )
    );
    check(&python, "tomography.py", &["equal", volume(&small), volume(&large)]);
}

#[test]
fn lost_and_corrupt_projections_leave_their_share_to_their_neighbours() {
    let test = "lost_and_corrupt_projections_leave_their_share_to_their_neighbours";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let number = |name: &str, default: u64| -> u64 {
        let given = std::env::var(name).ok();
        given.map_or(default, |number| number.parse().expect("a number"))
    };
    let (columns, projections) = (
        number("FLUXLINE_LOST_COLUMNS", 96),
        number("FLUXLINE_LOST_PROJECTIONS", 300),
    );
    let scan = SCAN.replace("49.0", &format!("{}.0", columns / 2 + 1));
    let source = format!("{scan}rows = 16\ncolumns = {columns}\nframes = {projections}\nchecksum = true\n");
    let clean = once(&configuration(&folder, &source, VOLUME));
    let faults =
        format!("{source}[source.faults]\nseed = 7\ndrop = 0.02\nreorder = 0.05\nreorder_depth = 40\ncorrupt = 0.01\n");
    let faulted = once(&configuration(&folder, &faults, VOLUME));
    assert!(faulted["frames"]["corrupt"].as_u64() > Some(0), "{faulted}");
    let results = &faulted["derived"]["results"];
    assert!(
        results["warnings"][0]
            .as_str()
            .is_some_and(|w| w.contains("projections are missing")),
        "{results}"
    );
    let (used, expected) = (&results["projections_used"], &results["projections_expected"]);
    assert!(
        used.as_u64() < expected.as_u64() && expected == &object!(projections),
        "{results}"
    );
    // The same where slices rest on more projections than are kept: 170 of them.
    let little = format!("{VOLUME}[recipe.ct.backproject]\nhistory_mib = 1\n");
    let forgetful = once(&configuration(&folder, &faults, &little));
    let runs = [&faulted, &forgetful].map(|run| [volume(run), master(run)]);
    let arguments = [
        "survivors",
        master(&clean),
        "8",
        runs[0][0],
        runs[0][1],
        runs[1][0],
        runs[1][1],
    ];
    println!("{}", check(&python, "tomography.py", &arguments));
}

#[test]
fn a_stored_run_goes_again_with_other_parameters() {
    let test = "a_stored_run_goes_again_with_other_parameters";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source = format!("{SCAN}rows = 20\ncolumns = 96\nframes = 90\n");
    let hann = once(&configuration(
        &folder,
        &source,
        &format!("{VOLUME}[recipe.ct.backproject]\nfilter = \"hann\"\n"),
    ));
    let config = configuration(&folder, &source, VOLUME);
    let plain = once(&config);
    let run = text(&plain["run"], "a run");
    let arguments = ["reprocess", run, "--config", &config, "--json", "--name"];
    let again = |name: &str, set: &[&str]| fluxline(&[&arguments[..], &[name], set].concat());
    let same = json(&again("same", &[]));
    check(&python, "tomography.py", &["equal", volume(&plain), volume(&same)]);
    let changed = json(&again("changed", &["--set", "backproject.filter=hann"]));
    check(&python, "tomography.py", &["equal", volume(&hann), volume(&changed)]);
    // What is derived stores no frames; what it is derived from can be asked again through it.
    assert_eq!(
        (&changed["outcomes"]["synced"], &changed["state"]),
        (&object!(0), &object!("complete"))
    );
    let twice = json(&fluxline(&["reprocess", "changed", "--config", &config, "--json"]));
    check(&python, "tomography.py", &["equal", volume(&hann), volume(&twice)]);
    for (run, set, expected) in [
        ("nothing", "backproject.filter=hann", "no closed run of this name"),
        (
            "changed-volume",
            "backproject.filter=hann",
            "it has no frames; reprocess changed",
        ),
        ("changed", "backproject.colour=red", "colour"),
        (
            "changed",
            "backproject.rotation_axis_px=400",
            "the axis lies on the detector",
        ),
    ] {
        let (status, said) = complaint(&fluxline(&["reprocess", run, "--config", &config, "--set", set]));
        assert!(status == 2 && said.contains(expected), "{run} {set}: {said}");
    }
}

#[test]
fn a_scan_beside_a_volume_loses_nothing_and_goes_first() {
    let folder = folder("beside");
    let source = SCAN.replace("rate_hz = 0.0", "rate_hz = 20.0") + "rows = 20\ncolumns = 96\nframes = 120\n";
    // Minutes of work: it is not done when the second scan is.
    let recipe = format!("{VOLUME}[recipe.ct.volume]\nmethod = \"sirt\"\niterations = 10000\n");
    let path = configuration(&folder, &source, &recipe);
    // What finds no slot is lost, and said to be.
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, text.replace("slots = 64", "slots = 128\nwhen_full = \"drop\"")).expect("a configuration");
    let server = Server::start(Path::new(&path));
    let scan = |name: &str| {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
        assert_eq!(status, 201, "{armed}");
        let run = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
        run["summary"].clone()
    };
    scan("first");
    server.wait("/api/v1/status", |status| status["derived"]["state"] == "running");
    let second = scan("second");
    // Its own volume waits for the first one's, which is not done.
    let status = server.wait("/api/v1/status", |status| status["derived"]["derived_from"] == "second");
    assert_eq!(status["derived"]["state"], "waiting", "{status}");
    let count = |group: &str, name: &str| second[group][name].as_u64().expect("a count");
    assert_eq!(
        (count("frames", "complete"), count("frames", "lost")),
        (140, 0),
        "{second}"
    );
    assert_eq!(
        (count("outcomes", "done"), count("outcomes", "shed")),
        (140, 0),
        "{second}"
    );
    assert_eq!(second["results"]["images"][0]["frames_used"], 120, "{second}");
}

/// What was summed while the scan ran, and what was read afterwards, make the bits of a volume that is made from the files alone.
#[test]
fn a_volume_grows_while_its_scan_runs() {
    let test = "a_volume_grows_while_its_scan_runs";
    let Some(python) = python(test) else { return };
    let paced = SCAN.replace("rate_hz = 0.0", "rate_hz = 150.0") + "rows = 21\ncolumns = 96\nchecksum = true\n";
    let faults = "[source.faults]\nseed = 7\ndrop = 0.02\nreorder = 0.05\nreorder_depth = 20\ncorrupt = 0.01\n";
    let half = "range_deg = 360.0\n";
    let prepared = "[recipe.ct.backproject]\nhalf_acquisition = true\n[recipe.ct.correct.zingers]\n";
    for (name, frames, source, recipe) in [
        // As many as may wait: it keeps up, however busy the machine is.
        ("all", 120, "", ""),
        ("faults", 300, faults, ""),
        ("half", 120, half, prepared),
        // Faster than it can be summed.
        ("fast", 1500, "", ""),
    ] {
        let folder = folder(&format!("{test}_{name}"));
        let mut scan = format!("{paced}frames = {frames}\n{source}");
        if name == "fast" {
            scan = scan.replace("rate_hz = 150.0", "rate_hz = 0.0");
        }
        if name == "half" {
            scan = scan.replace("49.0", "24.0");
        }
        let config = configuration(&folder, &scan, &format!("{VOLUME}{recipe}"));
        let grown = once(&config);
        let results = &grown["derived"]["results"];
        let begun = &results["while_recording"];
        println!("{name}: {begun}, {}", results["seconds"]);
        assert!(begun["not_used"].is_null(), "{name}: {results}");
        let (summed, used) = (begun["projections"].as_u64(), results["projections_used"].as_u64());
        assert!(summed <= used && summed >= Some(100), "{name}: {results}");
        assert_eq!(results["passes"], u64::from(summed < used), "{name}: {results}");
        if name != "faults" && name != "fast" {
            assert_eq!(summed, used, "{name}");
        }
        let run = text(&grown["run"], "a run");
        let arguments = ["reprocess", run, "--config", &config, "--json", "--set"];
        let read = json(&fluxline(&[&arguments[..], &["volume.while_recording=false"]].concat()));
        let results = &read["derived"]["results"];
        assert_eq!(
            (&results["while_recording"]["projections"], &results["passes"]),
            (&object!(0), &object!(1)),
            "{name}: {results}"
        );
        check(&python, "tomography.py", &["equal", volume(&grown), volume(&read)]);
    }
}

#[test]
fn the_axis_is_nudged_while_the_scan_runs_and_kept_for_the_volume() {
    let folder = folder("nudged");
    let source = SCAN.replace("rate_hz = 0.0", "rate_hz = 10.0") + "rows = 20\ncolumns = 96\nframes = 120\n";
    let config = configuration(&folder, &source, VOLUME);
    let server = Server::start(Path::new(&config));
    let put =
        |name: &str, value: Value| server.put(&format!("/api/v1/parameters/{name}"), &object!({ "value": value }));
    let (status, refused) = put("backproject.rotation_axis_px", object!(47.5));
    assert_eq!(
        (status, &refused["allowed_states"]),
        (409, &object!(["armed", "recording"]))
    );
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "scan" }));
    assert_eq!(status, 201, "{armed}");
    let listed = server.get("/api/v1/parameters");
    let axis = &listed["parameters"][0];
    assert_eq!(
        (&axis["name"], &axis["unit"]),
        (&object!("backproject.rotation_axis_px"), &object!("pixel"))
    );
    assert_eq!(
        (&axis["minimum"], &axis["maximum"], &axis["value"]),
        (&object!(0.0), &object!(95.0), &object!(49.0))
    );
    server.wait("/api/v1/status", |status| {
        status["analysis"]["done"].as_u64() > Some(40)
    });
    assert_eq!(put("backproject.rotation_axis_px", object!(47.5)).0, 200);
    let (status, moved) = put("backproject.row", object!(3));
    assert_eq!((status, &moved["version"]), (200, &object!(2)));
    for (name, value, expected) in [
        ("backproject.rotation_axis_px", 96.0, 422),
        ("backproject.row", 20.0, 422),
        ("backproject.row", 2.5, 422),
        ("colour", 1.0, 404),
    ] {
        assert_eq!(put(name, object!(value)).0, expected, "{name}");
    }
    let run = server.wait("/api/v1/runs/scan", |run| !run["summary"].is_null());
    let results = &run["summary"]["results"];
    let changed = object!({ "backproject.rotation_axis_px": 47.5, "backproject.row": 3, "backproject.axis": "given" });
    assert_eq!(results["parameters_changed"], changed);
    // The slices were summed anew from all projections so far.
    assert_eq!(results["images"][0]["frames_used"], 120, "{results}");
    let status = server.wait("/api/v1/status", |status| status["derived"]["state"] == "complete");
    assert_eq!(
        (&status["derived"]["done"], &status["derived"]["total"]),
        (&object!(20), &object!(20))
    );
    let volume = server.get("/api/v1/runs/scan-volume");
    assert_eq!(volume["record"]["parameters"]["rotation_axis_px"], 47.5, "{volume}");
    let not_used = volume["record"]["summary"]["while_recording"]["not_used"].to_string();
    assert!(not_used.contains("moved from 49 to 47.5"), "{volume}");
    let events = server.text("/api/v1/runs/scan-volume/events");
    assert!(
        events.contains("seconds_left") && events.contains("event: end"),
        "{events}"
    );
    // Again without the detector, by HTTP: as it ended, but for what differs.
    let request = object!({ "name": "again", "parameters": { "backproject": { "filter": "hann" } } });
    let (status, again) = server.post("/api/v1/runs/scan/reprocess", &request);
    assert_eq!(status, 201, "{again}");
    let parameters = &again["record"]["parameters"]["backproject"];
    assert_eq!(
        (&parameters["rotation_axis_px"], &parameters["filter"]),
        (&object!(47.5), &object!("hann"))
    );
    server.wait("/api/v1/runs/again", |run| !run["summary"].is_null());
}

#[test]
fn the_axis_of_a_tooth_is_found_without_a_hint() {
    let test = "the_axis_of_a_tooth_is_found_without_a_hint";
    let Some(tooth) = data(test, "ct-tooth/tooth.h5") else {
        return;
    };
    let folder = folder(test);
    let replay = |axis: &str| {
        let recipe =
            format!("{VOLUME}[recipe.ct.backproject]\naxis = \"{axis}\"\n[recipe.ct.volume]\nformat = \"none\"\n");
        let config = configuration(&folder, REPLAY, &recipe);
        json(&fluxline(&[
            "replay",
            &tooth.display().to_string(),
            "--config",
            &config,
            "--json",
        ]))
    };
    let found = replay("auto");
    let axis = &found["results"]["found"]["axis"];
    println!("{axis}");
    let at = axis["axis_px"].as_f64().expect("a column");
    assert!((at - 295.5).abs() <= 0.5, "{axis}");
    assert_eq!((&axis["applied"], &axis["last"]), (&object!(true), &object!(true)));
    // Slices and volume have it, though it was found with the last projection.
    assert_eq!(found["results"]["images"][0]["frames_used"], 181);
    assert_eq!(found["derived"]["results"]["rotation_axis_px"], at);
    // Proposed, it stays where it was: the same axis, whatever came when.
    let proposed = replay("propose");
    assert_eq!(proposed["results"]["found"]["axis"]["axis_px"], at);
    assert_eq!(proposed["results"]["found"]["axis"]["applied"], false);
    assert_eq!(proposed["derived"]["results"]["rotation_axis_px"], 319.5);
}

#[test]
fn an_axis_is_found_while_the_scan_runs_and_rules_may_wait_for_it() {
    let folder = folder("found");
    let source = "kind = \"simulate\"\nscene = \"tomography\"\nrate_hz = 25.0\nrotation_axis_px = 53.25\nrange_deg = 360.0\n\
                  rows = 12\ncolumns = 96\nframes = 300\n";
    // The source says where the axis is; the recipe says otherwise.
    let recipe = format!(
        "{VOLUME}[recipe.ct.backproject]\naxis = \"auto\"\nrotation_axis_px = 40.0\n\
         [rule.sharp]\nwhen = \"axis_confidence > 0.7\"\n"
    );
    let config = configuration(&folder, source, &recipe);
    let server = Server::start(Path::new(&config));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "scan" }));
    assert_eq!(status, 201, "{armed}");
    let run = server.wait("/api/v1/runs/scan", |run| !run["summary"].is_null());
    let results = &run["summary"]["results"];
    let axis = &results["found"]["axis"];
    let at = axis["axis_px"].as_f64().expect("a column");
    assert!(
        (at - 53.25).abs() <= 0.25 && axis["axis_confidence"].as_f64() > Some(0.7),
        "{axis}"
    );
    assert_eq!(results["parameters_changed"]["backproject.rotation_axis_px"], at);
    assert_eq!(results["images"][0]["frames_used"], 300, "{results}");
    let events = server.text("/api/v1/runs/scan/events");
    assert!(events.contains("event: axis"), "{events}");
    let decided = run["summary"]["decisions"].as_array().map_or(0, Vec::len);
    assert!(decided > 0, "{run}");
    let volume = server.wait("/api/v1/status", |status| status["derived"]["state"] == "complete");
    assert_eq!(volume["derived"]["done"], 12);
    let volume = server.get("/api/v1/runs/scan-volume");
    assert_eq!(volume["record"]["parameters"]["rotation_axis_px"], at);
}

#[test]
fn an_axis_that_cannot_be_found_is_said() {
    let folder = folder("unsure");
    let run =
        |source: &str, recipe: &str| fluxline(&["run", "--once", "--json", &configuration(&folder, source, recipe)]);
    let auto = |more: &str| format!("{VOLUME}[recipe.ct.backproject]\naxis = \"auto\"\n{more}");
    // The axis lies outside of where it is looked for: whatever is found there is not trusted.
    let source = format!("{SCAN}rows = 12\ncolumns = 96\nframes = 120\n");
    let summary = json(&run(&source, &auto("axis_range_px = [60.0, 80.0]\n")));
    let axis = &summary["results"]["found"]["axis"];
    assert!(axis["axis_confidence"].as_f64() < Some(0.5), "{axis}");
    assert_eq!(axis["applied"], false);
    assert!(
        summary["warnings"].to_string().contains("was not applied"),
        "{}",
        summary["warnings"]
    );
    assert_eq!(summary["derived"]["results"]["rotation_axis_px"], 49.0);
    for (source, more, expected) in [
        (
            source.replace("frames = 120", "frames = 6"),
            "",
            "6 projections are too few",
        ),
        (format!("{source}range_deg = 90.0\n"), "", "found in half a turn"),
        (
            source.clone(),
            "axis_range_px = [60.0, 180.0]\n",
            "columns of the detector",
        ),
        (source.clone(), "axis_confidence = 2.0\n", "allowed is 0 to 1"),
        (source.clone(), "half_acquisition = true\n", "once round"),
        (
            source.replace("frames = 120", "frames = 60\nrange_deg = 360.0"),
            "half_acquisition = true\naxis_range_px = [60.0, 180.0]\n",
            "columns of the detector",
        ),
    ] {
        let (status, said) = complaint(&run(&source, &auto(more)));
        assert!(status == 2 && said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn paganin_is_paganin() {
    let test = "paganin_is_paganin";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source = format!("{SCAN}rows = 40\ncolumns = 96\nframes = 90\n");
    let phase =
        "[recipe.ct.correct.phase]\npixel_size_um = 1.0\nenergy_kev = 20.0\ndistance_mm = 50.0\ndelta_beta = 200.0\n";
    let summary = once(&configuration(&folder, &source, &format!("{VOLUME}{phase}")));
    println!(
        "{}",
        check(&python, "tomography.py", &["phase", master(&summary), "20"])
    );
}

#[test]
fn a_half_acquisition_is_as_wide_as_the_sample() {
    let test = "a_half_acquisition_is_as_wide_as_the_sample";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let recipe = format!("{VOLUME}[recipe.ct.backproject]\nhalf_acquisition = true\nrow = 8\n");
    let source = SCAN.replace("49.0", "24.0") + "rows = 16\ncolumns = 96\nframes = 360\n";
    let (status, said) = complaint(&fluxline(&["run", "--once", &configuration(&folder, &source, &recipe)]));
    assert!(status == 2 && said.contains("once round"), "{said}");
    let round = once(&configuration(
        &folder,
        &format!("{source}range_deg = 360.0\n"),
        &recipe,
    ));
    println!(
        "{}",
        check(&python, "tomography.py", &["half", master(&round), volume(&round), "8"])
    );
}

#[test]
fn a_half_acquisition_finds_its_axis_and_is_iterated_over() {
    let test = "a_half_acquisition_finds_its_axis_and_is_iterated_over";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    for at in [24.0, 68.0] {
        let source =
            SCAN.replace("49.0", &format!("{at:.1}")) + "rows = 16\ncolumns = 96\nframes = 360\nrange_deg = 360.0\n";
        // The source says where the axis is; the recipe says otherwise, at the other side.
        let recipe = format!(
            "{VOLUME}[recipe.ct.backproject]\nhalf_acquisition = true\nrow = 8\naxis = \"auto\"\nrotation_axis_px = {}\n",
            95.0 - at - 6.5
        );
        let config = configuration(&folder, &source, &recipe);
        let scan = once(&config);
        let axis = &scan["results"]["found"]["axis"];
        let found = axis["axis_px"].as_f64().expect("a column");
        println!("{axis}");
        assert!((found - at).abs() <= 0.25 && axis["applied"] == true, "{axis}");
        assert_eq!(scan["results"]["images"][0]["frames_used"], 360);
        let column = found.to_string();
        println!(
            "{}",
            check(&python, "tomography.py", &["half_axis", master(&scan), "8", &column])
        );
        let arguments = ["half_by_itself", master(&scan), "8", &column, volume(&scan)];
        println!("{}", check(&python, "tomography.py", &arguments));
        let run = text(&scan["run"], "a run");
        let given = format!("backproject.rotation_axis_px={at}");
        let sirt = [
            "volume.method=sirt",
            "volume.iterations=40",
            "backproject.axis=given",
            &given,
        ];
        let sirt = sirt.into_iter().flat_map(|entry| ["--set", entry]);
        let arguments: Vec<&str> = ["reprocess", run, "--config", &config, "--json"]
            .into_iter()
            .chain(sirt)
            .collect();
        let again = json(&fluxline(&arguments));
        let arguments = ["half_sirt", master(&scan), volume(&again), "8", &at.to_string(), "40"];
        println!("{}", check(&python, "tomography.py", &arguments));
    }
    // The axis lies outside of where it is looked for.
    let source = SCAN.replace("49.0", "24.0") + "rows = 16\ncolumns = 96\nframes = 360\nrange_deg = 360.0\n";
    let recipe = format!(
        "{VOLUME}[recipe.ct.backproject]\nhalf_acquisition = true\naxis = \"auto\"\nrotation_axis_px = 64.0\n\
         axis_range_px = [55.0, 80.0]\n"
    );
    let scan = once(&configuration(&folder, &source, &recipe));
    let axis = &scan["results"]["found"]["axis"];
    assert_eq!(
        (&axis["axis_confidence"], &axis["applied"]),
        (&object!(0.0), &object!(false)),
        "{axis}"
    );
    assert!(
        scan["warnings"].to_string().contains("was not applied"),
        "{}",
        scan["warnings"]
    );
    assert_eq!(scan["derived"]["results"]["rotation_axis_px"], 64.0);
}

#[test]
fn scans_that_lack_something_are_warned_of_or_refused() {
    let test = "scans_that_lack_something_are_warned_of_or_refused";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "tomography.py", &["bad", &folder.display().to_string()]);
    let replay = |file: &str, more: &str| {
        let config = configuration(&folder, REPLAY, &format!("{VOLUME}{more}"));
        let file = folder.join(format!("{file}.h5")).display().to_string();
        fluxline(&["replay", &file, "--config", &config, "--json"])
    };
    for (file, more, expected) in [
        ("no_flats", "", "flat"),
        (
            "good",
            "[recipe.ct.backproject]\nrotation_axis_px = 60.0\n",
            "the axis lies on the detector",
        ),
        (
            "good",
            "[recipe.ct.backproject]\nrotation_axis_px = -3.0\n",
            "the axis lies on the detector",
        ),
        ("one", "", "at least 2 projections"),
        ("angles_not_numbers", "", "0 angles"),
    ] {
        let (status, said) = complaint(&replay(file, more));
        assert!(status == 2 && said.contains(expected), "{file}: {said}");
    }
    for (file, expected) in [
        ("good", ""),
        ("seven", "7 projections are few"),
        ("twice", "is planned twice"),
        ("missing", "2 of 24 projections have no angle"),
        ("zero", "no valid transmission"),
        ("negative", "no valid transmission"),
        ("nan", "no valid transmission"),
        ("flats_without_beam", "no valid transmission"),
        // As DXchange has it, evenly over half a turn.
        ("no_angles", ""),
    ] {
        let summary = json(&replay(file, ""));
        assert_eq!(summary["state"], "complete", "{file}");
        check(&python, "tomography.py", &["finite", volume(&summary)]);
        let warnings = format!("{} {}", summary["warnings"], summary["derived"]["results"]["warnings"]);
        assert!(warnings.contains(expected), "{file}: {warnings}");
    }
}

#[test]
fn a_scan_without_angles_takes_them_from_start_and_step() {
    let test = "a_scan_without_angles_takes_them_from_start_and_step";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "tomography.py", &["bad", &folder.display().to_string()]);
    let steps = "[recipe.ct.backproject]\nstart_deg = 0.0\nstep_deg = 7.5\n";
    let config = configuration(&folder, REPLAY, &format!("{VOLUME}{steps}"));
    let run = |file: &str| {
        let file = folder.join(file).display().to_string();
        json(&fluxline(&["replay", &file, "--config", &config, "--json"]))
    };
    for file in ["missing.h5", "no_angles.h5"] {
        let results = run(file)["derived"]["results"].clone();
        let found = (&results["projections_used"], &results["warnings"]);
        assert_eq!(found, (&object!(24), &object!([])), "{file}: {results}");
    }
}

#[test]
fn a_volume_keeps_within_its_memory() {
    let test = "a_volume_keeps_within_its_memory";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let binary = fluxline_tests::binary().display().to_string();
    let number = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let size = number("FLUXLINE_VOLUME_SIZE", "320");
    let projections = number("FLUXLINE_VOLUME_PROJECTIONS", "300");
    let memory_mib = number("FLUXLINE_VOLUME_MIB", "128");
    let large = |memory_mib: &str| {
        let place = folder.display().to_string();
        let arguments = ["large", &binary, &place, &size, &projections, memory_mib];
        let said = check(&python, "tomography.py", &arguments);
        println!("{said}");
        let report: Value = serde_json::from_str(said.trim()).expect("a report");
        report["summed while it was read"].as_u64().expect("a number")
    };
    let summed = large(&memory_mib);
    // And where all of it is summed while the projections come.
    if size == "320" {
        assert_eq!(summed, 0);
        assert!(large("320") >= 128);
    }
}

#[test]
fn a_tooth_becomes_a_volume() {
    let test = "a_tooth_becomes_a_volume";
    let (Some(python), Some(tooth)) = (python(test), data(test, "ct-tooth/tooth.h5")) else {
        return;
    };
    let folder = folder(test);
    let recipe =
        format!("{VOLUME}[recipe.ct.backproject]\nrotation_axis_px = 295.5\nrow = 1\n[recipe.ct.volume]\nlevels = 0\n");
    let config = configuration(&folder, REPLAY, &recipe);
    let summary = json(&fluxline(&[
        "replay",
        &tooth.display().to_string(),
        "--config",
        &config,
        "--json",
    ]));
    println!(
        "{}",
        check(
            &python,
            "tomography.py",
            &["volume", master(&summary), volume(&summary), "1"]
        )
    );
    // Past the crossover, by the Fourier method; both against other programs.
    let run = text(&summary["run"], "a run");
    let arguments = [
        "reprocess",
        run,
        "--config",
        &config,
        "--json",
        "--set",
        "volume.method=auto",
    ];
    let auto = json(&fluxline(&arguments));
    for (made, method) in [(&summary, "backprojection"), (&auto, "gridrec")] {
        let arguments = [
            "tooth_volume",
            &tooth.display().to_string(),
            volume(made),
            "295.5",
            method,
        ];
        println!("{}", check(&python, "real_data.py", &arguments));
    }
}

#[test]
fn an_nxtomo_with_an_external_link_becomes_a_volume() {
    let test = "an_nxtomo_with_an_external_link_becomes_a_volume";
    let (Some(python), Some(file)) = (python(test), data(test, "ct-format-httomo/k11-18014.nxs")) else {
        return;
    };
    let folder: PathBuf = folder(test);
    let config = configuration(&folder, &format!("{REPLAY}range_deg = 180.0\n"), VOLUME);
    let summary = json(&fluxline(&[
        "replay",
        &file.display().to_string(),
        "--config",
        &config,
        "--json",
    ]));
    assert_eq!(summary["derived"]["results"]["projections_used"], 3001);
    check(&python, "tomography.py", &["finite", volume(&summary)]);
}
