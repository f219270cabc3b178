//! A store, a central store, and a clock that a test turns.

use fluxline_tests::{Server, binary, folder, workspace};
use serde_json::{Value, json as object};
use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A configuration that records small frames as they come.
pub fn configuration(store: &Path, store_keys: &str, sections: &str) -> String {
    format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\nrows = 1000\ncolumns = 1000\nframes = 30\nrate_hz = 0.0\ndistinct = 2\n[store]\npath = \"{}\"\n{store_keys}\
         [feedback]\nlisten = \"127.0.0.1:0\"\n[recipe.none]\ntechnique = \"diffraction\"\noperations = []\n{sections}",
        store.display()
    )
}

/// Where a test happens.
pub struct Place {
    pub folder: PathBuf,
    pub central: PathBuf,
    retention: String,
    seconds: Cell<u64>,
    wrong_by: Cell<u64>,
    boot: RefCell<String>,
}

impl Place {
    /// A fresh place; keys of `[retention]`.
    pub fn new(name: &str, retention: &str) -> Place {
        let folder = folder(&format!("keep-{name}"));
        let central = folder.join("central");
        fs::create_dir(&central).expect("a central store");
        let place = Place {
            folder,
            central,
            retention: retention.into(),
            seconds: Cell::new(0),
            wrong_by: Cell::new(0),
            boot: RefCell::default(),
        };
        place.pass(0);
        place
    }

    /// Lets so many seconds pass.
    pub fn pass(&self, seconds: u64) {
        self.seconds.set(self.seconds.get() + seconds);
        let (passed, boot) = (self.seconds.get(), self.boot.borrow());
        let draft = self.folder.join("clock.part");
        fs::write(&draft, format!("{} {passed} {boot}", passed + self.wrong_by.get())).expect("a clock");
        fs::rename(draft, self.clock()).expect("a clock");
    }

    /// The time of day jumps forward, and no time passes.
    pub fn jump(&self, seconds: u64) {
        self.wrong_by.set(self.wrong_by.get() + seconds);
        self.pass(0);
    }

    /// The machine was started anew.
    pub fn reboot(&self, name: &str) {
        *self.boot.borrow_mut() = name.into();
        self.pass(0);
    }

