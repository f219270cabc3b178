//! Values by frame number over HTTP. What is in the body is looked at whole before any of it is taken.

use super::error::ApiError;
use super::extract::{Object, Path};
use super::runs::active;
use super::server::Asked;
use crate::frame_metadata::{Batch, BatchColumn, Kind, Refused, Taken, Value};
use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use frame::note::valid_name;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Longest unit, bytes.
const UNIT_BYTES_MAX: usize = 32;
/// What is shown of a value that cannot be.
const SHOWN_BYTES: usize = 64;

/// Values by frame number. A value may come before, with or after its frame; one that comes again takes the place of the
/// earlier one; one told here goes before one of the stream.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FrameMetadataRequest {
    /// numbers of the frames
    pub frame_numbers: Vec<u64>,
    /// by name, as many values as there are frames, null where there is none: finite numbers; whole nanoseconds for
    /// `hardware_time_ns`. `angle_deg` is the rotation angle.
    #[schema(value_type = BTreeMap<String, Vec<Option<f64>>>)]
    pub values: BTreeMap<String, Vec<Option<f64>>>,
    /// units by name, as NeXus writes them
    pub units: Option<BTreeMap<String, String>>,
    /// nothing more will come: a run that waits for values goes on
    pub last: Option<bool>,
}

/// The same, in the body: nothing is copied or believed yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given<'b> {
    #[serde(borrow, default)]
    frame_numbers: Vec<&'b RawValue>,
    #[serde(borrow, default)]
    values: BTreeMap<Cow<'b, str>, Vec<&'b RawValue>>,
    #[serde(borrow, default)]
    units: BTreeMap<Cow<'b, str>, Cow<'b, str>>,
    #[serde(default)]
    last: bool,
}

/// Reads a body.
///
/// # Errors
/// A sentence that names field, value and what was expected.
pub fn parse(body: &[u8]) -> Result<Batch, ApiError> {
    let Object(given): Object<Given<'_>> = serde_json::from_slice(body).map_err(|error| {
        let status = if error.is_data() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::BAD_REQUEST
        };
        let expected = "{\"frame_numbers\": [...], \"values\": {name: [...]}, \"units\": {name: text}, \"last\": bool}";
        ApiError::new(
            status,
            "frame_metadata",
            format!("the body: {error}; expected {expected}"),
        )
    })?;
    let frames = given.frame_numbers.iter().enumerate().map(|(index, raw)| {
        raw.get()
            .parse::<u64>()
            .map_err(|_| wrong(&format!("frame_numbers[{index}]"), raw.get(), "the number of a frame"))
    });
    let frames = frames.collect::<Result<Vec<u64>, ApiError>>()?;
    for name in given.units.keys() {
        if !given.values.contains_key(name) {
            return Err(wrong(&format!("units.{name}"), name, "a name that values has too"));
        }
    }
    let columns = given
        .values
        .iter()
        .map(|(name, values)| column(&given, &frames, name, values));
    Ok(Batch {
        columns: columns.collect::<Result<_, _>>()?,
        frames,
        last: given.last,
    })
}

fn column(given: &Given<'_>, frames: &[u64], name: &str, values: &[&RawValue]) -> Result<BatchColumn, ApiError> {
    if !valid_name(name) {
        let expected = "a letter or _ first, then letters, digits and _, 48 at most";
        return Err(wrong("values", name, expected));
    }
    if values.len() != frames.len() {
        let expected = format!("as many as there are frame_numbers: {}", frames.len());
        return Err(wrong(
            &format!("values.{name}"),
            &format!("{} values", values.len()),
            &expected,
        ));
    }
    let unit = given.units.get(name).map(|unit| unit.to_string());
    if let Some(unit) = unit
        .as_ref()
        .filter(|unit| unit.len() > UNIT_BYTES_MAX || unit.contains('\0'))
    {
        return Err(wrong(&format!("units.{name}"), unit, "a unit of at most 32 bytes"));
    }
    let kind = Kind::of(name);
    let read = values.iter().enumerate().map(|(index, raw)| {
        value(kind, raw.get()).map_err(|expected| wrong(&format!("values.{name}[{index}]"), raw.get(), expected))
    });
    Ok(BatchColumn {
        name: name.into(),
        unit,
        values: read.collect::<Result<_, _>>()?,
    })
}

/// A value as it stands in the body; what was expected where it is none.
fn value(kind: Kind, raw: &str) -> Result<Option<Value>, &'static str> {
    if raw == "null" {
        return Ok(None);
    }
    match kind {
        Kind::Number => {
            let expected = "a finite number, or null";
            let number: f64 = raw.parse().map_err(|_| expected)?;
            // JSON's grammar has been checked: a text that parses is a number, though it may be too large for one.
            Some(Value::Number(number))
                .filter(|_| number.is_finite())
                .ok_or(expected)
                .map(Some)
        }
        Kind::Nanoseconds => {
            let expected = "whole nanoseconds below 2^64 - 1, or null";
            let ns: u64 = raw.parse().map_err(|_| expected)?;
            Some(Value::Nanoseconds(ns))
                .filter(|_| ns < u64::MAX)
                .ok_or(expected)
                .map(Some)
        }
    }
}

