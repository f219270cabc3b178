//! Calls of programs: done once however often they are sent, and described so that a program can know what it may send.

use fluxline_tests::{Server, folder};
use serde_json::{Value, json as object};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn appliance(test: &str) -> Server {
    Server::start(&configuration(test))
}

fn configuration(test: &str) -> std::path::PathBuf {
    let folder = folder(test);
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 32\ncolumns = 32\nframes = 100000\nrate_hz = 50.0\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n[recipe.look.statistics]\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    config
}

/// Status, whether it is an earlier answer, and the body.
fn post(server: &Server, path: &str, key: &str, body: &Value) -> (u16, bool, Value) {
    let request = ureq::post(format!("{}{path}", server.url))
        .header("idempotency-key", key)
        .config()
        .http_status_as_error(false)
        .build();
    let mut answer = request.send_json(body).expect(path);
    let status = answer.status().as_u16();
    let again = answer.headers().get("idempotency-replayed").is_some();
    (status, again, answer.body_mut().read_json().unwrap_or(Value::Null))
}

fn stop(server: &Server, run: &str) {
    assert_eq!(server.post(&format!("/api/v1/runs/{run}/stop"), &object!({})).0, 200);
    server.wait(&format!("/api/v1/runs/{run}"), |detail| !detail["summary"].is_null());
}

#[test]
fn a_call_with_a_key_is_done_once() {
    let server = appliance("calls-once");
    let runs = "/api/v1/runs";
    let (status, again, first) = post(&server, runs, "a", &object!({ "sample": "one" }));
    assert_eq!((status, again), (201, false), "{first}");
    let name = first["id"].as_str().expect("a name").to_string();
    // The same call, also after the run is over, does nothing and says the same; another body is refused.
    assert_eq!(
        post(&server, runs, "a", &object!({ "sample": "one" })),
        (201, true, first.clone())
    );
    let (status, _, refused) = post(&server, runs, "a", &object!({ "sample": "two" }));
    assert_eq!((status, &refused["error"]), (422, &object!("idempotency_key")));
    assert!(
        refused["message"].as_str().is_some_and(|m| m.contains("a new key")),
        "{refused}"
    );
    // What was refused has done nothing: the same key may try again when the reason is gone.
    let (status, again, busy) = post(&server, runs, "b", &object!({ "sample": "two" }));
    assert_eq!((status, again, &busy["error"]), (409, false, &object!("busy")));
    assert_eq!(busy["allowed_states"], object!(["idle", "error"]));
    let (status, again, stopped) = post(&server, &format!("{runs}/{name}/stop"), "c", &object!({}));
    assert_eq!((status, again), (200, false), "{stopped}");
    server.wait(&format!("{runs}/{name}"), |detail| !detail["summary"].is_null());
    assert_eq!(
        post(&server, &format!("{runs}/{name}/stop"), "c", &object!({})),
        (200, true, stopped),
        "without a key it would be refused: the run has ended"
    );
    assert_eq!(server.post(&format!("{runs}/{name}/stop"), &object!({})).0, 409);
    assert_eq!(
        post(&server, runs, "a", &object!({ "sample": "one" })),
        (201, true, first)
    );
    let (status, again, second) = post(&server, runs, "b", &object!({ "sample": "two" }));
    assert_eq!((status, again), (201, false), "{second}");
    let second = second["id"].as_str().expect("a name");
    assert_ne!(second, name);
    stop(&server, second);
    server.wait(runs, |list| list["complete"] == true && list["total"] == 2);
    for wrong in ["", "with space", &"x".repeat(129)] {
        assert_eq!(post(&server, runs, wrong, &object!({})).0, 400, "{wrong:?}");
    }
    let large = object!({ "sample": "x".repeat(1 << 20) });
    assert_eq!(post(&server, runs, "d", &large).0, 413);
}

