//! Spots and hits through the built binary: real frames against DIALS's lists, and misses that are left out with exact
//! counts.

use fluxline_tests::{Server, check, data, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

const SPOTS: &str = "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"spots\"]\n";

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn configuration(folder: &Path, file: &str, recipe: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[[source]]\nkind = \"replay\"\npath = \"{file}\"\n\
         [store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// Replays a file and returns the summary and the run's folder.
fn replay(folder: &Path, file: &Path, recipe: &str) -> (Value, PathBuf) {
    let config = configuration(folder, "none", recipe);
    let summary = json(&fluxline(&[
        "replay",
        &text(file),
        "--config",
        &text(&config),
        "--json",
    ]));
    let master = summary["files"][0].as_str().expect("a master file").to_string();
    let run = Path::new(&master).parent().expect("its folder").to_path_buf();
    (summary, run)
}

#[test]
fn spots_of_real_frames_are_those_of_dials() {
    let test = "spots_of_real_frames_are_those_of_dials";
    let Some(python) = python(test) else { return };
    let cases = [
        ("mx-thaumatin-grid/thau_3_2_0001.cbf.bz2", "dials_strong_0001.csv"),
        ("mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz", "dials_strong.csv"),
        ("mx-pilatus-i03/DLS_I03_smargon_0001.cbf.gz", "dials_strong.csv"),
    ];
    for (file, list) in cases {
        let Some(file) = data(test, file) else { continue };
        let folder = folder(&format!("{test}-{}", file.file_name().expect("a name").display()));
        // Alone: beside others of its series it would be one of a run's frames.
        let alone = folder.join(file.file_name().expect("a name"));
        std::fs::copy(&file, &alone).expect("a copy");
        let (summary, run) = replay(&folder, &alone, SPOTS);
        assert_eq!(summary["frames"]["complete"], 1);
        let list = text(&file.with_file_name(list));
        let report = check(&python, "spots_check.py", &["lists", &text(&run), &list]);
        println!("{} {}", file.display(), report.trim());
    }
    let Some(list) = data(test, "jf-module/dials_strong.csv") else {
        return;
    };
    let folder = folder(&format!("{test}-jungfrau"));
    let from = text(list.parent().expect("its folder"));
    check(&python, "spots_check.py", &["jungfrau_make", &text(&folder), &from]);
    let (_, run) = replay(&folder, &folder.join("jungfrau.h5"), SPOTS);
    let lists: Vec<String> = (0..12).map(|frame| format!("{}@{frame}", list.display())).collect();
    let (run, mut arguments) = (text(&run), vec!["lists"]);
    arguments.push(&run);
    arguments.extend(lists.iter().map(String::as_str));
    println!("jf-module {}", check(&python, "spots_check.py", &arguments).trim());
}

#[test]
fn misses_are_left_out_and_counted() {
    let test = "misses_are_left_out_and_counted";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "spots_check.py", &["hits_make", &text(&folder), "300"]);
    let recipe = "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"statistics\", \"spots\", \"hits\"]\n\
                  [recipe.mx.hits]\nmin_spots = 15\nveto = true\nkeep_every = 10\n";
    let server = Server::start(&configuration(&folder, &text(&folder.join("hits.h5")), recipe));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "hits" }));
    assert_eq!(status, 201, "{armed}");
    let run = server.wait("/api/v1/runs/hits", |run| !run["summary"].is_null());
    let summary = &run["summary"];
    let (outcomes, counters) = (&summary["outcomes"], &summary["results"]["counters"]);
    assert_eq!(summary["state"], "complete", "{summary}");
    // Every third of 300 frames is a hit; of the 200 misses every tenth frame's is kept, which is no multiple of three.
    assert_eq!(counters["hits"], 100, "{counters}");
    assert_eq!(counters["misses"], 200);
    assert_eq!(counters["misses_kept"], 20);
    assert_eq!(counters["undecided"], 0);
    assert_eq!(
        (&outcomes["received"], &outcomes["done"]),
        (&object!(300), &object!(300))
    );
    assert_eq!(
        (&outcomes["synced"], &outcomes["vetoed"]),
        (&object!(120), &object!(180))
    );
    let metrics = server.text("/metrics");
    for line in [
        "fluxline_frames_stored_total{outcome=\"vetoed\"} 180",
        "fluxline_frames_stored_total{outcome=\"synced\"} 120",
        "fluxline_recipe_total{counter=\"hits\"} 100",
        "fluxline_recipe_total{counter=\"misses_kept\"} 20",
    ] {
        assert!(metrics.contains(line), "no {line}");
    }
    let master = summary["files"][0].as_str().expect("a master file");
    let run = text(Path::new(master).parent().expect("its folder"));
    println!(
        "{}",
        check(&python, "spots_check.py", &["hits", &run, "15", "10"]).trim()
    );
    println!(
        "{}",
        check(&python, "check_nexus.py", &["validate", "NXmx", master]).trim()
    );
}

