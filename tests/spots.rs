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
