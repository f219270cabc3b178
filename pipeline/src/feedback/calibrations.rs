//! Calibrations over HTTP: the list, taking one from the detector, and uploading one.

use super::error::ApiError;
use super::extract::{Object, Path, Query};
use super::server::Asked;
use crate::appliance::{Appliance, ApplianceError};
use crate::calibrations::take::{TakeRequest, take};
use crate::calibrations::{CalibrationKind, CalibrationRecord, Conditions, Content, Proposed, time};
use crate::recipes::fields;
use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use frame::mask::USER;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;

/// Largest JSON body.
const JSON_BYTES_MAX: u64 = 64 << 10;
/// Longest wait for the next piece of an upload.
const PIECE_WAIT: Duration = Duration::from_secs(10);
/// One upload at a time: each may be as large as the configuration allows.
static UPLOADING: Semaphore = Semaphore::const_new(1);

/// Which calibrations to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct CalibrationQuery {
    /// dark, flat, pedestal, mask, gain or poni
    kind: Option<String>,
    /// how many, 100 unless given
    limit: Option<usize>,
    /// how many to leave out first
    offset: usize,
}

/// The list of calibrations.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CalibrationList {
    /// newest first
    pub calibrations: Vec<CalibrationRecord>,
    /// number of those that match, on all pages
    pub total: usize,
}

/// What an upload is for.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct UploadQuery {
    /// of a pedestal: 0, 1 or 2 for G0, G1 or G2
    gain: Option<u8>,
    /// photon energy that it is for, eV
    energy_ev: Option<f64>,
    /// threshold energy that it is for, eV
    threshold_ev: Option<f64>,
    /// exposure of a frame that it is for, seconds
    exposure_s: Option<f64>,
    /// UTC time from which on it holds; from now on unless given
    valid_from: Option<String>,
    /// UTC time at which it ends to hold
    valid_to: Option<String>,
    /// dataset of an HDF5 file, where it has several
    dataset: Option<String>,
    /// anything
    comment: String,
}

/// Calibrations of the store, newest first. A run takes of each kind the first one that is valid and fits.
#[utoipa::path(get, path = "/calibrations", params(CalibrationQuery), responses(
    (status = 200, body = CalibrationList), (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 500, body = ApiError)))]
pub async fn list(
    Asked(shared): Asked,
    Query(query): Query<CalibrationQuery>,
) -> Result<Json<CalibrationList>, ApiError> {
    let kind = query.kind.as_deref().map(kind_named).transpose()?;
    let appliance = shared.appliance.clone();
    let mut calibrations = blocking(move || Ok(appliance.calibrations().list()?)).await?;
    calibrations.retain(|record| kind.is_none_or(|kind| record.kind == kind));
    let total = calibrations.len();
    let page = calibrations.into_iter().skip(query.offset);
    let calibrations = page.take(query.limit.unwrap_or(100).min(10_000)).collect();
    Ok(Json(CalibrationList { calibrations, total }))
}

/// Takes a calibration from the detector (a JSON body), or keeps an uploaded one (any other body: `.npy`, HDF5, TIFF, CBF,
/// a JUNGFRAU module's `.bin` of gains, or the text of a `.poni`).
#[utoipa::path(post, path = "/calibrations/{kind}",
    params(("kind" = String, Path, description = "dark, flat, pedestal, mask, gain or poni"), UploadQuery),
    request_body(content((TakeRequest = "application/json"), (Vec<u8> = "application/octet-stream"))),
    responses((status = 201, body = CalibrationRecord), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError), (status = 413, body = ApiError), (status = 422, body = ApiError)))]
pub async fn add(
    Asked(shared): Asked,
    Path(kind): Path<String>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<CalibrationRecord>), ApiError> {
    let kind = kind_named(&kind)?;
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    let appliance = shared.appliance.clone();
    let record = if json {
        let mut bytes = Vec::new();
        let gather = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        pieces(body, JSON_BYTES_MAX, gather).await?;
        let request: TakeRequest = match bytes.is_empty() {
            true => TakeRequest::default(),
            false => {
                let Object(request) =
                    serde_json::from_slice(&bytes).map_err(|error| unprocessable(format!("the body: {error}")))?;
                request
            }
        };
        blocking(move || take(&appliance, kind, &request)).await?
    } else {
        let _one = UPLOADING.try_acquire().map_err(|_| {
            ApiError::new(
                StatusCode::CONFLICT,
                "busy",
                "another calibration is being uploaded: wait until it is there",
            )
        })?;
        let upload = Upload::receive(&appliance, body).await?.named()?;
        blocking(move || keep(&appliance, kind, query, &upload)).await?
    };
    Ok((StatusCode::CREATED, Json(record)))
}

fn kind_named(name: &str) -> Result<CalibrationKind, ApiError> {
    CalibrationKind::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = CalibrationKind::ALL.iter().map(|kind| kind.name()).collect();
        ApiError::not_found(format!(
            "there is no kind of calibration {name:?}; there are {}",
            known.join(", ")
        ))
    })
}

