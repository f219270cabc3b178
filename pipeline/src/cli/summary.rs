//! The end of a run, for people and for programs.

use super::Failure;
use crate::active_run::Summary;

/// Prints a summary and makes an exit status of its state.
pub(crate) fn conclude(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(summary).map_err(|error| Failure::Work(error.to_string()))?;
        println!("{text}");
    } else {
        print!("{}", text(summary));
    }
    if let Some(derived) = summary.derived.as_ref().filter(|derived| derived["state"] == "failed") {
        let word = |key: &str| derived[key].as_str().unwrap_or("see the messages above").to_string();
        return Err(Failure::Work(format!("{} failed: {}", word("run"), word("message"))));
    }
    if summary.state == "failed" {
        let why = summary
            .warnings
            .last()
            .cloned()
            .unwrap_or_else(|| "see the messages above".into());
        return Err(Failure::Work(format!("run {} failed: {why}", summary.run)));
    }
    Ok(())
}

/// One screen of text.
pub(crate) fn text(summary: &Summary) -> String {
    let (f, o, l) = (&summary.frames, &summary.outcomes, &summary.latency_us);
    let mut out = format!(
        "run       {} {} in {:.1} s\n\
         frames    expected {}  complete {}  partial {}  corrupt {}  lost {}\n\
         events    duplicate {}  late {}  stale {}\n\
         analysis  done {}  shed {}  failed {}\n\
         storage   synced {}  vetoed {}  failed {}\n\
         rate      {:.1} frames/s  {:.1} MB/s\n\
         latency   p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms (arrival to result)\n\
         device    {}\n",
        summary.run,
        summary.state,
        summary.seconds,
        f.expected,
        f.complete,
        f.partial,
        f.corrupt,
        f.lost,
        f.duplicate,
        f.late,
        f.stale,
        o.done,
        o.shed,
        o.analysis_failed,
        o.synced,
        o.vetoed,
        o.storage_failed,
        summary.throughput.frames_per_s,
        summary.throughput.bytes_per_s / 1e6,
        l.p50 / 1e3,
        l.p99 / 1e3,
        l.p999 / 1e3,
        l.max / 1e3,
        summary.device,
    );
    for (index, file) in summary.files.iter().enumerate() {
        out += &format!("{}{file}\n", if index == 0 { "files     " } else { "          " });
    }
    if let Some(derived) = &summary.derived {
        let word = |key: &str| derived[key].as_str().unwrap_or_default().to_string();
        out += &format!("derived   {} {}\n", word("run"), word("state"));
        for file in derived["results"]["files"].as_array().into_iter().flatten().take(1) {
            out += &format!("          {}\n", file.as_str().unwrap_or_default());
        }
        for warning in derived["results"]["warnings"].as_array().into_iter().flatten() {
            out += &format!("warning   {}\n", warning.as_str().unwrap_or_default());
        }
    }
    for warning in &summary.warnings {
        out += &format!("warning   {warning}\n");
    }
    out
}
