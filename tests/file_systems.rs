//! What happens to the file system itself while a run records: it turns read-only, a folder is deleted, a day ends.

use fluxline_tests::{Server, binary, check, folder, interposed, python};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Frames of 1 MB, past the page cache, for some minutes or until somebody stops it.
fn configuration(folder: &Path, store: &Path) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\nrows = 512\ncolumns = 1024\nframes = 5000\nrate_hz = 20.0\ndistinct = 4\n\
         [store]\npath = \"{}\"\nframes_per_file = 5000\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        store.display()
    );
    let path = folder.join("fluxline.toml");
    fs::write(&path, text).expect("a configuration");
    path
}

fn arm(server: &Server, name: &str, frames: u64) {
    let (status, armed) = server.post("/api/v1/runs", &json!({ "name": name, "frames_expected": frames }));
    assert_eq!(status, 201, "{armed}");
}

fn synced(run: &Value) -> u64 {
    number(&run["outcomes"]["synced"])
}

/// Folder of the only run of this name.
fn run_folder(store: &Path, run: &str) -> PathBuf {
    let below = |folder: PathBuf| {
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let days = below(store.to_path_buf()).into_iter().flat_map(below);
    let mut found = days.map(|day| day.join(run)).filter(|path| path.is_dir());
    found.next().expect("the run's folder")
}

/// A small file system of its own on a loop device.
struct Volume {
    image: PathBuf,
    mounted: PathBuf,
}

impl Volume {
    /// `None`, said loudly, where this process may not mount.
    fn new(test: &str, folder: &Path, megabytes: u64) -> Option<Volume> {
        let volume = Volume {
            image: folder.join("disk.img"),
            mounted: folder.join("disk"),
        };
        fs::create_dir(&volume.mounted).expect("a mount point");
        let image = fs::File::create(&volume.image).expect("an image");
        image.set_len(megabytes << 20).expect("room for an image");
        let made = run("mkfs.ext4", &["-q", "-F", &volume.image.display().to_string()]);
        if !made.is_ok_and(|said| said.0) || !volume.mount() {
            eprintln!("SKIPPED {test}: no file system can be made and mounted here; as root it can");
            return None;
        }
        Some(volume)
    }

    fn mount(&self) -> bool {
        let (image, mounted) = (self.image.display().to_string(), self.mounted.display().to_string());
        run("mount", &["-o", "loop,errors=remount-ro", &image, &mounted]).is_ok_and(|said| said.0)
    }

    /// The kernel finds the file system damaged and lets nobody write any more.
    fn turn_read_only(&self) {
        let mounted = self.mounted.display().to_string();
        let (_, device) = run("findmnt", &["-n", "-o", "SOURCE", &mounted]).expect("findmnt");
        let name = device.trim().rsplit('/').next().expect("a device");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").expect("an error that is made");
    }

    fn unmount(&self) {
        let said = run("umount", &[&self.mounted.display().to_string()]).expect("umount");
        assert!(said.0, "{}", said.1);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.mounted.display().to_string()]);
    }
}

