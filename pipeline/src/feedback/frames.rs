//! Frames, masks, profiles and slices over HTTP. "Not there yet", "gone from memory but on disk" and "never
//! will be" are three different answers.

use super::error::ApiError;
use super::extract::{Path, Query};
use super::pictures::{self, Picture};
use super::runs::active;
use super::server::{Asked, Shared};
use super::stored;
use crate::active_run::ActiveRun;
use crate::frame_metadata::Value;
use crate::storage;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossbeam_queue::ArrayQueue;
use driver::memory::FrameLease;
use driver::tracker::FrameState;
use frame::FrameKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Largest frame that a picture is made of, pixels.
const PIXELS_MAX: usize = 64 << 20;

/// Makes a file of a picture.
type Encode = fn(&Picture) -> Result<Vec<u8>, String>;

/// How large a picture may be.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PictureQuery {
    /// bin by a whole factor until the picture has no more pixels than this
    max_pixels: Option<usize>,
}

/// What a frame is.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FrameInfo {
    /// number within the run
    pub frame_number: u64,
    /// rows and columns
    pub shape: [usize; 2],
    /// NumPy's name of the pixel type
    pub dtype: &'static str,
    /// sample, flat, dark or invalid
    #[schema(value_type = String)]
    pub kind: FrameKind,
    /// rotation angle, degrees
    pub angle_deg: Option<f64>,
    /// pixels at or above this are saturated
    pub saturation: Option<f64>,
    /// whether it lacks parts
    pub partial: bool,
}

/// An axis of a profile.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ProfileAxis {
    /// name
    pub name: String,
    /// unit
    pub unit: String,
    /// values
    pub values: Vec<f64>,
}

/// A curve.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Profile {
    /// name
    pub name: String,
    /// frame; absent for a running curve
    pub frame_number: Option<u64>,
    /// axis
    pub axis: ProfileAxis,
    /// values
    pub values: Vec<f32>,
    /// standard errors
    pub errors: Option<Vec<f32>>,
    /// frames that it rests on
    pub frames_used: u64,
    /// values of the frame that have come by now, by name
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

impl Profile {
    /// A table with a heading: axis, value and, where there are any, standard error. What has no value has an empty cell.
    fn csv(&self) -> String {
        let cell = |value: f32| {
            if value.is_finite() {
                value.to_string()
            } else {
                String::new()
            }
        };
        let axis = format!("{} ({})", self.axis.name, self.axis.unit);
        let mut table = format!("{axis},{}", self.name);
        table.push_str(if self.errors.is_some() { ",error\n" } else { "\n" });
        for (index, (at, value)) in self.axis.values.iter().zip(&self.values).enumerate() {
            table.push_str(&format!("{at},{}", cell(*value)));
            if let Some(errors) = &self.errors {
                table.push(',');
                table.push_str(&errors.get(index).map_or(String::new(), |error| cell(*error)));
            }
            table.push('\n');
        }
        table
    }
}

/// A slice that exists.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SliceInfo {
    /// name
    pub name: String,
    /// rows and columns
    pub shape: [usize; 2],
    /// unit
    pub unit: String,
    /// frames that it rests on
    pub frames_used: u64,
    /// frames that it will rest on
    pub frames_expected: u64,
    /// counts updates
    pub version: u64,
}

impl SliceInfo {
    /// What is known of a picture without looking at its pixels.
    pub(super) fn of(image: &frame::Image, version: u64) -> Self {
        Self {
            name: image.name.clone(),
            shape: [image.shape.rows, image.shape.columns],
            unit: image.unit.clone(),
            frames_used: image.frames_used,
            frames_expected: image.frames_expected,
            version,
        }
    }
}

/// The slices of a run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SliceList {
    /// slices
    pub slices: Vec<SliceInfo>,
}

/// The newest frame as plain pixels: kept after its slot has gone back to the ring.
#[derive(Clone)]
pub struct Seen {
    /// folder of its run
    run: PathBuf,
    info: FrameInfo,
    picture: Arc<Picture>,
}

