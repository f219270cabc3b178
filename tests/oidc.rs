//! Tokens of an identity provider: joserfc's, which is not ours, with keys that it publishes over HTTP.

use fluxline_tests::{Server, binary, certificate, complaint, fluxline, folder, json, port, python, workspace};
use serde_json::{Value, json as object};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const RUN: &str = "[[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 64\ncolumns = 64\nframes = 100000\nrate_hz = 50.0\n\
                   [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";
const ISSUER: &str = "https://login.example/realms/beamline";
const ROLES: &str = "roles_claim = \"realm_access.roles\"\nviewer = [\"user\"]\noperator = [\"operator\", \"staff\"]\nadmin = [\"boss\"]\n\
                     proposals_claim = \"proposals\"\nproposals_prefix = \"prop/\"\nall_proposals = [\"staff\"]\n";

fn configuration(folder: &Path, oidc: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 32\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [feedback.oidc]\n{oidc}\n{RUN}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// An appliance that takes the tokens of a provider at `keys`; what it says is in `said.log` of the folder.
fn start(folder: &Path, keys: &str, more: &str) -> Server {
    let oidc = format!("issuer = \"{ISSUER}\"\naudience = \"fluxline\"\n{keys}\n{ROLES}{more}");
    let config = configuration(folder, &oidc);
    let mut program = Command::new("bash");
    program
        .args(["-c", "exec \"$0\" \"$@\" 2> >(tee -a \"$SAID\" >&2)"])
        .arg(binary())
        .env("SAID", folder.join("said.log"))
        .env("SSL_CERT_FILE", folder.join("certificate.pem"))
        .env("FLUXLINE_LOG", "trace");
    Server::start_by(program, &config)
}

struct Provider {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Provider {
    fn start(python: &Path, pair: &[&Path]) -> Provider {
        let port = port();
        let mut child = Command::new(python)
            .arg(workspace().join("tests/python/identity_provider.py"))
            .arg(port.to_string())
            .args(pair)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let mut provider = Provider {
            ask: child.stdin.take().expect("its stdin"),
            answers: BufReader::new(child.stdout.take().expect("its stdout")),
            child,
            port,
        };
        assert_eq!(provider.answer(), "ready");
        provider
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    }

    fn ask(&mut self, request: Value) -> Value {
        writeln!(self.ask, "{request}").expect("a request");
        self.answer()
    }

    /// Makes keys and publishes them; what it publishes.
    fn keys(&mut self, keys: &[(&str, &str)]) -> Value {
        for (kid, kind) in keys {
            self.ask(object!({ "do": "key", "kid": kid, "kind": kind }));
        }
        let kids: Vec<&str> = keys.iter().map(|key| key.0).collect();
        self.publish(&kids)
    }

    fn publish(&mut self, kids: &[&str]) -> Value {
        self.ask(object!({ "do": "publish", "kids": kids }))
    }

    fn token(&mut self, kid: &str, claims: &Value) -> String {
        self.signed(object!({ "do": "token", "kid": kid, "claims": claims }))
    }

    fn signed(&mut self, request: Value) -> String {
        self.ask(request).as_str().expect("a token").to_string()
    }

    fn at(&self) -> String {
        format!("jwks_url = \"http://127.0.0.1:{}/keys\"", self.port)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// What a token says that holds for an hour.
fn claims(subject: &str, roles: &[&str], proposals: &[&str]) -> Value {
    object!({
        "iss": ISSUER, "aud": ["account", "fluxline"], "sub": subject, "exp": now_s() + 3600, "nbf": now_s() - 5,
        "realm_access": { "roles": roles }, "proposals": proposals,
    })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().expect("claims").remove(name);
    claims
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const LONG: Duration = Duration::from_secs(90);

fn status(server: &Server, token: &str) -> u16 {
    server.call("GET", "/api/v1/status", Some(token), "").0
}

/// Whether a token does not hold: wrong, and perhaps one of too many.
fn is_refused(server: &Server, token: &str) -> bool {
    [401, 429].contains(&status(server, token))
}

/// Waits until the first keys have been fetched.
fn until_known(server: &Server, token: &str) {
    within(LONG, "a token that holds", || status(server, token) == 200);
}

type Socket = tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>;

/// Results over a WebSocket, with the token as a browser shows it.
fn results(server: &Server, run: &str, token: &str) -> Socket {
    use tungstenite::client::IntoClientRequest;
    let address = format!("{}/api/v1/runs/{run}/results", server.url.replace("http", "ws"));
    let mut upgrade = address.as_str().into_client_request().expect("a request");
    let offered = format!("fluxline, fluxline.token.{token}").parse().expect("a header");
    upgrade.headers_mut().insert("sec-websocket-protocol", offered);
    let (mut socket, _) = tungstenite::connect(upgrade).expect("a WebSocket");
    assert!(socket.read().expect("a result").is_text());
    socket
}

/// A stream of events that has begun.
fn events(server: &Server, run: &str, token: &str) -> TcpStream {
    let (_, address) = server.url.split_once("://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    let request = format!(
        "GET /api/v1/runs/{run}/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    stream
}

#[test]
fn a_providers_token_is_a_role_and_proposals() {
    let Some(python) = python("a_providers_token_is_a_role_and_proposals") else {
        return;
    };
    let (folder, mut provider) = (folder("oidc-roles"), Provider::start(&python, &[]));
    provider.keys(&[("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")]);
    let server = start(&folder, &provider.at(), "");
    let viewer = provider.token("rsa", &claims("visitor", &["x", "user"], &["prop/mx2", "other/mx1"]));
    let operator = provider.token("ec", &claims("operator", &["operator"], &["prop/mx1"]));
    let staff = provider.token("ed", &claims("staff", &["staff"], &[]));
    let admin = provider.token("rsa", &claims("boss", &["boss"], &[]));
    until_known(&server, &viewer);
    assert_eq!(
        server.call("GET", "/api/v1/status", None, "").0,
        401,
        "the door is shut"
    );
    for (token, name, role, only) in [
        (&viewer, "visitor", "viewer", object!(["mx2"])),
        (&operator, "operator", "operator", object!(["mx1"])),
        (&staff, "staff", "operator", object!([])),
        (&admin, "boss", "admin", object!([])),
    ] {
        let (status, session) = server.call("GET", "/api/v1/session", Some(token), "");
        let name = format!("{ISSUER}#{name}");
        let expected = object!({ "open": false, "name": name, "role": role, "only": only });
        assert_eq!((status, session), (200, expected));
    }
    // Somebody who is known and has nothing here has not guessed: never held up, whatever the number.
    for (roles, proposals, word) in [
        (&["nobody"][..], &["prop/mx1"][..], "role"),
        (&["user"][..], &["mx1"][..], "proposal"),
    ] {
        let token = provider.token("rsa", &claims("stranger", roles, proposals));
        for _ in 0..12 {
            let (status, said) = server.call("GET", "/api/v1/status", Some(&token), "");
            let words = said["message"].as_str().unwrap_or_default().to_string();
            assert!(
                status == 403 && words.contains("#stranger") && words.contains(word),
                "{said}"
            );
        }
    }
    // An operator arms a run of its proposal and no other; for a visitor with another proposal it does not exist.
    let arm = |proposal: &str| object!({ "name": "lyso", "proposal": proposal }).to_string();
    let post = |token: &str, path: &str, body: &str| server.call("POST", path, Some(token), body).0;
    assert_eq!(post(&viewer, "/api/v1/runs", &arm("mx2")), 403);
    assert!([403, 404, 422].contains(&post(&operator, "/api/v1/runs", &arm("mx2"))));
    assert_eq!(post(&operator, "/api/v1/runs", &arm("mx1")), 201);
    let shown = |token: &str| server.call("GET", "/api/v1/runs/lyso", Some(token), "").0;
    assert_eq!(
        (shown(&operator), shown(&viewer), shown(&staff), shown(&admin)),
        (200, 404, 200, 200)
    );
    let (_, listed) = server.call("GET", "/api/v1/runs", Some(&viewer), "");
    assert!(!listed.to_string().contains("lyso"), "{listed}");
    let _ = results(&server, "lyso", &operator);
    // An administrator makes tokens of the appliance's own, which hold beside these.
    let request = object!({ "name": "console", "role": "viewer" }).to_string();
    let (made, own) = server.call("POST", "/api/v1/tokens", Some(&admin), &request);
    assert_eq!((made, post(&operator, "/api/v1/tokens", &request)), (201, 403));
    let own = own["token"].as_str().expect("a token");
    assert_eq!((status(&server, own), status(&server, &operator)), (200, 200));
    // The same call again, with the next token of the same person, is the same call.
    let keyed = |token: &str| {
        let answer = ureq::post(format!("{}/api/v1/runs/lyso/stop", server.url))
            .config()
            .http_status_as_error(false)
            .build()
            .header("authorization", format!("Bearer {token}"))
            .header("idempotency-key", "stop-1")
            .send_empty()
            .expect("an answer");
        (
            answer.status().as_u16(),
            answer.headers().contains_key("idempotency-replayed"),
        )
    };
    let next = provider.token("rsa", &claims("operator", &["operator"], &["prop/mx1"]));
    assert_ne!(next, operator);
    assert_eq!((keyed(&operator), keyed(&next)), ((200, false), (200, true)));
    // Who did it is written down, and no token is, nor what could be made one of.
    let audit = folder.join("store/.fluxline/audit.jsonl");
    let mut lines = String::new();
    let expected = format!("\"name\":\"{ISSUER}#operator\",\"role\":\"operator\"");
    within(LONG, "the audit log", || {
        lines = std::fs::read_to_string(&audit).unwrap_or_default();
        lines
            .lines()
            .any(|line| line.contains(&expected) && line.contains("lyso/stop"))
    });
    let said = std::fs::read_to_string(folder.join("said.log")).expect("the log");
    assert!(said.contains(&format!("tokens of {ISSUER} are in use")), "{said:.2000}");
    for token in [&viewer, &operator, &staff, &admin, &next] {
        for part in token.split('.').skip(1) {
            assert!(
                !said.contains(part) && !lines.contains(part),
                "a token is written somewhere"
            );
        }
    }
}

#[test]
fn wrong_tokens_of_a_provider_do_not_hold() {
    let Some(python) = python("wrong_tokens_of_a_provider_do_not_hold") else {
        return;
    };
    let (folder, mut provider) = (folder("oidc-wrong"), Provider::start(&python, &[]));
    // A key that is nobody's of the provider, with the name of one that is.
    let foreign = {
        let mut other = Provider::start(&python, &[]);
        other.keys(&[("rsa", "RS256"), ("ec", "ES256")]);
        let good = claims("visitor", &["boss"], &[]);
        let own_key = other.publish(&["rsa"])["keys"][0].clone();
        let inside = object!({ "do": "token", "kid": "rsa", "claims": good, "header": { "jwk": own_key } });
        [
            other.token("rsa", &good),
            other.token("ec", &good),
            other.signed(inside),
        ]
    };
    provider.keys(&[("late", "RS256"), ("other", "RS256"), ("rsa", "RS256"), ("ec", "ES256")]);
    provider.publish(&["rsa", "other", "ec"]);
    let good = claims("visitor", &["boss"], &[]);
    let holds = provider.token("rsa", &good);
    let (head, signature) = holds.rsplit_once('.').expect("a signature");
    let (header, payload) = head.split_once('.').expect("claims");
    let other_payload = provider.token("rsa", &with(good.clone(), "sub", object!("boss")));
    let other_payload = other_payload.split('.').nth(1).expect("claims").to_string();
    let flipped = match signature.as_bytes()[9] {
        b'A' => "B",
        _ => "A",
    };
    let flipped = format!("{}{flipped}{}", &signature[..9], &signature[10..]);
    let by = |header: Value| object!({ "do": "token", "kid": "rsa", "claims": good, "header": header });
    let mut table: Vec<(&str, String, &str)> = vec![
        (
            "no signature",
            provider.signed(object!({ "do": "none", "kid": "rsa", "claims": good })),
            "a kind that is not taken",
        ),
        (
            "HS256 by the public key",
            provider.signed(object!({ "do": "shared", "kid": "rsa", "claims": good })),
            "of a kind",
        ),
        (
            "an algorithm that is not allowed",
            provider.signed(by(object!({ "alg": "RS384" }))),
            "of a kind",
        ),
        (
            "PS256 by a key for both",
            provider.signed(by(object!({ "alg": "PS256" }))),
            "of a kind",
        ),
        (
            "a critical extension",
            provider.signed(by(object!({ "crit": ["x"], "x": "1" }))),
            "",
        ),
        (
            "a key without a name, of several",
            provider.signed(by(object!({ "kid": null }))),
            "",
        ),
        ("another's key of this name", foreign[0].clone(), "signature"),
        ("another's curve of this name", foreign[1].clone(), "signature"),
        ("its own key in its header", foreign[2].clone(), "signature"),
        (
            "a key that is not published",
            provider.token("late", &good),
            "no such key",
        ),
        (
            "another's claims",
            format!("{header}.{other_payload}.{signature}"),
            "signature",
        ),
        ("a changed signature", format!("{head}.{flipped}"), "signature"),
        ("an empty signature", format!("{head}."), "signature"),
        ("two parts", head.to_string(), ""),
        ("four parts", format!("{holds}.{payload}"), ""),
        ("no parts", "..".into(), ""),
    ];
    let now = now_s();
    for (what, claims, why) in [
        (
            "another issuer",
            with(good.clone(), "iss", object!("https://login.example/realms/other")),
            "issuer",
        ),
        (
            "an issuer with more behind it",
            with(good.clone(), "iss", object!(format!("{ISSUER}/"))),
            "issuer",
        ),
        (
            "several issuers",
            with(good.clone(), "iss", object!([ISSUER, "https://evil.example"])),
            "issuer",
        ),
        ("no issuer", without(good.clone(), "iss"), "lacks"),
        (
            "another audience",
            with(good.clone(), "aud", object!("account")),
            "audience",
        ),
        ("no audience", without(good.clone(), "aud"), "lacks"),
        ("ended", with(good.clone(), "exp", object!(now - 31)), "ended"),
        ("no end", without(good.clone(), "exp"), "lacks"),
        (
            "an end that is a word",
            with(good.clone(), "exp", object!("later")),
            "lacks",
        ),
        ("not yet", with(good.clone(), "nbf", object!(now + 3600)), "not come"),
        ("nobody", without(good.clone(), "sub"), "lacks"),
        ("an empty name", with(good.clone(), "sub", object!("")), "sub"),
        (
            "a name over two lines",
            with(good.clone(), "sub", object!("boss\n{}")),
            "sub",
        ),
    ] {
        table.push((what, provider.token("rsa", &claims), why));
    }
    // Ten wrong ones from an address are answered in words, two for each row; a new appliance has seen none.
    for rows in table.chunks(4) {
        let server = start(&folder, &provider.at(), "");
        until_known(&server, &holds);
        for (what, token, why) in rows {
            let (status, said) = server.call("GET", "/api/v1/status", Some(token), "");
            let words = said["message"].as_str().unwrap_or_default();
            assert!(status == 401 && words.contains(why), "{what}: {status} {said}");
            assert_eq!(
                server.call("POST", "/api/v1/runs", Some(token), "{}").0 / 100,
                4,
                "{what}"
            );
        }
        assert_eq!(self::status(&server, &holds), 200);
        // They count as wrong ones do.
        let guessed: Vec<u16> = (0..12).map(|_| self::status(&server, &rows[0].1)).collect();
        assert_eq!(guessed[11], 429, "{guessed:?}");
        assert_eq!(self::status(&server, &holds), 200, "who has a right one is not held up");
    }
    // Within the leeway a token holds still, or already.
    let server = start(&folder, &provider.at(), "leeway_s = 300\n");
    let ends = provider.token("rsa", &with(good.clone(), "exp", object!(now_s() - 30)));
    let begins = provider.token("rsa", &with(good, "nbf", object!(now_s() + 60)));
    until_known(&server, &ends);
    assert_eq!(self::status(&server, &begins), 200);
}

#[test]
fn keys_rotate_a_provider_may_be_away_and_what_ends_ends_streams() {
    let Some(python) = python("keys_rotate_a_provider_may_be_away_and_what_ends_ends_streams") else {
        return;
    };
    let (folder, mut provider) = (folder("oidc-keys"), Provider::start(&python, &[]));
    provider.keys(&[("first", "RS256"), ("second", "ES256"), ("third", "EdDSA")]);
    provider.publish(&["first"]);
    let server = start(&folder, &provider.at(), "leeway_s = 0\n");
    let good = claims("staff", &["staff"], &[]);
    let [first, second, third] = ["first", "second", "third"].map(|kid| provider.token(kid, &good));
    until_known(&server, &first);
    let run = object!({ "name": "watched" }).to_string();
    assert_eq!(server.call("POST", "/api/v1/runs", Some(&first), &run).0, 201);
    // A token that ends by the clock takes its streams along.
    let ends_s = now_s() + 30;
    let short = provider.token("first", &with(good.clone(), "exp", object!(ends_s)));
    let (mut socket, mut stream) = (results(&server, "watched", &short), events(&server, "watched", &short));
    while socket.read().is_ok() {}
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end of the events");
    assert!(now_s() >= ends_s, "not before");
    assert!(is_refused(&server, &short));
    // The next key is fetched when its first token comes; what the one before has signed ends, streams and all.
    let mut socket = results(&server, "watched", &first);
    provider.publish(&["second"]);
    within(LONG, "the second key", || status(&server, &second) == 200);
    assert!(is_refused(&server, &first));
    while socket.read().is_ok() {}
    // Away: what is known goes on, what is not is refused.
    provider.ask(object!({ "do": "away" }));
    assert!(status(&server, &second) == 200 && is_refused(&server, &third));
    provider.publish(&["second", "third"]);
    provider.ask(object!({ "do": "back" }));
    within(LONG, "the third key", || status(&server, &third) == 200);
    assert_eq!(status(&server, &second), 200);
    // However many unknown keys are named, the provider is asked now and then only.
    let before = provider.ask(object!({ "do": "asked" })).as_u64().expect("a number");
    let started = Instant::now();
    for n in 0..40 {
        let header = object!({ "kid": format!("unknown-{n}") });
        let token = provider.signed(object!({ "do": "token", "kid": "third", "claims": good, "header": header }));
        assert!(is_refused(&server, &token));
    }
    let asked = provider.ask(object!({ "do": "asked" })).as_u64().expect("a number") - before;
    assert!(
        asked <= 2 + started.elapsed().as_secs() / 10,
        "{asked} in {:?}",
        started.elapsed()
    );
    // A set without a key is no set: the ones before go on.
    provider.publish(&[]);
    let unknown =
        provider.signed(object!({ "do": "token", "kid": "third", "claims": good, "header": { "kid": "none" } }));
    within(LONG, "a look at the empty set", || {
        let _ = status(&server, &unknown);
        provider.ask(object!({ "do": "asked" })).as_u64().expect("a number") > before + asked
    });
    assert_eq!(status(&server, &third), 200);
}

#[test]
fn keys_come_from_a_file_or_over_tls_and_mistakes_are_named() {
    let Some(python) = python("keys_come_from_a_file_or_over_tls_and_mistakes_are_named") else {
        return;
    };
    let folder = folder("oidc-file");
    let here = |name: &str| folder.join(name);
    certificate(&folder, "provider");
    let mut provider = Provider::start(&python, &[&here("certificate.pem"), &here("key.pem")]);
    let both = provider.keys(&[("a", "RS256"), ("b", "ES384")]);
    let good = claims("staff", &["staff"], &[]);
    let [a, b] = ["a", "b"].map(|kid| provider.token(kid, &good));
    // A file, replaced by another one, and by none.
    let file = here("jwks.json");
    let write = |text: &str| {
        std::fs::write(here("new.json"), text).expect("written");
        std::fs::rename(here("new.json"), &file).expect("renamed");
    };
    write(&object!({ "keys": [both["keys"][0]] }).to_string());
    let by_file = "jwks_file = \"jwks.json\"\nalgorithms = [\"RS256\", \"ES384\"]";
    let server = start(&folder, by_file, "");
    assert_eq!((status(&server, &a), status(&server, &b)), (200, 401));
    write(&object!({ "keys": [both["keys"][1]] }).to_string());
    within(LONG, "the other key", || status(&server, &b) == 200);
    assert!(is_refused(&server, &a));
    write("no keys");
    within(LONG, "no key", || is_refused(&server, &b));
    drop(server);
    // Over TLS, by a certificate that this machine trusts.
    let by_tls = format!("jwks_url = \"https://127.0.0.1:{}/keys\"", provider.port);
    let server = start(&folder, &by_tls, "");
    until_known(&server, &a);
    drop(server);
    // Mistakes end the start, with field, value and what is expected.
    let config = configuration(&folder, "");
    for (change, field, word) in [
        (
            "jwks_file = \"jwks.json\"",
            "feedback.oidc.jwks_file",
            "no JSON Web Key Set",
        ),
        (
            "jwks_file = \"nothing.json\"",
            "feedback.oidc.jwks_file",
            "No such file",
        ),
        ("", "feedback.oidc.jwks_url", "jwks_file"),
        (
            "jwks_url = \"ftp://login.example/keys\"",
            "feedback.oidc.jwks_url",
            "https://",
        ),
        (
            "jwks_url = \"https://me:secret@login.example/keys\"",
            "feedback.oidc.jwks_url",
            "password",
        ),
        ("jwks_url = \"keys\"", "feedback.oidc.jwks_url", "https://"),
        (
            "jwks_url = \"https://login.example/keys\"\nalgorithms = [\"HS256\"]",
            "feedback.oidc.algorithms",
            "RS256",
        ),
        (
            "jwks_url = \"https://login.example/keys\"\nalgorithms = [\"none\"]",
            "feedback.oidc.algorithms",
            "RS256",
        ),
        (
            "jwks_url = \"https://login.example/keys\"\nalgorithms = []",
            "feedback.oidc.algorithms",
            "RS256",
        ),
        (
            "jwks_url = \"https://login.example/keys\"\nleeway_s = 301",
            "feedback.oidc.leeway_s",
            "300",
        ),
        (
            "jwks_url = \"https://login.example/keys\"\nrefresh_s = 1.0",
            "feedback.oidc.refresh_s",
            "10",
        ),
    ] {
        let oidc = format!("issuer = \"{ISSUER}\"\naudience = \"fluxline\"\n{change}\n{ROLES}");
        let config = configuration(&folder, &oidc);
        let (code, said) = complaint(&fluxline(&["run", &config.display().to_string()]));
        assert!(
            code == 2 && said.contains(field) && said.contains(word),
            "{change}: {said}"
        );
    }
    let at = "jwks_url = \"https://login.example/keys\"\nroles_claim = \"roles\"\n";
    for (oidc, field) in [
        (
            format!("issuer = \"login\"\naudience = \"fluxline\"\n{at}viewer = [\"a\"]"),
            "feedback.oidc.issuer",
        ),
        (
            format!("issuer = \"{ISSUER}\"\naudience = \"\"\n{at}viewer = [\"a\"]"),
            "feedback.oidc.audience",
        ),
        (
            format!("issuer = \"{ISSUER}\"\naudience = \"a\"\n{at}"),
            "feedback.oidc.viewer",
        ),
        (
            format!("issuer = \"{ISSUER}\"\naudience = \"a\"\n{at}viewer = [\"a\"]\nall_proposals = [\"a\"]"),
            "feedback.oidc.all_proposals",
        ),
        (
            format!("issuer = \"{ISSUER}\"\naudience = \"a\"\n{at}viewer = [\"a\"]\nroles = 1"),
            "roles",
        ),
    ] {
        configuration(&folder, &oidc);
        let (code, said) = complaint(&fluxline(&["validate", &config.display().to_string()]));
        assert!(code == 2 && said.contains(field), "{oidc}: {said}");
    }
    // Without tokens of its own, and with a provider's, it may listen to other machines.
    let text = std::fs::read_to_string(configuration(
        &folder,
        &format!("issuer = \"{ISSUER}\"\naudience = \"fluxline\"\n{by_tls}\n{ROLES}"),
    ))
    .expect("read");
    std::fs::write(&config, text.replace("127.0.0.1:0", "0.0.0.0:0")).expect("written");
    let listed = json(&fluxline(&[
        "token",
        "list",
        "--json",
        "--config",
        &config.display().to_string(),
    ]));
    assert_eq!(listed["tokens"], object!([]));
    let server = Server::start(&config);
    assert_eq!(server.try_get("/api/v1/status").0, 401);
}
