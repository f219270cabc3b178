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
    // Slowly: a rule is added while it records.
    let slowly = SOURCE.replace("rate_hz = 200.0", "rate_hz = 20.0");
    let server = Server::start(&configuration(&folder, &slowly, rules));
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
    // Noted when the run had ended, and when it was in memory no longer: kept as well, and the first one counts.
    server.wait("/api/v1/runs/decided", |run| run["store_state"] == "closed");
    let note = |number: usize, by: &str| {
        let path = format!("/api/v1/runs/decided/decisions/{number}/acknowledge");
        let (status, seen) = server.post(&path, &object!({ "by": by }));
        assert_eq!(status, 200, "{seen}");
        seen["acknowledged"]["by"].as_str().map(str::to_string)
    };
    assert_eq!(note(1, "ended").as_deref(), Some("ended"));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "next", "frames_expected": 200 }));
    assert_eq!(status, 201, "{armed}");
    assert_eq!(note(2, "stored").as_deref(), Some("stored"));
    assert_eq!(note(2, "later").as_deref(), Some("stored"));
    assert_eq!(note(0, "later").as_deref(), Some("bliss"));
    let noted = server.get("/api/v1/runs/decided/decisions");
    let by = |number: usize| noted["decisions"][number]["acknowledged"]["by"].as_str();
    assert_eq!(
        (0..4).map(by).collect::<Vec<_>>(),
        [Some("bliss"), Some("ended"), Some("stored"), None],
        "{noted}"
    );
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
fn before_a_run_rules_are_held_against_what_its_results_will_be() {
    let diffraction =
        "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 300\ncolumns = 300\nframes = 10\nrate_hz = 0.0\n";
    let tomography =
        "scene = \"tomography\"\nrows = 8\ncolumns = 64\nframes = 60\nrate_hz = 0.0\nrotation_axis_px = 32.0\n";
    for (name, source, recipe) in [
        (
            "found",
            diffraction,
            "technique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"spots\", \"hits\", \"azimuthal\"]\n\
             [[recipe.look.statistics.regions]]\nname = \"beam\"\nrow = 10\ncolumn = 10\nrows = 9\ncolumns = 9\n",
        ),
        (
            "axis",
            tomography,
            "technique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n\
             [recipe.look.correct.zingers]\n[recipe.look.backproject]\naxis = \"auto\"\n",
        ),
        (
            "plain",
            tomography,
            "technique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n",
        ),
    ] {
        let folder = folder(&format!("rules-known-{name}"));
        let text = format!(
            "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\n{source}[store]\npath = \"{}\"\n\
             [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.look]\n{recipe}",
            folder.join("store").display()
        );
        let config = folder.join("fluxline.toml");
        std::fs::write(&config, text).expect("a configuration");
        let server = Server::start(&config);
        let (status, error) = put(&server, "a", &object!({ "when": "nothing_such > 1" }));
        let told = error["message"].as_str().unwrap_or_default();
        let (_, known) = told.split_once("there are ").unwrap_or_default();
        // Aliases of what counts, and what every frame has, are no scalars of the file.
        let known = known.split(", ").take_while(|name| *name != "frame");
        let mut known: Vec<&str> = known
            .filter(|name| !["sum_counts", "max_counts", "beam_max_counts", "beam_mean_counts"].contains(name))
            .collect();
        assert_eq!(status, 422, "{error}");
        let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "once" }));
        assert_eq!(status, 201, "{armed}");
        let datasets = armed["datasets"].as_array().expect("datasets").iter();
        let mut made: Vec<&str> = datasets
            .filter_map(|dataset| dataset["path"].as_str()?.strip_prefix("/entry/results/scalars/"))
            .filter(|name| *name != "frame_number")
            .collect();
        known.sort_unstable();
        made.sort_unstable();
        assert_eq!(known, made, "{name}");
    }
}