fn unpack(run: &ActiveRun, lease: &FrameLease) -> Result<Seen, ApiError> {
    let header = lease.header();
    let picture = pictures::decode(header, lease.payload()).map_err(ApiError::internal)?;
    let info = FrameInfo {
        frame_number: header.frame_number.get(),
        shape: [picture.shape.rows, picture.shape.columns],
        dtype: picture.pixel_type.numpy_name(),
        kind: header.frame_kind(),
        angle_deg: Some(header.angle_deg.get()).filter(|angle| angle.is_finite()),
        saturation: run.stream.saturation_value,
        partial: header.is_partial(),
    };
    Ok(Seen {
        run: run.folder.clone(),
        info,
        picture: Arc::new(picture),
    })
}

/// The newest frame; taken out of the ring if there is a newer one than last time.
fn newest(
    seen: &Mutex<Option<Seen>>,
    queue: &ArrayQueue<FrameLease>,
    run: &ActiveRun,
) -> Result<Option<Seen>, ApiError> {
    let fresh = queue.pop().map(|lease| unpack(run, &lease)).transpose()?;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fresh) = fresh {
        *seen = Some(fresh);
    }
    Ok(seen.clone().filter(|seen| seen.run == run.folder))
}

/// Frame `number` of a closed run, from its files.
async fn read_back(shared: &Shared, id: &str, number: u64) -> Result<Seen, ApiError> {
    let read = move |run: &stored::StoredRun| {
        let pixels = storage::read_frame(&run.folder, number)?;
        Ok((
            pixels,
            storage::read_frame_facts(&run.folder, number)?,
            run.folder.clone(),
        ))
    };
    let ((bytes, shape, pixel_type), facts, folder) = stored::with(shared, id, read).await?;
    let info = FrameInfo {
        frame_number: number,
        shape: [shape.rows, shape.columns],
        dtype: pixel_type.numpy_name(),
        kind: facts.kind,
        angle_deg: facts.angle_deg,
        saturation: facts.saturation,
        partial: facts.partial,
    };
    Ok(Seen {
        run: folder,
        info,
        picture: Arc::new(Picture {
            shape,
            pixel_type,
            bytes,
        }),
    })
}

async fn find(shared: &Shared, id: &str, which: &str) -> Result<Seen, ApiError> {
    let run = active(shared, id);
    if which == "latest" {
        let Some(run) = run else {
            let last = stored::with(shared, id, stored::last_received).await?;
            return read_back(shared, id, last).await;
        };
        let seen = newest(&shared.newest, &run.latest, &run)?;
        // The last frame goes back to the ring with the run's end, looked at or not; then it is read from the files.
        let last = run.state().ended().then(|| run.ledger.last_received()).flatten();
        if let Some(last) = last.filter(|last| seen.as_ref().is_none_or(|seen| seen.info.frame_number != *last)) {
            let id = run.info.id.clone();
            return read_back(shared, &id, last).await;
        }
        if let Some(seen) = seen {
            return Ok(seen);
        }
        return Err(if run.state().ended() {
            ApiError::not_found("the run ended without a frame to look at")
        } else {
            ApiError::not_yet("no frame has arrived yet")
        });
    }
    if which == "hit" {
        return newest_hit(shared, id, run.as_deref()).await;
    }
    let number: u64 = which
        .parse()
        .map_err(|_| ApiError::bad_request(format!("frame {which:?}: a number, \"latest\" or \"hit\"")))?;
    let Some(run) = run else {
        return read_back(shared, id, number).await;
    };
    if let Some(seen) = newest(&shared.newest, &run.latest, &run)?.filter(|seen| seen.info.frame_number == number) {
        return Ok(seen);
    }
    // What is expected shrinks when a run is stopped early.
    let expected = run.counts.get().expected;
    if number >= expected {
        return Err(no_such_frame(expected));
    }
    match run.ledger.state(number) {
        FrameState::Expected if !run.state().ended() => {
            Err(ApiError::not_yet(format!("frame {number} has not arrived")))
        }
        FrameState::Expected | FrameState::Lost => Err(ApiError::not_found(format!("frame {number} was lost"))),
        FrameState::Corrupt => Err(ApiError::not_found(format!("frame {number} arrived corrupt"))),
        FrameState::Complete | FrameState::Partial if run.state().ended() => {
            let id = run.info.id.clone();
            read_back(shared, &id, number).await
        }
        FrameState::Complete | FrameState::Partial => Err(ApiError::new(
            StatusCode::CONFLICT,
            "on_disk",
            format!("frame {number} is gone from memory and on disk; it can be read when the run is closed"),
        )),
    }
}

