//! Zero copy is shown, not said: every copy of a payload's size in the whole process is counted. Two runs are compared,
//! because making ready may copy as much once.

use fluxline_tests::{binary, folder, interposed, json};
use std::process::Command;

/// Copies of a payload's size during a run of uncompressed frames that are stored as they are.
fn payload_copies(memory: &str, frames: u64) -> u64 {
    let folder = folder(&format!("interpose-{memory}-{frames}"));
    let flags = ["-fno-builtin", "-fno-tree-loop-distribute-patterns"];
    let library = interposed(&folder, "memcpy.c", &flags);
    let config = folder.join("fluxline.toml");
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[accelerator]\nmemory = \"{memory}\"\n[[source]]\nkind = \"simulate\"\n\
         scene = \"diffraction\"\ndetector = \"custom\"\nrows = 201\ncolumns = 199\nframes = {frames}\nrate_hz = 0.0\ndistinct = 4\n\
         [store]\npath = \"{}\"\ncompress = false\n[feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.powder]\n\
         technique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("a configuration");
    let output = Command::new(binary())
        .args(["run", "--once", "--json"])
        .arg(&config)
        .env("LD_PRELOAD", &library)
        .env("FLUXLINE_COUNT_BYTES", (201 * 199 * 2).to_string())
        .output()
        .expect("the built binary");
    let summary = json(&output);
    assert_eq!(summary["frames"]["complete"], frames);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The HTTP and device libraries start no process, so there is one such line.
    let line = said
        .lines()
        .find(|line| line.starts_with("copies of 79998 bytes: "))
        .expect(&said);
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn only_the_simulated_network_card_writes_a_payload_where_memory_is_shared() {
    assert_eq!(payload_copies("zero_copy", 150) - payload_copies("zero_copy", 50), 100);
}

#[test]
fn a_device_with_its_own_memory_costs_exactly_one_copy_more() {
    assert_eq!(payload_copies("copy", 150) - payload_copies("copy", 50), 200);
}
