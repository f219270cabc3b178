//! Tokens that are limited to proposals and runs: other people's runs are as if they did not exist.

use fluxline_tests::{Server, fluxline, folder, json, token};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RUN: &str = "[[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 64\ncolumns = 64\nframes = 100000\nrate_hz = 50.0\n\
                   [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";

fn configuration(folder: &Path, feedback: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\n{feedback}\n{RUN}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `fluxline token create --only`; the token.
fn limited_token(config: &Path, name: &str, role: &str, only: &str) -> String {
    let config = config.display().to_string();
    let made = json(&fluxline(&[
        "token", "create", name, "--role", role, "--only", only, "--json", "--config", &config,
    ]));
    assert_eq!(made["only"], object!([only]));
    made["token"].as_str().expect("a token").to_string()
}

/// Arms a run and waits until it records.
fn record(server: &Server, token: &str, proposal: &str, name: &str) {
    let body = object!({ "name": name, "proposal": proposal }).to_string();
    let (status, said) = server.call("POST", "/api/v1/runs", Some(token), &body);
    assert_eq!(status, 201, "{said}");
    let path = format!("/api/v1/runs/{name}");
    within(Duration::from_secs(60), "a result", || {
        let (_, run) = server.call("GET", &path, Some(token), "");
        run["outcomes"]["done"].as_u64() > Some(2)
    });
}

fn end(server: &Server, token: &str, name: &str) {
    let path = format!("/api/v1/runs/{name}");
    assert_eq!(server.call("POST", &format!("{path}/stop"), Some(token), "").0, 200);
    within(Duration::from_secs(60), "a closed run", || {
        let (_, run) = server.call("GET", &path, Some(token), "");
        run["store_state"] != "recording" && !run["summary"].is_null()
    });
}

/// Every route of a run, with a body that it would take.
fn routes_of_a_run(document: &Value) -> Vec<(String, String, String)> {
    let mut routes = Vec::new();
    for (template, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            if !template.contains("/runs/{id}") {
                continue;
            }
            let body = match template.ends_with("/acknowledge") {
                true => object!({ "by": "somebody" }).to_string(),
                false => "{}".into(),
            };
            let files: &[&str] = match template.contains("/files/") {
                true => &["run.json", "RUN_master.h5"],
                false if template.contains("/slices/") => &["0.npy"],
                false => &["latest.json", "0.npy"],
            };
            let count = if template.contains("{file}") { files.len() } else { 1 };
            for file in files.iter().take(count) {
                let path = template
                    .replace("{sequence}", "0")
                    .replace("{file}", file)
                    .replace("{which}", "sum")
                    .replace("{frame}", "0");
                let path = match template.contains("/h5/") {
                    true => format!("{path}?file=RUN_master.h5&path=/entry/definition"),
                    false => path,
                };
                routes.push((method.to_uppercase(), path, body.clone()));
            }
        }
    }
    routes
}

