//! Grid scans through the built binary: crystals as SciPy finds them in the same scores, live, with frames that are lost, and
//! with positions that come by HTTP.

use fluxline_tests::{Server, check, complaint, fluxline, folder, json, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A scan of 1.5 as many columns as rows.
fn scan(seed: u64, order: &str, fast_axis: &str, frames_per_box: u64, layers: u64) -> Value {
    object!({ "columns": 15, "rows": 10, "layers": layers, "order": order, "fast_axis": fast_axis,
        "frames_per_box": frames_per_box, "score": "spots", "min_score": 3.0, "seed": seed })
}

/// The recipe of a scan; `more` are lines of its table.
fn recipe(scan: &Value, more: &str) -> String {
    let operations = match scan["score"].as_str() {
        Some("sum") => "\"statistics\", \"grid\"",
        _ => "\"statistics\", \"spots\", \"grid\"",
    };
    let keys = [
        "columns",
        "rows",
        "layers",
        "order",
        "fast_axis",
        "frames_per_box",
        "score",
    ];
    let lines: String = keys.iter().map(|key| format!("{key} = {}\n", scan[*key])).collect();
    format!(
        "[recipe.grid]\ntechnique = \"diffraction\"\noperations = [{operations}]\n[recipe.grid.grid]\n{lines}min_score = {:?}\n{more}",
        scan["min_score"].as_f64().expect("a number")
    )
}

/// `wait_s` is how long the run's end waits for positions that come by HTTP.
fn configuration(folder: &Path, wait_s: f64, faults: &str, recipe: &str) -> PathBuf {
    let text = format!(
        "[run]\nmetadata_wait_s = {wait_s:?}\n[ring]\nslots = 32\nallow_transparent = true\n[[source]]\nkind = \"replay\"\n\
         path = \"{}\"\nrate_hz = 200.0\n{faults}\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        text(&folder.join("scan.h5")),
        text(&folder.join("store"))
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn folder_of(summary: &Value) -> String {
    let master = summary["files"][0].as_str().expect("a master file");
    text(Path::new(master).parent().expect("its folder"))
}

#[test]
fn crystals_of_a_grid_are_those_of_scipy() {
    let test = "crystals_of_a_grid_are_those_of_scipy";
    let Some(python) = python(test) else { return };
    let step = object!([0.02, -0.015]);
    let mut with_mm = scan(2, "snake", "columns", 1, 0);
    with_mm["step_mm"] = step;
    with_mm["origin_mm"] = object!([1.5, -0.25]);
    let mut intensity = scan(5, "snake", "columns", 1, 0);
    intensity["score"] = "sum".into();
    intensity["min_score"] = 4600.0.into();
    let scans = [
        (scan(1, "raster", "columns", 1, 0), String::new()),
        (with_mm, "step_mm = [0.02, -0.015]\norigin_mm = [1.5, -0.25]\n".into()),
        (scan(3, "snake", "rows", 2, 0), String::new()),
        (scan(4, "snake", "columns", 1, 8), String::new()),
        (scan(6, "raster", "rows", 1, 6), String::new()),
        (intensity, String::new()),
    ];
    for (at, (scan, more)) in scans.iter().enumerate() {
        let folder = folder(&format!("{test}-{at}"));
        check(&python, "grid_check.py", &["make", &text(&folder), &scan.to_string()]);
        let config = configuration(&folder, 0.0, "", &recipe(scan, more));
        let file = text(&folder.join("scan.h5"));
        let summary = json(&fluxline(&["replay", &file, "--config", &text(&config), "--json"]));
        let said = check(
            &python,
            "grid_check.py",
            &["crystals", &folder_of(&summary), &scan.to_string()],
        );
        assert!(summary["results"]["found"]["grid"]["complete"] == true, "{summary}");
        println!("{} {}", scan, said.trim());
        if at == 3 {
            let master = summary["files"][0].as_str().expect("a master file");
            check(&python, "check_nexus.py", &["validate", "NXmx", master]);
        }
    }
}

#[test]
fn a_grid_answers_while_it_is_measured_and_says_which_boxes_have_no_score() {
    let test = "a_grid_answers_while_it_is_measured_and_says_which_boxes_have_no_score";
    let Some(python) = python(test) else { return };
    let folder = folder("grid-live");
    let mut scan = scan(7, "snake", "columns", 1, 8);
    scan["step_mm"] = object!([0.02, 0.02, 0.02]);
    scan["origin_mm"] = object!([0.0, 1.0, -1.0]);
    scan["positions"] = object!(["x", "y", "z"]);
    check(&python, "grid_check.py", &["make", &text(&folder), &scan.to_string()]);
    let told = "positions = [\"x\", \"y\", \"z\"]\npositions_in = \"mm\"\nstep_mm = [0.02, 0.02, 0.02]\n\
                origin_mm = [0.0, 1.0, -1.0]\n";
    let faults = "[source.faults]\nseed = 4\ndrop = 0.04\n";
    let config = configuration(&folder, 60.0, faults, &recipe(&scan, told));
    // Slowly: the positions must be here before the frames that they are of are over.
    let slow = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, slow.replace("rate_hz = 200.0", "rate_hz = 30.0")).expect("a configuration");
    let server = Server::start(&config);
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "grid" }));
    assert_eq!(status, 201, "{armed}");
    let (mut socket, _) = tungstenite::connect(format!(
        "{}/api/v1/runs/grid/results?policy=lossless&from=0",
        server.url.replace("http", "ws")
    ))
    .expect("a WebSocket");
    // The first sweep is told at once, the second one when every frame has come; no frame lies where its number says.
    let frames: Vec<u64> = (0..150).collect();
    let place = |frame: u64, boxes: u64| (frame * 7 % (15 * boxes)) as f64;
    let x = |frame: u64, boxes: u64| 0.02 * (place(frame, boxes) % 15.0);
    let line = |frame: u64, boxes: u64| 0.02 * (place(frame, boxes) / 15.0).floor();
    let post = |body: Value| {
        let (status, answer) = server.post("/api/v1/runs/grid/frame-metadata", &body);
        assert_eq!(status, 200, "{answer}");
    };
    post(object!({ "frame_numbers": frames, "values": {
        "x": frames.iter().map(|frame| x(*frame, 10)).collect::<Vec<_>>(),
        "y": frames.iter().map(|frame| 1.0 + line(*frame, 10)).collect::<Vec<_>>() } }));
    let placed = loop {
        let message = socket.read().expect("a result");
        let result: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        if !result["grid"]["voxel"].is_null() && result["grid"]["so_far"]["boxes_scored"] != 0 {
            break result;
        }
    };
    let frame = placed["frame_number"].as_u64().expect("a number");
    let index = frame * 7 % 150;
    assert_eq!(placed["grid"]["voxel"], object!([index % 15, index / 15]), "{placed}");
    assert_eq!(placed["grid"]["sweep"], 1);
    drop(socket);
    server.wait("/api/v1/runs/grid", |run| run["state"] == "finishing");
    let half = server.get("/api/v1/runs/grid/grid");
    assert_eq!(
        (&half["boxes"], &half["complete"]),
        (&object!(270), &object!(false)),
        "{half}"
    );
    assert!(half["frames_outside"].as_u64().expect("a number") > 50, "{half}");
    let second: Vec<u64> = (150..270).collect();
    post(object!({ "frame_numbers": second, "last": true, "values": {
        "x": second.iter().map(|frame| x(*frame - 150, 8)).collect::<Vec<_>>(),
        "z": second.iter().map(|frame| -1.0 + line(*frame - 150, 8)).collect::<Vec<_>>() } }));
    let run = server.wait("/api/v1/runs/grid", |run| !run["summary"].is_null());
    let (summary, lost) = (&run["summary"], run["frames"]["lost"].as_u64().expect("a number"));
    assert!(lost > 0, "the faults lose frames: {run}");
    let answer = server.get("/api/v1/runs/grid/grid");
    assert_eq!(answer, summary["results"]["found"]["grid"]);
    // Every frame has a box of its own.
    assert_eq!(answer["boxes_without_score"], lost, "{answer}");
    let said = summary["warnings"].to_string();
    assert!(
        said.contains(&format!("{lost} of 270 boxes of the grid have no score")),
        "{said}"
    );
    let pictures = server.get("/api/v1/runs/grid/slices").to_string();
    assert!(pictures.contains("grid_score_2"), "{pictures}");
    check(
        &python,
        "grid_check.py",
        &["crystals", &folder_of(summary), &scan.to_string()],
    );
    // The closed run answers the same when another one has taken its place in memory.
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "next" }));
    assert_eq!(status, 201, "{armed}");
    assert_eq!(server.get("/api/v1/runs/grid/grid"), answer);
}