#[test]
fn a_call_is_done_once_also_by_an_appliance_that_was_started_anew() {
    let mut server = appliance("calls-anew");
    let runs = "/api/v1/runs";
    let (status, _, first) = post(&server, runs, "a", &object!({ "sample": "one" }));
    assert_eq!(status, 201, "{first}");
    let name = first["id"].as_str().expect("a name").to_string();
    let (status, _, busy) = post(&server, runs, "b", &object!({ "sample": "two" }));
    assert_eq!(status, 409, "{busy}");
    let (status, _, stopped) = post(&server, &format!("{runs}/{name}/stop"), "c", &object!({}));
    assert_eq!(status, 200, "{stopped}");
    server.wait(&format!("{runs}/{name}"), |detail| !detail["summary"].is_null());
    // Killed, as a power cut or a mistake would: nothing is written on the way out.
    for _ in 0..2 {
        drop(server);
        server = Server::start(
            &std::env::temp_dir().join(format!("fluxline-test-{}-calls-anew/fluxline.toml", std::process::id())),
        );
        let anew = post(&server, runs, "a", &object!({ "sample": "one" }));
        assert_eq!(anew, (201, true, first.clone()));
        let anew = post(&server, &format!("{runs}/{name}/stop"), "c", &object!({}));
        assert_eq!(anew, (200, true, stopped.clone()));
        let (status, _, refused) = post(&server, runs, "a", &object!({ "sample": "two" }));
        assert_eq!((status, &refused["error"]), (422, &object!("idempotency_key")));
        server.wait(runs, |list| list["complete"] == true && list["total"] == 1);
    }
    // What was refused was not kept.
    let (status, again, second) = post(&server, runs, "b", &object!({ "sample": "two" }));
    assert_eq!((status, again), (201, false), "{second}");
    stop(&server, second["id"].as_str().expect("a name"));
}

#[test]
fn a_call_whose_client_left_is_done_once_and_answered_to_whoever_comes_back() {
    let server = appliance("calls-left");
    let address = server.url.strip_prefix("http://").expect("an address");
    let body = r#"{"name":"left"}"#;
    let request = format!(
        "POST /api/v1/runs HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nidempotency-key: k\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // One that leaves without its answer, and several that ask at once.
    let mut left = TcpStream::connect(address).expect("a connection");
    left.write_all(request.as_bytes()).expect("a request");
    drop(left);
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .expect("a timeout");
            stream.write_all(request.as_bytes()).expect("a request");
            stream
        })
        .collect();
    let mut again = 0;
    for mut stream in asked {
        let (mut said, mut piece) = (String::new(), [0; 65536]);
        while !said.contains("\"warnings\"") {
            let read = stream.read(&mut piece).expect("an answer");
            assert!(read > 0, "{said}");
            said += &String::from_utf8_lossy(&piece[..read]);
        }
        assert!(said.starts_with("HTTP/1.1 201") && said.contains("\"left\""), "{said}");
        again += usize::from(said.contains("idempotency-replayed: true"));
    }
    assert!(again >= 7, "{again}");
    stop(&server, "left");
    server.wait("/api/v1/runs", |list| list["complete"] == true && list["total"] == 1);
}

