//! `fluxline doctor`

use super::Failure;
use clap::Args;
use driver::memory::{HugePages, PageSize, PagesConfig};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `fluxline doctor`
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// folder of the store whose disk is measured
    #[arg(long, default_value = ".")]
    store: PathBuf,
    /// configuration whose sources' addresses are looked at, too
    #[arg(long)]
    config: Option<PathBuf>,
    /// print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// what to do; empty where nothing is wrong
    advice: String,
}

impl Finding {
    pub(super) fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Good,
            found: found.into(),
            advice: String::new(),
        }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warning,
            found: found.into(),
            advice: advice.into(),
        }
    }

    pub(super) fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Bad,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

pub(crate) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let mut findings = vec![
        cores(),
        huge_pages(PageSize::Huge2MiB),
        huge_pages(PageSize::Huge1GiB),
        locked_memory(),
    ];
    findings.extend(devices());
    findings.extend(super::doctor_rdma::rdma());
    findings.extend(super::doctor_network::network(args.config.as_deref())?);
    findings.extend([disk(&args.store), clock()]);
    if args.json {
        println!("{}", serde_json::json!({ "findings": findings }));
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Verdict::Good => "good   ",
                Verdict::Warning => "warning",
                Verdict::Bad => "bad    ",
            };
            println!("{mark}  {:14} {}", finding.check, finding.found);
            if !finding.advice.is_empty() {
                println!("{:26}{}", "", finding.advice);
            }
        }
    }
    let bad = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad)
        .count();
    if bad > 0 {
        return Err(Failure::Work(format!("{bad} of {} checks are bad", findings.len())));
    }
    Ok(())
}

fn cores() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let found = format!("{cores} cores");
    if cores >= 4 {
        Finding::good("cores", found)
    } else {
        let advice = "receiver, worker, writer and control plane share cores; 4 or more let each have its own";
        Finding::warning("cores", found, advice)
    }
}

fn huge_pages(size: PageSize) -> Finding {
    let (check, bytes) = match size {
        PageSize::Huge1GiB => ("1 GiB pages", 1 << 30),
        _ => ("2 MiB pages", 2 << 20),
    };
    let config = PagesConfig {
        bytes,
        page_size: size,
        numa_node: None,
        lock: false,
        allow_transparent: false,
    };
    let free = driver::memory::free_pages(size).unwrap_or(0);
    match HugePages::reserve(&config) {
        Ok(_) => Finding::good(check, format!("{free} free")),
        Err(error) => Finding::warning(check, "none can be had", error.to_string()),
    }
}

fn locked_memory() -> Finding {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"))
        .unwrap_or_default();
    let soft = line.split_whitespace().nth(3).unwrap_or("unknown");
    if soft == "unlimited" {
        return Finding::good("locked memory", "unlimited");
    }
    let advice = "the ring must be locked: set LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`";
    Finding::warning("locked memory", format!("limited to {soft} bytes"), advice)
}

fn devices() -> Vec<Finding> {
    let devices = kernels::Accelerator::list();
    if devices.is_empty() {
        let advice = "install an OpenCL driver; for the CPU: apt install pocl-opencl-icd";
        return vec![Finding::bad("OpenCL", "no device", advice)];
    }
    devices
        .iter()
        .map(|device| {
            let memory = if device.shares_host_memory {
                "shares host memory"
            } else {
                "has its own memory"
            };
            let found = format!(
                "{} ({}), {} compute units, {:.1} GiB, {memory}",
                device.name,
                device.platform,
                device.compute_units,
                device.global_bytes as f64 / f64::from(1 << 30)
            );
            Finding::good("OpenCL", found)
        })
        .collect()
}

/// Writes 256 MiB to the store's disk and syncs them.
fn disk(store: &Path) -> Finding {
    const BLOCK: usize = 4 << 20;
    const BLOCKS: usize = 64;
    let path = store.join(format!(".fluxline-doctor-{}", std::process::id()));
    let measured = std::fs::File::create(&path).and_then(|mut file| {
        let block = vec![0x5a; BLOCK];
        let started = Instant::now();
        for _ in 0..BLOCKS {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok((BLOCK * BLOCKS) as f64 / started.elapsed().as_secs_f64() / 1e9)
    });
    // It may not exist where creating it failed.
    let _ = std::fs::remove_file(&path);
    match measured {
        Ok(rate) if rate >= 1.0 => Finding::good("disk", format!("{rate:.2} GB/s synced at {}", store.display())),
        Ok(rate) => Finding::warning(
            "disk",
            format!("{rate:.2} GB/s synced at {}", store.display()),
            "a buffer store should take 1 GB/s or more",
        ),
        Err(error) => Finding::bad(
            "disk",
            format!("cannot write to {}: {error}", store.display()),
            "name the store's folder with --store",
        ),
    }
}

fn clock() -> Finding {
    let now = jiff::Timestamp::now();
    let built: jiff::Timestamp = jiff::Timestamp::from_second(1_767_225_600).unwrap_or_default();
    if now < built {
        return Finding::bad(
            "clock",
            now.to_string(),
            "the clock is years behind: set it, and run chrony",
        );
    }
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let found = format!("{now}, source {}", source.unwrap_or_default().trim());
    match crate::keep::follows_server() {
        true => Finding::good("clock", format!("{found}, follows a time server")),
        false => Finding::warning(
            "clock",
            format!("{found}, follows no time server as far as timedatectl says"),
            "run chrony or systemd-timesyncd: while no server is followed, no run is ever deleted (docs/keep.md)",
        ),
    }
}