#[test]
fn other_peoples_runs_are_as_if_they_did_not_exist() {
    let folder = folder("access-limited");
    let config = configuration(&folder, "listen = \"127.0.0.1:0\"");
    let path = config.display().to_string();
    let all = token(&config, "all", "operator");
    let admin = token(&config, "boss", "admin");
    let mine = limited_token(&config, "mine", "operator", "mine");
    let looks = limited_token(&config, "looks", "viewer", "mine");
    let one = limited_token(&config, "one", "viewer", "theirs/live");
    let server = Server::start(&config);
    let (_, document) = server.call("GET", "/openapi.json", None, "");
    let routes = routes_of_a_run(&document);
    assert!(routes.len() >= 18, "{}", routes.len());

    // What a limited token is told of `hidden` is what it is told of a run that never was, on every route.
    let hides = |token: &str, hidden: &str, state: &str| {
        for (method, route, body) in &routes {
            let asked = |run: &str| {
                let path = route.replace("{id}", run).replace("RUN", run);
                let (status, said) = server.call(method, &path, Some(token), body);
                (status, said.to_string().replace(run, "RUN"))
            };
            let (real, never) = (asked(hidden), asked("never-was"));
            assert_eq!(real, never, "{method} {route} of {hidden}, {state}");
            assert!([403, 404].contains(&real.0), "{method} {route}: {real:?}");
        }
    };
    // And of its own what everybody is told; streams are read elsewhere.
    let shows = |token: &str, run: &str, state: &str| {
        let mut found = 0;
        for (method, route, _) in routes.iter().filter(|(method, _, _)| method == "GET") {
            if route.ends_with("/events") || route.ends_with("/results") {
                continue;
            }
            let path = route.replace("{id}", run).replace("RUN", run);
            let status = server.call(method, &path, Some(token), "").0;
            assert_eq!(status, server.call(method, &path, Some(&all), "").0, "{route}, {state}");
            found += usize::from(status == 200);
        }
        assert!(found >= 4, "{found} routes of {run}, {state}");
    };
    let runs = |token: &str, query: &str| {
        let (_, list) = server.call("GET", &format!("/api/v1/runs?query={query}"), Some(token), "");
        let ids = list["runs"].as_array().expect("runs").iter();
        let ids: Vec<String> = ids.map(|run| run["id"].as_str().expect("an id").into()).collect();
        assert_eq!(list["total"], ids.len(), "{list}");
        ids
    };

    // Theirs records.
    record(&server, &all, "theirs", "live");
    for hidden in ["live", "current"] {
        hides(&mine, hidden, "recording");
        hides(&looks, hidden, "recording");
    }
    shows(&one, "live", "recording");
    assert_eq!((runs(&mine, ""), runs(&one, "")), (vec![], vec!["live".to_string()]));
    let (_, status) = server.call("GET", "/api/v1/status", Some(&mine), "");
    assert_eq!(
        (
            &status["state"],
            &status["run"],
            &status["frames"]["complete"],
            &status["store"]["keep"]
        ),
        (&object!("recording"), &Value::Null, &object!(0), &Value::Null),
        "{status}"
    );
    let (_, list) = server.call("GET", "/api/v1/parameters", Some(&mine), "");
    assert_eq!(
        (&list["run"], &list["arming"][0]["value"]),
        (&Value::Null, &Value::Null),
        "{list}"
    );
    let arm = |body: Value| server.call("POST", "/api/v1/runs", Some(&mine), &body.to_string());
    for (body, expected) in [
        (object!({}), 403),
        (object!({ "proposal": "theirs" }), 403),
        (object!({ "proposal": "mine" }), 409),
        (
            object!({ "proposal": "mine", "metadata": { "raw_file": "/etc/passwd" } }),
            422,
        ),
    ] {
        let (status, said) = arm(body.clone());
        assert_eq!(status, expected, "{body}: {said}");
        assert!(!said.to_string().contains("live"), "{said}");
    }
    end(&server, &all, "live");
    hides(&mine, "live", "closed and in memory");

    // Mine records; a run of theirs is closed. The same name is each one's own.
    record(&server, &all, "theirs", "twice");
    end(&server, &all, "twice");
    record(&server, &mine, "mine", "mine-1");
    for hidden in ["live", "twice"] {
        hides(&mine, hidden, "closed");
    }
    hides(&one, "twice", "closed");
    hides(&one, "current", "recording");
    shows(&mine, "mine-1", "recording");
    shows(&looks, "current", "recording");
    end(&server, &mine, "mine-1");
    record(&server, &mine, "mine", "twice");
    end(&server, &mine, "twice");
    record(&server, &all, "theirs", "last");
    end(&server, &all, "last");
    for run in ["mine-1", "twice"] {
        shows(&mine, run, "closed");
        hides(&one, run, "closed");
    }
    let (_, twice) = server.call("GET", "/api/v1/runs/twice", Some(&looks), "");
    assert_eq!(twice["record"]["proposal"], "mine", "{twice}");
    let own = vec!["twice".to_string(), "mine-1".to_string()];
    assert_eq!((runs(&mine, ""), runs(&looks, "")), (own.clone(), own));
    assert_eq!(runs(&all, "").len(), 5);
    for query in [
        "theirs",
        "proposal=theirs",
        "live",
        "last",
        "proposal:t",
        "frames%3E0%20theirs",
    ] {
        assert_eq!(runs(&mine, query), Vec::<String>::new(), "{query}");
    }
    assert_eq!(runs(&mine, "twice"), ["twice"]);
    assert_eq!(runs(&one, "theirs"), ["live"]);

    // What concerns everybody's runs is not for a limited token, and such a token is none of an administrator.
    let mut refused = 0;
    for (template, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let path = template.replace("{name}", "x").replace("{kind}", "dark");
            if operation["x-limited-tokens"] == false {
                assert_eq!(
                    server.call(&method.to_uppercase(), &path, Some(&mine), "{").0,
                    403,
                    "{template}"
                );
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 7);
    assert_eq!(server.call("GET", "/metrics", Some(&looks), "").0, 403);
    let (_, session) = server.call("GET", "/api/v1/session", Some(&one), "");
    assert_eq!(session["only"], object!(["theirs/live"]));
    let ask = |body: Value| server.call("POST", "/api/v1/tokens", Some(&admin), &body.to_string());
    assert_eq!(ask(object!({ "name": "a", "role": "admin", "only": ["mine"] })).0, 422);
    assert_eq!(
        ask(object!({ "name": "b", "role": "viewer", "only": ["a/b/c"] })).0,
        422
    );
    let (status, made) = ask(object!({ "name": "c", "role": "viewer", "only": ["mine", "theirs/last"] }));
    assert_eq!((status, &made["only"]), (201, &object!(["mine", "theirs/last"])));
    assert_eq!(runs(made["token"].as_str().expect("a token"), "").len(), 3);
    let list = json(&fluxline(&["token", "list", "--json", "--config", &path]));
    assert_eq!(list["tokens"][2]["only"], object!(["mine"]));
}
