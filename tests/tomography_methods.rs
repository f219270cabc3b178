//! Methods of the whole volume, preparation and live slices of a tomography through the built binary; checked by an
//! independent program.

use fluxline_tests::{Server, check, complaint, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::Path;

const VOLUME: &str =
    "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\", \"volume\"]\n";
const SCAN: &str = "kind = \"simulate\"\nscene = \"tomography\"\nrate_hz = 0.0\nrotation_axis_px = 33.0\n";
const REPLAY: &str = "kind = \"replay\"\npath = \"none\"\n";

fn configuration(folder: &Path, source: &str, recipe: &str) -> String {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\n{source}[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path.display().to_string()
}

fn text<'a>(value: &'a Value, what: &str) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{what}: {value}"))
}

fn master(summary: &Value) -> &str {
    text(&summary["files"][0], "a master file")
}

/// The volume file of a summary.
fn volume(summary: &Value) -> &str {
    text(&summary["derived"]["results"]["files"][0], "a volume file")
}

fn replay(folder: &Path, file: &str, source: &str, more: &str) -> std::process::Output {
    let config = configuration(folder, &format!("{REPLAY}{source}"), &format!("{VOLUME}{more}"));
    let file = folder.join(file).display().to_string();
    fluxline(&["replay", &file, "--config", &config, "--json"])
}

#[test]
fn every_method_makes_the_volume_and_makes_it_again() {
    let test = "every_method_makes_the_volume_and_makes_it_again";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source = format!("{SCAN}rows = 18\ncolumns = 64\nframes = 120\nopen_beam_counts = 30000.0\n");
    let config = configuration(&folder, &source, VOLUME);
    let plain = json(&fluxline(&["run", "--once", "--json", &config]));
    assert_eq!(plain["derived"]["results"]["method"], "backprojection");
    let run = text(&plain["run"], "a run");
    let again = |name: &str, set: &[&str]| {
        let set = set.iter().flat_map(|entry| ["--set", entry]);
        let arguments = ["reprocess", run, "--config", &config, "--json", "--name", name];
        fluxline(&arguments.into_iter().chain(set).collect::<Vec<_>>())
    };
    for (method, iterations, tolerance) in [("gridrec", 1, "0.03"), ("sirt", 60, "0.04"), ("cgls", 6, "0.04")] {
        let iterations = format!("volume.iterations={iterations}");
        let set = [format!("volume.method={method}"), iterations];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let made = json(&again(method, &set));
        let results = &made["derived"]["results"];
        assert_eq!(results["method"], method);
        if method != "gridrec" {
            assert!(results["unexplained"].as_f64() < Some(0.2), "{results}");
        }
        println!(
            "{}",
            check(
                &python,
                "tomography.py",
                &["method", volume(&made), volume(&plain), method, tolerance]
            )
        );
        // From its own record, with other memory: the same bits.
        let arguments = [
            "reprocess",
            method,
            "--config",
            &config,
            "--json",
            "--set",
            "volume.memory_mib=129",
        ];
        let same = json(&fluxline(&arguments));
        check(&python, "tomography.py", &["equal", volume(&made), volume(&same)]);
    }
    let chosen = json(&again("chosen", &["volume.method=auto", "volume.gridrec_from=100"]));
    assert_eq!(chosen["derived"]["results"]["method"], "gridrec");
    // A narrow detector: the Fourier method is never the faster.
    let chosen = json(&again("narrow", &["volume.method=auto"]));
    assert_eq!(chosen["derived"]["results"]["method"], "backprojection");
    for (set, expected) in [
        ("volume.method=magic", "gridrec"),
        ("volume.method=sloped", "a projection is at"),
        ("volume.iterations=0", "allowed is 1 to 10000"),
        ("volume.gridrec_from=-1", "gridrec_from"),
        ("volume.support_px=-1.0", "a number of pixels above 0"),
        ("volume.stripes=[{ method = \"magic\" }]", "wavelet_fourier"),
        ("volume.stripes=[{ method = \"fitting\", order = 30 }]", "0 to 8"),
    ] {
        let (status, said) = complaint(&again("wrong", &[set]));
        assert!(status == 2 && said.contains(expected), "{set}: {said}");
    }
}

