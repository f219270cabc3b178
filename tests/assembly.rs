//! Several sources make one run, through the built binary: halves of a real file by replay and as two DECTRIS streams.

use fluxline_tests::{check, data, fluxline, folder, json, python};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const FRAMES: u64 = 24;

/// Folder with the halves, and the whole's rows, columns and where it is cut.
fn halves(test: &str) -> Option<(PathBuf, PathBuf, [usize; 3])> {
    let (python, tooth) = (python(test)?, data(test, "ct-tooth/tooth.h5")?);
    let folder = folder(test);
    let (from, to) = (tooth.display().to_string(), folder.display().to_string());
    let said = check(
        &python,
        "assembly.py",
        &["cut", &from, "exchange/data", &to, &FRAMES.to_string()],
    );
    let numbers: Vec<usize> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some((python, folder, numbers.try_into().expect("three numbers")))
}

fn run(folder: &Path, name: &str, sources: &str) -> Value {
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n{sources}[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").join(name).display()
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).expect("a configuration");
    json(&fluxline(&["run", "--once", "--json", &path.display().to_string()]))
}

fn replayed(folder: &Path, file: &str, more: &str) -> String {
    let path = folder.join(file);
    format!(
        "[[source]]\nkind = \"replay\"\npath = \"{}\"\ndataset = \"data\"\n{more}\n",
        path.display()
    )
}

fn assembly([rows, columns, _]: [usize; 3], gap: usize, more: &str) -> String {
    format!("[assembly]\nrows = {rows}\ncolumns = {}\n{more}\n", columns + gap)
}

fn master(summary: &Value) -> &str {
    summary["files"][0].as_str().expect("a master file")
}

fn checked(python: &Path, what: &str, folder: &Path, summary: &Value, more: &[&str]) -> String {
    let folder = folder.display().to_string();
    check(
        python,
        "assembly.py",
        &[&[what, &folder, master(summary)], more].concat(),
    )
}

#[test]
fn halves_of_a_real_file_make_the_whole_pixel_for_pixel() {
    let Some((python, folder, size)) = halves("halves_of_a_real_file_make_the_whole_pixel_for_pixel") else {
        return;
    };
    let half = size[2];
    for (name, gap, faults) in [
        ("plain", 0, ""),
        (
            "permuted",
            10,
            "[source.faults]\nseed = 3\nreorder = 0.5\nreorder_depth = 6\nduplicate = 0.3",
        ),
    ] {
        let sources = [
            replayed(&folder, "left.h5", &format!("row = 0\ncolumn = 0\n{faults}")),
            replayed(
                &folder,
                "right.h5",
                &format!("row = 0\ncolumn = {}\n{faults}", half + gap),
            ),
            assembly(size, gap, "wait_ms = 60000"),
        ];
        let summary = run(&folder, name, &sources.concat());
        assert_eq!(
            (&summary["state"], &summary["frames"]["complete"]),
            (&"complete".into(), &FRAMES.into()),
            "{summary}"
        );
        assert_eq!(summary["assembly"]["placed"], 2 * FRAMES, "{summary}");
        assert_eq!(summary["assembly"]["missing"], 0, "{summary}");
        let again = &summary["assembly"];
        let again = again["duplicate"].as_u64().expect("a number") + again["late"].as_u64().expect("a number");
        assert_eq!(again > 0, gap > 0, "modules that came again are counted: {summary}");
        checked(&python, "same", &folder, &summary, &[&gap.to_string()]);
    }
}