#[test]
fn however_much_is_decided_little_is_kept_and_the_rest_is_counted() {
    let folder = folder("rules-many");
    let source = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 64\ncolumns = 64\nframes = 20000\nrate_hz = 2000.0\ndistinct = 16\n";
    let rules = "[rule.often]\nwhen = \"frame % 2 == 0\"\nagain = \"frame % 2 == 1\"\n";
    let server = Server::start(&configuration(&folder, source, rules));
    let count = |of: &Value| {
        let kept = of["decisions"].as_array().map_or(0, Vec::len);
        (kept, of["not_kept"].as_u64().expect("a number"))
    };
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "many" }));
    assert_eq!(status, 201, "{armed}");
    let run = server.wait("/api/v1/runs/many", |run| !run["summary"].is_null());
    let told = count(&server.get("/api/v1/runs/many/decisions"));
    assert_eq!(told.0, 1000, "{told:?}");
    assert!(told.1 > 1000, "{told:?}: {}", run["outcomes"]);
    let events = server.text("/api/v1/runs/many/events");
    let kept = events.matches("event: decision\n").count();
    assert!(
        (1000..=1024).contains(&kept) && events.contains("event: end\n"),
        "{kept}"
    );
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "next" }));
    assert_eq!(status, 201, "{armed}");
    assert_eq!(
        count(&server.get("/api/v1/runs/many/decisions")),
        told,
        "from its record"
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
        (
            "[rule.a]\nwhen = \"max > 1 && spotz > 1\"\n",
            "column 12: no spotz here",
        ),
        (
            "[rule.a]\nwhen = \"max > 1\"\nagain = \"sum\"\n",
            "column 1: it is a number, not true or false",
        ),
        (
            "[rule.a]\nwhen = \"sum > 1 && hit_rate(200) < 0.1\"\n",
            "column 12: hit_rate(200) never has a value",
        ),
        ("[rule.a]\nwhen = \"[1, 2].all(frame, frame > 0)\"\n", "does not loop"),
    ] {
        let config = configuration(&folder, SOURCE, rules);
        let (status, text) = complaint(&fluxline(&["validate", &config.display().to_string()]));
        assert!(status == 2 && text.contains(said), "{status} {text}");
        let (status, text) = complaint(&fluxline(&["rules", "check", &config.display().to_string()]));
        assert!(status == 2 && text.contains(said), "{status} {text}");
    }
    // Over HTTP the same, and without the recipes what none of any technique could make.
    let server = Server::start(&configuration(&folder, SOURCE, ""));
    let loops = (0..6).fold("max > 1.0".to_string(), |inner, _| {
        let hundred = vec!["1"; 100].join(",");
        format!("[{hundred}].all(frame, {inner})")
    });
    for (when, said) in [
        (
            "max > 1 && spotz > 1",
            "column 12: no spotz here; there are sum, sum_counts, max",
        ),
        ("hit > 0.5", "column 1: no hit here"),
        ("max", "column 1: it is a number"),
        ("mean(\"max\", 0) > 1.0", "column 1: mean(\"max\", 0) never has a value"),
        (&loops, "1000 characters"),
        ("[1].all(frame, [2].all(frame, max > 1.0))", "does not loop"),
    ] {
        let (status, error) = put(&server, "a", &object!({ "when": when }));
        let told = error["message"].as_str().unwrap_or_default();
        assert!(status == 422 && told.contains(said), "{when}: {status} {error}");
    }
    assert_eq!(server.get("/api/v1/rules")["rules"], object!({}));
    let alone = folder.join("rules.toml");
    for (when, fine) in [("beam_counts > 5 && axis_confidence > 0.9", true), ("spotz > 5", false)] {
        std::fs::write(&alone, format!("[rule.a]\nwhen = \"{when}\"\n")).expect("rules");
        let output = fluxline(&["rules", "check", &alone.display().to_string()]);
        assert_eq!(
            output.status.success(),
            fine,
            "{when}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let good = configuration(&folder, SOURCE, "[rule.a]\nwhen = \"max > 1\"\n");
    let output = Command::new(fluxline_tests::binary())
        .args(["rules", "check", &good.display().to_string()])
        .output()
        .expect("the built binary");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 rules, valid: a"));
}