#[test]
fn peakfinder8_tells_hits_from_misses() {
    let test = "peakfinder8_tells_hits_from_misses";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "spots_check.py", &["hits_make", &text(&folder), "60"]);
    let poni = "poni_version: 2.1\nDetector: Detector\n\
                Detector_config: {\"pixel1\": 7.5e-05, \"pixel2\": 7.5e-05, \"max_shape\": [200, 240], \"orientation\": 3}\n\
                Distance: 0.1\nPoni1: 0.0075\nPoni2: 0.009\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n";
    std::fs::write(folder.join("beam.poni"), poni).expect("a .poni");
    let recipe = |panel: &str| {
        format!(
            "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"spots\", \"hits\"]\n[recipe.mx.spots]\n\
             algorithm = \"peakfinder8\"\nstrong_sigmas = 5.0\nthreshold = 8.0\nmin_pixels = 2\npanel_pixels = {panel}\n\
             poni = \"{}\"\n[recipe.mx.hits]\nmin_spots = 15\n",
            text(&folder.join("beam.poni"))
        )
    };
    let (summary, run) = replay(&folder, &folder.join("hits.h5"), &recipe("[100, 240]"));
    let counters = &summary["results"]["counters"];
    assert_eq!((&counters["hits"], &counters["misses"]), (&object!(20), &object!(40)));
    let report = check(&python, "spots_check.py", &["peaks", &text(&run)]);
    println!("{}", report.trim());
    // Panels that do not fill the frame are refused before a frame is taken.
    let config = configuration(&folder, "none", &recipe("[100, 70]"));
    let file = text(&folder.join("hits.h5"));
    let output = fluxline(&["replay", &file, "--config", &text(&config), "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("panels' shape"), "{said}");
}

#[test]
fn spots_that_no_pixel_could_have_are_refused() {
    let test = "spots_that_no_pixel_could_have_are_refused";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "spots_check.py", &["hits_make", &text(&folder), "3"]);
    let poni = "poni_version: 2.1\nDetector: Detector\n\
                Detector_config: {\"pixel1\": 7.5e-05, \"pixel2\": 7.5e-05, \"max_shape\": [200, 240], \"orientation\": 3}\n\
                Distance: 0.1\nPoni1: 0.0075\nPoni2: 0.009\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n";
    std::fs::write(folder.join("beam.poni"), poni).expect("a .poni");
    let said = |keys: &str| {
        let recipe = format!(
            "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"spots\", \"hits\"]\n[recipe.mx.spots]\nponi = \"{}\"\n\
             {keys}\n[recipe.mx.hits]\nveto = true\n",
            text(&folder.join("beam.poni"))
        );
        let config = configuration(&folder, "none", &recipe);
        let file = text(&folder.join("hits.h5"));
        let output = fluxline(&["replay", &file, "--config", &text(&config), "--json"]);
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let refused = [
        (
            "border_px = 100",
            "recipe.mx.spots.border_px = 100",
            "none of the frames' 200x240 pixels",
        ),
        // The corners are at 8.6 Å.
        (
            "resolution_angstrom = [1.5, 2.5]",
            "resolution_angstrom = [1.5, 2.5]",
            "lie between",
        ),
        (
            "ice_rings = true\nice_ring_width_per_angstrom2 = 9.0",
            "ice_ring_width_per_angstrom2 = 9",
            "lie between",
        ),
        ("max_separation_px = -1.0", "max_separation_px = -1", "0 or more"),
        ("max_separation_px = nan", "max_separation_px = NaN", "0 or more"),
        (
            "ice_ring_width_per_angstrom2 = -0.1",
            "ice_ring_width_per_angstrom2 = -0.1",
            "0 or more",
        ),
        (
            "ice_ring_width_per_angstrom2 = nan",
            "ice_ring_width_per_angstrom2 = NaN",
            "0 or more",
        ),
    ];
    for (keys, key, expected) in refused {
        let (done, said) = said(keys);
        assert!(!done && said.contains(key) && said.contains(expected), "{keys}: {said}");
    }
    let (done, said) = said("border_px = 99\nresolution_angstrom = [1.5, 200.0]");
    assert!(done, "{said}");
}

#[test]
fn lit_pixels_are_those_that_numpy_counts_and_make_hits() {
    let test = "lit_pixels_are_those_that_numpy_counts_and_make_hits";
    let Some(python) = python(test) else { return };
    let made = folder(test);
    check(&python, "spots_check.py", &["lit_make", &text(&made), "500"]);
    let recipe = |operations: &str, keys: &str| {
        format!(
            "[recipe.lit]\ntechnique = \"diffraction\"\noperations = [{operations}]\n[recipe.lit.correct]\nmask = \"{}\"\n\
             [recipe.lit.hits]\n{keys}\n",
            text(&made.join("mask.npy"))
        )
    };
    let lit = "\"correct\", \"hits\"";
    let with_spots = "\"correct\", \"spots\", \"hits\"";
    let limits = "lit_above = 3.0\nmin_lit_pixels = 40\nmax_lit_pixels = 4000\nmin_spots = 1\n";
    for (rule, operations) in [
        ("lit_pixels", lit),
        ("both", with_spots),
        ("either", with_spots),
        ("spots", with_spots),
    ] {
        let keys = format!("rule = \"{rule}\"\n{limits}");
        let (summary, run) = replay(&made.join(""), &made.join("lit.h5"), &recipe(operations, &keys));
        let counters = &summary["results"]["counters"];
        let mask = text(&made.join("mask.npy"));
        let said = check(
            &python,
            "spots_check.py",
            &["lit", &text(&run), "3", "40", "4000", rule, &mask],
        );
        let told: Value = serde_json::from_str(&said).expect("JSON");
        println!("{rule}: {}", said.trim());
        for name in ["hits", "misses", "undecided"] {
            assert_eq!(counters[name], told[name], "{rule}: {name}");
        }
    }
    for (file, above) in [
        ("mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz", "7"),
        ("mx-thaumatin-grid/thau_3_2_0001.cbf.bz2", "20"),
    ] {
        let Some(file) = data(test, file) else { continue };
        let alone = made.join(file.file_name().expect("a name"));
        std::fs::copy(&file, &alone).expect("a copy");
        let recipe = format!(
            "[recipe.lit]\ntechnique = \"diffraction\"\noperations = [\"hits\"]\n[recipe.lit.hits]\nrule = \"lit_pixels\"\n\
             lit_above = {above}.0\n"
        );
        let (_, run) = replay(&made, &alone, &recipe);
        let said = check(
            &python,
            "spots_check.py",
            &["lit", &text(&run), above, "1", "inf", "lit_pixels"],
        );
        println!("{}: {}", file.display(), said.trim());
    }
}

#[test]
fn false_hits_by_lit_pixels_are_as_rare_as_the_binomial_says() {
    let test = "false_hits_by_lit_pixels_are_as_rare_as_the_binomial_says";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let said = check(&python, "spots_check.py", &["blank_make", &text(&folder)]);
    let told: Value = serde_json::from_str(&said).expect("JSON");
    let least = told["at least"].as_u64().expect("a number");
    let recipe = format!(
        "[recipe.lit]\ntechnique = \"diffraction\"\noperations = [\"hits\"]\n[recipe.lit.hits]\nrule = \"lit_pixels\"\n\
         lit_above = 1.0\nmin_lit_pixels = {least}\n"
    );
    let (summary, run) = replay(&folder, &folder.join("blank.h5"), &recipe);
    assert_eq!(summary["results"]["counters"]["undecided"], 0, "{summary}");
    let rate = told["rate"].to_string();
    println!(
        "{}",
        check(&python, "spots_check.py", &["blank", &text(&run), &rate]).trim()
    );
}

#[test]
fn frames_that_were_not_taken_to_show_a_sample_are_no_misses() {
    let test = "frames_that_were_not_taken_to_show_a_sample_are_no_misses";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "spots_check.py", &["kinds_make", &text(&folder)]);
    let recipe = "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"spots\", \"hits\"]\n\
                  [recipe.mx.hits]\nmin_spots = 15\nveto = true\nkeep_every = 0\n";
    let (summary, _) = replay(&folder, &folder.join("kinds.h5"), recipe);
    let (outcomes, counters) = (&summary["outcomes"], &summary["results"]["counters"]);
    // 4 darks and 3 flats, and 20 hits among 60 frames.
    assert_eq!(
        [&counters["hits"], &counters["misses"], &counters["undecided"]],
        [&object!(20), &object!(40), &object!(7)],
        "{summary}"
    );
    assert_eq!(
        [&outcomes["done"], &outcomes["synced"], &outcomes["vetoed"]],
        [&object!(67), &object!(27), &object!(40)],
        "{summary}"
    );
}

