//! Wrong input: the sentence that the user reads.

use fluxline_tests::{Server, binary, complaint, fluxline, folder};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A configuration that works: a few small simulated frames.
fn configuration(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let text = format!(
        "[run]\nautostart = true\n[ring]\nslots = 32\nallow_transparent = true\n\
         [[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\ndetector = \"custom\"\nrows = 64\ncolumns = 64\n\
         frames = 20\nrate_hz = 0.0\ndistinct = 4\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
         [recipe.powder.correct]\n[recipe.powder.azimuthal]\nbins = 50\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, change(text)).expect("a configuration");
    path
}

fn says(arguments: &[&str], status: i32, words: &[&str]) {
    let (code, text) = complaint(&fluxline(arguments));
    for word in words {
        assert!(text.contains(word), "expected {word:?} in:\n{text}");
    }
    assert_eq!(code, status, "{text}");
}

fn run_says(test: &str, change: impl Fn(String) -> String, status: i32, words: &[&str]) {
    let folder = folder(test);
    let path = configuration(&folder, change);
    says(&["run", "--once", &path.display().to_string()], status, words);
}

#[test]
fn the_configuration_works_when_nothing_is_wrong() {
    let folder = folder("right");
    let path = configuration(&folder, |text| text);
    let summary = fluxline_tests::json(&fluxline(&["run", "--once", "--json", &path.display().to_string()]));
    assert_eq!(summary["state"], "complete");
    assert_eq!(summary["frames"]["complete"], 20);
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    run_says(
        "key",
        |t| t.replace("slots = 32", "slotts = 32"),
        2,
        &["slotts", "expected one of", "`slots`"],
    );
    run_says(
        "key2",
        |t| t.replace("bins = 50", "bin = 50"),
        2,
        &["recipe.powder.azimuthal", "unknown field `bin`", "`bins`"],
    );
    run_says(
        "key3",
        |t| t.replace("rate_hz", "rate"),
        2,
        &["source", "unknown field `rate`", "`rate_hz`"],
    );
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() {
    run_says(
        "range",
        |t| t.replace("slots = 32", "slots = 3"),
        2,
        &["ring.slots = 3", "16 to 65536"],
    );
    run_says(
        "unit",
        |t| t.replace("bins = 50", "unit = \"furlong\""),
        2,
        &["furlong", "q_nm^-1"],
    );
    run_says(
        "listen",
        |t| t.replace("127.0.0.1:0", "0.0.0.0:0"),
        2,
        &["feedback.listen", "there are no tokens"],
    );
    run_says(
        "technique",
        |t| t.replace("\"diffraction\"\noperations", "\"alchemy\"\noperations"),
        2,
        &["alchemy", "diffraction, tomography"],
    );
}

#[test]
fn a_mode_of_the_azimuthal_integration_that_cannot_be_says_why() {
    let cases: [(&str, &[&str]); 7] = [
        ("splitting = \"some\"", &["some", "none", "bbox", "full"]),
        ("error_model = \"guess\"", &["guess", "poisson", "azimuthal", "hybrid"]),
        (
            "unit = \"d_A\"",
            &[
                "unit = \"d_A\"",
                "grows without bound towards the beam",
                "range = [low, high]",
            ],
        ),
        ("azimuthal_bins = 100000", &["azimuthal_bins = 100000", "1 to 65535"]),
        (
            "azimuthal_range = [-90.0, 270.0]",
            &["azimuthal_range", "[-90, 270]", "from 0 to 360"],
        ),
        (
            "sigma_clip = { cutoff = -1.0 }",
            &["sigma_clip.cutoff = -1", "0 or more"],
        ),
        ("sigma_clip = { cycles = 0 }", &["sigma_clip.cycles = 0", "1 to 100"]),
    ];
    for (number, (keys, words)) in cases.into_iter().enumerate() {
        let change = |text: String| text.replace("bins = 50", &format!("bins = 50\n{keys}"));
        run_says(&format!("azimuthal-{number}"), change, 2, words);
    }
}

#[test]
fn a_poni_of_the_future_names_its_version() {
    let folder = folder("poni");
    std::fs::write(folder.join("new.poni"), "poni_version: 9\nDistance: 0.1\n").expect("a file");
    let path = configuration(&folder, |t| t.replace("bins = 50", "bins = 50\nponi = \"new.poni\""));
    let words = ["recipe.powder.azimuthal.poni", "version 9", "reads versions 1 to 3"];
    says(&["run", "--once", &path.display().to_string()], 2, &words);
}

#[test]
fn a_mask_of_the_wrong_shape_names_both_shapes() {
    let folder = folder("mask");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 5), }";
    npy.extend(format!("{header:<117}\n").bytes());
    npy.extend([0; 15]);
    std::fs::write(folder.join("mask.npy"), npy).expect("a file");
    let path = configuration(&folder, |t| {
        t.replace(
            "[recipe.powder.correct]",
            "[recipe.powder.correct]\nmask = \"mask.npy\"",
        )
    });
    let words = ["recipe.powder.correct.mask", "3x5", "64x64"];
    says(&["run", "--once", &path.display().to_string()], 2, &words);
}

