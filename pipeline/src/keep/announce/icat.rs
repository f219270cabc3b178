//! ICAT: a dataset as the ingesters of facilities with ICAT take it from a message queue: investigation, instrument,
//! name, location, times, sample, and parameters by name.

use super::super::push::Job;
use super::location;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The document; `fields` are further parameters, and go before what the run says.
pub fn payload(job: &Job, fields: &BTreeMap<String, String>) -> String {
    let record = &job.record;
    let mut parameters: BTreeMap<&str, String> = record
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    parameters.insert("Sample_name", record.sample.clone());
    parameters.insert("definition", record.technique.clone());
    parameters.insert("beamlineID", record.instrument.clone());
    parameters.insert("datasetName", record.id.clone());
    parameters.insert("proposal", record.proposal.clone());
    parameters.insert("location", location(job));
    parameters.extend(fields.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <tns:dataset xmlns:tns=\"http://www.esrf.fr/icat\" complete=\"true\">\n",
    );
    // Writing to a String cannot fail.
    let mut element = |name: &str, value: &str| {
        let _ = writeln!(out, "  <tns:{name}>{}</tns:{name}>", escaped(value));
    };
    element("investigation", &record.proposal);
    element("instrument", &record.instrument);
    element("name", &record.id);
    element("location", &location(job));
    element("startDate", &format!("{:.3}", record.start_time));
    element("endDate", &format!("{:.3}", record.end_time));
    let _ = writeln!(
        out,
        "  <tns:sample><tns:name>{}</tns:name></tns:sample>",
        escaped(&record.sample)
    );
    for (name, value) in parameters {
        let (name, value) = (escaped(name), escaped(&value));
        let _ = writeln!(
            out,
            "  <tns:parameter><tns:name>{name}</tns:name><tns:value>{value}</tns:value></tns:parameter>"
        );
    }
    out.push_str("</tns:dataset>\n");
    out
}

/// Text as XML has it. What XML cannot have at all becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
