//! The data plane between arm and end: nothing is allocated, and a slow stage pushes back to the last slot.

#![allow(unsafe_code, clippy::unwrap_used)]

use driver::dectris::{Emulator, EmulatorConfig, Version};
use driver::faults::{FaultConfig, Faulty};
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::simulate::{Model, Scene, Simulate, SimulateConfig};
use driver::source::{FrameSource, WhenFull};
use driver::udp::{Emulator as PacketEmulator, EmulatorConfig as PacketEmulatorConfig, UdpConfig};
use frame::{PixelMask, ResultLayout};
use kernels::{Accelerator, Queue};
use pipeline::appliance::{Appliance, RunRequest};
use pipeline::config::Config;
use pipeline::cores::Cores;
use pipeline::data_plane;
use pipeline::metrics::Metrics;
use pipeline::recipes::{Batch, Operation, Prepared, RecipeError, Snapshot};
use pipeline::run::{self, RunParts};
use pipeline::storage::{RunInfo, RunWriter, Store, WriterConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Counts what data-plane threads ask for.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static SIZES: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

fn count(layout: Layout) {
    if data_plane::active() {
        let at = ALLOCATIONS.fetch_add(1, SeqCst);
        if let Some(slot) = SIZES.get(at as usize) {
            slot.store(layout.size() as u64, SeqCst);
        }
        if std::env::var_os("FLUXLINE_TEST_ABORT").is_some() {
            std::process::abort();
        }
    }
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(layout);
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fluxline-plane-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn record(name: &str, source: &str, recipe: &str) -> u64 {
    record_from(name, &format!("kind = \"simulate\"\n{source}"), recipe, || ())
}

/// The allocations of a run; `armed` is called when its source takes frames.
fn record_from(name: &str, source: &str, recipe: &str, armed: impl FnOnce()) -> u64 {
    let folder = folder(name);
    let text = format!(
        "[ring]\nslots = 192\nallow_transparent = true\n[[source]]\n{source}[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n{recipe}",
        folder.join("store").display()
    );
    let appliance = Appliance::start(Config::parse(&text, Path::new("test"), &folder).unwrap()).unwrap();
    let run = appliance.arm(&RunRequest::default()).unwrap();
    armed();
    let before = ALLOCATIONS.load(SeqCst);
    let summary = appliance.record(run);
    assert_eq!(summary.state, "complete");
    assert!(
        summary.frames.closed() && summary.frames.complete + summary.frames.partial > 100,
        "{:?}",
        summary.frames
    );
    ALLOCATIONS.load(SeqCst) - before
}

/// One test, so that no other run's threads are counted along.
#[test]
fn nothing_is_allocated_between_arm_and_end() {
    let diffraction = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 150\ncolumns = 170\nframes = 3000\nrate_hz = 0.0\ndistinct = 8\n";
    let powder = "[recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"spots\", \"hits\", \"azimuthal\"]\n[recipe.powder.hits]\nveto = true\nkeep_every = 3\n";
    let tomography = "scene = \"tomography\"\nrows = 20\ncolumns = 64\nframes = 400\nrate_hz = 0.0\n\
                      [source.faults]\nreorder = 0.3\nduplicate = 0.1\ndrop = 0.01\n";
    let ct = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n";
    let ct_volume =
        "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\", \"volume\"]\n";
    for (name, source, recipe) in [
        ("powder", diffraction.to_string(), powder),
        ("ct", tomography.to_string(), ct),
        ("ct-volume", tomography.to_string(), ct_volume),
    ] {
        let allocations = record(name, &source, recipe);
        let sizes: Vec<u64> = SIZES.iter().map(|size| size.load(SeqCst)).collect();
        assert_eq!(
            allocations, 0,
            "{name}: {allocations} allocations, the first of {sizes:?} bytes"
        );
    }
    let pixels = 150 * 170;
    let pedestal = pipeline::feedback::pictures::npy("<f4", &[150, 170], &vec![0u8; pixels * 4]);
    let file = folder("pedestals").join("pedestal.npy");
    std::fs::write(&file, pedestal).unwrap();
    let file = file.display();
    let behind = "operations = [\"OPERATION\", \"correct\", \"statistics\", \"spots\", \"azimuthal\"]";
    let converted = [
        ("countrate", "dead_time_ns = 100.0\nexposure_s = 0.01\n".to_string()),
        (
            "gain",
            format!(
                "pedestals = [\"{file}\", \"{file}\", \"{file}\"]\nnominal_gains_adu_per_kev = [0.1, -1.4, -0.1]\n\
                 track_window = 20\n"
            ),
        ),
    ];
    for (operation, parameters) in converted {
        let operations = behind.replace("OPERATION", operation);
        let recipe =
            format!("[recipe.new]\ntechnique = \"diffraction\"\n{operations}\n[recipe.new.{operation}]\n{parameters}");
        assert_eq!(record(operation, diffraction, &recipe), 0, "{operation}");
    }
    let packed = format!("{diffraction}compressed = true\n");
    assert_eq!(record("packed", &packed, powder), 0, "compressed frames");
    stream(powder);
    packets(powder);
    slow_stage();
}

/// What an emulator sends, and the memory that it takes for it.
fn to_send(simulated: SimulateConfig) -> (Simulate, FrameRing) {
    let source = Simulate::new(simulated).unwrap();
    let payload = source.stream().payload_bytes_max.max(1 << 17);
    let pages = PagesConfig {
        bytes: FrameRing::bytes_needed(32, payload),
        page_size: PageSize::Transparent,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    };
    let ring = FrameRing::new(HugePages::reserve(&pages).unwrap(), 32, payload).unwrap();
    (source, ring)
}

/// Frames in the packets of a JUNGFRAU module, some lost, twice or overtaken.
fn packets(recipe: &str) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let (frames, lose) = (200, 0.002);
    let source = format!(
        "kind = \"udp\"\naddresses = [\"{address}\"]\nframes = {frames}\nsilence_timeout_s = 2.0\nwavelength_m = 1e-10\ndistance_m = 0.2\n\
         beam_center_x_px = 500.0\nbeam_center_y_px = 250.0\n"
    );
    let sender = std::cell::Cell::new(None);
    let allocations = record_from("udp", &source, recipe, || {
        sender.set(Some(std::thread::spawn(move || {
            let simulated = SimulateConfig {
                scene: Scene::Diffraction,
                rows: 512,
                columns: 1024,
                frames,
                rate_hz: 100.0,
                distinct: 4,
                detector: Model::Custom,
                ..SimulateConfig::default()
            };
            let (mut source, ring) = to_send(simulated);
            let config = PacketEmulatorConfig {
                detector: UdpConfig {
                    addresses: vec![address],
                    frames,
                    ..UdpConfig::default()
                },
                series: 1,
                pause: Duration::ZERO,
                spread: Duration::from_millis(5),
                lose,
                duplicate: 0.1,
                reorder: 0.1,
                reorder_depth: 100,
                corrupt: 0.01,
                late_start: 0,
                abort_after: None,
                stray: 0,
                seed: 5,
            };
            PacketEmulator::new(config)
                .unwrap()
                .send(&mut source, &ring, |_| true)
                .unwrap()
        })));
    });
    let sizes: Vec<u64> = SIZES.iter().map(|size| size.load(SeqCst)).collect();
    assert_eq!(allocations, 0, "packets: the first of {sizes:?} bytes");
    let report = sender.into_inner().unwrap().join().unwrap();
    assert!(
        report.lost > 0 && report.duplicated > 0 && report.reordered > 0,
        "{report:?}"
    );
}

/// Frames of a DECTRIS stream, either version, with duplicates and images before their start.
fn stream(recipe: &str) {
    for (name, version) in [("v2", Version::V2), ("v1", Version::V1)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        drop(listener);
        let simulated = SimulateConfig {
            scene: Scene::Diffraction,
            rows: 150,
            columns: 170,
            frames: 1000,
            rate_hz: 0.0,
            distinct: 8,
            compressed: true,
            detector: Model::Custom,
            ..SimulateConfig::default()
        };
        let bound = address.clone();
        let sender = std::thread::spawn(move || {
            let (source, ring) = to_send(simulated);
            let mut source = Faulty::new(
                source,
                FaultConfig {
                    duplicate: 0.2,
                    ..FaultConfig::default()
                },
            )
            .unwrap();
            let config = EmulatorConfig {
                address: bound,
                version,
                series: 1,
                pause: Duration::ZERO,
                timeout: Duration::from_secs(20),
                drop: false,
                late_start: 5,
                abort_after: None,
                no_end: false,
                stray: 0,
                corrupt: 0.0,
                seed: 4,
            };
            Emulator::bind(config)
                .unwrap()
                .send(&mut source, &ring, |_| true)
                .unwrap()
        });
        let source = format!("kind = \"dectris\"\naddresses = [\"{address}\"]\n");
        let allocations = record_from(name, &source, recipe, || ());
        let sizes: Vec<u64> = SIZES.iter().map(|size| size.load(SeqCst)).collect();
        assert_eq!(allocations, 0, "stream {name}: the first of {sizes:?} bytes");
        assert!(sender.join().unwrap().images > 1000);
    }
}

/// An operation that stands still until it is let go.
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Operation for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn push<'a>(&'a mut self, _batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
        Ok(())
    }

    fn snapshot(&mut self, _queue: &Queue, _snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        Ok(())
    }

    fn finish(&mut self, _queue: &Queue) -> Result<(), RecipeError> {
        Ok(())
    }
}

