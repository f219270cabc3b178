//! Alert rules in Debian's Prometheus: each where it must fire and must not, and a server that scrapes a running appliance.

use fluxline_tests::{Server, binary, folder, interposed, workspace};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RULES: &str = "appliance-image/package/usr/share/fluxline/prometheus/fluxline.rules.yml";

/// A program of Prometheus; `None`, said loudly, where it is not installed.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FLUXLINE_PROMETHEUS")
        .map_or_else(|| workspace().join(".toolchain/prometheus/usr/bin"), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        eprintln!(
            "SKIPPED {test}: there is no {}; make prometheus installs it",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn names(text: &str, key: &str) -> std::collections::BTreeSet<String> {
    let behind = text.split(key).skip(1);
    behind
        .map(|rest| rest.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect())
        .collect()
}

#[test]
fn every_alert_fires_where_it_must_and_nowhere_else() {
    let test = "every_alert_fires_where_it_must_and_nowhere_else";
    let Some(promtool) = program(test, "promtool") else {
        return;
    };
    let folder = folder(test);
    let rules = std::fs::read_to_string(workspace().join(RULES)).expect("the rules");
    let cases = std::fs::read_to_string(workspace().join("tests/prometheus/rules.test.yml")).expect("the cases");
    let (alerts, tried) = (names(&rules, "- alert:"), names(&cases, "alertname:"));
    let untried: Vec<_> = alerts.difference(&tried).collect();
    assert!(alerts.len() >= 19 && untried.is_empty(), "no case for {untried:?}");
    let page = std::fs::read_to_string(workspace().join("docs/alerts.md")).expect("docs/alerts.md");
    let sections = names(&page, "\n## ");
    assert_eq!(alerts, sections, "docs/alerts.md has a section for each alert");
    std::fs::write(folder.join("fluxline.rules.yml"), &rules).expect("the rules");
    std::fs::write(folder.join("rules.test.yml"), &cases).expect("the cases");
    for arguments in [
        ["check", "rules", "fluxline.rules.yml"],
        ["test", "rules", "rules.test.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(&folder)
            .output()
            .expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

/// A Prometheus that scrapes one appliance every second, with the rules' waits cut to two seconds.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(program: &Path, folder: &Path, appliance: &str) -> Prometheus {
        let rules = std::fs::read_to_string(workspace().join(RULES)).expect("the rules");
        let quick: Vec<String> = rules
            .lines()
            .map(|line| match line.split_once("for: ") {
                Some((before, _)) => format!("{before}for: 2s"),
                None => line.to_string(),
            })
            .collect();
        std::fs::write(folder.join("fluxline.rules.yml"), quick.join("\n")).expect("the rules");
        let target = appliance.trim_start_matches("http://");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [fluxline.rules.yml]\n\
             scrape_configs:\n  - job_name: fluxline\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, text).expect("a configuration");
        let address = format!("127.0.0.1:{}", fluxline_tests::port());
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus");
        let url = format!("http://{address}");
        Prometheus { child, url }
    }

    /// Labels and value of each series of an expression; nothing while it does not answer.
    fn query(&self, expression: &str) -> Vec<Value> {
        let answer = ureq::get(format!("{}/api/v1/query", self.url))
            .query("query", expression)
            .call();
        let Ok(mut answer) = answer else { return Vec::new() };
        let value: Value = answer.body_mut().read_json().expect("JSON");
        value["data"]["result"].as_array().expect("series").clone()
    }

    fn wait(&self, expression: &str) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let found = self.query(expression);
            if !found.is_empty() {
                return found;
            }
            assert!(
                Instant::now() < until,
                "nothing for {expression}; firing: {:?}",
                self.query("ALERTS")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn wait_for_alert(&self, name: &str) {
        self.wait(&format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}"));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames lost on their way and a write that fails, seen by who watches the appliance at night.
#[test]
fn a_prometheus_scrapes_the_appliance_and_its_rules_fire_on_faults() {
    let test = "a_prometheus_scrapes_the_appliance_and_its_rules_fire_on_faults";
    let Some(program) = program(test, "prometheus") else {
        return;
    };
    let folder = folder(test);
    let library = interposed(&folder, "disk.c", &[]);
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 32\n\
         columns = 32\nframes = 300\nrate_hz = 300.0\n[source.faults]\nseed = 3\ndrop = 0.02\n[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    let mut appliance = Command::new(binary());
    // Of the frames that the second run writes one fails at least; a write may be an index.
    appliance
        .env("LD_PRELOAD", &library)
        .env("FLUXLINE_DISK", "write _data_000001.h5 400 3 5");
    let server = Server::start_by(appliance, &config);
    let run = |name: &str| {
        let (status, answer) = server.post("/api/v1/runs", &object!({ "name": name }));
        assert_eq!(status, 201, "{answer}");
        server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null())
    };
    run("first");
    let prometheus = Prometheus::start(&program, &folder, &server.url);
    let before = prometheus.wait("fluxline_frames_total{state=\"lost\"}");
    assert_ne!(before[0]["value"][1], "0", "the first run lost frames: {before:?}");
    prometheus.wait_for_alert("RingNotOnHugePages");
    let quiet = prometheus
        .query("ALERTS{alertstate=\"firing\", alertname=~\"FramesLost|FramesNotStored|FluxlineInError|FluxlineDown\"}");
    assert!(
        quiet.is_empty(),
        "nothing has happened since it was first asked: {quiet:?}"
    );

    let second = run("second");
    assert_eq!(second["summary"]["state"], "failed", "{second}");
    for alert in ["FramesLost", "FramesNotStored", "FluxlineInError"] {
        prometheus.wait_for_alert(alert);
    }
    drop(server);
    prometheus.wait_for_alert("FluxlineDown");
}
