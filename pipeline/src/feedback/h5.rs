//! HDF5 files of closed runs, object by object, as h5web asks for them: the interface of h5grove 4 below every run, so that the
//! page opens a file without loading it.

use super::error::ApiError;
use super::extract::{Path, Query};
use super::pictures::{self, Picture};
use super::server::Asked;
use super::stored;
use crate::storage::{self, BrowseError, Browser, Values};
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use frame::{PixelType, Shape};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

/// Requests that read values at once; more wait. Each holds one answer in memory.
static READERS: Semaphore = Semaphore::const_new(2);

impl From<BrowseError> for ApiError {
    fn from(error: BrowseError) -> Self {
        let message = error.to_string();
        match error {
            BrowseError::Missing(_) | BrowseError::Outside(_) => Self::not_found(message),
            BrowseError::NoDataset(_) | BrowseError::Slice { .. } => Self::bad_request(message),
            BrowseError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message),
            BrowseError::Type(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "type", message),
            BrowseError::Hdf5(_) => Self::internal(message),
        }
    }
}

/// An object of a file.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ObjectQuery {
    /// name of the file, one of the run's
    file: String,
    /// path of the object, `/` unless given
    path: Option<String>,
}

/// Values of a dataset.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ValuesQuery {
    /// name of the file, one of the run's
    file: String,
    /// path of the dataset
    path: String,
    /// slice, as NumPy writes it: `0,:,10:20`; all of it unless given
    selection: Option<String>,
    /// json (which it is unless given), bin (little-endian, row by row), npy, or tiff of two dimensions
    format: Option<String>,
    /// `origin` or `safe`, which are the same here: numbers come as they are stored
    dtype: Option<String>,
    /// of json: whether values come one after the other instead of nested
    flatten: Option<bool>,
}

async fn browse<T: Send + 'static>(
    asked: &Asked,
    id: &str,
    file: String,
    look: impl FnOnce(&Browser) -> Result<T, BrowseError> + Send + 'static,
) -> Result<T, ApiError> {
    let root = asked.0.appliance.store().root().to_path_buf();
    stored::with(&asked.0, id, move |run| {
        let missing = || ApiError::not_found(format!("File not found: the run has no HDF5 file {file:?}"));
        let found = storage::find_file(&run.folder, &run.record, &file)?.filter(|_| file.ends_with(".h5"));
        let (path, _) = found.ok_or_else(missing)?;
        Ok(look(&Browser::open(&path, &root)?)?)
    })
    .await
}

/// What an object of a file of a closed run is: a group with its children, or a dataset with type and shape, and their attributes.
#[utoipa::path(get, path = "/runs/{id}/h5/meta", params(("id" = String, Path), ObjectQuery), responses(
    (status = 200, body = Object), (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 410, body = ApiError)))]
pub async fn meta(
    asked: Asked,
    Path(id): Path<String>,
    Query(query): Query<ObjectQuery>,
) -> Result<Json<Value>, ApiError> {
    let path = query.path.unwrap_or_default();
    let entity = browse(&asked, &id, query.file, move |file| file.entity(&path)).await?;
    Ok(Json(entity))
}

/// The attributes of an object of a file of a closed run, by name.
#[utoipa::path(get, path = "/runs/{id}/h5/attr", params(("id" = String, Path), ObjectQuery), responses(
    (status = 200, body = Object), (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 410, body = ApiError)))]
pub async fn attr(
    asked: Asked,
    Path(id): Path<String>,
    Query(query): Query<ObjectQuery>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let path = query.path.unwrap_or_default();
    let attributes = browse(&asked, &id, query.file, move |file| file.attributes(&path)).await?;
    Ok(Json(attributes))
}

/// The paths of a file of a closed run below one, 10 000 at most.
#[utoipa::path(get, path = "/runs/{id}/h5/paths", params(("id" = String, Path), ObjectQuery), responses(
    (status = 200, body = Vec<String>), (status = 400, body = ApiError), (status = 404, body = ApiError), (status = 410, body = ApiError)))]
pub async fn paths(
    asked: Asked,
    Path(id): Path<String>,
    Query(query): Query<ObjectQuery>,
) -> Result<Json<Vec<String>>, ApiError> {
    let path = query.path.unwrap_or_default();
    let paths = browse(&asked, &id, query.file, move |file| file.paths(&path)).await?;
    Ok(Json(paths))
}

/// The values of a dataset of a file of a closed run, or a slice of them: 128 MiB at most, and no more than 1 GiB decompressed for it.
#[utoipa::path(get, path = "/runs/{id}/h5/data", params(("id" = String, Path), ValuesQuery), responses(
    (status = 200, content((Value = "application/json"), (Vec<u8> = "application/octet-stream"))), (status = 400, body = ApiError),
    (status = 404, body = ApiError), (status = 410, body = ApiError), (status = 413, body = ApiError), (status = 422, body = ApiError)))]
pub async fn data(
    asked: Asked,
    Path(id): Path<String>,
    Query(query): Query<ValuesQuery>,
) -> Result<Response, ApiError> {
    let format = query.format.unwrap_or_else(|| "json".into());
    let known = |name: &str, value: &str, choices: &[&str]| match choices.contains(&value) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!(
            "{name} = {value:?}: one of {}",
            choices.join(", ")
        ))),
    };
    known("format", &format, &["json", "bin", "npy", "tiff"])?;
    known("dtype", query.dtype.as_deref().unwrap_or("origin"), &["origin", "safe"])?;
    let _turn = READERS.acquire().await.map_err(ApiError::internal)?;
    let (path, selection) = (query.path, query.selection);
    let read = move |file: &Browser| file.values(&path, selection.as_deref());
    let values = browse(&asked, &id, query.file, read).await?;
    Ok(match format.as_str() {
        "json" => Json(values.json(query.flatten.unwrap_or(false))?).into_response(),
        "npy" => binary(pictures::npy(values.descr, &values.shape, numbers(&values)?)),
        "tiff" => (
            [(header::CONTENT_TYPE, "image/tiff")],
            picture(values)?.tiff().map_err(ApiError::internal)?,
        )
            .into_response(),
        _ => {
            numbers(&values)?;
            binary(values.bytes)
        }
    })
}

/// The numbers; texts are none.
fn numbers(values: &Values) -> Result<&[u8], ApiError> {
    match values.descr.is_empty() {
        true => Err(BrowseError::Type("text, other than as json,".into()).into()),
        false => Ok(&values.bytes),
    }
}

/// A picture of two dimensions of numbers that frames have.
fn picture(values: Values) -> Result<Picture, ApiError> {
    let pixel_type = match values.descr {
        "|u1" | "|b1" => PixelType::U8,
        "<u2" => PixelType::U16,
        "<u4" => PixelType::U32,
        "<i2" => PixelType::I16,
        "<i4" => PixelType::I32,
        "<f4" => PixelType::F32,
        other => return Err(BrowseError::Type(format!("{other}, as tiff,")).into()),
    };
    match values.shape[..] {
        [rows, columns] if rows * columns > 0 => Ok(Picture {
            shape: Shape { rows, columns },
            pixel_type,
            bytes: values.bytes,
        }),
        _ => Err(BrowseError::Type(format!("an array of shape {:?}, as tiff,", values.shape)).into()),
    }
}

fn binary(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}
