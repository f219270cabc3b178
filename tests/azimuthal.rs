//! Every mode of the azimuthal integration through the built binary: what is served and what is in the files, against pyFAI
//! on the same frames.

use fluxline_tests::{Server, check, folder, python};
use serde_json::{Value, json as object};

const MODES: [(&str, &str); 5] = [
    ("boxes", "bins = 200\nsplitting = \"bbox\"\nazimuthal_bins = 36\n"),
    (
        "polygons",
        "bins = 150\nunit = \"2th_deg\"\nsplitting = \"full\"\nerror_model = \"azimuthal\"\nazimuthal_bins = 24\n",
    ),
    (
        "part",
        "bins = 120\nunit = \"q_A^-1\"\nsplitting = \"full\"\nazimuthal_range = [-35.0, 80.0]\n",
    ),
    ("sector", "bins = 120\nazimuthal_range = [100.0, 250.0]\n"),
    (
        "spacings",
        "bins = 100\nunit = \"d_A\"\nrange = [4.0, 14.0]\nerror_model = \"hybrid\"\n\
         [recipe.spacings.azimuthal.sigma_clip]\ncutoff = 3.0\ncycles = 5\n",
    ),
];

/// What the run says of itself and of its pictures.
fn answers(server: &Server, run: &str, pictures: bool) -> Vec<Vec<u8>> {
    let mut paths = vec!["profiles/sum", "profiles/latest"];
    if pictures {
        paths.push("slices/intensity_2d.npy");
        paths.push("slices/intensity_2d.png");
    }
    let answer = |path: &&str| server.bytes(&format!("/api/v1/runs/{run}/{path}"));
    paths.iter().map(answer).collect()
}

#[test]
fn panels_that_lie_anywhere_agree_with_pyfai() {
    let test = "panels_that_lie_anywhere_agree_with_pyfai";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let at = folder.display().to_string();
    check(&python, "panels.py", &["prepare", &at]);
    let recipe = |name: &str, keys: &str| {
        format!(
            "[recipe.{name}]\ntechnique = \"diffraction\"\noperations = [\"azimuthal\"]\n[recipe.{name}.azimuthal]\n\
             poni = \"panels.poni\"\nsolid_angle = false\npolarization = 0.95\n{keys}"
        )
    };
    let text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = \"replay\"\npath = \"frames.h5\"\ndataset = \"/data\"\n\
         [store]\npath = \"{at}/store\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n{}{}",
        recipe("centres", "bins = 90\n"),
        recipe("polygons", "bins = 120\nsplitting = \"full\"\n")
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let arm = |name: &str| server.post("/api/v1/runs", &object!({ "name": name, "recipe": name }));
    for name in ["centres", "polygons"] {
        let (status, armed) = arm(name);
        assert_eq!(status, 201, "{armed}");
        let ended = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
        let master = ended["summary"]["files"][0].as_str().expect("a master file");
        print!("{}", check(&python, "panels.py", &["check", &at, name, master]));
    }
    // The store keeps no files that others name.
    let poni = std::fs::read(folder.join("panels.poni")).expect("a geometry");
    let (status, answer) = server.post_bytes("/api/v1/calibrations/poni", &poni);
    let said = answer["message"].to_string();
    assert!(
        status == 422 && said.contains("panels.h5") && said.contains("stands alone"),
        "{answer}"
    );
    // Without its file it is no geometry.
    std::fs::rename(folder.join("panels.h5"), folder.join("elsewhere.h5")).expect("another name");
    let (status, answer) = arm("centres");
    let said = answer["message"].to_string();
    assert!(
        status == 422 && said.contains("azimuthal.poni") && said.contains("panels.h5"),
        "{answer}"
    );
}

#[test]
fn every_mode_of_the_recipe_agrees_with_pyfai() {
    let test = "every_mode_of_the_recipe_agrees_with_pyfai";
    let Some(python) = python(test) else { return };
    let folder = folder("azimuthal-modes");
    let at = folder.display().to_string();
    check(&python, "azimuthal_recipe.py", &["prepare", &at]);
    let mut text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[[source]]\nkind = \"replay\"\npath = \"frames.h5\"\ndataset = \"/data\"\n\
         [store]\npath = \"{at}/store\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n"
    );
    for (name, keys) in MODES {
        text += &format!(
            "[recipe.{name}]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"azimuthal\"]\n\
             [recipe.{name}.correct]\nmask = \"mask.npy\"\n\
             [recipe.{name}.azimuthal]\nponi = \"detector.poni\"\npolarization = 0.95\n{keys}"
        );
    }
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let mut before: Vec<(&str, bool, Vec<Vec<u8>>)> = Vec::new();
    for (name, keys) in MODES {
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name, "recipe": name }));
        assert_eq!(status, 201, "{armed}");
        let ended: Value = server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null());
        assert_eq!(ended["summary"]["state"], "complete", "{ended}");
        let pictures = keys.contains("azimuthal_bins");
        let served = folder.join(format!("{name}.npy"));
        if pictures {
            let datasets = ended["datasets"].as_array().expect("datasets").iter();
            let mut pictures = datasets.filter(|dataset| dataset["path"] == "/entry/results/intensity_2d/intensity_2d");
            let shape = pictures.next().expect("the picture's dataset")["shape"].clone();
            assert_eq!(shape.as_array().map(Vec::len), Some(3), "{shape}");
            let picture = server.bytes(&format!("/api/v1/runs/{name}/slices/intensity_2d.npy"));
            std::fs::write(&served, picture).expect("room for a picture");
        }
        let master = ended["summary"]["files"][0].as_str().expect("a master file").to_owned();
        let said = check(
            &python,
            "azimuthal_recipe.py",
            &["check", &at, name, &master, &served.display().to_string()],
        );
        println!("{}", said.trim());
        if pictures {
            check(&python, "check_nexus.py", &["validate", "NXmx", &master]);
        }
        // The former run is closed now, and says what it said.
        if let Some((former, pictures, said)) = before.last() {
            let now = answers(&server, former, *pictures);
            assert!(said == &now, "{former} answers otherwise since it is closed");
        }
        let said = answers(&server, name, pictures);
        before.push((name, pictures, said));
    }
}