#[test]
fn rules_on_lit_pixels_that_cannot_be_are_refused() {
    let folder = folder("rules_on_lit_pixels_that_cannot_be_are_refused");
    for (keys, key, expected) in [
        (
            "rule = \"lit_pixels\"",
            "recipe.mx.hits.lit_above = (missing)",
            "the value above which",
        ),
        ("lit_above = -1.0", "recipe.mx.hits.lit_above = -1", "0 or more"),
        ("lit_above = nan", "recipe.mx.hits.lit_above = NaN", "0 or more"),
        (
            "lit_above = 1.0\nmin_lit_pixels = 9\nmax_lit_pixels = 8",
            "recipe.mx.hits.max_lit_pixels = 8",
            "min_lit_pixels = 9 or more",
        ),
        ("rule = \"any\"", "recipe.mx.hits", "lit_pixels"),
    ] {
        let recipe = format!(
            "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"spots\", \"hits\"]\n[recipe.mx.hits]\n{keys}\n"
        );
        let config = configuration(&folder, "none", &recipe);
        let output = fluxline(&["validate", &text(&config)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(key) && said.contains(expected),
            "{keys}: {said}"
        );
    }
}

#[test]
fn hits_need_spots_and_say_so() {
    let folder = folder("hits_need_spots_and_say_so");
    let recipe = "[recipe.mx]\ntechnique = \"diffraction\"\noperations = [\"hits\"]\n";
    let config = configuration(&folder, "none", recipe);
    let output = fluxline(&["validate", &text(&config)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("list \"spots\" before it"),
        "{said}"
    );
}