#[test]
fn a_grid_that_cannot_be_is_refused_with_key_and_what_was_expected() {
    let folder = folder("grid-refused");
    let base = "[recipe.grid]\ntechnique = \"diffraction\"\n";
    for (operations, table, said) in [
        ("[\"spots\", \"grid\"]", "rows = 3\n", "recipe.grid.grid.columns"),
        (
            "[\"spots\", \"grid\"]",
            "rows = 3\ncolumns = 4\norder = \"zigzag\"\n",
            "\"raster\" or \"snake\"",
        ),
        (
            "[\"spots\", \"grid\"]",
            "rows = 3\ncolumns = 4\nstep_mm = [0.1]\n",
            "2 numbers",
        ),
        (
            "[\"spots\", \"grid\"]",
            "rows = 3\ncolumns = 4\npositions = [\"x\"]\n",
            "2 names",
        ),
        (
            "[\"spots\", \"grid\"]",
            "rows = 3\ncolumns = 4\npositions = [\"x\", \"y\"]\npositions_in = \"mm\"\n",
            "step_mm",
        ),
        ("[\"spots\", \"grid\"]", "rows = 30000\ncolumns = 40000\n", "boxes"),
    ] {
        let recipe = format!("{base}operations = {operations}\n[recipe.grid.grid]\n{table}");
        let config = configuration(&folder, 0.0, "", &recipe);
        let (status, complaint) = complaint(&fluxline(&["validate", &text(&config)]));
        assert!(status == 2 && complaint.contains(said), "{status} {complaint}");
    }
    // A score that no operation makes is known when the run is armed.
    let file = text(&folder.join("frames.h5"));
    let recipe = format!("{base}operations = [\"statistics\", \"grid\"]\n[recipe.grid.grid]\nrows = 1\ncolumns = 5\n");
    let source = "[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"pattern\"\n\
                  rows = 16\ncolumns = 16\nframes = 5\n";
    let config = format!("{source}[store]\npath = \"{file}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}");
    let path = folder.join("simulated.toml");
    std::fs::write(&path, config).expect("a configuration");
    let server = Server::start(&path);
    let (status, answer) = server.post("/api/v1/runs", &object!({ "name": "none" }));
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(
        status == 422 && message.contains("saturated_pixels"),
        "{status} {answer}"
    );
}
