//! `openapi.json` against the built binary, by schemathesis: what the document says is what is answered, whatever is asked.
//!
//! `FLUXLINE_SCHEMA_EXAMPLES` is the number of examples per call (10) and `FLUXLINE_SCHEMA_SEED` their seed (1); `make soak
//! SOAK=schema` asks for more.

use fluxline_tests::{Server, folder, workspace};
use serde_json::json as object;
use std::path::PathBuf;
use std::process::Command;

const CONFIG: &str = "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"STORE\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
    [feedback.limits]\nrequests_per_s = 1000000.0\n\
    [[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 64\ncolumns = 64\nframes = 40\nrate_hz = 200.0\n\
    [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";

/// What is looked at in every answer. Not here: `ignored_auth`, whose wrong tokens are soon told to wait (429; `--test access`
/// asks every route by every role); and `positive_data_acceptance`, since a document cannot say that a rule must parse or that
/// a run must be recording.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
    response_headers_conformance,negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance";

fn number(name: &str, default: u32) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_string())
}

/// Schemathesis; `None`, said loudly, where it is not installed.
fn schemathesis(test: &str) -> Option<PathBuf> {
    let path = workspace().join(".venv-schema/bin/schemathesis");
    if !path.exists() {
        eprintln!(
            "SKIPPED {test}: there is no {}; make python installs it",
            path.display()
        );
        return None;
    }
    Some(path)
}

#[test]
fn the_document_is_what_is_answered_whatever_is_asked() {
    let Some(schemathesis) = schemathesis("the_document_is_what_is_answered_whatever_is_asked") else {
        return;
    };
    let folder = folder("schema");
    let config = folder.join("fluxline.toml");
    std::fs::write(
        &config,
        CONFIG.replace("STORE", &folder.join("store").display().to_string()),
    )
    .expect("written");
    let token = fluxline_tests::token(&config, "boss", "admin");
    let token = token.as_str();
    let server = Server::start(&config);
    // A run that is stored, for what can be asked of one.
    let body = object!({ "name": "stored", "proposal": "mx1" }).to_string();
    assert_eq!(server.call("POST", "/api/v1/runs", Some(token), &body).0, 201);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while server.call("GET", "/api/v1/runs/stored", Some(token), "").1["store_state"] == "recording" {
        assert!(std::time::Instant::now() < end, "the run did not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Once with any names, once with this run's and its file's.
    let names = "[parameters]\n\"path.id\" = \"stored\"\n\"query.file\" = \"stored_master.h5\"\n";
    for (what, names) in [("any run", ""), ("a stored run", names)] {
        let settings = folder.join("schemathesis.toml");
        std::fs::write(&settings, names).expect("written");
        let output = Command::new(&schemathesis)
            .arg("--config-file")
            .arg(&settings)
            .args(["run", &format!("{}/openapi.json", server.url)])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", CHECKS])
            .args(["--max-examples", &number("FLUXLINE_SCHEMA_EXAMPLES", 10)])
            .args(["--seed", &number("FLUXLINE_SCHEMA_SEED", 1)])
            .args([
                "--generation-database",
                "none",
                "--continue-on-failure",
                "--request-timeout",
                "60",
            ])
            // Streams, which do not end: `--test delivery` and `--test access` listen to them.
            .args(["--exclude-path-regex", "/(events|results)$", "--no-color"])
            .current_dir(&folder)
            .output()
            .expect("schemathesis");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{what}: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let summary = |word: &str| {
            said.lines()
                .find(|line| line.contains(word))
                .unwrap_or_default()
                .trim()
                .to_string()
        };
        println!("schema: {what}: {}, {}", summary("Tested:"), summary(" generated"));
    }
    // It lives, and nothing of this is an error that only the log has.
    assert_eq!(server.call("GET", "/api/v1/status", Some(token), "").0, 200);
}