#[test]
fn a_source_that_loses_modules_or_stops_half_way_leaves_partial_frames() {
    let Some((python, folder, size)) = halves("a_source_that_loses_modules_or_stops_half_way_leaves_partial_frames")
    else {
        return;
    };
    let lossy = "[source.faults]\nseed = 5\ndrop = 0.3";
    for (name, left, right, wait) in [
        ("short", String::new(), ("short.h5", String::new()), "wait_ms = 60000"),
        (
            "lossy",
            format!("\n{lossy}"),
            ("right.h5", format!("\n{}", lossy.replace('5', "6"))),
            "wait_ms = 300",
        ),
    ] {
        let sources = [
            replayed(&folder, "left.h5", &format!("row = 0\ncolumn = 0{left}")),
            replayed(&folder, right.0, &format!("row = 0\ncolumn = {}{}", size[2], right.1)),
            assembly(size, 0, wait),
        ];
        let summary = run(&folder, name, &sources.concat());
        assert_eq!(summary["state"], "complete", "{summary}");
        let said = checked(&python, "partial", &folder, &summary, &[]);
        let found: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [left, right, partial] = found[..] else {
            panic!("{said}")
        };
        assert_eq!(summary["frames"]["partial"], partial, "{summary}");
        assert_eq!(summary["assembly"]["placed"], left + right, "{summary}");
        assert_eq!(
            summary["assembly"]["missing"], partial,
            "a frame with no module is lost: {summary}"
        );
        if name == "short" {
            assert_eq!((left, right, partial), (FRAMES, FRAMES / 2, FRAMES / 2));
            assert!(
                summary["warnings"].to_string().contains("number of frames"),
                "{summary}"
            );
        } else {
            assert!(partial > 2 && left < FRAMES && right < FRAMES, "{said}");
        }
    }
}

#[test]
fn a_file_of_zstandard_chunks_is_analysed_and_stored_as_it_came() {
    let Some((python, folder, _)) = halves("a_file_of_zstandard_chunks_is_analysed_and_stored_as_it_came") else {
        return;
    };
    let summary = run(&folder, "zstd", &replayed(&folder, "whole.h5", ""));
    assert_eq!(summary["outcomes"]["done"], FRAMES, "{summary}");
    checked(&python, "passed", &folder, &summary, &[]);
    // What was stored so is replayed again, and its halves are read the same by another recipe's decoder.
    let again = run(
        &folder,
        "again",
        &format!("[[source]]\nkind = \"replay\"\npath = \"{}\"\n", master(&summary)),
    );
    assert_eq!(again["outcomes"]["done"], FRAMES, "{again}");
    checked(&python, "passed", &folder, &again, &[]);
}

struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_dectris_streams_make_one_run() {
    let Some((python, folder, size)) = halves("two_dectris_streams_make_one_run") else {
        return;
    };
    for (name, right, more) in [("whole", "right.h5", ""), ("stops", "right.h5", "--abort-after 12")] {
        let address = || format!("tcp://127.0.0.1:{}", fluxline_tests::port());
        let (one, two) = (address(), address());
        let emulate = |address: &str, file: &str, more: &str| {
            let mut command = Command::new(fluxline_tests::binary());
            command.args([
                "emulate",
                "--json",
                "--dectris",
                address,
                "--dataset",
                "/data",
                "--rate",
                "50",
                "--file",
            ]);
            command.arg(folder.join(file)).args(more.split_whitespace());
            Background(
                command
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("an emulator"),
            )
        };
        let _senders = (emulate(&one, "left.h5", ""), emulate(&two, right, more));
        let source = |address: &str, column: usize| {
            format!(
                "[[source]]\nkind = \"dectris\"\naddresses = [\"{address}\"]\nstart_timeout_s = 60.0\nend_timeout_s = 1.0\n\
                 silence_timeout_s = 10.0\nrow = 0\ncolumn = {column}\n"
            )
        };
        let sources = [
            source(&one, 0),
            source(&two, size[2]),
            assembly(
                size,
                0,
                if name == "whole" {
                    "wait_ms = 60000"
                } else {
                    "wait_ms = 2000"
                },
            ),
        ];
        let summary = run(&folder, name, &sources.concat());
        assert_eq!(summary["state"], "complete", "{summary}");
        if name == "whole" {
            assert_eq!(summary["frames"]["complete"], FRAMES, "{summary}");
            checked(&python, "same", &folder, &summary, &["0"]);
        } else {
            checked(&python, "partial", &folder, &summary, &[]);
            assert_eq!(summary["frames"]["partial"], FRAMES - 12, "{summary}");
        }
    }
}