fn wrong(field: &str, value: &str, expected: &str) -> ApiError {
    let end = (0..=value.len().min(SHOWN_BYTES))
        .rev()
        .find(|at| value.is_char_boundary(*at));
    let (shown, more) = match &value[..end.unwrap_or(0)] {
        all if all.len() == value.len() => (all, ""),
        part => (part, "…"),
    };
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "frame_metadata",
        format!("{field} = {shown}{more}: expected {expected}"),
    )
}

/// Takes values by frame number, all of a request or none of it, until the run's files are closed.
#[utoipa::path(post, path = "/runs/{id}/frame-metadata", request_body = FrameMetadataRequest, responses(
    (status = 200, body = Taken), (status = 400, body = ApiError), (status = 404, body = ApiError),
    (status = 409, body = ApiError), (status = 413, body = ApiError), (status = 422, body = ApiError)))]
pub async fn frame_metadata(
    Asked(shared): Asked,
    Path(id): Path<String>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<Taken>, ApiError> {
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), "bad_request", rejection.body_text()))?;
    let Some(run) = active(&shared, &id) else {
        return Err(match super::runs::is_stored(&shared, &id).await? {
            true => sealed(&id),
            false => ApiError::not_found(format!("there is no run {id}")),
        });
    };
    let batch = parse(&body)?;
    match run.metadata.take(&batch) {
        Ok(taken) => Ok(Json(taken)),
        Err(Refused::Sealed) => Err(sealed(&id)),
        Err(Refused::Wrong { field, value, expected }) => Err(wrong(&field, &value, &expected)),
    }
}

fn sealed(id: &str) -> ApiError {
    let message = format!(
        "the files of run {id} are closed: values are taken until then, and [run] metadata_wait_s keeps them open longer"
    );
    let mut error = ApiError::new(StatusCode::CONFLICT, "sealed", message);
    error.allowed_states = vec!["armed", "recording", "finishing"];
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn whatever_cannot_be_is_named_with_its_value_and_what_was_expected() {
        for (body, said) in [
            (
                r#"{"frame_numbers":[0,-1],"values":{}}"#,
                "frame_numbers[1] = -1: expected the number of a frame",
            ),
            (
                r#"{"frame_numbers":[0],"values":{"I0":["x"]}}"#,
                "values.I0[0] = \"x\": expected a finite number",
            ),
            (
                r#"{"frame_numbers":[0],"values":{"I0":[1e999]}}"#,
                "values.I0[0] = 1e999: expected a finite number",
            ),
            (
                r#"{"frame_numbers":[0],"values":{"I0":[[1]]}}"#,
                "values.I0[0] = [1]: expected",
            ),
            (
                r#"{"frame_numbers":[0,1],"values":{"I0":[1]}}"#,
                "values.I0 = 1 values: expected as many",
            ),
            (
                r#"{"frame_numbers":[0],"values":{"I 0":[1]}}"#,
                "values = I 0: expected a letter or _ first",
            ),
            (
                r#"{"frame_numbers":[0],"values":{"hardware_time_ns":[1.5]}}"#,
                "hardware_time_ns[0] = 1.5: expected whole",
            ),
            (
                r#"{"frame_numbers":[],"values":{},"units":{"I0":"A"}}"#,
                "units.I0 = I0: expected a name",
            ),
            (r#"{"frames":[]}"#, "unknown field `frames`"),
            (r#"{"#, "EOF"),
        ] {
            let found = complaint(body);
            assert!(found.contains(said), "{body}: {found}");
        }
        // Nesting costs neither stack nor a value: what is no number is not taken apart.
        let (open, close) = ("[".repeat(400_000), "]".repeat(400_000));
        assert!(complaint(&format!("{{\"frame_numbers\":[{open}")).contains("EOF"));
        let deep = complaint(&format!("{{\"frame_numbers\":[{open}{close}]}}"));
        assert!(
            deep.ends_with("…: expected the number of a frame") && deep.len() < 200,
            "{deep}"
        );
    }

    #[test]
    fn numbers_come_through_exactly() {
        let body =
            r#"{"frame_numbers":[7],"values":{"I0":[0.1],"hardware_time_ns":[18446744073709551614],"x":[null]}}"#;
        let batch = parse(body.as_bytes()).unwrap();
        let value = |name: &str| batch.columns.iter().find(|column| column.name == name).unwrap().values[0];
        assert_eq!(value("I0"), Some(Value::Number(0.1)));
        assert_eq!(value("hardware_time_ns"), Some(Value::Nanoseconds(u64::MAX - 1)));
        assert_eq!(value("x"), None);
    }
}
