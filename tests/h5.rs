//! Files of closed runs over HTTP as h5web asks for them, beside h5py; and nothing that is not a closed run's.

use fluxline_tests::{Server, check, folder, python};
use serde_json::{Value, json as object};
use std::path::Path;

/// A run of 600 frames of a million pixels, more than one answer may decode, and a small one of every kind of dataset.
fn configuration(folder: &Path) -> std::path::PathBuf {
    let text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\ndetector = \"custom\"\nrows = 1024\ncolumns = 1024\n\
         frames = 540\nrate_hz = 0.0\n\
         [recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
         [recipe.powder.azimuthal]\nbins = 100\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    config
}

#[test]
fn files_of_closed_runs_are_read_object_by_object_as_h5py_reads_them() {
    let test = "h5";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let server = Server::start(&configuration(&folder));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "looked-at" }));
    assert_eq!(status, 201, "{armed}");
    // A run that records has no files yet.
    let meta = "/api/v1/runs/looked-at/h5/meta?file=looked-at_master.h5";
    let early = server.try_get(meta).0;
    assert!(early == 404 || early == 200, "{early}");
    // A gigabyte: a slow machine needs more than a minute.
    let (_, detail) = (0..10)
        .map(|_| server.try_get("/api/v1/runs/looked-at?timeout_s=60"))
        .find(|(status, _)| *status == 200)
        .expect("the end");
    let run = detail["record"]["folder"].as_str().map_or_else(
        || {
            let file = detail["summary"]["files"][0].as_str().expect("a file");
            Path::new(file).parent().expect("a folder").to_path_buf()
        },
        std::path::PathBuf::from,
    );
    server.wait("/api/v1/runs", |list| list["runs"][0]["store_state"] == "closed");
    println!(
        "{}",
        check(
            &python,
            "h5_routes.py",
            &[&server.url, "looked-at", &run.display().to_string()]
        )
        .trim()
    );
    // Beside the run's own files there is nothing, whatever lies in its folder or is linked from it.
    let secret = folder.join("secret.h5");
    std::fs::copy(run.join("looked-at_master.h5"), &secret).expect("a copy");
    std::os::unix::fs::symlink(&secret, run.join("linked.h5")).expect("a link");
    for file in ["linked.h5", "../../../secret.h5", "..%2F..%2F..%2Fsecret.h5"] {
        let (status, said) = server.try_get(&format!("/api/v1/runs/looked-at/h5/meta?file={file}"));
        assert_eq!(status, 404, "{said}");
    }
    // A listed file that was exchanged for a link out of the store is not followed.
    let data = run.join("looked-at_master.h5");
    std::fs::rename(&data, run.join("kept")).expect("renamed");
    std::os::unix::fs::symlink(&secret, &data).expect("a link");
    let (status, said): (u16, Value) = server.try_get(meta);
    assert!(
        status == 404 && said["message"].as_str().is_some_and(|m| m.contains("outside")),
        "{said}"
    );
}
