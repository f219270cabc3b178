//! Who may do what over HTTP: tokens, roles, throttling, the audit log, TLS, and clients that are slow on purpose.

use fluxline_tests::{Server, binary, certificate, complaint, fluxline, folder, json, token};
use serde_json::{Value, json as object};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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

/// An appliance that says all that it can.
fn start(config: &Path) -> Server {
    let mut program = Command::new(binary());
    program.env("FLUXLINE_LOG", "trace");
    Server::start_by(program, config)
}

fn get(server: &Server, path: &str, token: Option<&str>) -> u16 {
    server.status("GET", path, token, "")
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

#[test]
fn every_route_asks_for_the_role_that_openapi_names() {
    let folder = folder("access-roles");
    let config = configuration(&folder, "listen = \"127.0.0.1:0\"");
    let roles = ["viewer", "operator", "admin"];
    let tokens = roles.map(|role| token(&config, &format!("a-{role}"), role));
    let server = start(&config);
    let (status, document) = server.call("GET", "/openapi.json", None, "");
    assert_eq!(status, 200);
    let mut counted = [0; 3];
    for (template, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let method = method.to_uppercase();
            // Nobody's run, nobody's token; a body that is no JSON: past the door it changes nothing.
            let path = template
                .replace("{id}", "nothing")
                .replace("{kind}", "dark")
                .replace("{sequence}", "0")
                .replace("{file}", "0.json")
                .replace("{name}", "nothing")
                .replace("{which}", "0")
                .replace("{frame}", "0");
            let call = |token: Option<&str>| server.call(&method, &path, token, "{").0;
            let Some(needed) = operation["x-role"].as_str() else {
                assert_eq!(operation["security"], object!([]), "{method} {template}");
                assert_eq!(call(None), 200, "{method} {template}");
                continue;
            };
            assert_eq!(
                operation["security"],
                object!([{ "token": [needed] }]),
                "{method} {template}"
            );
            let needed = roles.iter().position(|role| *role == needed).expect("a role");
            counted[needed] += 1;
            assert_eq!(call(None), 401, "{method} {template}");
            for (rank, token) in tokens.iter().enumerate() {
                let status = call(Some(token));
                if rank < needed {
                    assert_eq!(status, 403, "{method} {template} by {}", roles[rank]);
                } else {
                    assert!(
                        ![401, 403, 405, 429, 500].contains(&status),
                        "{method} {template} by {}: {status}",
                        roles[rank]
                    );
                }
            }
        }
    }
    assert!(counted[0] >= 15 && counted[1] >= 10 && counted[2] == 3, "{counted:?}");
    // Outside the document: the page and whether it lives are for everybody, what is not there is for nobody.
    assert_eq!((get(&server, "/", None), get(&server, "/healthz", None)), (200, 200));
    assert_eq!(get(&server, "/api/v1/nothing", None), 401);
    assert_eq!(get(&server, "/metrics", None), 401);
    assert_eq!(get(&server, "/metrics", Some(&tokens[0])), 200);
    assert_eq!(server.call("PATCH", "/api/v1/status", Some(&tokens[0]), "").0, 403);
    assert_eq!(server.call("PATCH", "/api/v1/status", Some(&tokens[2]), "").0, 405);
    let address = format!("/api/v1/status?token={0}&access_token={0}", tokens[2]);
    assert_eq!(get(&server, &address, None), 401, "never in an address");
}

