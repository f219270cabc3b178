//! Fuzzing on a stable compiler: a seeded mutator over a corpus of our own bytes. A panic, a hang, or memory that grows
//! fails it, and the input is named.
//!
//! `cargo test --release -p fluxline-tests --test fuzz -- --nocapture` runs 500 000 executions a target.
//! `FLUXLINE_FUZZ=100000000` runs so many over all targets, on all cores; `FLUXLINE_FUZZ_SEED` begins elsewhere.
//! An input that failed is written to `tests/fuzz/corpus/TARGET/`, which every later run begins with.

mod mutate;
mod targets;

use fluxline_tests::workspace;
use mutate::{Random, mutate};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use targets::{Memory, TARGETS, Target};

/// Executions of a target unless told otherwise.
const SHORT: u64 = 500_000;
/// Longest an execution may take: a busy machine stops a thread for a while, a hang does not end.
const HANG: Duration = Duration::from_secs(20);
/// Most that the process may grow between a tenth of the executions and their end, KiB.
const GROWTH_KIB: i64 = 8192;
/// Inputs that are kept as parents of others.
const POOL_MAX: usize = 512;

fn corpus(target: &Target) -> PathBuf {
    workspace().join("tests/fuzz/corpus").join(target.name)
}

/// Inputs of our own making, and those kept in the repository.
fn parents(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    let mut kept: Vec<PathBuf> = std::fs::read_dir(corpus(target))
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    kept.sort();
    inputs.extend(kept.iter().filter_map(|path| std::fs::read(path).ok()));
    inputs
}

fn keep(target: &Target, what: &str, input: &[u8]) -> PathBuf {
    let name = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = corpus(target).join(format!("{what}-{name:016x}"));
    let _ = std::fs::create_dir_all(corpus(target));
    let _ = std::fs::write(&path, input);
    path
}

/// Resident memory, KiB.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// What one thread did.
struct Done {
    kinds: HashSet<u64>,
    slowest: Duration,
}

/// Runs a target `executions` times. `beat` counts them for whoever watches.
fn fuzz(target: &Target, executions: u64, seed: u64, beat: &AtomicU64) -> Done {
    let (mut memory, mut random) = (Memory::new(), Random::new(seed));
    let mut pool = parents(target);
    let (mut kinds, mut slowest) = (HashSet::new(), Duration::ZERO);
    for input in &pool {
        kinds.insert(run(target, input, &mut memory));
    }
    let mut input = Vec::with_capacity(2 * target.most);
    let mut last = Instant::now();
    for _ in 0..executions {
        let (parent, other) = (random.below(pool.len()), random.below(pool.len()));
        input.clear();
        input.extend_from_slice(&pool[parent]);
        mutate(&mut input, &pool[other], target.most, &mut random);
        let answer = run(target, &input, &mut memory);
        if kinds.len() < 4 * POOL_MAX && kinds.insert(answer) && pool.len() < POOL_MAX {
            pool.push(input.clone());
        }
        let now = Instant::now();
        slowest = slowest.max(now - last);
        last = now;
        beat.fetch_add(1, Relaxed);
    }
    if std::env::var_os("FLUXLINE_FUZZ_KEEP").is_some() {
        for input in pool
            .iter()
            .skip(parents(target).len())
            .filter(|input| input.len() <= 256)
            .take(24)
        {
            keep(target, "kind", input);
        }
    }
    Done { kinds, slowest }
}

