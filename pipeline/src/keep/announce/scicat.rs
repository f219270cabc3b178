//! SciCat: what `POST /datasets` takes for a raw dataset, and `POST /datasets/{pid}/origdatablocks` for its files.

use super::super::push::Job;
use super::location;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `{"dataset": {...}, "origdatablock": {...}}`; `fields` go before what the run says.
pub fn payload(job: &Job, fields: &BTreeMap<String, String>) -> String {
    let record = &job.record;
    let end = format!("{:.3}", record.end_time);
    let files: Vec<Value> = job
        .all_files()
        .map(|file| json!({ "path": file.name, "size": file.bytes, "time": end, "chk": file.hash }))
        .collect();
    let size: u64 = job.all_files().map(|file| file.bytes).sum();
    let mut scientific: Map<String, Value> = record
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), json!({ "value": value, "unit": "" })))
        .collect();
    scientific.insert("frames".into(), record.frames.clone());
    scientific.insert("parameters".into(), record.parameters.clone());
    let mut dataset = json!({
        "type": "raw",
        "datasetName": record.id,
        "description": record.title,
        "owner": record.proposal,
        "ownerGroup": record.proposal,
        "accessGroups": [],
        "contactEmail": "",
        "principalInvestigator": record.proposal,
        "creationLocation": format!("{}/{}", record.source, record.instrument),
        "creationTime": end,
        "endTime": end,
        "sourceFolder": location(job),
        "size": size,
        "numberOfFiles": files.len(),
        "dataFormat": record.definition,
        "proposalId": record.proposal,
        "sampleId": record.sample,
        "keywords": [record.technique],
        "isPublished": false,
        "scientificMetadata": scientific,
    });
    if let Value::Object(dataset) = &mut dataset {
        dataset.extend(fields.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    let algorithm = job.files().next().map_or("sha256", |file| file.algorithm.as_str());
    let block = json!({ "size": size, "chkAlg": algorithm, "dataFileList": files });
    format!("{:#}\n", json!({ "dataset": dataset, "origdatablock": block }))
}