    fn clock(&self) -> PathBuf {
        self.folder.join("clock")
    }

    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("fluxline.toml")
    }

    /// Writes the configuration with the folder as central store.
    pub fn configure(&self, sections: &str) {
        self.configure_with("same_file_system = true\n", sections);
    }

    pub fn configure_with(&self, push: &str, sections: &str) {
        self.write(&format!("to = \"{}\"\n{push}", self.central.display()), sections);
    }

    /// Writes the configuration with these keys of `[push]`.
    pub fn push_to(&self, push: &str) {
        self.write(push, "");
    }

    fn write(&self, push: &str, sections: &str) {
        let keeping = format!("[push]\n{push}[retention]\n{}{sections}", self.retention);
        fs::write(
            self.config(),
            configuration(&self.store(), "compress = false\n", &keeping),
        )
        .expect("a configuration");
    }

    /// The appliance.
    pub fn serve(&self) -> Server {
        self.serve_by(Command::new(binary()))
    }

    /// The appliance by `program`, which is the binary or starts it.
    pub fn serve_by(&self, mut program: Command) -> Server {
        program.env("FLUXLINE_TEST_CLOCK", self.clock());
        Server::start_by(program, &self.config())
    }

    fn store_program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(binary());
        program
            .env("FLUXLINE_TEST_CLOCK", self.clock())
            .arg("store")
            .args(arguments);
        program.arg("--json").arg("--config").arg(self.config());
        program.stdin(Stdio::null());
        program
    }

    /// `fluxline store ...` to its end.
    pub fn store_command(&self, arguments: &[&str]) -> Output {
        self.store_program(arguments).output().expect("the built binary")
    }

    /// `fluxline store ...`
    pub fn spawn_store(&self, arguments: &[&str]) -> Child {
        let mut program = self.store_program(arguments);
        program
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the built binary")
    }

    /// Records a run of five frames into the store and ends.
    pub fn record_once(&self, name: &str) {
        self.record_with(name, 5, "");
    }

    /// Records a run with these keys of `[store]` and ends.
    pub fn record_with(&self, name: &str, frames: u64, store_keys: &str) {
        let path = self.folder.join("record.toml");
        fs::write(&path, configuration(&self.store(), store_keys, "")).expect("a configuration");
        let server = Server::start(&path);
        record(&server, name, frames);
    }

    /// Folder of a run, as its only day has it.
    pub fn run_folder(&self, name: &str) -> PathBuf {
        let proposal = self.store().join("commissioning");
        let days = names(&proposal);
        let mut found = days
            .iter()
            .map(|day| proposal.join(day).join(name))
            .filter(|path| path.exists());
        found.next().expect(name)
    }

    pub fn relative(&self, run: &Path) -> String {
        run.strip_prefix(self.store())
            .expect("a run of the store")
            .display()
            .to_string()
    }

    pub fn copy_of(&self, run: &Path) -> PathBuf {
        self.central.join(self.relative(run))
    }

    /// Every file that `run.json` names, and itself, is at the central store byte by byte, and nothing else is.
    pub fn copy_is_right(&self, name: &str) {
        let here = self.run_folder(name);
        let copy = self.copy_of(&here);
        let mut expected = names(&here);
        expected.retain(|name| name != "state.jsonl");
        assert_eq!(names(&copy), expected);
        for file in expected {
            assert!(
                fs::read(here.join(&file)).expect("ours") == fs::read(copy.join(&file)).expect("theirs"),
                "{file}"
            );
        }
    }

    /// The central store has the run and its data.
    pub fn copy_exists(&self, name: &str) {
        let copy = names(&self.copy_of(&self.run_folder(name)));
        assert!(copy.len() >= 3 && copy.contains(&"run.json".to_string()), "{copy:?}");
    }
}

/// Records a run through the interface.
pub fn record(server: &Server, name: &str, frames: u64) -> Value {
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": name, "frames_expected": frames }));
    assert_eq!(status, 201, "{armed}");
    server.wait(&format!("/api/v1/runs/{name}"), |run| !run["summary"].is_null())
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The states that a run's `state.jsonl` tells, `recording` left out.
pub fn states(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("state.jsonl")).expect("state.jsonl");
    let state = |line: &str| {
        serde_json::from_str::<Value>(line).ok()?["state"]
            .as_str()
            .map(str::to_string)
    };
    text.lines()
        .filter_map(state)
        .filter(|state| state != "recording")
        .collect()
}

/// Flips one bit in the middle of a file.
pub fn flip(path: &Path) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let at = file.metadata().expect("its length").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}

/// Waits until something is so, at most five minutes.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !so() {
        assert!(Instant::now() < end, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// moto's S3 behind a door with faults.
pub struct S3 {
    child: Child,
    mode: PathBuf,
    pub url: String,
}

impl S3 {
    pub fn start(test: &str) -> Option<S3> {
        let python = fluxline_tests::python(test)?;
        let mode = folder("keep-s3-mode").join("mode");
        fs::write(&mode, "ok").expect("a mode");
        let mut child = Command::new(python)
            .arg(workspace().join("tests/python/s3_faults.py"))
            .arg(&mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("its stdout"));
        out.read_line(&mut line).expect("a port");
        assert!(
            !line.trim().is_empty(),
            "moto did not start: is it in tools/python.lock?"
        );
        let s3 = S3 {
            child,
            mode,
            url: format!("http://127.0.0.1:{}", line.trim()),
        };
        ureq::put(format!("{}/central", s3.url)).send_empty().expect("a bucket");
        Some(s3)
    }

    pub fn mode(&self, mode: &str) {
        fs::write(&self.mode, mode).expect("a mode");
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let mut answer = ureq::get(format!("{}{key}", self.url)).call().expect(key);
        answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_vec()
            .expect("a body")
    }

    pub fn delete(&self, key: &str) {
        ureq::delete(format!("{}{key}", self.url)).call().expect(key);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
