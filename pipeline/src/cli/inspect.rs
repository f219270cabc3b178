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
    let entries = (0..).map_while(|frame| columns.entry(frame));
    let wanted = entries.filter(|entry| args.state.as_deref().is_none_or(|state| state == entry.state));
    let lines: Vec<serde_json::Value> = wanted.take(args.limit).map(|entry| serde_json::json!(entry)).collect();
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
        let number = |key: &str| line[key].as_u64().map_or("-".to_string(), |n| n.to_string());
        println!(
            "{:>9}  {:9} {:8} {:8} {:>14} {:>12} {:>8}",
            number("frame_number"),
            word("state"),
            word("analysis"),
            word("storage"),
            number("arrival_us"),
            number("result_latency_us"),
            number("parts_missing")
        );
    }
    Ok(())
}
