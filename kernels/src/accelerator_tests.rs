use super::*;
use crate::program::Origin;
use crate::testing;
use std::path::Path;
use std::process::Command;

const GOOD: &str = "__kernel void nothing(__global uint *out) { out[0] = 42; }";

fn open(cache_dir: Option<&Path>, binary_dir: Option<&Path>) -> Accelerator {
    let owned = |path: Option<&Path>| path.map(Path::to_path_buf);
    let (cache_dir, binary_dir) = (owned(cache_dir), owned(binary_dir));
    let config = AcceleratorConfig {
        device: "cpu".into(),
        cache_dir,
        binary_dir,
        ..Default::default()
    };
    Accelerator::open(&config).unwrap()
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fluxline-kernels-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self, name: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn answer(accelerator: &Accelerator, program: &Program) -> u32 {
    let queue = accelerator.queue().unwrap();
    let out = accelerator.buffer::<u32>(1).unwrap();
    let mut kernel = program.kernel("nothing").unwrap();
    queue.launch(&mut kernel, &[(&out).into()], [1; 3], [1; 3]).unwrap();
    let mut answer = [0];
    queue.read(&out, 0, &mut answer).unwrap();
    answer[0]
}

#[test]
fn lists_and_opens_the_cpu() {
    let listed = Accelerator::list();
    assert!(
        listed
            .iter()
            .any(|info| info.kind == DeviceKind::Cpu && info.compute_units > 0),
        "{listed:?}"
    );
    let accelerator = open(None, None);
    assert_eq!(accelerator.info().kind, DeviceKind::Cpu);
    assert_eq!(
        accelerator.memory(),
        MemoryMode::ZeroCopy,
        "{:?}",
        accelerator.memory_reason()
    );
    let named = accelerator.info().name[..12].to_uppercase();
    Accelerator::open(&AcceleratorConfig {
        device: named,
        ..Default::default()
    })
    .unwrap();
}

#[test]
fn an_unknown_device_is_refused_with_those_there_are() {
    let config = AcceleratorConfig {
        device: "no such card".into(),
        ..Default::default()
    };
    let error = Accelerator::open(&config).unwrap_err().to_string();
    assert!(
        error.starts_with("no OpenCL device matches `no such card` (`auto`, `cpu`, `gpu` or part of a name)"),
        "{error}"
    );
    assert!(error.contains(&Accelerator::list()[0].name), "{error}");
}

#[test]
fn without_a_driver_the_list_is_empty_and_the_sentence_says_what_to_install() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "accelerator::tests::child_without_a_driver",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("OCL_ICD_VENDORS", "/nonexistent")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{output}\n{}",
        String::from_utf8_lossy(&child.stderr)
    );
    assert!(
        output.contains("no OpenCL device was found: no driver is installed"),
        "{output}"
    );
    assert!(output.contains("apt install pocl-opencl-icd"), "{output}");
}

#[test]
#[ignore = "run by the test above, in a process without a driver"]
fn child_without_a_driver() {
    let start = std::time::Instant::now();
    assert_eq!(Accelerator::list(), []);
    println!("{}", Accelerator::open(&AcceleratorConfig::default()).unwrap_err());
    assert!(
        start.elapsed().as_secs() < 2,
        "waited for a driver for {:?}",
        start.elapsed()
    );
}

#[test]
fn programs_are_cached_and_a_damaged_cache_is_built_anew() {
    let folder = Folder::new("cache");
    let load = || {
        let accelerator = open(Some(&folder.0), None);
        let program = accelerator.program("nothing", GOOD, "").unwrap();
        assert_eq!(answer(&accelerator, &program), 42);
        program.origin()
    };
    assert_eq!(load(), Origin::Source);
    assert_eq!(load(), Origin::Cache);
    let files = folder.files("nothing-");
    assert_eq!(files.len(), 1, "{files:?}");
    std::fs::write(&files[0], b"not a program").unwrap();
    assert_eq!(load(), Origin::Source);
    assert_eq!(load(), Origin::Cache);
    let accelerator = open(Some(&folder.0), None);
    let other = accelerator.program("nothing", GOOD, "-DOTHER").unwrap();
    assert_eq!(other.origin(), Origin::Source, "options belong to the key");
}

#[test]
fn a_prebuilt_program_loads_by_the_same_call() {
    let (cache, binaries) = (Folder::new("prebuilt-cache"), Folder::new("prebuilt"));
    open(Some(&cache.0), None).program("nothing", GOOD, "").unwrap();
    let prebuilt = binaries.0.join("nothing.poclbin");
    std::fs::copy(&cache.files("nothing-")[0], &prebuilt).unwrap();
    let accelerator = open(None, Some(&binaries.0));
    // The source would not build: what runs is the file.
    let program = accelerator.program("nothing", "no OpenCL C", "").unwrap();
    assert_eq!(program.origin(), Origin::Prebuilt);
    assert_eq!(answer(&accelerator, &program), 42);
    std::fs::write(&prebuilt, b"not a program").unwrap();
    let error = accelerator.program("nothing", GOOD, "").err().unwrap().to_string();
    assert!(
        error.starts_with(&format!("the prebuilt program {} does not load on", prebuilt.display())),
        "{error}"
    );
}

#[test]
fn a_build_error_shows_the_log() {
    let (accelerator, _) = testing::cpu();
    let error = accelerator
        .program("broken", "__kernel void f() { int x = nonsense; }", "")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("`broken` does not build for"), "{error}");
    assert!(error.contains("undeclared identifier 'nonsense'"), "{error}");
    let program = accelerator.program("nothing", GOOD, "").unwrap();
    let error = program.kernel("something").err().unwrap().to_string();
    assert!(error.starts_with("the program has no kernel `something`"), "{error}");
}

#[test]
fn transfers_stay_inside_their_buffers() {
    let (accelerator, queue) = testing::cpu();
    let mut buffer = accelerator.buffer_from(&[1u32, 2, 3]).unwrap();
    let error = queue.write(&buffer, 2, &[0, 0]).unwrap_err().to_string();
    assert_eq!(error, "2 values from 2 on are outside the buffer of 3");
    let mut two = [0; 2];
    assert!(queue.read(&buffer, usize::MAX, &mut two).is_err());
    queue.read(&buffer, 1, &mut two).unwrap();
    assert_eq!(two, [2, 3]);
    assert!(queue.map(&mut buffer, 3, 1).is_err());
    let mut mapped = queue.map(&mut buffer, 1, 2).unwrap();
    mapped[0] = 7;
    mapped.unmap().unwrap();
    queue.read(&buffer, 0, &mut two).unwrap();
    assert_eq!(two, [1, 7]);
    let error = accelerator.buffer::<u64>(usize::MAX / 16).unwrap_err().to_string();
    assert!(error.contains("allows at most"), "{error}");
}
