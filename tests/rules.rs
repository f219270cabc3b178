//! Rules decide on results of a run: which frame, with what evidence, told to whom, changed meanwhile, tried afterwards.

use fluxline_tests::{Server, complaint, fluxline, folder, json};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every 4th of the simulator's frames has spots, so a hit; see its `distinct` frames.
const SOURCE: &str = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 300\ncolumns = 300\nframes = 200\nrate_hz = 200.0\n\
                      distinct = 16\n";
const RECIPE: &str = "[recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
                      [recipe.powder.azimuthal]\nbins = 200\n";

fn configuration(folder: &Path, source: &str, rules: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\n{source}[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n{RECIPE}{rules}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn put(server: &Server, rule: &str, body: &Value) -> (u16, Value) {
    let request = ureq::put(format!("{}/api/v1/rules/{rule}", server.url))
        .config()
        .http_status_as_error(false)
        .build();
    let mut answer = request.send_json(body).expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().unwrap_or(Value::Null))
}

fn frames_of(decisions: &Value, rule: &str) -> Vec<u64> {
    let list = decisions["decisions"].as_array().expect("decisions").iter();
    let own = list.filter(|decision| decision["rule"] == rule);
    own.map(|decision| decision["frame_number"].as_u64().expect("a frame"))
        .collect()
}

#[test]
fn rules_fire_at_the_exact_frame_live_and_when_tried_and_none_other_does() {
    let folder = folder("rules");
    let rules = "[rule.enough]\nwhen = \"relative_error(q=10.0..30.0) < 0.002\"\n\
                 [rule.tenth]\nwhen = \"frame % 50 == 10\"\n\
                 [rule.window]\nwhen = \"mean('sum', 20) > 1.0 for 5 frames\"\n\
                 [rule.never]\nwhen = \"max_counts > 4000000000.0\"\n";
    let server = Server::start(&configuration(&folder, SOURCE, rules));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "decided" }));
    assert_eq!(status, 201, "{armed}");
    // One more while it records; a wrong one is refused and says where.
    let (status, error) = put(&server, "late", &object!({ "when": "frame > 150 && foo(3) > 1" }));
    let said = error["message"].as_str().unwrap_or_default();
    assert!(
        status == 422 && said.contains("column 16: there is no function foo"),
        "{status} {error}"
    );
    let (status, error) = put(&server, "late", &object!({ "when": "frame > 150", "unknown": 1 }));
    assert_eq!(status, 422, "{error}");
    assert_eq!(put(&server, "late", &object!({ "when": "frame > 150" })).0, 200);
    let summary = server.wait("/api/v1/runs/decided", |run| !run["summary"].is_null())["summary"].clone();
    let decisions = server.get("/api/v1/runs/decided/decisions");
    assert_eq!(frames_of(&decisions, "tenth"), [10, 60, 110, 160]);
    assert_eq!(
        frames_of(&decisions, "window"),
        [23],
        "twenty results, then five in a row"
    );
    assert_eq!(frames_of(&decisions, "late"), [151]);
    assert_eq!(frames_of(&decisions, "never"), [0u64; 0]);
    let enough = frames_of(&decisions, "enough");
    assert_eq!(enough.len(), 1, "{decisions}");
    assert_eq!(
        &summary["decisions"], &decisions["decisions"],
        "kept in the run's record"
    );
    let tenth = &decisions["decisions"][0];
    assert!(
        tenth["age_us"].as_u64().is_some_and(|age| age > 0) && tenth["share"] == 1.0,
        "{tenth}"
    );
    let events = server.text("/api/v1/runs/decided/events");
    assert_eq!(
        events.matches("event: decision\n").count(),
        decisions["decisions"].as_array().map_or(0, Vec::len)
    );
    let path = "/api/v1/runs/decided/decisions/0/acknowledge";
    let (status, seen) = server.post(path, &object!({ "by": "bliss" }));
    assert_eq!(
        (status, &seen["acknowledged"]["by"]),
        (200, &object!("bliss")),
        "{seen}"
    );
    assert_eq!(server.post(path, &object!({ "by": "" })).0, 422);
    assert_eq!(
        server
            .post("/api/v1/runs/decided/decisions/99/acknowledge", &object!({ "by": "x" }))
            .0,
        404
    );
    // The same rules, asked of the stored run, decide the same at the same frames.
    let run = summary["files"][0].as_str().expect("a file").to_string();
    let written = folder.join("rules.toml");
    std::fs::write(&written, format!("{rules}[rule.late]\nwhen = \"frame > 150\"\n")).expect("rules");
    let tried = json(&fluxline(&[
        "rules",
        "try",
        &written.display().to_string(),
        &run,
        "--json",
    ]));
    for rule in ["enough", "tenth", "window", "late", "never"] {
        assert_eq!(frames_of(&tried, rule), frames_of(&decisions, rule), "{rule}");
    }
    let metrics = server.text("/metrics");
    let told = metrics
        .lines()
        .find(|line| line.starts_with("fluxline_decision_latency_seconds_count"));
    assert!(told.is_some_and(|line| !line.ends_with(" 0")), "{told:?}");
}

#[test]
fn a_rule_may_stop_the_run_and_lost_frames_hold_none_up() {
    let folder = folder("rules-stop");
    let source = format!(
        "{}[source.faults]\ndrop = 0.2\nreorder = 0.3\nreorder_depth = 20\nseed = 4\n",
        SOURCE.replace("frames = 200", "frames = 4000")
    );
    let rules = "[rule.enough]\nwhen = \"results >= 60\"\naction = \"stop\"\n";
    let summary = json(&fluxline(&[
        "run",
        "--once",
        "--json",
        &configuration(&folder, &source, rules).display().to_string(),
    ]));
    assert_eq!(summary["state"], "stopped", "{summary}");
    let decision = &summary["decisions"][0];
    assert_eq!(
        (&decision["rule"], &decision["action"]),
        (&object!("enough"), &object!("stop"))
    );
    let share = decision["share"].as_f64().expect("a share");
    assert!(
        (0.6..0.95).contains(&share),
        "a fifth of the frames is lost: {decision}"
    );
    assert!(
        summary["frames"]["complete"]
            .as_u64()
            .is_some_and(|frames| (60..2000).contains(&frames)),
        "{summary}"
    );
}

#[test]
fn wrong_rules_are_refused_with_the_column() {
    let folder = folder("rules-wrong");
    for (rules, said) in [
        ("[rule.a]\nwhen = \"max > \"\n", "column 7"),
        ("[rule.a]\nwhen = \"max > 1 for ever\"\n", "column 13"),
        (
            "[rule.a]\nwhen = \"max > 1\"\nmin_interval_s = -1.0\n",
            "rule.a.min_interval_s = -1: 0 to 86400",
        ),
        ("[rule.a]\nwhen = \"max > 1\"\nwhenever = 3\n", "whenever"),
    ] {
        let config = configuration(&folder, SOURCE, rules);
        let (status, text) = complaint(&fluxline(&["validate", &config.display().to_string()]));
        assert!(status == 2 && text.contains(said), "{status} {text}");
        let (status, text) = complaint(&fluxline(&["rules", "check", &config.display().to_string()]));
        assert!(status == 2 && text.contains(said), "{status} {text}");
    }
    let good = configuration(&folder, SOURCE, "[rule.a]\nwhen = \"max > 1\"\n");
    let output = Command::new(fluxline_tests::binary())
        .args(["rules", "check", &good.display().to_string()])
        .output()
        .expect("the built binary");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 rules, valid: a"));
}
