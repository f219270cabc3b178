//! Calls of programs: done once however often they are sent, and described so that a program can know what it may send.

use fluxline_tests::{Server, folder};
use serde_json::{Value, json as object};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn appliance(test: &str) -> Server {
    let folder = folder(test);
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 32\ncolumns = 32\nframes = 100000\nrate_hz = 50.0\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n[recipe.look.statistics]\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    Server::start(&config)
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
    assert_eq!(server.get(runs)["total"], 2);
    for wrong in ["", "with space", &"x".repeat(129)] {
        assert_eq!(post(&server, runs, wrong, &object!({})).0, 400, "{wrong:?}");
    }
    let large = object!({ "sample": "x".repeat(1 << 20) });
    assert_eq!(post(&server, runs, "d", &large).0, 413);
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
    assert_eq!(server.get("/api/v1/runs")["total"], 1);
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
