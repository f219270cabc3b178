//! Names that try to leave the store: in every place of an address, a query or a body where a name goes. None reaches anything.
//! `make soak SOAK=paths` sends a million of them (`FLUXLINE_PATHS`, `FLUXLINE_PATHS_SEED`), the tests some thousands.

use fluxline_tests::{Server, fluxline, folder, json};
use serde_json::{Value, json as object};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a file that nobody may read has in it.
const SECRET: &str = "this-is-for-nobody-8d1f";
/// Pieces of hostile names: steps up, separators in every spelling, absolute and device names, ends of texts, long ones.
const PIECES: &[&str] = &[
    "..",
    ".",
    "...",
    "....",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "%ef%bc%8e%ef%bc%8e",
    "..;",
    "..%00",
    "/",
    "//",
    "%2f",
    "%2F",
    "%252f",
    "%5c",
    "\\",
    "..\\",
    "%c0%af",
    "%e2%88%95",
    "%ef%bc%8f",
    "....//",
    "..././",
    "%00",
    "%0a",
    "%0d%0a",
    "%20",
    "~",
    "$HOME",
    "C:",
    "file:",
    "file:%2f%2f",
    "etc",
    "passwd",
    "etc/passwd",
    "%2fetc%2fpasswd",
    "proc/self/environ",
    "dev/zero",
    "secret.txt",
    "secret.h5",
    "../secret.txt",
    "..%2fsecret.txt",
    "..%2f..%2fsecret.txt",
    "..%2f..%2f..%2fsecret.txt",
    "..%2f..%2f..%2f..%2fsecret.txt",
    ".fluxline",
    ".fluxline%2fsecret.txt",
    "..%2f..%2f..%2f.fluxline%2fsecret.txt",
    "linked.txt",
    "run.json",
    "probe_master.h5",
    "probe",
    "state.jsonl",
    "commissioning",
    "%ff",
    "%",
    "%zz",
    "a",
    "0",
    "-1",
    "é",
    "%F0%9F%92%A9",
];

/// Parameters of operations that name files.
const FILE_PARAMETERS: &[(&str, &str)] = &[
    ("correct", "mask"),
    ("correct", "dark"),
    ("correct", "flat"),
    ("gain", "pedestals"),
    ("gain", "gains"),
    ("spots", "poni"),
    ("azimuthal", "poni"),
    ("sparse", "poni"),
];

/// A small generator of numbers; the same seed is the same names.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        for _ in 0..1 + self.next(7) {
            if self.next(200) == 0 {
                name += &"../".repeat(self.next(40));
            }
            name += PIECES[self.next(PIECES.len())];
            if self.next(3) == 0 {
                name += ["/", "%2f", "%5c"][self.next(3)];
            }
        }
        name
    }
}

/// `%41` as `A`, once.
fn decoded(name: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (name.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = name
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A connection that is made again when it was closed.
struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Status and body; 0 where the connection was closed instead.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let stream = self
            .stream
            .get_or_insert_with(|| BufReader::new(TcpStream::connect(&self.address).expect("a connection")));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let sent = stream.get_mut().write_all(head.as_bytes());
        let answer = sent.ok().and_then(|()| read(stream));
        match answer {
            Some((status, body, true)) => (status, body),
            Some((status, body, false)) => {
                self.stream = None;
                (status, body)
            }
            None => {
                self.stream = None;
                (0, Vec::new())
            }
        }
    }
}

/// Status, body, and whether the connection goes on.
fn read(stream: &mut BufReader<TcpStream>) -> Option<(u16, Vec<u8>, bool)> {
    let (mut status, mut length, mut open) = (0, 0, true);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next()?.parse().ok()?;
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().ok()?;
        } else if line == "connection: close" {
            open = false;
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((status, body, open))
}

/// Every path below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

struct Case<'a> {
    run: &'a Path,
    outside: &'a Path,
    naive: &'a AtomicU64,
}