fn run(target: &Target, input: &[u8], memory: &mut Memory) -> u64 {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (target.run)(input, memory))) {
        Ok(answer) => answer,
        Err(panic) => {
            eprintln!(
                "{}: an input made it panic; kept as {}",
                target.name,
                keep(target, "panic", input).display()
            );
            std::panic::resume_unwind(panic);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn every(executions: u64, threads: u64, seed: u64) -> Vec<String> {
    let mut report = Vec::new();
    for target in &TARGETS {
        let (started, beat) = (Instant::now(), AtomicU64::new(0));
        let each = executions.div_ceil(threads);
        let mut early_kib = None;
        let done: Vec<Done> = std::thread::scope(|scope| {
            let beat = &beat;
            let running: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || fuzz(target, each, seed + 1000 * thread, beat)))
                .collect();
            let mut seen = (0, Instant::now());
            while running.iter().any(|thread| !thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(10));
                let now = beat.load(Relaxed);
                if early_kib.is_none() && now >= executions / 10 {
                    early_kib = Some(resident_kib());
                }
                if now != seen.0 {
                    seen = (now, Instant::now());
                }
                if seen.1.elapsed() > HANG {
                    eprintln!("{}: hangs behind execution {now} of seed {seed}", target.name);
                    std::process::exit(101);
                }
            }
            running
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let late_kib = resident_kib();
        let grown_kib = late_kib - early_kib.unwrap_or(late_kib);
        let kinds: HashSet<u64> = done.iter().flat_map(|done| done.kinds.iter().copied()).collect();
        let slowest = done.iter().map(|done| done.slowest).max().unwrap_or_default();
        let (count, seconds) = (beat.load(Relaxed), started.elapsed().as_secs_f64());
        let line = format!(
            "| {} | {count} | {:.0} | {} | {:.1} | {grown_kib} |",
            target.name,
            count as f64 / seconds,
            kinds.len(),
            slowest.as_secs_f64() * 1e3
        );
        println!("{line}");
        assert!(grown_kib < GROWTH_KIB, "{}: grew by {grown_kib} KiB", target.name);
        report.push(line);
    }
    report
}

#[test]
fn no_bytes_make_a_decoder_panic_hang_or_grow() {
    let asked = number("FLUXLINE_FUZZ");
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let (executions, threads) = match asked {
        Some(total) => (total.div_ceil(TARGETS.len() as u64), threads),
        None => (SHORT, 1),
    };
    println!("| target | executions | per second | kinds of answers | slowest, ms | grown, KiB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let report = every(executions, threads, number("FLUXLINE_FUZZ_SEED").unwrap_or(1));
    if let Some(path) = std::env::var_os("FLUXLINE_FUZZ_REPORT") {
        std::fs::write(Path::new(&path), report.join("\n") + "\n").expect("the report");
    }
}

#[test]
fn what_was_kept_is_small_and_runs() {
    let mut memory = Memory::new();
    for target in &TARGETS {
        let inputs = parents(target);
        assert!(
            !inputs.is_empty() && inputs.iter().all(|input| input.len() <= 4096),
            "{}",
            target.name
        );
        for input in &inputs {
            run(target, input, &mut memory);
        }
    }
}

/// What is forged, deep or a bomb is refused, quickly and without memory for what it promises.
#[test]
fn bombs_and_forged_lengths_cost_nothing() {
    let before_kib = resident_kib();
    let started = Instant::now();
    let mut memory = Memory::new();
    let deep_cbor = [b"\xa1\x64deep".to_vec(), vec![0x81; 1 << 20]].concat();
    let endless = [
        b"\xa1\x64deep".to_vec(),
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    ]
    .concat();
    let forged = [
        b"\xa2dtypeestartjpixel_mask\xa1\x61a".to_vec(),
        b"\x5b\x00\x00\x7f\xff\xff\xff\xff\xff".to_vec(),
    ]
    .concat();
    for input in [&deep_cbor, &endless, &forged] {
        (TARGETS[0].run)(input, &mut memory);
        assert!(driver::dectris::v2::decode(input, None).is_err());
    }
    let deep_json = "[".repeat(1 << 20).into_bytes();
    assert!(pipeline::feedback::metadata::parse(&deep_json).is_err());
    assert!(driver::dectris::v1::decode(&[&deep_json[..4000]]).is_err());
    // A chunk that promises 256 MiB, of either kind.
    let mut chunk = (256u64 << 20).to_be_bytes().to_vec();
    chunk.extend(8192u32.to_be_bytes());
    chunk.extend([0; 400]);
    for beneath in [frame::codec::Beneath::Lz4, frame::codec::Beneath::Zstd] {
        assert!(!frame::codec::plausible(beneath, &chunk));
    }
    let grown_kib = resident_kib() - before_kib;
    assert!(
        grown_kib < 32 * 1024 && started.elapsed() < Duration::from_secs(10),
        "{grown_kib} KiB"
    );
}