fn unprocessable(sentence: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "calibration", sentence)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplianceError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)??)
}

/// Hands the pieces of a body on, as they come.
async fn pieces(
    body: Body,
    bytes_max: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = 0;
    loop {
        let piece = tokio::time::timeout(PIECE_WAIT, stream.next()).await.map_err(|_| {
            let sentence = format!("nothing came for {} s: the upload was given up", PIECE_WAIT.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", sentence)
        })?;
        let Some(piece) = piece else { return Ok(()) };
        let piece = piece.map_err(|error| ApiError::bad_request(error.to_string()))?;
        bytes += piece.len() as u64;
        if bytes > bytes_max {
            let sentence = format!("the body has more than {bytes_max} bytes (calibrations.upload_bytes_max)");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", sentence));
        }
        take(&piece)?;
    }
}

/// A file that was uploaded; it goes when this is dropped.
struct Upload(PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        // What cannot be removed is overwritten by the next upload.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Upload {
    async fn receive(appliance: &Appliance, body: Body) -> Result<Self, ApiError> {
        let upload = Self(appliance.calibrations().folder().join("upload.part"));
        let mut file = std::fs::File::create(&upload.0).map_err(ApiError::internal)?;
        let bytes_max = appliance.config().calibrations.upload_bytes_max;
        let write = |piece: &[u8]| tokio::task::block_in_place(|| file.write_all(piece)).map_err(ApiError::internal);
        pieces(body, bytes_max, write).await?;
        Ok(upload)
    }

    /// Named after what its first bytes say it is.
    fn named(mut self) -> Result<Self, ApiError> {
        let mut head = [0u8; 8];
        let read = std::fs::File::open(&self.0)
            .and_then(|file| file.take(8).read(&mut head))
            .map_err(ApiError::internal)?;
        let extension = match &head {
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "npy",
            [0x89, b'H', b'D', b'F', ..] => "h5",
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "tif",
            [b'#', b'#', b'#', b'C', b'B', b'F', ..] => "cbf",
            _ if read == 0 => return Err(unprocessable("the body is empty: expected a calibration's file".into())),
            _ => "bin",
        };
        let named = self.0.with_extension(extension);
        std::fs::rename(&self.0, &named).map_err(ApiError::internal)?;
        self.0 = named;
        Ok(self)
    }
}

/// Reads an uploaded file and keeps what it holds.
fn keep(
    appliance: &Appliance,
    kind: CalibrationKind,
    query: UploadQuery,
    upload: &Upload,
) -> Result<CalibrationRecord, ApplianceError> {
    let bad = |sentence: String| ApplianceError::from(crate::calibrations::CalibrationError::Bad(sentence));
    let content = if kind == CalibrationKind::Poni {
        let bytes = std::fs::read(&upload.0).map_err(|error| bad(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| bad("a poni is a text file, as pyFAI writes it".into()))?;
        Content::Text(text)
    } else {
        let (sizes, mut values) = read(appliance, upload, query.dataset.as_deref())?;
        // pyFAI's convention has one bit: anything but zero is masked.
        if kind == CalibrationKind::Mask && values.iter().all(|value| matches!(value, 0.0 | 1.0)) {
            values.iter_mut().for_each(|value| *value *= f64::from(USER));
        }
        Content::Array(sizes, values)
    };
    let proposed = Proposed {
        kind,
        content,
        noise: None,
        conditions: Conditions {
            gain: query.gain,
            energy_ev: query.energy_ev,
            threshold_ev: query.threshold_ev,
            exposure_s: query.exposure_s,
        },
        origin: "uploaded".into(),
        frames: None,
        valid_from: time("valid_from", query.valid_from.as_deref())?,
        valid_to: time("valid_to", query.valid_to.as_deref())?,
        comment: query.comment,
    };
    let detector = appliance.detector();
    appliance.keep_calibration(proposed, detector.as_ref())
}

fn read(
    appliance: &Appliance,
    upload: &Upload,
    dataset: Option<&str>,
) -> Result<(Vec<usize>, Vec<f64>), ApplianceError> {
    use crate::calibrations::CalibrationError::{Bad, Busy};
    let path = &upload.0;
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    let recording = appliance.current().is_some_and(|run| !run.state().ended());
    if extension == "h5" && recording {
        // While a run records, only its writer calls libhdf5.
        return Err(Busy("a run records: upload a .npy file, or wait until it has ended".into()).into());
    }
    if extension == "h5" {
        crate::storage::check_whole(path).map_err(|reason| Bad(format!("the upload: {reason}")))?;
    }
    let named = match dataset {
        Some(dataset) => PathBuf::from(format!("{}::{dataset}", path.display())),
        None => path.clone(),
    };
    fields::read_planes(&named).map_err(|reason| Bad(format!("the upload: {reason}")).into())
}