#[test]
fn tokens_come_and_go_while_the_appliance_runs_and_leave_no_trace() {
    let folder = folder("access-tokens");
    let config = configuration(&folder, "listen = \"127.0.0.1:0\"");
    let path = config.display().to_string();
    let server = start(&config);
    assert!(server.said().contains("no tokens are in use"), "{}", server.said());
    let (_, session) = server.call("GET", "/api/v1/session", None, "");
    assert_eq!(
        session,
        object!({ "open": true, "name": "open", "role": "operator", "only": [] })
    );
    let first = object!({ "name": "first", "role": "admin" }).to_string();
    let (status, said) = server.call("POST", "/api/v1/tokens", None, &first);
    assert!(
        status == 403
            && said["message"]
                .as_str()
                .is_some_and(|m| m.contains("fluxline token create")),
        "{said}"
    );
    let run = object!({ "name": "watched" }).to_string();
    assert_eq!(
        server.call("POST", "/api/v1/runs", None, &run).0,
        201,
        "open to this machine"
    );
    // The first token shuts the door, also behind whoever listens already.
    let mut open = tungstenite::connect(format!(
        "{}/api/v1/runs/watched/results",
        server.url.replace("http", "ws")
    ))
    .expect("a WebSocket")
    .0;
    let admin = token(&config, "boss", "admin");
    let closing = within(Duration::from_secs(60), "the door shuts", || {
        get(&server, "/api/v1/status", None) == 401
    });
    assert!(closing < Duration::from_secs(30), "{closing:?}");
    while open.read().is_ok() {}
    // Another one by HTTP, which looks at results and events.
    let request = object!({ "name": "console", "role": "viewer", "days": 1 }).to_string();
    let (status, made) = server.call("POST", "/api/v1/tokens", Some(&admin), &request);
    assert_eq!((status, &made["role"]), (201, &object!("viewer")), "{made}");
    assert_eq!(server.call("POST", "/api/v1/tokens", Some(&admin), &request).0, 409);
    let viewer = made["token"].as_str().expect("a token").to_string();
    assert_eq!(
        server.call("POST", "/api/v1/runs/watched/stop", Some(&viewer), "").0,
        403
    );
    use tungstenite::client::IntoClientRequest;
    let address = format!("{}/api/v1/runs/watched/results", server.url.replace("http", "ws"));
    let mut upgrade = address.as_str().into_client_request().expect("a request");
    let offered = format!("fluxline, fluxline.token.{viewer}").parse().expect("a header");
    upgrade.headers_mut().insert("sec-websocket-protocol", offered);
    let (mut socket, answer) = tungstenite::connect(upgrade).expect("a WebSocket");
    assert_eq!(
        answer.headers()["sec-websocket-protocol"],
        "fluxline",
        "and not the token"
    );
    assert!(socket.read().expect("a result").is_text());
    assert!(tungstenite::connect(address.as_str()).is_err(), "not without a token");
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let request = format!(
        "GET /api/v1/runs/watched/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {viewer}\r\nconnection: close\r\n\r\n",
        server.address()
    );
    stream.write_all(request.as_bytes()).expect("a request");
    // It is let in before the token is revoked.
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    let (mut events, mut piece) = (String::new(), [0; 4096]);
    while !events.contains("event: armed") {
        let read = stream.read(&mut piece).expect("events");
        assert!(read > 0, "{events}");
        events += &String::from_utf8_lossy(&piece[..read]);
    }
    // Revoked: both end by themselves, and nothing new begins.
    let started = Instant::now();
    assert!(
        fluxline(&["token", "revoke", "console", "--config", &path])
            .status
            .success()
    );
    while socket.read().is_ok() {}
    stream.read_to_string(&mut events).expect("the end of the events");
    assert!(
        events.starts_with("HTTP/1.1 200") && events.contains("event: armed"),
        "{events}"
    );
    println!("revoked, and its streams ended, after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(get(&server, "/api/v1/status", Some(&viewer)), 401);
    // Guessing is held up, whoever knows is not.
    let guessed: Vec<u16> = (0..12)
        .map(|n| get(&server, "/api/v1/status", Some(&format!("guess-{n}"))))
        .collect();
    assert_eq!((guessed[5], guessed[11]), (401, 429), "{guessed:?}");
    assert_eq!(get(&server, "/api/v1/status", Some(&admin)), 200);
    assert_eq!(
        server.call("POST", "/api/v1/runs/watched/stop", Some(&admin), "").0,
        200
    );
    // A file that is gone holds no token; it does not open the door.
    let listed = json(&fluxline(&["token", "list", "--json", "--config", &path]));
    assert_eq!(
        (&listed["in_use"], &listed["tokens"][0]["name"]),
        (&object!(true), &object!("boss"))
    );
    let file = folder.join("store/.fluxline/tokens.json");
    let kept = std::fs::read_to_string(&file).expect("the tokens");
    let audit = within_audit(&folder, 6);
    let words: Vec<String> = audit
        .iter()
        .map(|line| {
            format!(
                "{} {} {} {}",
                line["name"], line["method"], line["path"], line["status"]
            )
        })
        .collect();
    for expected in [
        "\"open\" \"POST\" \"/api/v1/tokens\" 403",
        "\"open\" \"POST\" \"/api/v1/runs\" 201",
        "\"command line\" \"token create boss admin\" \"\" 0",
        "\"boss\" \"POST\" \"/api/v1/tokens\" 201",
        "\"console\" \"POST\" \"/api/v1/runs/watched/stop\" 403",
        "\"boss\" \"POST\" \"/api/v1/runs/watched/stop\" 200",
    ] {
        assert!(words.iter().any(|line| line == expected), "{expected}: {words:#?}");
    }
    let traces = format!("{}{kept}{audit:?}", server.said());
    for secret in [&admin, &viewer] {
        let bare = secret.trim_start_matches("fluxline_");
        assert!(
            bare.len() == 64 && !traces.contains(bare),
            "a token is written somewhere"
        );
    }
    std::fs::remove_file(&file).expect("removed");
    within(Duration::from_secs(60), "no token holds", || {
        get(&server, "/api/v1/status", Some(&admin)) != 200
    });
    assert_eq!(get(&server, "/api/v1/status", None), 401);
}

/// The audit log, once it has as many lines.
fn within_audit(folder: &Path, lines: usize) -> Vec<Value> {
    let path = folder.join("store/.fluxline/audit.jsonl");
    let mut text = String::new();
    within(Duration::from_secs(60), "the audit log", || {
        text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().count() >= lines && text.contains("watched/stop\",\"status\":200")
    });
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn other_machines_reach_it_with_tokens_only() {
    let folder = folder("access-network");
    let config = configuration(&folder, "listen = \"0.0.0.0:0\"\nmetrics_without_token = true");
    let (status, said) = complaint(&fluxline(&["run", &config.display().to_string()]));
    assert!(
        status == 2 && said.contains("there are no tokens") && said.contains("fluxline token create"),
        "{said}"
    );
    let viewer = token(&config, "page", "viewer");
    let server = start(&config);
    assert!(server.said().contains("1 tokens are in use"), "{}", server.said());
    assert_eq!(get(&server, "/api/v1/status", None), 401);
    assert_eq!(get(&server, "/api/v1/status", Some(&viewer)), 200);
    assert_eq!(get(&server, "/metrics", None), 200, "as the configuration says");
}

#[test]
fn tls_is_spoken_where_a_certificate_is_given() {
    let folder = folder("access-tls");
    let here = |name: &str| folder.join(name).display().to_string();
    certificate(&folder, "fluxline");
    let tls = "listen = \"127.0.0.1:0\"\n[feedback.tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"";
    let config = configuration(&folder, tls);
    let server = start(&config);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let address = server.address().to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1"])
        .args(["-CAfile", &here("certificate.pem"), "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let request = format!("GET /api/v1/session HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut stdin = client.stdin.take().expect("its stdin");
    stdin.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    client
        .stdout
        .take()
        .expect("its stdout")
        .read_to_string(&mut answer)
        .expect("an answer");
    drop(stdin);
    let _ = client.wait();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"operator\""),
        "{answer}"
    );
    // Without TLS there is no answer; without its key it does not start.
    let mut plain = TcpStream::connect(server.address()).expect("a connection");
    plain.write_all(request.as_bytes()).expect("a request");
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!String::from_utf8_lossy(&bytes).contains("200"), "{bytes:?}");
    drop(server);
    std::fs::write(folder.join("key.pem"), "no key").expect("written");
    let (status, said) = complaint(&fluxline(&["run", &config.display().to_string()]));
    assert!(status == 2 && said.contains("feedback.tls.key"), "{said}");
}

/// This process, or another one of ours, may have so many files open.
fn allow_files(process: u32, files: u32) {
    let (process, files) = (process.to_string(), format!("--nofile={files}:"));
    let allowed = Command::new("prlimit")
        .args(["--pid", &process, &files])
        .output()
        .expect("prlimit");
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
}

#[test]
fn two_thousand_slow_clients_at_once_slow_nobody_down() {
    const SLOW: usize = 2000;
    let folder = folder("access-2000");
    let limits = "listen = \"127.0.0.1:0\"\n[feedback.limits]\nconnections = 4096\nconnections_per_client = 4096\nheader_timeout_s = 300.0\n\
                  write_timeout_s = 300.0\nbody_bytes_per_s = 1.0";
    let config = configuration(&folder, limits);
    let admin = token(&config, "boss", "admin");
    allow_files(std::process::id(), 8192);
    // As a shell starts it: the appliance makes room for connections itself, so that they leave files for the runs.
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=1024:").arg(binary());
    let server = Server::start_by(limited, &config);
    let run = object!({ "name": "watched" }).to_string();
    assert_eq!(server.call("POST", "/api/v1/runs", Some(&admin), &run).0, 201);
    let half = format!("GET /api/v1/status HTTP/1.1\r\nhost: {}\r\nx: ", server.address());
    let greedy = format!("GET /openapi.json HTTP/1.1\r\nhost: {}\r\n\r\n", server.address());
    // Half a header, nothing at all, or many requests whose answers nobody takes.
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            let said = match n % 4 {
                0 => String::new(),
                1 => greedy.repeat(8),
                _ => half.clone(),
            };
            stream.write_all(said.as_bytes()).expect("a beginning");
            stream
        })
        .collect();
    let mut took: Vec<Duration> = (0..300)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(get(&server, "/api/v1/status", Some(&admin)), 200);
            start.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "calls beside {SLOW} slow connections, all open: median {:?}, p99 {:?}",
        took[150], took[296]
    );
    let gone = slow.iter().filter(|stream| {
        stream.set_nonblocking(true).expect("a socket");
        // Whoever asked has an answer waiting; a closed connection has its end.
        matches!(stream.peek(&mut [0]), Ok(0))
    });
    assert_eq!(gone.count(), 0, "there was room for all");
    let path = "/api/v1/runs/watched";
    let frames = |run: &Value| run["outcomes"]["done"].as_u64().unwrap_or(0);
    let (_, before) = server.call("GET", path, Some(&admin), "");
    within(Duration::from_secs(60), "fifty more frames", || {
        frames(&server.call("GET", path, Some(&admin), "").1) >= frames(&before) + 50
    });
    let (_, run) = server.call("GET", path, Some(&admin), "");
    assert_eq!(
        (&run["frames"]["lost"], &run["state"]),
        (&object!(0), &object!("recording")),
        "{run}"
    );
    drop(slow);
}

