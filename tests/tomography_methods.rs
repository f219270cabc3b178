//! Methods of the whole volume, preparation and live slices of a tomography through the built binary; checked by an
//! independent program.

use fluxline_tests::scans::{REPLAY, VOLUME, configuration, master, once, text, volume};
use fluxline_tests::{Server, check, complaint, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::Path;

const SCAN: &str = "kind = \"simulate\"\nscene = \"tomography\"\nrate_hz = 0.0\nrotation_axis_px = 33.0\n";

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
    let plain = once(&config);
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
fn auto_is_the_fourier_method_from_where_it_is_faster() {
    let test = "auto_is_the_fourier_method_from_where_it_is_faster";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let scan = SCAN.replace("33.0", "320.0");
    let made = |frames: usize| {
        let source = format!("{scan}rows = 16\ncolumns = 640\nframes = {frames}\n");
        let config = configuration(
            &folder,
            &source,
            &format!("{VOLUME}[recipe.ct.volume]\nmethod = \"auto\"\n"),
        );
        (once(&config), config)
    };
    let (below, _) = made(171);
    assert_eq!(below["derived"]["results"]["method"], "backprojection");
    let (above, config) = made(172);
    assert_eq!(above["derived"]["results"]["method"], "gridrec");
    let run = text(&above["run"], "a run");
    let set = "volume.method=backprojection";
    let other = json(&fluxline(&[
        "reprocess",
        run,
        "--config",
        &config,
        "--json",
        "--set",
        set,
    ]));
    let arguments = ["method", volume(&above), volume(&other), "gridrec", "0.02"];
    println!("{}", check(&python, "tomography.py", &arguments));
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
    // Flats behind projections are not known while these come: such a volume is made from the files.
    let files = "[recipe.ct.correct]\ninterpolate = false\n[recipe.ct.volume]\nwhile_recording = false\n";
    let files = make("drifting.nxs", taken, files);
    check(&python, "tomography.py", &["equal", volume(&mean), volume(&files)]);

    let sloped = "[recipe.ct.volume]\nmethod = \"sloped\"\niterations = 30\n";
    let made = make("sloped.h5", "", sloped);
    println!(
        "{}",
        check(&python, "tomography.py", &["disc", volume(&made), "1", "0.05"])
    );
    let (status, said) = complaint(&replay(&folder, "clean.h5", "", sloped));
    assert!(status == 2 && said.contains("multiple of 4"), "{said}");

    // Columns that are dead, filled from beside them or left empty.
    let made = [4, 0].map(|reach| {
        let correct = format!("[recipe.ct.correct]\nmask = \"mask.npy\"\nbad_pixels_px = {reach}\n");
        make("dead.h5", "", &correct)
    });
    better(&made[0], &made[1], &clean, "0.05");

    // Projections and a flat that lack their lower rows: of no use there, live, in the volume, and again from the store.
    let made = make("partial.nxs", "", "[recipe.ct.backproject]\nrow = 1\n");
    assert_eq!(
        (&made["frames"]["partial"], &made["frames"]["lost"]),
        (&object!(7), &object!(0)),
        "{made}"
    );
    assert_eq!(made["results"]["images"][0]["frames_used"], 84, "{made}");
    assert_eq!(made["derived"]["results"]["projections_used"], 84, "{made}");
    assert!(
        made["derived"]["results"]["warnings"]
            .to_string()
            .contains("7 frames lack parts"),
        "{made}"
    );
    println!(
        "partial{}",
        check(&python, "tomography.py", &["disc", volume(&made), "1", "0.02"])
    );

    // With the axis near the edge, and every method.
    let half = "[recipe.ct.backproject]\nhalf_acquisition = true\nrotation_axis_px = 14.0\n";
    for (file, method, tolerance) in [
        ("edge.h5", "method = \"backprojection\"\n", "0.02"),
        ("edge.h5", "method = \"sirt\"\n", "0.05"),
        ("edge.h5", "method = \"cgls\"\n", "0.05"),
        ("edge_sloped.h5", "method = \"sloped\"\niterations = 30\n", "0.05"),
    ] {
        let made = make(file, "", &format!("{half}[recipe.ct.volume]\n{method}"));
        println!(
            "{method}{}",
            check(&python, "tomography.py", &["disc", volume(&made), "1", tolerance])
        );
    }
    let (status, said) = complaint(&replay(&folder, "edge.h5", "", &format!("{half}{sloped}")));
    assert!(status == 2 && said.contains("multiple of 4"), "{said}");
}

#[test]
fn stripes_leave_live_slices_where_that_is_asked_for() {
    let test = "stripes_leave_live_slices_where_that_is_asked_for";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "tomography.py", &["prepared", &folder.display().to_string()]);
    let make = |file: &str, more: &str| {
        json(&replay(
            &folder,
            file,
            "",
            &format!("[recipe.ct.backproject]\nrow = 1\n{more}"),
        ))
    };
    let (clean, striped) = (make("clean.h5", ""), make("striped.h5", ""));
    let cleaned = make("striped.h5", "stripes_px = 11\n");
    let arguments = ["stripes", master(&cleaned), "1", "31.5", "11"];
    println!("{}", check(&python, "tomography.py", &arguments));
    let arguments = ["better_live", master(&cleaned), master(&striped), master(&clean), "0.8"];
    println!("{}", check(&python, "tomography.py", &arguments));
    // The stripes of what is not kept are not known, nor are those of a few projections.
    let (status, said) = complaint(&replay(
        &folder,
        "striped.h5",
        "",
        "[recipe.ct.backproject]\nstripes_px = 11\nhistory_mib = 0\n",
    ));
    assert!(
        status == 2 && said.contains("history_mib = 0 holds 0 projections"),
        "{said}"
    );

    let source =
        SCAN.replace("rate_hz = 0.0", "rate_hz = 25.0") + "rows = 20\ncolumns = 64\nframes = 240\nrange_deg = 360.0\n";
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n\
                  [recipe.ct.backproject]\nrow = 10\n";
    let server = Server::start(Path::new(&configuration(&folder, &source, recipe)));
    let scan = |name: &str, changes: &[(&str, f64)]| {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name }));
        assert_eq!(status, 201, "{armed}");
        for (number, (change, value)) in changes.iter().enumerate() {
            server.wait("/api/v1/status", |status| {
                let of_this_run = status["run"]["id"] == name;
                of_this_run && status["analysis"]["done"].as_u64() > Some(30 + 30 * number as u64)
            });
            let answer = server.put(
                &format!("/api/v1/parameters/backproject.{change}"),
                &object!({ "value": value }),
            );
            assert_eq!(answer.0, 200, "{change}: {}", answer.1);
        }
        let run = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
        run["summary"].clone()
    };
    let on = scan("on", &[("stripes_px", 15.0)]);
    assert_eq!(on["results"]["images"][0]["frames_used"], 240, "{on}");
    assert_eq!(
        on["results"]["parameters_changed"],
        object!({ "backproject.stripes_px": 15 })
    );
    let arguments = ["stripes", master(&on), "10", "33.0", "15"];
    println!("{}", check(&python, "tomography.py", &arguments));
    let off = scan("off", &[("stripes_px", 15.0), ("stripes_px", 0.0)]);
    let arguments = ["stripes", master(&off), "10", "33.0", "0"];
    println!("{}", check(&python, "tomography.py", &arguments));
    let late = scan("late", &[("window_deg", 180.0), ("stripes_px", 15.0)]);
    assert_eq!(late["results"]["images"][0]["frames_used"], 120, "{late}");
    let arguments = ["stripes", master(&late), "10", "33.0", "15", "120"];
    println!("{}", check(&python, "tomography.py", &arguments));
}

#[test]
fn slices_are_oblique_or_of_the_last_half_turn_and_change_while_the_scan_runs() {
    let test = "slices_are_oblique_or_of_the_last_half_turn_and_change_while_the_scan_runs";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let source =
        SCAN.replace("rate_hz = 0.0", "rate_hz = 25.0") + "rows = 20\ncolumns = 64\nframes = 240\nrange_deg = 360.0\n";
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