#[test]
fn a_body_names_its_fields() {
    let config = configuration("calls-bodies");
    let token = fluxline_tests::token(&config, "boss", "admin");
    let server = Server::start(&config);
    let call = |method: &str, path: &str, body: &str| server.call(method, path, Some(&token), body);
    assert_eq!(call("POST", "/api/v1/runs", "{\"name\": \"given\"}").0, 201);
    assert_eq!(call("POST", "/api/v1/runs/given/stop", "{}").0, 200);
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while call("GET", "/api/v1/runs/given", "").1["summary"].is_null() {
        assert!(std::time::Instant::now() < end, "the run does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let document = call("GET", "/openapi.json", "").1;
    let mut asked = 0;
    for (path, calls) in document["paths"].as_object().expect("paths") {
        for (method, described) in calls.as_object().expect("calls") {
            if !described["requestBody"]["content"]["application/json"].is_object() {
                continue;
            }
            let path = path
                .replace("{id}", "given")
                .replace("{sequence}", "0")
                .replace("{kind}", "dark");
            let path = path.replace("{name}", "any");
            // Values in the order of the fields, which a call without fields that are needed would take for its own.
            for body in ["[]", "[null, null]", "null", "1", "\"given\""] {
                let (status, answer) = call(&method.to_uppercase(), &path, body);
                assert_eq!(status, 422, "{method} {path} {body}: {answer}");
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(
                    message.contains("expected an object"),
                    "{method} {path} {body}: {answer}"
                );
                asked += 1;
            }
        }
    }
    assert!(asked >= 40, "{asked}");
    assert_eq!(call("GET", "/api/v1/runs", "").1["total"], 1, "none of these is a run");
}

#[test]
fn what_can_be_set_describes_itself() {
    let server = appliance("calls-parameters");
    let list = server.get("/api/v1/parameters");
    let document = server.get("/openapi.json");
    assert_eq!(
        (&list["state"], &list["run"], &list["parameters"]),
        (&object!("idle"), &Value::Null, &object!([]))
    );
    // The list has what the call takes, no more and no less, and its states are those in which the call is allowed.
    let taken = document["components"]["schemas"]["RunRequest"]["properties"].as_object();
    let mut taken: Vec<&str> = taken.expect("fields").keys().map(String::as_str).collect();
    let arming = list["arming"].as_array().expect("a list");
    let mut listed: Vec<&str> = arming.iter().filter_map(|field| field["name"].as_str()).collect();
    taken.sort();
    listed.sort();
    assert_eq!(taken, listed);
    for field in arming {
        assert_eq!(
            (&field["access"], &field["call"]),
            (&object!("read_write"), &object!("POST /api/v1/runs"))
        );
        assert_eq!(
            (&field["states"], &field["value"]),
            (&object!(["idle", "error"]), &Value::Null)
        );
        assert!(document["paths"]["/api/v1/runs"]["post"].is_object());
    }
    let field = |list: &Value, name: &str| {
        let fields = list["arming"].as_array().expect("a list").clone();
        fields.into_iter().find(|field| field["name"] == name).expect(name)
    };
    assert_eq!(field(&list, "recipe")["choices"], object!(["look"]));
    assert_eq!(field(&list, "proposal")["default"], "commissioning");
    // Its limits are those that the call has.
    let pattern = field(&list, "name")["pattern"].clone();
    assert_eq!(pattern, "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$");
    let arm = |body: &Value| server.post("/api/v1/runs", body);
    assert_eq!(arm(&object!({ "name": "_no" })).0, 422);
    assert_eq!(arm(&object!({ "name": "x".repeat(65) })).0, 422);
    assert_eq!(arm(&object!({ "recipe": "other" })).0, 422);
    assert_eq!(field(&list, "frames_expected")["minimum"], 1);
    assert_eq!(arm(&object!({ "frames_expected": 0 })).0, 422);
    let run =
        object!({ "name": "x".repeat(64), "sample": "tooth", "frames_expected": 90000, "metadata": { "a": "b" } });
    let (status, armed) = arm(&run);
    assert_eq!(status, 201, "{armed}");
    let list = server.wait("/api/v1/parameters", |list| list["state"] == "recording");
    for (name, value) in run.as_object().expect("fields") {
        let shown = &field(&list, name)["value"];
        assert!(
            shown == value || (name == "metadata" && shown["a"] == "b"),
            "{name}: {shown}"
        );
    }
    assert_eq!(
        (&field(&list, "recipe")["value"], &field(&list, "technique")["value"]),
        (&object!("look"), &object!("diffraction"))
    );
    assert_eq!(arm(&object!({})).0, 409, "as the states say");
    let keyed = document["paths"].as_object().expect("paths").values();
    let keyed = keyed.filter_map(|item| item["post"]["parameters"].as_array());
    let keyed = keyed.filter(|list| list.iter().any(|p| p["name"] == "Idempotency-Key"));
    assert_eq!(
        keyed.count(),
        document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .filter(|item| item["post"].is_object())
            .count()
    );
    stop(&server, &"x".repeat(64));
}

#[test]
fn a_call_that_lasts_longer_than_its_client_waits_goes_on_and_says_where() {
    let server = appliance("calls-lasting");
    let runs = "/api/v1/runs";
    let ask = |method: &str, path: &str, body: &Value| server.call(method, path, None, &body.to_string());
    let (status, armed) = ask("POST", &format!("{runs}?timeout_s=60"), &object!({ "name": "long" }));
    assert_eq!((status, &armed["id"]), (201, &object!("long")), "{armed}");
    // The run lasts for half an hour.
    let (status, told) = ask("GET", &format!("{runs}/long?timeout_s=0.05"), &Value::Null);
    assert_eq!(
        (status, &told["id"], &told["next"]),
        (202, &object!("long"), &object!("/api/v1/runs/long")),
        "{told}"
    );
    assert!(
        ["armed", "recording"].contains(&told["state"].as_str().unwrap_or_default()),
        "{told}"
    );
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|text| text.contains("/api/v1/runs/long?timeout_s=")),
        "{told}"
    );
    for wrong in ["700", "-1", "nan", "1e300"] {
        let (status, error) = ask("GET", &format!("{runs}/long?timeout_s={wrong}"), &Value::Null);
        assert_eq!((status, &error["error"]), (422, &object!("timeout_s")), "{error}");
    }
    assert_eq!(ask("GET", &format!("{runs}/long?timeout_s=soon"), &Value::Null).0, 400);
    // Whoever waits is told when it has ended, and so is whoever ends it. One without a frame cannot go again.
    server.wait(&format!("{runs}/long"), |run| {
        run["frames"]["complete"].as_u64() > Some(0)
    });
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            loop {
                let (status, told) = ask("GET", &format!("{runs}/long?timeout_s=20"), &Value::Null);
                if status != 202 {
                    return (status, told);
                }
            }
        });
        let end = ask("POST", &format!("{runs}/long/stop?timeout_s=25"), &Value::Null);
        for (status, detail) in [end, waits.join().expect("an answer")] {
            assert_eq!((status, &detail["state"]), (200, &object!("stopped")), "{detail}");
            assert_eq!(detail["summary"]["state"], "stopped", "{detail}");
        }
    });
    assert_eq!(ask("GET", &format!("{runs}/long?timeout_s=20"), &Value::Null).0, 200);
    assert_eq!(ask("GET", &format!("{runs}/never?timeout_s=20"), &Value::Null).0, 404);
    // A name is made where none is given, so that there is an address to go on at.
    server.wait(runs, |list| list["runs"][0]["store_state"] == "closed");
    let (status, again) = ask("POST", &format!("{runs}/long/reprocess?timeout_s=0"), &object!({}));
    assert!(status == 201 || status == 202, "{again}");
    let name = again["id"].as_str().expect("a name").to_string();
    let (_, ended) = (0..10)
        .map(|_| ask("GET", &format!("{runs}/{name}?timeout_s=20"), &Value::Null))
        .find(|(status, _)| *status == 200)
        .expect("the end");
    assert_eq!(ended["state"], "complete", "{ended}");
}