/// A run of 500 small frames whose analysis stands still.
fn gated(name: &str, when_full: WhenFull, rate_hz: f64) -> (run::Run, FrameRing, Arc<(Mutex<bool>, Condvar)>) {
    let config = SimulateConfig {
        scene: Scene::Pattern,
        rows: 16,
        columns: 16,
        frames: 500,
        rate_hz,
        distinct: 4,
        ..SimulateConfig::default()
    };
    let mut source = Simulate::new(config).unwrap();
    source.arm(1).unwrap();
    let stream = source.stream().clone();
    let pages = PagesConfig {
        bytes: FrameRing::bytes_needed(24, stream.payload_bytes_max),
        page_size: PageSize::Transparent,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    };
    let ring = FrameRing::new(HugePages::reserve(&pages).unwrap(), 24, stream.payload_bytes_max).unwrap();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let info = RunInfo {
        id: name.into(),
        proposal: "test".into(),
        sample: "none".into(),
        technique: "gated".into(),
        definition: "NXmx".into(),
        start_time: jiff::Timestamp::now(),
        title: "back-pressure".into(),
        instrument: "test".into(),
        source: "test".into(),
        metadata: BTreeMap::new(),
        parameters: serde_json::json!({}),
        software: "test".into(),
        configuration_sha256: String::new(),
        host: "test".into(),
        device: "test".into(),
    };
    let layout = ResultLayout::default();
    let store = Store::open(&folder(name)).unwrap();
    let writer = WriterConfig {
        compress: false,
        frames_per_file: 1000,
        store_frames: true,
        threads: 0,
        geometry: None,
    };
    let files = RunWriter::create(&store, &info, &stream, &layout, &[], &writer).unwrap();
    let recipe = Prepared {
        layout,
        axes: Vec::new(),
        operations: vec![vec![Box::new(Gate(gate.clone()))]],
        host: Vec::new(),
        again: None,
        device_refused: None,
        snapshot: Snapshot::default(),
        mask: PixelMask::none(stream.shape),
        geometry: None,
        counters: Vec::new(),
        levels: Vec::new(),
        may_veto: false,
        grid: None,
        warnings: Vec::new(),
        parameters: serde_json::json!({}),
        live: Default::default(),
        found: Default::default(),
        afterwards: None,
    };
    let parts = RunParts {
        folder: files.folder().to_path_buf(),
        info,
        source: Box::new(source),
        epoch: 1,
        ring: ring.clone(),
        when_full,
        accelerator: Accelerator::open(&kernels::AcceleratorConfig::default()).unwrap(),
        ordered: false,
        recipe,
        batch_limit: 8,
        device_retry: Duration::from_secs(30),
        files,
        cores: Cores {
            receive: None,
            workers: Vec::new(),
            writer: None,
            shared: true,
        },
        results_kept: 64,
        rules: Default::default(),
        metrics: Metrics::new().unwrap(),
        rdma_before: Default::default(),
        dectris_before: Default::default(),
        udp_before: Default::default(),
        emit: None,
        metadata_wait: Duration::ZERO,
        warnings: Vec::new(),
    };
    (run::arm(parts).unwrap(), ring, gate)
}

fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A stage that stands still fills the ring to its last slot and not one frame further.
fn slow_stage() {
    let (run, ring, gate) = gated("wait", WhenFull::Wait, 0.0);
    let active = run.active.clone();
    let recording = std::thread::spawn(move || run.record());
    until("a full ring", || ring.free() == 0);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        active.ledger.outcomes().received,
        24,
        "as many frames as slots, exactly"
    );
    assert_eq!(active.counts.get().lost, 0);
    open(&gate);
    let summary = recording.join().unwrap();
    assert_eq!(
        (summary.frames.complete, summary.frames.lost, summary.outcomes.done),
        (500, 0, 500)
    );
    assert_eq!(ring.free(), 24, "every slot came back");

    let (run, ring, gate) = gated("drop", WhenFull::Drop, 250.0);
    let active = run.active.clone();
    let recording = std::thread::spawn(move || run.record());
    // Analysis stands still: it is shed, and every frame is still stored, or let go whole and counted.
    until("shedding", || active.ledger.outcomes().shed > 50);
    open(&gate);
    let summary = recording.join().unwrap();
    let (f, o) = (&summary.frames, &summary.outcomes);
    assert!(f.closed() && o.received == o.done + o.shed + o.analysis_failed && o.received == o.synced);
    assert!(o.done > 8 && o.shed > 50, "{o:?}");
    // A stalled disk may still cost single frames of the last hundred: all of them, only a ring that stays full.
    let recovered = (400..500).filter(|frame| {
        active
            .ledger
            .entry(*frame)
            .is_some_and(|entry| entry.state == "complete")
    });
    assert!(recovered.count() > 50, "recovery follows");
    assert_eq!(ring.free(), 24);
}

fn open(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}
