//! JUNGFRAU and EIGER packets through the built binary, over a veth pair between two network namespaces.

use fluxline_tests::{check, fluxline, folder, python, workspace};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SENDER: &str = "10.77.0.1";
const RECEIVER: &str = "10.77.0.2";

/// Two network namespaces and the link between them, MTU 9000.
struct Link {
    sender: String,
    receiver: String,
}

fn ip(arguments: &str) -> bool {
    let run = Command::new("ip")
        .args(arguments.split(' '))
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

impl Link {
    /// `None`, said loudly, where this user cannot make namespaces.
    fn new(test: &str) -> Option<Link> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
        let link = Link {
            sender: format!("fl-s-{id}"),
            receiver: format!("fl-r-{id}"),
        };
        let (s, r) = (&link.sender, &link.receiver);
        let made = ip(&format!("netns add {s}"))
            && ip(&format!("netns add {r}"))
            && ip(&format!(
                "-n {s} link add d0 mtu 9000 type veth peer name d0 mtu 9000 netns {r}"
            ))
            && ip(&format!("-n {s} addr add {SENDER}/24 dev d0"))
            && ip(&format!("-n {r} addr add {RECEIVER}/24 dev d0"))
            && [s, r]
                .iter()
                .all(|n| ip(&format!("-n {n} link set d0 up")) && ip(&format!("-n {n} link set lo up")));
        if !made {
            eprintln!("SKIPPED {test}: network namespaces cannot be made here (it takes root and iproute2)");
            return None;
        }
        Some(link)
    }

    fn command(namespace: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace])
            .arg(program)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.sender));
        ip(&format!("netns del {}", self.receiver));
    }
}

/// A detector as emulator, configuration and script each want it.
struct Detector {
    arguments: &'static [&'static str],
    configuration: &'static str,
    script: &'static str,
    ports: usize,
}

const JUNGFRAU: Detector = Detector {
    arguments: &["--detector", "jungfrau"],
    configuration: "detector = \"jungfrau\"\n",
    script: "jungfrau,1,1,0,0,1,16,8192",
    ports: 1,
};
const TWO_MODULES: Detector = Detector {
    arguments: &[
        "--detector",
        "jungfrau",
        "--modules",
        "2x1",
        "--gap",
        "36x0",
        "--interfaces",
        "2",
    ],
    configuration: "detector = \"jungfrau\"\nmodules = [2, 1]\ngap = [36, 0]\ninterfaces = 2\npart_by = \"port\"\n",
    script: "jungfrau,2,1,36,0,2,16,8192",
    ports: 4,
};
const EIGER: Detector = Detector {
    arguments: &[
        "--detector",
        "eiger",
        "--bits",
        "32",
        "--modules",
        "1x2",
        "--gap",
        "0x8",
    ],
    configuration: "detector = \"eiger\"\nbits = 32\nmodules = [1, 2]\ngap = [0, 8]\n",
    script: "eiger,1,2,0,8,1,32,4096",
    ports: 8,
};

impl Detector {
    fn addresses(&self) -> Vec<String> {
        (0..self.ports)
            .map(|port| format!("{RECEIVER}:{}", 50_100 + port))
            .collect()
    }
}

/// One run and what feeds it.
struct Case {
    link: Link,
    folder: PathBuf,
    config: PathBuf,
    python: PathBuf,
    file: String,
    detector: &'static Detector,
}