impl Case<'_> {
    /// Sends one name to one place, chosen by the numbers.
    fn send(&self, client: &mut Client, numbers: &mut Numbers) {
        let name = numbers.name();
        let runs = "/api/v1/runs";
        // Where a program that joins names to folders would have read what is not its own.
        let text = String::from_utf8(decoded(&name)).unwrap_or_default();
        let reached = self.run.join(text.replace('\0', "")).canonicalize();
        if reached.is_ok_and(|path| path.ends_with("secret.txt") || path == Path::new("/etc/passwd")) {
            self.naive.fetch_add(1, Relaxed);
        }
        let listed = ["run.json", "probe_master.h5"].contains(&text.as_str());
        let (method, path, body, found) = match numbers.next(14) {
            0..=2 => ("GET", format!("{runs}/probe/files/{name}"), String::new(), listed),
            3 => (
                "GET",
                format!("{runs}/{name}/files/run.json"),
                String::new(),
                text == "probe",
            ),
            4 => ("GET", format!("{runs}/{name}"), String::new(), text == "probe"),
            5 | 6 => (
                "GET",
                format!("{runs}/probe/h5/meta?file={name}"),
                String::new(),
                listed,
            ),
            7 => {
                let path = format!("{runs}/probe/h5/data?file=probe_master.h5&format=bin&path={name}");
                ("GET", path, String::new(), true)
            }
            8 => {
                let place = ["slices", "profiles", "spots", "frames"][numbers.next(4)];
                // A number is the name of a curve.
                (
                    "GET",
                    format!("{runs}/probe/{place}/{name}"),
                    String::new(),
                    text == "0",
                )
            }
            9 => ("GET", format!("/{name}"), String::new(), true),
            10 => ("DELETE", format!("/api/v1/rules/{name}"), String::new(), false),
            11 | 12 => {
                let (operation, key) = FILE_PARAMETERS[numbers.next(FILE_PARAMETERS.len())];
                let text = vec![text.clone(), self.run.join(&text).display().to_string()].swap_remove(numbers.next(2));
                // A file of the run itself may be named: then something else is wrong.
                let recipe = (listed && text.starts_with('/')).then_some("nothing-of-this-name");
                let words = object!({ "recipe": recipe, "parameters": { operation: { key: text } } }).to_string();
                ("POST", format!("{runs}/probe/reprocess"), words, false)
            }
            _ => {
                let field = ["name", "proposal"][numbers.next(2)];
                let words = object!({ field: text, "recipe": "nothing-of-this-name" }).to_string();
                ("POST", runs.into(), words, false)
            }
        };
        let (status, answer) = client.ask(method, &path, &body);
        assert!(
            !holds_secret(&answer),
            "{method} {path} {body}: {}",
            String::from_utf8_lossy(&answer)
        );
        assert!(
            found || !(200..300).contains(&status),
            "{method} {path} {body}: {status}"
        );
        assert_ne!(
            status,
            500,
            "{method} {path} {body}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let has = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    has(SECRET.as_bytes()) || has(b"root:x:0:")
}

#[test]
fn no_name_leaves_the_store() {
    let folder = folder("paths");
    let text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [feedback.limits]\nrequests_per_s = 1e6\n[[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 32\ncolumns = 32\n\
         frames = 20\nrate_hz = 0.0\n[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "probe" }));
    assert_eq!(status, 201, "{armed}");
    let detail = server.wait("/api/v1/runs/probe", |detail| !detail["summary"].is_null());
    server.wait("/api/v1/runs", |list| list["runs"][0]["store_state"] == "closed");
    let master = detail["summary"]["files"][0].as_str().expect("a file");
    let run = Path::new(master).parent().expect("a folder").to_path_buf();
    // Secrets wherever a step up or aside leads, and links that lead there.
    for place in run
        .ancestors()
        .take_while(|place| *place != folder.parent().expect("a folder"))
    {
        std::fs::write(place.join("secret.txt"), SECRET).expect("a secret");
    }
    std::fs::write(folder.join("store/.fluxline/secret.txt"), SECRET).expect("a secret");
    std::fs::copy(master, folder.join("secret.h5")).expect("a copy");
    std::os::unix::fs::symlink(folder.join("secret.txt"), run.join("linked.txt")).expect("a link");
    let before: Vec<PathBuf> = tree(&folder)
        .into_iter()
        .filter(|path| !path.starts_with(folder.join("store/.fluxline")))
        .collect();

    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (cases, seed) = (number("FLUXLINE_PATHS", 20_000), number("FLUXLINE_PATHS_SEED", 1));
    let address = server.url.strip_prefix("http://").expect("an address");
    let naive = AtomicU64::new(0);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let case = Case {
                run: &run,
                outside: &folder,
                naive: &naive,
            };
            scope.spawn(move || {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (seed * 4 + thread + 1));
                let mut client = Client {
                    address: address.into(),
                    stream: None,
                };
                for _ in 0..cases / 4 {
                    case.send(&mut client, &mut numbers);
                }
                assert!(case.outside.join("secret.txt").exists());
            });
        }
    });
    let (naive, seconds) = (naive.load(Relaxed), begun.elapsed().as_secs_f64());
    println!("paths: {cases} names in {seconds:.0} s, none left the store; joined to its folder {naive} would have");
    assert!(naive > cases / 1000, "the names are harmless: {naive} of {cases}");
    let after: Vec<PathBuf> = tree(&folder)
        .into_iter()
        .filter(|path| !path.starts_with(folder.join("store/.fluxline")))
        .collect();
    assert_eq!(before, after, "something was made or removed");
    let list: Value = server.get("/api/v1/runs");
    assert_eq!(list["total"], 1, "{list}");
}