/// The newest frame that is a hit.
async fn newest_hit(shared: &Shared, id: &str, run: Option<&ActiveRun>) -> Result<Seen, ApiError> {
    if let Some(run) = run {
        if !run.hub.layout().scalars.iter().any(|scalar| scalar.name == "hit") {
            return Err(ApiError::not_found("this recipe tells no hits"));
        }
        if run.summary().is_none() {
            let seen = newest(&shared.newest_hit, &run.latest_hit, run)?;
            return seen.ok_or_else(|| ApiError::not_yet("no hit yet"));
        }
    }
    let id = run.map_or(id, |run| &run.info.id);
    let last = stored::with(shared, id, stored::last_hit).await?;
    read_back(shared, id, last).await
}

fn no_such_frame(expected: u64) -> ApiError {
    ApiError::not_found(match expected {
        0 => "the run has no frames".into(),
        _ => format!("the run has frames 0 to {}", expected - 1),
    })
}

/// Pictures that are made at once; more wait, so that they never take every core.
static PICTURES: Semaphore = Semaphore::const_new(1);

/// Makes a picture beside the threads that answer requests.
async fn drawn<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let _turn = PICTURES.acquire().await.map_err(ApiError::internal)?;
    tokio::task::spawn_blocking(make).await.map_err(ApiError::internal)
}

fn split(file: &str) -> Result<(&str, &str), ApiError> {
    file.rsplit_once('.')
        .ok_or_else(|| ApiError::bad_request(format!("{file:?}: end it with .png, .npy, .tiff or .json")))
}

fn bytes(kind: &'static str, frame: u64, factor: usize, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), kind.to_string()),
        (header::CACHE_CONTROL.as_str(), "no-store".to_string()),
        ("x-fluxline-frame", frame.to_string()),
        ("x-fluxline-binning", factor.to_string()),
    ];
    (headers, body).into_response()
}

/// A frame as `{n|latest|hit}.png`, `.npy`, `.tiff` or `.json`; `hit` is the newest frame that the recipe calls one.
#[utoipa::path(get, path = "/runs/{id}/frames/{file}", params(PictureQuery, ("id" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = FrameInfo), (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 425, body = ApiError)))]
pub async fn frame(
    Asked(shared): Asked,
    Path((id, file)): Path<(String, String)>,
    Query(query): Query<PictureQuery>,
) -> Result<Response, ApiError> {
    let (which, kind) = split(&file)?;
    let seen = find(&shared, &id, which).await?;
    let number = seen.info.frame_number;
    let limit = query.max_pixels.unwrap_or(PIXELS_MAX).clamp(1, PIXELS_MAX);
    match kind {
        "json" => Ok(Json(seen.info).into_response()),
        "npy" => {
            let make = move || {
                let (small, factor) = (*seen.picture).clone().reduced(limit);
                (small.npy(), factor)
            };
            let (body, factor) = drawn(make).await?;
            Ok(bytes("application/octet-stream", number, factor, body))
        }
        "tiff" => {
            let make = move || {
                let (small, factor) = (*seen.picture).clone().reduced(limit);
                small.tiff().map(|body| (body, factor))
            };
            let (body, factor) = drawn(make).await?.map_err(ApiError::internal)?;
            Ok(bytes("image/tiff", number, factor, body))
        }
        "png" => {
            let run = active(&shared, &id);
            let stored = match &run {
                Some(_) => None,
                // A volume has none.
                None => stored::with(&shared, &id, stored::mask).await.ok(),
            };
            let make = move || {
                let mask = run.as_ref().map(|run| &run.mask).or(stored.as_ref());
                // One of another shape belongs to other frames.
                let mask = mask.filter(|mask| mask.shape() == seen.picture.shape);
                let rejects = |index| mask.is_some_and(|mask| mask.rejects(index));
                let (small, factor) = (*seen.picture).clone().reduced_without(limit, rejects);
                let masked = mask
                    .map(|mask| pictures::rejects_blocks(mask, factor))
                    .unwrap_or_default();
                let masked = |index: usize| masked.get(index).copied().unwrap_or(false);
                small.png(masked, true).map(|body| (body, factor))
            };
            let (body, factor) = drawn(make).await?.map_err(ApiError::internal)?;
            Ok(bytes("image/png", number, factor, body))
        }
        other => Err(ApiError::bad_request(format!("{other:?}: png, npy, tiff or json"))),
    }
}