#[test]
fn a_truncated_file_and_a_missing_one_are_said_to_be_so() {
    let folder = folder("truncated");
    let path = configuration(&folder, |text| text).display().to_string();
    let file = folder.join("half.h5");
    std::fs::write(&file, b"\x89HDF\r\n\x1a\n and then nothing").expect("a file");
    says(
        &["replay", &file.display().to_string(), "--config", &path],
        1,
        &["half.h5", "truncated or not HDF5"],
    );
    says(
        &["replay", "/nowhere/file.h5", "--config", &path],
        1,
        &["/nowhere/file.h5", "there is no such file"],
    );
    let text = folder.join("notes.txt");
    std::fs::write(&text, "words").expect("a file");
    says(
        &["replay", &text.display().to_string(), "--config", &path],
        1,
        &["ends in .txt", "HDF5"],
    );
}

#[test]
fn no_opencl_driver_says_what_to_install() {
    let folder = folder("opencl");
    let path = configuration(&folder, |text| text);
    let output = Command::new(binary())
        .args(["run", "--once"])
        .arg(&path)
        .env("OCL_ICD_VENDORS", folder.join("no-vendors"))
        .env("OCL_ICD_FILENAMES", "")
        .output()
        .expect("the built binary");
    let (code, text) = complaint(&output);
    assert!(
        text.contains("no OpenCL device was found") && text.contains("pocl-opencl-icd"),
        "{text}"
    );
    assert_eq!(code, 1);
}

#[test]
fn missing_huge_pages_are_counted() {
    let words = ["pages of 2 MiB are needed", "are missing", "sysctl vm.nr_hugepages="];
    let huge = |t: String| {
        t.replace("slots = 32\nallow_transparent = true", "slots = 65536")
            .replace("64", "1024")
    };
    run_says("pages", huge, 1, &words);
}

fn has_rdma() -> bool {
    std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some())
}

/// The working configuration with an RDMA source.
fn rdma(text: String, more: &str) -> String {
    let (before, rest) = text.split_once("[[source]]").expect("a source");
    let (_, after) = rest.split_once("[store]").expect("a store");
    format!("{before}[[source]]\nkind = \"rdma\"\n{more}\n[store]{after}")
}

#[test]
fn no_rdma_device_is_said_in_one_sentence() {
    if has_rdma() {
        eprintln!("SKIPPED no_rdma_device_is_said_in_one_sentence: there is one");
        return;
    }
    let words = ["there is no RDMA device on this machine", "rdma_rxe"];
    run_says("rdma", |t| rdma(t, "open_to_network = true"), 1, &words);
    says(&["emulate", "--rdma", "127.0.0.1:18515", "--frames", "1"], 1, &words);
    let output = fluxline(&["doctor", "--store", "/tmp"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("RDMA") && text.contains(words[0]), "{text}");
}

#[test]
fn an_rdma_source_says_what_is_allowed() {
    let wrong = |test, more: &'static str, status, words: &[&str]| run_says(test, |t| rdma(t, more), status, words);
    wrong("rdma-key", "credit = 7", 2, &["unknown field `credit`", "`credits`"]);
    wrong("rdma-token", "", 1, &["token_file", "open_to_network = true"]);
    wrong("rdma-token2", "token_file = \"absent\"", 1, &["absent", "No such file"]);
    wrong(
        "rdma-pairs",
        "open_to_network = true\nqueue_pairs = 99",
        1,
        &["source.queue_pairs = 99", "1 to 16"],
    );
    wrong(
        "rdma-listen",
        "open_to_network = true\nlisten = \"here\"",
        1,
        &["source.listen", "0.0.0.0:18515"],
    );
    says(
        &["emulate", "--rdma", "nowhere", "--frames", "1"],
        2,
        &["nowhere", "an address and a port"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    run_says(
        "port",
        |t| t.replace("127.0.0.1:0", &address),
        1,
        &[&address, "another program listens there already"],
    );
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let words = ["/proc/fluxline-store"];
    run_says(
        "store",
        |t| {
            let (before, rest) = t.split_once("[store]\npath = \"").expect("a store");
            let (_, after) = rest.split_once('"').expect("its end");
            format!("{before}[store]\npath = \"/proc/fluxline-store\"{after}")
        },
        1,
        &words,
    );
}

#[test]
fn a_mistyped_command_and_option_are_explained() {
    says(&["rum"], 2, &["unrecognized subcommand 'rum'", "run"]);
    says(&["replay", "--confg", "x"], 2, &["--config"]);
}

#[test]
fn requests_that_are_wrong_are_answered_in_one_shape() {
    let folder = folder("requests");
    let server = Server::start(&configuration(&folder, |text| {
        text.replace("autostart = true", "autostart = false")
    }));
    let wrong = |(status, body): (u16, serde_json::Value), expected: u16, words: &str| {
        let message = body["message"].as_str().unwrap_or_default();
        assert!(status == expected && message.contains(words), "{status} {body}");
        assert!(body["error"].is_string() && body["allowed_states"].is_array(), "{body}");
    };
    let body = serde_json::json!({ "smaple": "tooth" });
    wrong(server.post("/api/v1/runs", &body), 422, "smaple");
    wrong(
        server.post("/api/v1/runs", &serde_json::json!({ "sample": 5 })),
        422,
        "sample",
    );
    wrong(server.try_get("/api/v1/runs?limit=many"), 400, "limit");
    wrong(server.try_get("/api/v1/runs?pages=2"), 400, "pages");
    wrong(server.try_get("/api/v1/runs/nobody"), 404, "nobody");
    wrong(server.try_get("/api/v1/nothing"), 404, "nothing");
}