#[test]
fn what_is_wrong_with_projections_is_taken_away() {
    let test = "what_is_wrong_with_projections_is_taken_away";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "tomography.py", &["prepared", &folder.display().to_string()]);
    let make = |file: &str, source: &str, more: &str| json(&replay(&folder, file, source, more));
    let better = |with: &Value, without: &Value, clean: &Value, share: &str| {
        let arguments = ["better", volume(with), volume(without), volume(clean), "1", share];
        println!("{}", check(&python, "tomography.py", &arguments));
    };
    let clean = make("clean.h5", "", "");
    println!(
        "{}",
        check(&python, "tomography.py", &["disc", volume(&clean), "1", "0.02"])
    );

    let striped = make("striped.h5", "", "");
    for stripes in [
        "method = \"sorting\"\nsize = 11\n",
        "method = \"wavelet_fourier\"\nsigma = 1.5\n",
    ] {
        let cleaned = make("striped.h5", "", &format!("[[recipe.ct.volume.stripes]]\n{stripes}"));
        better(&cleaned, &striped, &clean, "0.8");
    }

    let struck = make("struck.h5", "", "");
    let zingers = "[recipe.ct.correct.zingers]\nthreshold = 0.3\nsize_px = 2\n";
    let cleaned = make("struck.h5", "", zingers);
    better(&cleaned, &struck, &clean, "0.3");
    let (status, said) = complaint(&replay(&folder, "struck.h5", "", &zingers.replace("0.3", "0.0")));
    assert!(status == 2 && said.contains("threshold"), "{said}");

    let taken = "as_taken = true\n";
    let timed = make("drifting.nxs", taken, "");
    println!(
        "{}",
        check(&python, "tomography.py", &["disc", volume(&timed), "1", "0.02"])
    );
    let mean = make("drifting.nxs", taken, "[recipe.ct.correct]\ninterpolate = false\n");
    better(&timed, &mean, &clean, "0.2");

    let sloped = "[recipe.ct.volume]\nmethod = \"sloped\"\niterations = 30\n";
    let made = make("sloped.h5", "", sloped);
    println!(
        "{}",
        check(&python, "tomography.py", &["disc", volume(&made), "1", "0.05"])
    );
    let (status, said) = complaint(&replay(&folder, "clean.h5", "", sloped));
    assert!(status == 2 && said.contains("multiple of 4"), "{said}");
}

#[test]
fn slices_are_oblique_or_of_the_last_half_turn_and_change_while_the_scan_runs() {
    let test = "slices_are_oblique_or_of_the_last_half_turn_and_change_while_the_scan_runs";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source =
        SCAN.replace("rate_hz = 0.0", "rate_hz = 100.0") + "rows = 20\ncolumns = 64\nframes = 240\nrange_deg = 360.0\n";
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n\
                  [recipe.ct.backproject]\noblique = true\nrow = 10\noblique_tilt_deg = 30.0\n";
    let config = configuration(&folder, &source, recipe);
    let server = Server::start(Path::new(&config));
    let put = |name: &str, value: f64| {
        let answer = server.put(
            &format!("/api/v1/parameters/backproject.{name}"),
            &object!({ "value": value }),
        );
        assert_eq!(answer.0, 200, "{name}: {}", answer.1);
    };
    let scan = |name: &str, changes: &[(&str, f64)]| {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
        assert_eq!(status, 201, "{armed}");
        server.wait("/api/v1/status", |status| {
            status["analysis"]["done"].as_u64() > Some(30)
        });
        changes.iter().for_each(|(name, value)| put(name, *value));
        let path = format!("/api/v1/runs/{name}");
        let run = server.wait(&path, |run| !run["summary"].is_null());
        run["summary"].clone()
    };
    let used = |summary: &Value| -> Vec<u64> {
        let images = summary["results"]["images"].as_array().expect("pictures").iter();
        images
            .map(|image| image["frames_used"].as_u64().expect("a number"))
            .collect()
    };
    let flat = scan("flat", &[("oblique_tilt_deg", 0.0), ("oblique_offset_px", 0.5)]);
    assert_eq!(used(&flat), [240; 4], "{flat}");
    println!("{}", check(&python, "tomography.py", &["oblique", master(&flat), "xy"]));
    let upright = scan("upright", &[("oblique_tilt_deg", 90.0), ("oblique_offset_px", 0.0)]);
    println!(
        "{}",
        check(&python, "tomography.py", &["oblique", master(&upright), "xz"])
    );
    let late = scan("late", &[("window_deg", 180.0)]);
    assert_eq!(used(&late), [120; 4], "{late}");
    println!(
        "{}",
        check(
            &python,
            "tomography.py",
            &["window", master(&late), "10", "33.0", "120"]
        )
    );
    // No memory for the last projections, no window, and what moves begins again.
    let (status, said) = complaint(&fluxline(&[
        "run",
        "--once",
        &configuration(
            &folder,
            &source,
            &format!("{recipe}window_deg = 180.0\nhistory_mib = 0\n"),
        ),
    ]));
    assert!(
        status == 2 && said.contains("history_mib = 0 holds 0 projections"),
        "{said}"
    );
}