/// A `.npy` file of 32 x 32 zeros.
fn zeros() -> Vec<u8> {
    pipeline::feedback::pictures::npy("<f4", &[32, 32], &[0; 32 * 32 * 4])
}

#[test]
fn a_request_names_no_file_that_its_sender_could_not_read() {
    let folder = folder("paths-of-requests");
    let text = format!(
        "[ring]\nslots = 16\nallow_transparent = true\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [[source]]\nkind = \"simulate\"\nscene = \"pattern\"\nrows = 32\ncolumns = 32\nframes = 20\nrate_hz = 0.0\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\"]\n\
         [recipe.look.correct]\ndark = \"named.npy\"\n",
        folder.join("store").display()
    );
    let config = folder.join("fluxline.toml");
    std::fs::write(&config, text).expect("a configuration");
    for name in ["named.npy", "unnamed.npy", "store/secret.npy"] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, zeros()).expect("a file");
    }
    let token = |name: &str, only: &[&str]| {
        let config = config.display().to_string();
        let mut words = vec![
            "token", "create", name, "--role", "operator", "--json", "--config", &config,
        ];
        words.extend(only);
        json(&fluxline(&words))["token"].as_str().expect("a token").to_string()
    };
    let (all, mine) = (token("all", &[]), token("mine", &["--only", "mine"]));
    let server = Server::start(&config);
    let ended = |name: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(300);
        loop {
            let (_, run) = server.call("GET", &format!("/api/v1/runs/{name}"), Some(&all), "");
            let (_, status) = server.call("GET", "/api/v1/status", Some(&all), "");
            if run["store_state"] == "closed" && status["state"] == "idle" {
                return run["summary"]["files"][0].as_str().expect("a file").to_string();
            }
            assert!(std::time::Instant::now() < end, "{run} {status}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let record = |proposal: &str, name: &str| {
        let body = object!({ "name": name, "proposal": proposal }).to_string();
        let (status, said) = server.call("POST", "/api/v1/runs", Some(&all), &body);
        assert_eq!(status, 201, "{said}");
        ended(name)
    };
    let (theirs, own) = (record("theirs", "theirs-1"), record("mine", "mine-1"));
    let beside = |master: &str, name: &str| {
        let path = Path::new(master).parent().expect("a folder").join(name);
        path.display().to_string()
    };
    std::os::unix::fs::symlink(&theirs, beside(&own, "linked_master.h5")).expect("a link");
    std::fs::write(beside(&own, "left.npy"), zeros()).expect("a file");
    let ask = |who: &str, operation: &str, key: &str, file: &str, name: &str| {
        let operations = match operation {
            "correct" => object!(["correct", "statistics"]),
            _ => object!([operation]),
        };
        let value = match key {
            "pedestals" => object!([file]),
            _ => object!(file),
        };
        let body = object!({ "name": name, "operations": operations, "parameters": { operation: { key: value } } });
        server.call("POST", "/api/v1/runs/mine-1/reprocess", Some(who), &body.to_string())
    };

    // What is refused is refused in the same words, whether it is there or not.
    let at = |name: &str| folder.join(name).display().to_string();
    let nobodys = [
        "/etc/passwd".to_string(),
        "/dev/zero".into(),
        "/proc/self/environ".into(),
        at("nothing.npy"),
        at("unnamed.npy"),
        at("store/secret.npy"),
        at("store/.fluxline/tokens.json"),
        at("store/.calibrations/nothing.npy"),
        at("store/.calibrations/../secret.npy"),
        "unnamed.npy".into(),
        "./named.npy/../unnamed.npy".into(),
        beside(&own, "linked_master.h5"),
        beside(&own, "left.npy"),
        beside(&own, "nothing.h5"),
        format!("{own}/../../../../secret.npy"),
        format!("{}::/entry/data/data", at("nothing.h5")),
    ];
    let others = [
        theirs.clone(),
        beside(&theirs, "run.json"),
        format!("{theirs}::/entry/data/data"),
    ];
    let cases = nobodys
        .iter()
        .flat_map(|file| [(&all, file), (&mine, file)])
        .chain(others.iter().map(|file| (&mine, file)));
    for (who, file) in cases {
        for (operation, key) in FILE_PARAMETERS {
            let (status, said) = ask(who, operation, key, file, "refused");
            assert_eq!((status, &said["error"]), (422, &object!("file")), "{file}: {said}");
            let expected = format!(
                "parameters.{operation}.{key} = {file:?}: expected the whole path of a file of a run that you may see, or of a \
                 calibration, or a file that the configuration names"
            );
            assert_eq!(said["message"], expected, "{file}");
        }
    }

    // What the configuration names, the files of runs that one may see, and calibrations.
    let (status, kept) = {
        let mut answer = ureq::post(format!("{}/api/v1/calibrations/dark", server.url))
            .header("authorization", format!("Bearer {all}"))
            .content_type("application/octet-stream")
            .send(&zeros()[..])
            .expect("an answer");
        let body: Value = answer.body_mut().read_json().expect("a record");
        (answer.status().as_u16(), body)
    };
    assert_eq!(status, 201, "{kept}");
    let calibration = at(&format!(
        "store/.calibrations/{}",
        kept["file"].as_str().expect("a file")
    ));
    let allowed = [
        (&mine, "named.npy".to_string()),
        (&mine, at("named.npy")),
        (&mine, own.clone()),
        (&mine, calibration),
        (&all, theirs.clone()),
    ];
    for (number, (who, file)) in allowed.into_iter().enumerate() {
        let name = format!("again-{number}");
        let (status, said) = ask(who, "correct", "dark", &file, &name);
        assert_eq!(status, 201, "{file}: {said}");
        ended(&name);
    }

    // A file that is sent must have its values itself: a master file takes them from the files beside it.
    let sent = ureq::post(format!(
        "{}/api/v1/calibrations/dark?dataset=/entry/data/data",
        server.url
    ))
    .header("authorization", format!("Bearer {all}"))
    .config()
    .http_status_as_error(false)
    .build()
    .content_type("application/octet-stream")
    .send(&std::fs::read(&own).expect("a master file")[..]);
    let mut answer = sent.expect("an answer");
    let said: Value = answer.body_mut().read_json().expect("an error");
    assert_eq!(answer.status(), 422, "{said}");
    assert!(
        said["message"]
            .as_str()
            .is_some_and(|text| text.contains("from another file")),
        "{said}"
    );
}
