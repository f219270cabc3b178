//! Sparse frames through the built binary: what is kept is exact, the rest is the background, and h5py, FabIO and the
//! appliance itself read the same dense frames.

use fluxline_tests::{Server, check, complaint, fluxline, folder, json, python};
use serde_json::json as object;
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn kept_pixels_are_exact_and_the_rest_is_the_background() {
    let test = "kept_pixels_are_exact_and_the_rest_is_the_background";
    let Some(python) = python(test) else { return };
    let folder = folder("sparse");
    check(&python, "sparse_check.py", &["make", &text(&folder)]);
    let store = text(&folder.join("store"));
    for (pixel_type, more) in [
        ("u1", "border_px = 0\n"),
        ("i2", "border_px = 0\n"),
        ("u2", "border_px = 0\n"),
        ("u4", ""),
        ("i4", "noise = 0.0\n"),
        ("f4", "bins = 300\n"),
    ] {
        let file = text(&folder.join(format!("{pixel_type}.h5")));
        let config = folder.join(format!("{pixel_type}.toml"));
        let configuration = format!(
            "[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = \"replay\"\npath = \"none\"\n\
             [store]\npath = \"{store}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.small]\n\
             technique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"sparse\"]\n\
             [recipe.small.correct]\nsaturation = 30000.0\n[recipe.small.sparse]\nponi = \"{}\"\npolarization = 0.9\n{more}",
            text(&folder.join("beam.poni"))
        );
        std::fs::write(&config, configuration).expect("a configuration");
        let summary = json(&fluxline(&["replay", &file, "--config", &text(&config), "--json"]));
        let derived = &summary["derived"];
        assert_eq!(derived["state"], "complete", "{summary}");
        assert_eq!(derived["results"]["frames_stored"], 5, "{derived}");
        let master = derived["results"]["files"][0].as_str().expect("a file");
        let said = check(&python, "sparse_check.py", &["check", master, &file]);
        println!("{pixel_type} {}", said.trim());
        // The appliance reads the derived run as frames.
        if pixel_type == "u2" {
            let server = Server::start(&config);
            let id = derived["run"].as_str().expect("a name");
            let frame = server.bytes(&format!("/api/v1/runs/{id}/frames/3.npy"));
            let path = folder.join("frame.npy");
            std::fs::write(&path, frame).expect("a file");
            check(&python, "sparse_check.py", &["same", master, "3", &text(&path)]);
            let detail = server.get(&format!("/api/v1/runs/{id}"));
            assert!(detail["warnings"].to_string().contains("lossy"), "{detail}");
            assert_eq!(detail["record"]["metadata"]["derived_from"], summary["run"]);
        }
    }
}

#[test]
fn sparse_frames_are_never_made_unasked_and_not_of_words() {
    let folder = folder("sparse-refused");
    let config = |operations: &str| {
        let path = folder.join("fluxline.toml");
        let text = format!(
            "[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nframes = 5\n[store]\npath = \"{}\"\n\
             [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.small]\ntechnique = \"diffraction\"\noperations = {operations}\n",
            text(&folder.join("store"))
        );
        std::fs::write(&path, text).expect("a configuration");
        path
    };
    let path = config("[\"gain\", \"statistics\", \"sparse\"]");
    let (status, said) = complaint(&fluxline(&["validate", &text(&path)]));
    assert!(status == 2 && said.contains("\"sparse\" keeps stored pixels"), "{said}");
    let path = config("[\"statistics\"]");
    let once = json(&fluxline(&["run", "--once", &text(&path), "--json"]));
    assert_eq!(once["derived"], object!(null), "{once}");
}
