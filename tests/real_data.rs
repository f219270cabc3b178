//! Real detector data through the built binary: source, ring, kernels, store; checked by independent programs.

use fluxline_tests::{check, data, fluxline, folder, json, python};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Replays a file with a recipe and returns the summary and the run's folder.
fn replay(folder: &Path, file: &Path, recipe: &str, more: &[&str]) -> (Value, PathBuf) {
    let config = folder.join("replay.toml");
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"replay\"\npath = \"none\"\nrange_deg = 180.0\n[store]\npath = \"{}\"\n{recipe}",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("a configuration");
    let (file, config) = (file.display().to_string(), config.display().to_string());
    let mut arguments = vec!["replay", &file, "--config", &config, "--json"];
    arguments.extend(more);
    let summary = json(&fluxline(&arguments));
    let master = summary["files"][0].as_str().expect("a master file").to_string();
    let run = Path::new(&master).parent().expect("its folder").to_path_buf();
    (summary, run)
}

/// The master file of a run's folder.
fn master(run: &Path) -> String {
    let name = run.file_name().expect("a name").to_string_lossy();
    text(&run.join(format!("{name}_master.h5")))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

const POWDER: &str = "[recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
                      [recipe.powder.azimuthal]\nbins = 1500\nunit = \"2th_deg\"\n";

#[test]
fn a_tooth_is_a_tooth() {
    let test = "a_tooth_is_a_tooth";
    let (Some(python), Some(tooth)) = (python(test), data(test, "ct-tooth/tooth.h5")) else {
        return;
    };
    let folder = folder(test);
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n\
                  [recipe.ct.backproject]\nrotation_axis_px = 295.5\nrows = [0, 1]\n";
    let (summary, run) = replay(&folder, &tooth, recipe, &[]);
    assert_eq!(summary["state"], "complete");
    assert_eq!(summary["frames"]["complete"], 201);
    assert_eq!(summary["frames"]["lost"], 0);
    assert_eq!(summary["results"]["images"][0]["frames_used"], 181);
    let picture = folder.join("tooth.png");
    println!(
        "{}",
        check(
            &python,
            "real_data.py",
            &["tooth", &text(&tooth), &text(&run), "295.5", &text(&picture)]
        )
    );
}

#[test]
fn ceo2_integrates_as_pyfai_does() {
    let test = "ceo2_integrates_as_pyfai_does";
    let (Some(python), Some(tif)) = (python(test), data(test, "pw-ceo2-dioptas/CeO2_Pilatus1M.tif.gz")) else {
        return;
    };
    let folder = folder(test);
    let beside = |name: &str| text(&tif.with_file_name(name));
    check(
        &python,
        "real_data.py",
        &[
            "ceo2_prepare",
            &text(&tif),
            &beside("CeO2_Pilatus1M.poni"),
            &text(&folder),
        ],
    );
    let recipe = format!("{POWDER}poni = \"ceo2.poni\"\n[recipe.powder.correct]\nmask = \"mask.npy\"\n");
    let (summary, run) = replay(&folder, &folder.join("ceo2.tif"), &recipe, &[]);
    assert_eq!(summary["frames"]["complete"], 1);
    println!(
        "{}",
        check(
            &python,
            "real_data.py",
            &["ceo2", &text(&folder), &text(&run), &beside("CeO2_Pilatus1M.xy")]
        )
    );
}

#[test]
fn a_recorded_stream_goes_through_compressed() {
    let test = "a_recorded_stream_goes_through_compressed";
    let (Some(python), Some(messages)) = (python(test), data(test, "wire-dectris-v2/msgs")) else {
        return;
    };
    let folder = folder(test);
    check(
        &python,
        "real_data.py",
        &["nxmx_make", &text(&messages), &text(&folder)],
    );
    let file = folder.join("stream.h5");
    let (summary, run) = replay(&folder, &file, POWDER, &[]);
    assert_eq!(summary["frames"]["complete"], 10);
    println!(
        "{}",
        check(
            &python,
            "real_data.py",
            &["equal", &text(&run), "hdf5", &text(&file), "entry/data/data"]
        )
    );
    println!(
        "{}",
        check(&python, "check_nexus.py", &["validate", "NXmx", &master(&run)])
    );
}

#[test]
fn a_cbf_and_a_tiff_series_keep_their_pixels() {
    let test = "a_cbf_and_a_tiff_series_keep_their_pixels";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    check(&python, "real_data.py", &["tiff_make", &text(&folder)]);
    let statistics = "[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";
    let first = folder.join("scan_008.tif");
    let (summary, run) = replay(&folder, &first, statistics, &["--name", "tiff"]);
    assert_eq!(summary["frames"]["complete"], 7);
    let files: Vec<String> = (8..15)
        .map(|n| text(&folder.join(format!("scan_{n:03}.tif"))))
        .collect();
    let run = text(&run);
    let mut arguments = vec!["equal", run.as_str(), "fabio"];
    arguments.extend(files.iter().map(String::as_str));
    println!("{}", check(&python, "real_data.py", &arguments));
    let Some(cbf) = data(test, "mx-thaumatin-grid/thau_3_2_0008.cbf.bz2") else {
        return;
    };
    let (summary, run) = replay(&folder, &cbf, POWDER, &["--name", "cbf"]);
    assert_eq!(summary["frames"]["complete"], 1);
    println!(
        "{}",
        check(&python, "real_data.py", &["equal", &text(&run), "fabio", &text(&cbf)])
    );
}

#[test]
fn an_nxtomo_with_an_external_link_is_replayed_in_order() {
    let test = "an_nxtomo_with_an_external_link_is_replayed_in_order";
    let (Some(python), Some(file)) = (python(test), data(test, "ct-format-httomo/k11-18014.nxs")) else {
        return;
    };
    let folder = folder(test);
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n";
    let (summary, run) = replay(&folder, &file, recipe, &[]);
    assert_eq!(summary["frames"]["complete"], 3201);
    assert_eq!(summary["results"]["images"][0]["frames_used"], 3001);
    println!(
        "{}",
        check(&python, "check_nexus.py", &["validate", "NXtomo", &master(&run)])
    );
}

/// DIALS imports a stored run and finds in it what it finds in the file that the detector wrote.
#[test]
fn dials_reads_a_stored_run() {
    let test = "dials_reads_a_stored_run";
    let root = fluxline_tests::workspace().join(".toolchain/dials");
    if !root.exists() {
        eprintln!("SKIPPED {test}: there is no {}; make dials unpacks it", root.display());
        return;
    }
    for file in [
        "mx-eiger-therm/dlsnxs2cbf_therm_0001.cbf.gz",
        "mx-pilatus-i03/DLS_I03_smargon_0001.cbf.gz",
        "mx-thaumatin-grid/thau_3_2_0001.cbf.bz2",
    ] {
        let (Some(python), Some(cbf)) = (python(test), data(test, file)) else {
            return;
        };
        let folder = folder(&format!("{test}-{}", file.len()));
        let recipe = "[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\", \"spots\"]\n";
        // Alone: beside its neighbours it would be replayed with them.
        let alone = folder.join(cbf.file_name().expect("a name"));
        std::fs::copy(&cbf, &alone).expect("a copy");
        let (_, run) = replay(&folder, &alone, recipe, &[]);
        let arguments = [&text(&root), &text(&cbf), &master(&run), &text(&folder)];
        println!(
            "{}",
            check(&python, "dials_files.py", &arguments.map(String::as_str)).trim()
        );
    }
}