/// Whether a command succeeded, and what it said.
fn run(program: &str, arguments: &[&str]) -> std::io::Result<(bool, String)> {
    let output = Command::new(program).args(arguments).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The file system turns read-only in the middle of a run: analysis goes on, no frame is called safe any more, and after a
/// repair and a new start every frame that was called safe is there.
#[test]
fn a_disk_that_turns_read_only_keeps_what_was_safe() {
    let test = "a_disk_that_turns_read_only_keeps_what_was_safe";
    let folder = folder("read-only");
    let Some(volume) = Volume::new(test, &folder, 2000) else {
        return;
    };
    let store = volume.mounted.join("store");
    let config = configuration(&folder, &store);
    let server = Server::start(&config);
    arm(&server, "torn", 1500);
    server.wait("/api/v1/runs/torn", |run| synced(run) >= 20);
    volume.turn_read_only();
    let failing = server.wait("/api/v1/runs/torn", |run| {
        number(&run["outcomes"]["storage_failed"]) > 20
    });
    let (safe, done) = (synced(&failing), number(&failing["outcomes"]["done"]));
    let later = server.wait("/api/v1/runs/torn", |run| number(&run["outcomes"]["done"]) > done + 20);
    assert_eq!(synced(&later), safe, "nothing more is safe: {later}");
    assert!(server.post("/api/v1/runs/torn/stop", &Value::Null).0 < 300);
    let ended = server.wait("/api/v1/runs/torn", |run| {
        !matches!(
            run["state"].as_str(),
            Some("recording" | "armed" | "stopping" | "finishing")
        )
    });
    assert_eq!(ended["state"], "failed", "{ended}");
    let (status, refused) = server.post("/api/v1/runs", &json!({ "name": "next" }));
    assert!(status >= 400, "no run is armed on such a disk: {refused}");
    drop(server);
    volume.unmount();
    let image = volume.image.display().to_string();
    let (_, said) = run("e2fsck", &["-f", "-p", &image]).expect("e2fsck");
    assert!(volume.mount(), "{said}");
    let server = Server::start(&config);
    // Its files are whole before the server listens; its hashes and run.json follow.
    let end = Instant::now() + Duration::from_secs(60);
    while server.try_get("/api/v1/runs/torn").1["state"] != "interrupted" {
        assert!(Instant::now() < end, "the run is not closed");
        std::thread::sleep(Duration::from_millis(100));
    }
    arm(&server, "next", 20);
    server.wait("/api/v1/runs/next", |run| run["state"] == "complete");
    drop(server);
    let Some(python) = python(test) else { return };
    let torn = format!("{}={safe}", run_folder(&store, "torn").display());
    let next = format!("{}=20", run_folder(&store, "next").display());
    check(&python, "store_check.py", &["runs", "4", &torn, &next]);
}

/// Somebody deletes the folder of a run that records: nothing more is called safe, analysis goes on, the next run is whole.
#[test]
fn a_deleted_folder_costs_its_run_and_nothing_else() {
    let test = "a_deleted_folder_costs_its_run_and_nothing_else";
    let folder = folder("deleted-folder");
    let store = folder.join("store");
    let server = Server::start(&configuration(&folder, &store));
    arm(&server, "gone", 5000);
    server.wait("/api/v1/runs/gone", |run| synced(run) >= 20);
    fs::remove_dir_all(run_folder(&store, "gone")).expect("deleted");
    let failing = server.wait("/api/v1/runs/gone", |run| {
        number(&run["outcomes"]["storage_failed"]) > 20
    });
    let (safe, done) = (synced(&failing), number(&failing["outcomes"]["done"]));
    let later = server.wait("/api/v1/runs/gone", |run| number(&run["outcomes"]["done"]) > done + 20);
    assert_eq!(synced(&later), safe, "nothing more is safe: {later}");
    let warnings = later["warnings"].to_string();
    assert!(
        warnings.contains("the file was deleted while it was written"),
        "{later}"
    );
    assert!(server.post("/api/v1/runs/gone/stop", &Value::Null).0 < 300);
    let ended = server.wait("/api/v1/runs/gone", |run| {
        !matches!(
            run["state"].as_str(),
            Some("recording" | "armed" | "stopping" | "finishing")
        )
    });
    assert_eq!(ended["state"], "failed", "{ended}");
    arm(&server, "next", 20);
    server.wait("/api/v1/runs/next", |run| run["state"] == "complete");
    drop(server);
    let Some(python) = python(test) else { return };
    let next = format!("{}=20", run_folder(&store, "next").display());
    check(&python, "store_check.py", &["runs", "4", &next]);
}

/// Midnight comes while a run records: it stays in the folder of the day on which it was armed, and the next run begins a
/// new one.
#[test]
fn a_run_belongs_to_the_day_on_which_it_was_armed() {
    const DAY_S: u64 = 86_400;
    let folder = folder("midnight");
    let store = folder.join("store");
    let library = interposed(&folder, "clock.c", &["-ldl"]);
    let clock = folder.join("clock");
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("a time after 1970").as_secs()
    };
    // Ten minutes to midnight: no test is so slow. 2031-05-31, so that a month ends as well.
    let midnight = 22_431 * DAY_S;
    let turn = |to: u64| {
        let draft = folder.join("clock.part");
        fs::write(&draft, (to - now()).to_string()).expect("a clock");
        fs::rename(draft, &clock).expect("a clock");
    };
    turn(midnight - 600);
    let mut program = Command::new(binary());
    program.env("LD_PRELOAD", &library).env("FLUXLINE_WALL_CLOCK", &clock);
    let server = Server::start_by(program, &configuration(&folder, &store));
    arm(&server, "late", 5000);
    server.wait("/api/v1/runs/late", |run| synced(run) >= 5);
    turn(midnight + 600);
    let before = synced(&server.get("/api/v1/runs/late"));
    server.wait("/api/v1/runs/late", |run| synced(run) > before + 5);
    assert!(server.post("/api/v1/runs/late/stop", &Value::Null).0 < 300);
    server.wait("/api/v1/runs/late", |run| !run["summary"].is_null());
    arm(&server, "early", 5);
    server.wait("/api/v1/runs/early", |run| !run["summary"].is_null());
    let record = |day: &str, run: &str| -> Value {
        let path = store.join("commissioning").join(day).join(run).join("run.json");
        serde_json::from_slice(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
            .expect("JSON")
    };
    let (late, early) = (record("20310531", "late"), record("20310601", "early"));
    let begins = |value: &Value, day: &str| value.as_str().is_some_and(|text| text.starts_with(day));
    assert!(
        begins(&late["start_time"], "2031-05-31T23:5") && begins(&late["end_time"], "2031-06-01T00:1"),
        "{late}"
    );
    assert!(begins(&early["start_time"], "2031-06-01T00:1"), "{early}");
    let days = fs::read_dir(store.join("commissioning")).expect("a proposal").count();
    assert_eq!(days, 2);
    let listed = server.wait("/api/v1/runs", |list| list["complete"] == true);
    assert_eq!(
        (&listed["runs"][0]["id"], &listed["runs"][1]["id"]),
        (&json!("early"), &json!("late")),
        "newest first"
    );
}
