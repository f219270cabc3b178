//! Helpers of the end-to-end tests: the built binary, its summaries, the Python of the independent checks, the data.

pub mod scans;

use serde_json::Value;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The built `fluxline`; `make test` says where it is.
pub fn binary() -> PathBuf {
    std::env::var_os("FLUXLINE_BINARY").map_or_else(|| workspace().join("target/release/fluxline"), PathBuf::from)
}

/// The Python of the independent checks; `None`, said loudly, where it is not installed.
pub fn python(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("FLUXLINE_PYTHON").map_or_else(|| workspace().join(".venv/bin/python"), PathBuf::from);
    if !path.exists() {
        eprintln!(
            "SKIPPED {test}: there is no {}; make python installs it",
            path.display()
        );
        return None;
    }
    Some(path)
}

/// A file of the real data; `None`, said loudly, where it is absent.
pub fn data(test: &str, file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FLUXLINE_DATA").map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let path = folder.join(file);
    if !path.exists() {
        eprintln!("SKIPPED {test}: there is no {}", path.display());
        return None;
    }
    Some(path)
}

/// A fresh folder for one test.
pub fn folder(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fluxline-test-{}-{test}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

/// A library of `tests/interpose` for `LD_PRELOAD`, built into the folder: `flags` beside what every one needs.
pub fn interposed(folder: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let library = folder.join(source).with_extension("so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(workspace().join("tests/interpose").join(source))
        .args(flags)
        .status()
        .expect("a C compiler");
    assert!(built.success(), "{source} does not build");
    library
}

/// A port of the loopback that nobody uses and that no other test of this process is given. Ports that the system gives
/// out by itself are left alone: a test beside this one may be given any of them between here and its use.
pub fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..PORTS {
        let port = (FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS) as u16;
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + PORTS);
}

/// `fluxline token create`; the token.
pub fn token(config: &Path, name: &str, role: &str) -> String {
    let config = config.display().to_string();
    let made = json(&fluxline(&[
        "token", "create", name, "--role", role, "--json", "--config", &config,
    ]));
    made["token"].as_str().expect("a token").to_string()
}

/// Runs `fluxline` to its end.
pub fn fluxline(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the built binary")
}

/// The JSON document on stdout of a command that must succeed.
pub fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// What a command that must fail says, and its exit status.
pub fn complaint(output: &Output) -> (i32, String) {
    assert!(!output.status.success(), "it should have failed");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Runs a Python script of `tests/python` and returns what it printed; it must succeed.
pub fn check(python: &Path, script: &str, arguments: &[&str]) -> String {
    let path = workspace().join("tests/python").join(script);
    let output = Command::new(python)
        .arg(&path)
        .args(arguments)
        .output()
        .expect("python");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{script} {arguments:?}\n{out}\n{err}");
    out.into_owned()
}

/// A key and a certificate for this machine's loopback, `key.pem` and `certificate.pem` of a folder.
pub fn certificate(folder: &Path, name: &str) {
    let make = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
}

/// An appliance that serves; it is stopped when dropped.
pub struct Server {
    child: Child,
    said: Arc<Mutex<String>>,
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

impl Server {
    /// Starts `fluxline run CONFIG` and waits until it listens.
    pub fn start(config: &Path) -> Server {
        Self::start_by(Command::new(binary()), config)
    }

    /// The same by `program`, which is the binary or starts it.
    pub fn start_by(mut program: Command, config: &Path) -> Server {
        use std::io::{BufRead, BufReader};
        let mut child = program
            .arg("run")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary");
        let mut lines = BufReader::new(child.stderr.take().expect("its stderr")).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let keep = {
            let said = said.clone();
            move |line: &str| *said.lock().expect("what was said") += &format!("{line}\n")
        };
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the appliance did not start: {}", said.lock().expect("what was said"));
            };
            keep(&line);
            if let Some((_, url)) = line.split_once("listens at ") {
                break url.trim().to_string();
            }
        };
        // Somebody must read what it says later, or it would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| keep(&line)));
        Server { child, said, url }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("what was said").clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let (_, authority) = self.url.split_once("://").expect("an address");
        authority.parse().expect("an address and a port")
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `GET` as JSON.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).expect("JSON")
    }

    /// `GET` as text.
    pub fn text(&self, path: &str) -> String {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().expect(path);
        answer.body_mut().read_to_string().expect("a body")
    }

    /// `GET` as bytes.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let mut answer = ureq::get(format!("{}{path}", self.url)).call().expect(path);
        answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_vec()
            .expect("a body")
    }

    /// Status and body of a `GET` that may fail.
    pub fn try_get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None, "")
    }

    /// `POST` of JSON; status and body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, None, &body.to_string())
    }

    /// `PUT` of JSON; status and body.
    pub fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, None, &body.to_string())
    }

    /// `POST` of bytes; status and body.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let request = ureq::post(format!("{}{path}", self.url))
            .config()
            .http_status_as_error(false)
            .build();
        let mut answer = request.content_type("application/octet-stream").send(body).expect(path);
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// Status and body of any call, by whoever has the token; JSON or nothing.
    pub fn call(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let mut answer = self.answer(method, path, token, body);
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// Status of any call; what comes behind it, perhaps without an end, is not read.
    pub fn status(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> u16 {
        self.answer(method, path, token, body).status().as_u16()
    }

    fn answer(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> ureq::http::Response<ureq::Body> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        agent
            .run(request.body(body.to_string()).expect("a request"))
            .expect(path)
    }

    /// Asks again and again until `ready` is satisfied, at most five minutes.
    pub fn wait(&self, path: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            let value = self.get(path);
            if ready(&value) {
                return value;
            }
            assert!(Instant::now() < end, "{path} is still {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
