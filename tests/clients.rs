//! Clients that are not ours against a running appliance: the Python package, a Bluesky plan, EPICS PVAccess, Tango, Kafka, curl.

use fluxline_tests::{Server, folder, workspace};
use std::path::PathBuf;
use std::process::Command;

/// So many frames at 50 Hz, and a rule that fires at frame 40.
fn appliance(test: &str, frames: u32) -> Server {
    let folder = folder(test);
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\nrows = 200\ncolumns = 220\nframes = {frames}\nrate_hz = 50.0\n[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.powder]\ntechnique = \"diffraction\"\n\
         operations = [\"correct\", \"statistics\", \"azimuthal\"]\n[recipe.powder.azimuthal]\nbins = 100\n\
         [rule.bright]\nwhen = \"frame >= 40\"\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    Server::start(&config)
}

fn client(test: &str, part: &str, frames: u32) {
    let python = std::env::var_os("FLUXLINE_CLIENTS_PYTHON")
        .map_or_else(|| workspace().join(".venv-clients/bin/python"), PathBuf::from);
    if !python.exists() {
        eprintln!(
            "SKIPPED {test}: there is no {}; make python installs it",
            python.display()
        );
        return;
    }
    let server = appliance(test, frames);
    let output = Command::new(python)
        .arg(workspace().join("tests/python/clients.py"))
        .args([part, &server.url])
        .env("PYTHONPATH", workspace().join("clients/python/src"))
        .output()
        .expect("python");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    println!("{}", out.trim());
}

#[test]
fn the_python_package_gets_every_result_and_is_told_what_is_wrong() {
    client("python_package", "package", 200);
}

#[test]
fn a_bluesky_plan_stops_when_a_rule_has_fired() {
    client("bluesky_plan", "bluesky", 2000);
}

#[test]
fn an_epics_client_arms_a_run_and_reads_live_values() {
    client("epics_client", "epics", 200);
}

#[test]
fn a_tango_client_arms_a_run_and_reads_live_values() {
    client("tango_client", "tango", 2000);
}

#[test]
fn kafka_has_every_result_as_the_ess_reads_it() {
    client("kafka", "kafka", 200);
}

/// The example of the documentation, as it stands there.
#[test]
fn a_shell_with_curl_steers_a_run() {
    let server = appliance("curl", 2000);
    let output = Command::new("bash")
        .arg(workspace().join("clients/shell/scan.sh"))
        .arg(&server.url)
        .output()
        .expect("bash");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.contains("bright") && out.trim_end().ends_with("stopped"),
        "{out}\n{err}"
    );
}