/// The mask of a run: NXmx bits, `uint32`.
#[utoipa::path(get, path = "/runs/{id}/mask.npy", params(PictureQuery), responses((status = 200, content_type = "application/octet-stream"), (status = 404, body = ApiError)))]
pub async fn mask(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<PictureQuery>,
) -> Result<Response, ApiError> {
    let limit = query.max_pixels.unwrap_or(PIXELS_MAX).clamp(1, PIXELS_MAX);
    let (shape, bits, factor) = match active(&shared, &id) {
        Some(run) => pictures::reduced_mask(&run.mask, limit),
        None => {
            stored::with(&shared, &id, move |run| {
                Ok(pictures::reduced_mask(&stored::mask(run)?, limit))
            })
            .await?
        }
    };
    let body: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let body = pictures::npy("<u4", &[shape.rows, shape.columns], &body);
    Ok(bytes("application/octet-stream", 0, factor, body))
}

/// The first curve of a frame, of the newest result (`latest`), or the running one (`sum`); with `.csv` behind it as a table of
/// axis, value and error.
#[utoipa::path(get, path = "/runs/{id}/profiles/{which}", responses((status = 200, body = Profile), (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 425, body = ApiError)))]
pub async fn profile(Asked(shared): Asked, Path((id, which)): Path<(String, String)>) -> Result<Response, ApiError> {
    let Some(of) = which.strip_suffix(".csv") else {
        return Ok(Json(find_profile(&shared, &id, which).await?).into_response());
    };
    let table = find_profile(&shared, &id, of.to_string()).await?.csv();
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, table).into_response())
}

async fn find_profile(shared: &Shared, id: &str, which: String) -> Result<Profile, ApiError> {
    let Some(run) = active(shared, id) else {
        return stored::with(shared, id, move |run| stored::profile(run, &which)).await;
    };
    let axis = run
        .axes
        .first()
        .ok_or_else(|| ApiError::not_found("this recipe makes no curves"))?;
    let name = axis.curve.clone();
    let profile = |frame_number: Option<u64>, values, errors, frames_used| Profile {
        name: name.clone(),
        frame_number,
        axis: ProfileAxis {
            name: axis.name.clone(),
            unit: axis.unit.clone(),
            values: axis.values.clone(),
        },
        values,
        errors,
        frames_used,
        metadata: frame_number.map(|frame| run.metadata.of(frame)).unwrap_or_default(),
    };
    if which == "sum" {
        let snapshot = run.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let curve = snapshot.curves.iter().find(|curve| curve.name == name);
        let curve = curve.ok_or_else(|| ApiError::not_found("this recipe keeps no running curve"))?;
        if curve.frames_used == 0 {
            return Err(ApiError::not_yet("no frame has been analysed yet"));
        }
        let errors = Some(curve.errors.clone()).filter(|errors| !errors.is_empty());
        return Ok(profile(None, curve.values.clone(), errors, curve.frames_used));
    }
    let newest = run.hub.newest().map(|kept| kept.message);
    let newest = newest.ok_or_else(|| ApiError::not_yet("no frame has been analysed yet"))?;
    if which != "latest" && which != newest.frame_number.to_string() {
        let number: u64 = which
            .parse()
            .map_err(|_| ApiError::bad_request(format!("profile {which:?}: a frame number, \"latest\" or \"sum\"")))?;
        let expected = run.counts.get().expected;
        if number < expected && run.summary().is_some() {
            let id = run.info.id.clone();
            return stored::with(shared, &id, move |run| stored::profile(run, &which)).await;
        }
        return Err(if number >= expected {
            no_such_frame(expected)
        } else if run.ledger.state(number) == FrameState::Lost {
            ApiError::not_found(format!("frame {number} was lost"))
        } else if number > newest.frame_number && !run.state().ended() {
            ApiError::not_yet(format!("frame {number} has not been analysed"))
        } else {
            let path = format!("/entry/results/{name}");
            let message =
                format!("the profile of frame {number} is gone from memory; the run's master file has it at {path}");
            ApiError::new(StatusCode::CONFLICT, "on_disk", message)
        });
    }
    let values = newest.curves.get(&name).cloned().unwrap_or_default();
    let errors = newest.curves.get(&format!("{name}_errors")).cloned();
    Ok(profile(Some(newest.frame_number), values, errors, 1))
}