#[test]
fn what_comes_of_a_run_that_is_armed_late_is_told_at_its_address() {
    let folder = folder("calls-late");
    // Nobody is there: arming waits for a series and then fails.
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nkind = \"dectris\"\naddresses = [\"tcp://127.0.0.1:{}\"]\nstart_timeout_s = 2.0\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display(),
        fluxline_tests::port()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let ask = |method: &str, path: &str, body: &str| server.call(method, path, None, body);
    let (status, told) = ask("POST", "/api/v1/runs?timeout_s=0.01", "{\"name\":\"late\"}");
    assert_eq!(
        (status, &told["state"], &told["next"]),
        (202, &object!("arming"), &object!("/api/v1/runs/late")),
        "{told}"
    );
    let (status, error) = ask("GET", "/api/v1/runs/late", "");
    // On a machine that is very slow it has failed by now.
    assert!([425, 422].contains(&status), "{status} {error}");
    let (status, error) = ask("GET", "/api/v1/runs/late?timeout_s=25", "");
    assert_eq!((status, &error["error"]), (422, &object!("source")), "{error}");
    assert_eq!(ask("GET", "/api/v1/runs/late", "").0, 422, "it stays known");
    assert_eq!(ask("GET", "/api/v1/runs/other", "").0, 404);
}
