//! Every route by every role in every state of the appliance, as openapi.json names them.

use fluxline_tests::{Server, binary, folder, interposed, token};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROLES: [&str; 4] = ["nobody", "viewer", "operator", "admin"];
const SIMULATE: &str = "kind = \"simulate\"\nscene = \"pattern\"\nrows = 64\ncolumns = 64\nrate_hz = 200.0\n";

/// An appliance whose detector is `source`, with a token of every role.
struct Table {
    server: Server,
    tokens: [Option<String>; 4],
    document: Value,
}

fn configuration(folder: &Path, source: &str, wait_s: f64) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [run]\nmetadata_wait_s = {wait_s}\n[[source]]\n{source}\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

impl Table {
    /// `disk` is what its disk does wrong, and `wait_s` how long it waits for values of the frames.
    fn start(name: &str, source: &str, disk: &str, wait_s: f64) -> Table {
        let folder = folder(name);
        let mut program = Command::new(binary());
        program
            .env("LD_PRELOAD", interposed(&folder, "disk.c", &[]))
            .env("FLUXLINE_DISK", disk);
        let config = configuration(&folder, source, wait_s);
        let tokens = ROLES.map(|role| (role != "nobody").then(|| token(&config, &format!("a-{role}"), role)));
        let server = Server::start_by(program, &config);
        let document = server.call("GET", "/openapi.json", None, "").1;
        Table {
            server,
            tokens,
            document,
        }
    }

    fn operator(&self) -> Option<&str> {
        self.tokens[2].as_deref()
    }

    fn state(&self) -> String {
        let (_, status) = self.server.call("GET", "/api/v1/status", self.operator(), "");
        status["state"].as_str().expect("a state").to_string()
    }

    /// Waits for a state; a minute is long.
    fn reach(&self, state: &str) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while self.state() != state {
            assert!(std::time::Instant::now() < end, "{} and not {state}", self.state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every route by every role, about `run`. Bodies are no JSON, so that nothing is changed by whoever may; the calls that
    /// stop a run take none, and are left out for them.
    fn ask(&self, state: &str, run: &str) {
        self.reach(state);
        let mut told = BTreeMap::new();
        for (template, item) in self.document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                let what = format!("{} {template} in state {state}", method.to_uppercase());
                let needed = ROLES.iter().position(|role| operation["x-role"] == *role).unwrap_or(0);
                let path = template
                    .replace("{id}", run)
                    .replace("{kind}", "dark")
                    .replace("{sequence}", "0")
                    .replace("/frames/{file}", "/frames/latest.json")
                    .replace("{file}", "run.json")
                    .replace("{name}", "nothing")
                    .replace("{which}", "sum")
                    .replace("{frame}", "0");
                let stops = template.ends_with("/stop") || template.ends_with("/abort");
                for (rank, token) in self.tokens.iter().enumerate() {
                    if stops && rank >= needed {
                        continue;
                    }
                    let status = self.server.status(&method.to_uppercase(), &path, token.as_deref(), "{");
                    let what = format!("{what} by {}: {status}", ROLES[rank]);
                    if rank < needed {
                        assert_eq!(status, if rank == 0 { 401 } else { 403 }, "{what}");
                        continue;
                    }
                    assert!(![401, 403].contains(&status), "{what}");
                    let documented = operation["responses"].as_object().expect("answers");
                    assert!(documented.contains_key(&status.to_string()), "{what} is not documented");
                    if rank == 2 {
                        *told.entry(status).or_insert(0) += 1;
                    }
                }
            }
        }
        self.ask_in_earnest(state, run);
        assert_eq!(self.state(), state, "asking changed the state");
        println!(
            "{state}: {} answers to an operator: {told:?}",
            told.values().sum::<usize>()
        );
    }

    /// Calls whose answer depends on the state, with bodies that they would take: arming, values of frames, a parameter, the
    /// latest frame, reprocessing. One that is refused for the state says in which it is allowed, and this is none of them.
    fn ask_in_earnest(&self, state: &str, run: &str) {
        let values = object!({ "frame_numbers": [1], "values": { "I0": [1.0] } });
        let run_wanted = match state {
            "idle" | "error" => object!({ "recipe": "none" }),
            _ => object!({}),
        };
        let calls = [
            ("POST", "/api/v1/runs".to_string(), run_wanted),
            ("POST", format!("/api/v1/runs/{run}/frame-metadata"), values),
            (
                "PUT",
                "/api/v1/parameters/nothing".to_string(),
                object!({ "value": 1.0 }),
            ),
            ("GET", format!("/api/v1/runs/{run}/frames/latest.json"), Value::Null),
            (
                "POST",
                format!("/api/v1/runs/{run}/reprocess"),
                object!({ "recipe": "none" }),
            ),
        ];
        for (method, path, body) in calls {
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let (status, said) = self.server.call(method, &path, self.operator(), &body);
            println!("{state}: {method} {path}: {status} {}", said["message"]);
            let allowed = said["allowed_states"].as_array().filter(|allowed| !allowed.is_empty());
            if let Some(allowed) = allowed {
                assert_eq!(status, 409, "{said}");
                assert!(!allowed.iter().any(|allowed| *allowed == *state), "{state}: {said}");
            }
        }
    }

    fn arm(&self, body: Value) {
        let (status, said) = self
            .server
            .call("POST", "/api/v1/runs", self.operator(), &body.to_string());
        assert_eq!(status, 201, "{said}");
    }

    fn stop(&self, run: &str, how: &str, expected: u16) {
        let path = format!("/api/v1/runs/{run}/{how}");
        let (status, said) = self.server.call("POST", &path, self.operator(), "");
        assert_eq!(status, expected, "{how}: {said}");
    }
}

#[test]
fn every_route_by_every_role_in_every_state() {
    // A detector that sends nothing: armed until it is stopped.
    let address = format!("127.0.0.1:{}", fluxline_tests::port());
    let silent = format!("kind = \"udp\"\naddresses = [\"{address}\"]\nwindow = 8\n");
    let table = Table::start("access-states-armed", &silent, "", 0.0);
    table.ask("idle", "current");
    table.arm(object!({ "name": "waits" }));
    table.ask("armed", "waits");
    table.stop("waits", "abort", 200);
    table.reach("idle");
    table.ask("idle", "waits");

    // A run that failed: somebody should see it before the next one.
    let table = Table::start(
        "access-states-error",
        &format!("{SIMULATE}frames = 200\n"),
        "sync _data_000001.h5 1 1 5",
        0.0,
    );
    table.arm(object!({ "name": "failed" }));
    table.ask("error", "failed");

    // One that sends: recording, then open for values of its frames, then closed.
    let table = Table::start(
        "access-states-recording",
        &format!("{SIMULATE}frames = 1000000\n"),
        "",
        600.0,
    );
    table.arm(object!({ "name": "runs" }));
    table.ask("recording", "runs");
    table.stop("runs", "stop", 200);
    table.ask("finishing", "runs");
    table.stop("runs", "abort", 200);
    table.reach("idle");
    table.ask("idle", "runs");
    table.stop("runs", "stop", 409);
}