/// The slices of a run.
#[utoipa::path(get, path = "/runs/{id}/slices", responses((status = 200, body = SliceList), (status = 404, body = ApiError)))]
pub async fn slices(Asked(shared): Asked, Path(id): Path<String>) -> Result<Json<SliceList>, ApiError> {
    let Some(run) = active(&shared, &id) else {
        let slices = stored::with(&shared, &id, stored::slices).await?;
        return Ok(Json(SliceList { slices }));
    };
    let snapshot = run.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    let slices = snapshot
        .images
        .iter()
        .map(|image| SliceInfo::of(image, snapshot.version));
    Ok(Json(SliceList {
        slices: slices.collect(),
    }))
}

/// A slice as `{name}.npy`, `.tiff` or `.png`; with `max_pixels` binned, each block its mean.
#[utoipa::path(get, path = "/runs/{id}/slices/{file}", params(PictureQuery, ("id" = String, Path), ("file" = String, Path)), responses((status = 200, content_type = "application/octet-stream"), (status = 404, body = ApiError), (status = 425, body = ApiError)))]
pub async fn slice(
    Asked(shared): Asked,
    Path((id, file)): Path<(String, String)>,
    Query(query): Query<PictureQuery>,
) -> Result<Response, ApiError> {
    let (name, kind) = split(&file)?;
    let limit = query.max_pixels.unwrap_or(PIXELS_MAX).clamp(1, PIXELS_MAX);
    let image = match active(&shared, &id) {
        Some(run) => {
            let snapshot = run.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.images.iter().find(|image| image.name == name).cloned()
        }
        None => {
            let name = name.to_string();
            Some(stored::with(&shared, &id, move |run| stored::slice(run, &name)).await?)
        }
    };
    let image = image.ok_or_else(|| ApiError::not_found(format!("there is no slice {name}")))?;
    if image.frames_used == 0 {
        return Err(ApiError::not_yet(format!("slice {name} has no projections yet")));
    }
    let (kind, make): (_, Encode) = match kind {
        "npy" => ("application/octet-stream", |picture| Ok(picture.npy())),
        "tiff" => ("image/tiff", Picture::tiff),
        "png" => ("image/png", |picture| picture.png(|_| false, false)),
        other => return Err(ApiError::bad_request(format!("{other:?}: png, npy or tiff"))),
    };
    let used = image.frames_used;
    let make = move || {
        let (picture, factor) = Picture::mean_of(image.shape, &image.values, limit);
        make(&picture).map(|body| (body, factor))
    };
    let (body, factor) = drawn(make).await?.map_err(ApiError::internal)?;
    Ok(bytes(kind, used, factor, body))
}