#[test]
fn slow_clients_keep_nobody_out() {
    let folder = folder("access-slow");
    let limits = "listen = \"127.0.0.1:0\"\n[feedback.limits]\nconnections = 200\nconnections_per_client = 150\nheader_timeout_s = 2.0\nrequests_per_s = 100.0";
    let config = configuration(&folder, limits);
    let admin = token(&config, "boss", "admin");
    let server = start(&config);
    let run = object!({ "name": "watched" }).to_string();
    assert_eq!(server.call("POST", "/api/v1/runs", Some(&admin), &run).0, 201);
    // Half a header each, and one body of which nothing comes.
    let head = format!("GET /api/v1/status HTTP/1.1\r\nhost: {}\r\nx: ", server.address());
    let mut slow: Vec<TcpStream> = (0..2000)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            let _ = stream.write_all(head.as_bytes());
            stream
        })
        .collect();
    let mut body = TcpStream::connect(server.address()).expect("a connection");
    let half = format!(
        "POST /api/v1/runs HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {admin}\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{",
        server.address()
    );
    body.write_all(half.as_bytes()).expect("half a request");
    // Each call is a connection of its own, in the middle of the others.
    let mut took: Vec<Duration> = (0..100)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(get(&server, "/api/v1/status", Some(&admin)), 200);
            start.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "calls while 2000 slow connections want the room of 150: median {:?}, p99 {:?}",
        took[50], took[98]
    );
    let sent = Instant::now();
    for stream in &mut slow {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let timed_out = ended.is_err_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            )
        });
        assert!(!timed_out, "a slow connection is still open after {:?}", sent.elapsed());
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    let mut rest = String::new();
    body.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    body.read_to_string(&mut rest)
        .expect("the end of the one with half a body");
    assert!(rest.starts_with("HTTP/1.1 4"), "{rest:?}");
    // Too large, and too often.
    let mut large = TcpStream::connect(server.address()).expect("a connection");
    let _ = large.write_all(
        format!(
            "GET /healthz HTTP/1.1\r\nhost: {}\r\nx: {}\r\n\r\n",
            server.address(),
            "y".repeat(40_000)
        )
        .as_bytes(),
    );
    let mut said = vec![0; 64];
    let read = large.read(&mut said).unwrap_or(0);
    assert!(
        String::from_utf8_lossy(&said[..read]).starts_with("HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&said[..read])
    );
    assert_eq!(
        server
            .call("POST", "/api/v1/runs", Some(&admin), &" ".repeat((1 << 20) + 1))
            .0,
        413
    );
    // Several at once: one alone may ask more slowly than is allowed, on a machine that is busy.
    let held_up = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
                for _ in 0..2000 {
                    if held_up.load(Relaxed) {
                        return;
                    }
                    let request = agent
                        .get(format!("{}/api/v1/status", server.url))
                        .header("authorization", format!("Bearer {admin}"));
                    let mut answer = request.call().expect("an answer");
                    let _ = answer.body_mut().read_to_vec();
                    if answer.status().as_u16() != 200 {
                        held_up.store(true, Relaxed);
                    }
                }
            });
        }
    });
    assert!(held_up.load(Relaxed), "nobody was ever held up");
    // None of it has touched the run.
    std::thread::sleep(Duration::from_millis(1100));
    let (status, run) = server.call("GET", "/api/v1/runs/watched", Some(&admin), "");
    assert_eq!(
        (status, &run["frames"]["lost"], &run["state"]),
        (200, &object!(0), &object!("recording")),
        "{run}"
    );
}
