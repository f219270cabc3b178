//! `fluxline inspect`

use super::Failure;
use clap::Args;
use std::path::PathBuf;

/// `fluxline inspect`
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// folder of a stored run, or its RUN_master.h5 or run.json
    run: PathBuf,
    /// show only frames in this state: complete, partial, corrupt or lost
    #[arg(long)]
    state: Option<String>,
    /// most frames to list
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let known = ["complete", "partial", "corrupt", "lost"];
    if let Some(state) = args.state.as_deref().filter(|state| !known.contains(state)) {
        return Err(Failure::Usage(format!("--state {state}: one of {}", known.join(", "))));
    }
    let folder = if args.run.is_file() {
        args.run.parent().map_or_else(PathBuf::new, Into::into)
    } else {
        args.run.clone()
    };
    let failed = |error: crate::storage::StoreError| Failure::Work(error.to_string());
    let record = serde_json::json!(crate::storage::RunRecord::read(&folder).map_err(failed)?);
    let columns = crate::storage::read_ledger(&folder).map_err(failed)?;
    let names = ["expected", "complete", "partial", "corrupt", "lost"];
    let name = |code: u8| names.get(usize::from(code)).copied().unwrap_or("unknown");
    let lines: Vec<serde_json::Value> = (0..columns.frame_state.len())
        .filter(|i| {
            args.state
                .as_deref()
                .is_none_or(|state| state == name(columns.frame_state[*i]))
        })
        .take(args.limit)
        .map(|i| {
            let outcome = |names: &[&'static str; 4], code: u8| names.get(usize::from(code)).copied();
            let analysis = outcome(&["pending", "done", "shed", "failed"], columns.analysis[i]);
            let storage = outcome(&["pending", "synced", "vetoed", "failed"], columns.storage[i]);
            serde_json::json!({
                "frame_number": i,
                "state": name(columns.frame_state[i]),
                "analysis": analysis,
                "storage": storage,
                "arrival_us": columns.arrival_ns[i] / 1000,
                "result_latency_us": columns.result_latency_ns[i] / 1000,
                "parts_missing": columns.parts_missing.get(i).copied().unwrap_or(0),
            })
        })
        .collect();
    if args.json {
        let document = serde_json::json!({ "record": record, "ledger": lines });
        println!("{document:#}");
        return Ok(());
    }
    let text = |key: &str| record[key].as_str().unwrap_or("-").to_string();
    println!("run       {}  {}  {}", text("id"), text("state"), text("start_time"));
    println!(
        "sample    {}  proposal {}  technique {}",
        text("sample"),
        text("proposal"),
        text("technique")
    );
    println!("frames    {}", record["frames"]);
    println!("device    {}", text("device"));
    println!(
        "\n{:>9}  {:9} {:8} {:8} {:>14} {:>12} {:>8}",
        "frame", "state", "analysis", "storage", "arrival µs", "latency µs", "missing"
    );
    for line in &lines {
        let word = |key: &str| line[key].as_str().unwrap_or("-").to_string();
        println!(
            "{:>9}  {:9} {:8} {:8} {:>14} {:>12} {:>8}",
            line["frame_number"].to_string(),
            word("state"),
            word("analysis"),
            word("storage"),
            line["arrival_us"].to_string(),
            line["result_latency_us"].to_string(),
            line["parts_missing"].to_string()
        );
    }
    Ok(())
}
