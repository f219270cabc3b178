//! What the page draws and lets people save: spots of a frame, the newest hit, pixels as TIFF, curves as tables, files, and
//! where pixels are. Read back by NumPy, h5py, tifffile and pyFAI.

use fluxline_tests::{Server, check, folder, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// With all three rotations, so that no mistake of sign or order hides.
const PONI: &str = "poni_version: 2.1\nDetector: Detector\nDetector_config: {\"pixel1\": 7.5e-05, \"pixel2\": 7.5e-05, \
                    \"max_shape\": [240, 300], \"orientation\": 3}\nDistance: 0.12\nPoni1: 0.011\nPoni2: 0.009\nRot1: 0.11\n\
                    Rot2: -0.07\nRot3: 0.3\nWavelength: 1.0e-10\n";

fn configuration(folder: &Path) -> PathBuf {
    std::fs::write(folder.join("detector.poni"), PONI).expect("a poni");
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\nrows = 240\ncolumns = 300\nframes = 40\nrate_hz = 40.0\ndistinct = 8\n\
         [store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.crystals]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"spots\", \"hits\", \"azimuthal\"]\n\
         [recipe.crystals.hits]\nmin_spots = 67\n[recipe.crystals.azimuthal]\nbins = 100\nponi = \"detector.poni\"\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// Frames that the finished run calls hits, by its own spots.
fn hits(server: &Server, run: &str) -> Vec<u64> {
    let frames = 0..40;
    let hit = |frame: &u64| server.get(&format!("/api/v1/runs/{run}/spots/{frame}"))["hit"] == true;
    frames.filter(hit).collect()
}

/// Asks until there is an answer: what has not come yet is told as 425.
fn once_there(server: &Server, path: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let (status, body) = server.try_get(path);
        if status == 200 {
            return body;
        }
        assert!(status == 425 && Instant::now() < end, "{path}: {status} {body}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_page_draws_and_saves_is_what_independent_programs_read() {
    let test = "what_the_page_draws_and_saves_is_what_independent_programs_read";
    let folder = folder("page-data");
    let server = Server::start(&configuration(&folder));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "first" }));
    assert_eq!(status, 201, "{armed}");
    // While it records there is a newest hit as soon as there is one at all, with its spots.
    let seen = once_there(&server, "/api/v1/runs/first/frames/hit.json");
    let number = seen["frame_number"].as_u64().expect("a number");
    let spots = once_there(&server, &format!("/api/v1/runs/first/spots/{number}"));
    assert_eq!(
        (&spots["hit"], &spots["frame_number"]),
        (&object!(true), &object!(number)),
        "{spots}"
    );
    assert!(spots["spots"].as_array().is_some_and(|list| list.len() >= 3), "{spots}");
    server.wait("/api/v1/runs/first", |run| !run["summary"].is_null());
    let in_memory = hits(&server, "first");
    assert!(in_memory.contains(&number) && in_memory.len() < 40, "{in_memory:?}");
    let newest = |server: &Server| server.get("/api/v1/runs/first/frames/hit.json")["frame_number"].clone();
    assert_eq!(newest(&server), object!(in_memory.last()));
    // Another run takes its place in memory: the files say the same.
    let (status, _) = server.post("/api/v1/runs", &object!({ "name": "second" }));
    assert_eq!(status, 201);
    server.wait("/api/v1/runs/second", |run| !run["summary"].is_null());
    assert_eq!(hits(&server, "first"), in_memory);
    assert_eq!(newest(&server), object!(in_memory.last()));
    assert_eq!(server.get(&format!("/api/v1/runs/first/spots/{number}")), spots);

    let refused = |path: &str| server.try_get(&format!("/api/v1/runs/first/{path}")).0;
    assert_eq!(refused("spots/4000"), 404);
    assert_eq!(refused("spots/none"), 400);
    assert_eq!(refused("files/other.h5"), 404);
    assert_eq!(refused("files/..%2Frun.json"), 404);
    assert_eq!(refused("frames/3.gif"), 400);

    let saved = |path: &str, name: &str| {
        let bytes = server.bytes(&format!("/api/v1/runs/first/{path}"));
        std::fs::write(folder.join(name), bytes).expect("a file");
    };
    let detail = server.get("/api/v1/runs/first");
    for file in detail["record"]["files"].as_array().expect("files") {
        let name = file["name"].as_str().expect("a name");
        saved(&format!("files/{name}"), name);
        let bytes = std::fs::metadata(folder.join(name)).expect("it is there").len();
        assert_eq!(object!(bytes), file["bytes"], "{name}");
    }
    saved(&format!("frames/{number}.tiff"), "frame.tiff");
    saved("profiles/sum.csv", "mean.csv");
    saved(&format!("profiles/{number}.csv"), "curve.csv");
    let parameters: &Value = &detail["record"]["parameters"];
    let facts = object!({ "frame": number, "spots": spots, "geometry": parameters["geometry"] });
    std::fs::write(folder.join("facts.json"), facts.to_string()).expect("facts");
    let Some(python) = python(test) else { return };
    let said = check(&python, "page_data.py", &[&folder.display().to_string()]);
    assert!(said.contains("same"), "{said}");
}