impl Case {
    fn new(test: &str, name: &str, detector: &'static Detector, frames: u32) -> Option<Case> {
        let (python, link) = (python(test)?, Link::new(test)?);
        let folder = folder(&format!("{test}-{name}"));
        let (file, poni) = (folder.join("frames.h5").display().to_string(), folder.join("d.poni"));
        let poni = poni.display().to_string();
        check(
            &python,
            "udp_packets.py",
            &["make", &file, &poni, detector.script, &frames.to_string()],
        );
        let text = format!(
            "[ring]\nslots = 160\nallow_transparent = true\n[[source]]\nkind = \"udp\"\naddresses = {:?}\nframes = {frames}\n\
             {}silence_timeout_s = 3.0\nframe_timeout_s = 10.0\n[store]\npath = \"store\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
             [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\", \"azimuthal\"]\n\
             [recipe.look.azimuthal]\nponi = \"{poni}\"\nbins = 200\nrange = [2.0, 20.0]\n",
            detector.addresses(),
            detector.configuration,
        );
        let config = folder.join("fluxline.toml");
        std::fs::write(&config, text).expect("a configuration");
        Some(Case {
            link,
            folder,
            config,
            python,
            file,
            detector,
        })
    }

    /// Starts a run and waits until it takes packets.
    fn start(&self) -> Child {
        let mut command = Link::command(&self.link.receiver, &fluxline_tests::binary());
        command.args(["run", "--once", "--json"]).arg(&self.config);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a run");
        // `ip netns exec` becomes the program. Its receiving thread begins when the sockets are bound and quiet and the files are
        // made; the kernel cuts names off at 15 bytes.
        let threads = PathBuf::from(format!("/proc/{}/task", child.id()));
        until("the run was never armed", || {
            let tasks = std::fs::read_dir(&threads).into_iter().flatten().flatten();
            tasks
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
                .any(|name| name.trim() == "fluxline-receiv")
        });
        child
    }

    /// Packets that have reached the receiver's interface.
    fn arrived(&self) -> u64 {
        let mut command = Link::command(&self.link.receiver, Path::new("cat"));
        let output = command.arg("/sys/class/net/d0/statistics/rx_packets").output();
        let text = String::from_utf8(output.expect("the interface's counts").stdout);
        text.expect("a number").trim().parse().expect("a number")
    }

    fn emulate(&self, rate: &str, arguments: &[&str]) -> Value {
        let mut command = Link::command(&self.link.sender, &fluxline_tests::binary());
        command.args([
            "emulate",
            "--json",
            "--udp",
            &self.detector.addresses().join(","),
            "--rate",
            rate,
        ]);
        command
            .args(["--file", &self.file, "--dataset", "/data"])
            .args(self.detector.arguments)
            .args(arguments);
        let report = fluxline_tests::json(&command.output().expect("the emulator"));
        std::fs::write(self.folder.join("report.json"), report.to_string()).expect("the report");
        report
    }

    fn summary(run: Child) -> Value {
        let output: Output = run.wait_with_output().expect("the run's end");
        fluxline_tests::json(&output)
    }

    fn check(&self, summary: &Value) {
        let (master, report) = (
            summary["files"][0].as_str().expect("a master file"),
            self.folder.join("report.json"),
        );
        let report = report.display().to_string();
        let arguments = ["check", &self.file, master, &report, self.detector.script];
        println!("{}", check(&self.python, "udp_packets.py", &arguments));
    }

    /// A run with these faults; summary and report.
    fn with(&self, rate: &str, arguments: &[&str]) -> (Value, Value) {
        let run = self.start();
        let report = self.emulate(rate, arguments);
        (Self::summary(run), report)
    }
}

/// Waits until something has happened.
fn until(never: &str, happened: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !happened() {
        assert!(Instant::now() < end, "{never}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn of(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

#[test]
fn what_is_sent_is_stored_and_integrated_for_every_detector() {
    let test = "what_is_sent_is_stored_and_integrated_for_every_detector";
    for (name, detector) in [
        ("jungfrau", &JUNGFRAU),
        ("two-modules", &TWO_MODULES),
        ("eiger", &EIGER),
    ] {
        let Some(case) = Case::new(test, name, detector, 40) else {
            return;
        };
        let (summary, report) = case.with("20", &[]);
        assert_eq!(of(&summary["frames"], "complete"), 40, "{name}: {summary}");
        assert_eq!(of(&summary["udp"], "placed"), of(&report, "packets"), "{summary}");
        assert_eq!(of(&summary["udp"], "socket_drops"), 0);
        case.check(&summary);
    }
}

#[test]
fn every_lost_packet_is_in_the_ledger_and_in_the_mask_and_in_no_curve() {
    let test = "every_lost_packet_is_in_the_ledger_and_in_the_mask_and_in_no_curve";
    for (name, detector) in [("jungfrau", &JUNGFRAU), ("eiger", &EIGER)] {
        let Some(case) = Case::new(test, name, detector, 40) else {
            return;
        };
        let (summary, report) = case.with("20", &["--lose", "0.01", "--seed", "7"]);
        assert!(of(&report, "lost") > 20, "{report}");
        assert_eq!(of(&summary["udp"], "missing"), of(&report, "lost"), "{summary}");
        let frames = &summary["frames"];
        assert_eq!(of(frames, "complete") + of(frames, "partial"), 40, "{summary}");
        case.check(&summary);
    }
}

#[test]
fn duplicates_reordering_and_corruption_change_no_byte() {
    let test = "duplicates_reordering_and_corruption_change_no_byte";
    let faults: [(&str, &[&str]); 3] = [
        ("twice", &["--duplicate", "0.5"]),
        ("reordered", &["--reorder", "0.3", "--reorder-depth", "4000"]),
        (
            "all",
            &[
                "--duplicate",
                "0.5",
                "--reorder",
                "0.3",
                "--lose",
                "0.01",
                "--corrupt",
                "0.02",
            ],
        ),
    ];
    for (name, arguments) in faults {
        // Where the port says the part, a forged position is not even looked at.
        let detector = if name == "all" { &JUNGFRAU } else { &TWO_MODULES };
        let Some(case) = Case::new(test, name, detector, 40) else {
            return;
        };
        let (summary, report) = case.with("10", arguments);
        let (udp, forged) = (&summary["udp"], of(&report, "forged") + of(&report, "truncated"));
        let bad = [
            "bad_size",
            "bad_version",
            "bad_detector",
            "bad_part",
            "bad_packet",
            "beyond",
        ];
        assert!(bad.iter().map(|key| of(udp, key)).sum::<u64>() <= forged, "{summary}");
        assert_eq!(
            of(udp, "missing"),
            report["missing"].as_array().map_or(0, Vec::len) as u64,
            "{summary}"
        );
        // A second copy of a frame's last packet comes when the frame has been handed on, one of the run's last frame when the
        // socket is closed.
        let unread = of(&report, "packets") - of(udp, "packets");
        assert!(
            of(udp, "duplicate") + of(udp, "late") + unread >= of(&report, "duplicated"),
            "{summary} {report}"
        );
        assert_eq!(of(udp, "socket_drops"), 0, "{summary}");
        case.check(&summary);
    }
}

#[test]
fn an_aborted_acquisition_ends_the_run_and_its_strays_stay_outside() {
    let test = "an_aborted_acquisition_ends_the_run_and_its_strays_stay_outside";
    let Some(case) = Case::new(test, "abort", &JUNGFRAU, 40) else {
        return;
    };
    let run = case.start();
    // The first acquisition is aborted; the second begins again with frame 1, and strays of the first come in its midst.
    let sent = ["--abort-after", "25", "--series", "2", "--stray", "64", "--pause", "9"];
    let report = std::thread::scope(|scope| {
        let sender = scope.spawn(|| case.emulate("20", &sent));
        let summary = Case::summary(run);
        let frames = &summary["frames"];
        assert_eq!((of(frames, "complete"), of(frames, "lost")), (25, 15), "{summary}");
        assert!(summary["warnings"].to_string().contains("fell silent"), "{summary}");
        sender.join().expect("the sender")
    });
    assert_eq!((of(&report, "series"), of(&report, "stray")), (2, 64), "{report}");
    // Strays within a run: packets of the frame that would come next, from before the run began.
    let Some(case) = Case::new(test, "stray", &JUNGFRAU, 40) else {
        return;
    };
    let sent = ["--abort-after", "5", "--series", "2", "--stray", "64", "--pause", "20"];
    let first = 5 * 128;
    let report = std::thread::scope(|scope| {
        let sending = scope.spawn(|| case.emulate("20", &sent));
        until("the first acquisition never came", || case.arrived() >= first);
        let run = case.start();
        assert!(case.arrived() < first + 128, "the run was armed within the pause");
        let summary = Case::summary(run);
        assert_eq!(of(&summary["frames"], "complete"), 5, "{summary}");
        assert_eq!(of(&summary["frames"], "partial"), 0, "{summary}");
        assert_eq!(of(&summary["udp"], "stray"), 64, "{summary}");
        sending.join().expect("the sender")
    });
    assert_eq!(of(&report, "stray"), 64);
}

#[test]
fn packets_made_by_others_are_received() {
    let test = "packets_made_by_others_are_received";
    let Some(case) = Case::new(test, "struct", &JUNGFRAU, 20) else {
        return;
    };
    let run = case.start();
    let mut command = Link::command(&case.link.sender, &case.python);
    command.arg(workspace().join("tests/python/udp_packets.py"));
    command.args([
        "send",
        &case.detector.addresses()[0],
        &case.file,
        case.detector.script,
        "10",
    ]);
    assert!(command.status().expect("the sender").success());
    let summary = Case::summary(run);
    assert_eq!(of(&summary["frames"], "complete"), 20, "{summary}");
    std::fs::write(case.folder.join("report.json"), "{\"missing\": []}").expect("a report");
    case.check(&summary);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_in_one_sentence() {
    let folder = folder("what_is_wrong_with_a_configuration_is_said_in_one_sentence");
    for (more, wanted) in [
        ("addresses = [\"10.0.0.1\"]", "an address of this machine and a port"),
        (
            "addresses = [\"10.0.0.1:1\", \"10.0.0.1:2\"]",
            "1 address, or 1: one per part",
        ),
        (
            "addresses = [\"10.0.0.1:1\"]\nbits = 8",
            "source.bits = 8: a JUNGFRAU has 16",
        ),
        (
            "addresses = [\"10.0.0.1:1\"]\nwindow = 65",
            "source.window = 65: allowed is 2 to 64",
        ),
        ("addresses = [\"10.0.0.1:1\"]\nport = 3", "unknown field `port`"),
    ] {
        let text = format!(
            "[[source]]\nkind = \"udp\"\n{more}\n[store]\npath = \"store\"\n[recipe.look]\ntechnique = \"diffraction\"\n\
             operations = [\"statistics\"]\n"
        );
        let path = folder.join("fluxline.toml");
        std::fs::write(&path, text).expect("a configuration");
        let (status, said) = fluxline_tests::complaint(&fluxline(&["validate", &path.display().to_string()]));
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}
