//! Spots of one frame over HTTP: of the run in memory from the results that are kept, of a closed run from its files.

use super::error::ApiError;
use super::extract::Path;
use super::hub::ResultMessage;
use super::runs::active;
use super::server::Asked;
use super::stored;
use crate::storage;
use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;

/// Curves that a recipe with spots has, one value per spot: row, column, intensity, pixels.
const CURVES: [&str; 4] = ["spot_row", "spot_column", "spot_intensity", "spot_pixels"];

/// A spot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Spot {
    /// centre of mass, pixels from the centre of row 0
    pub row: f32,
    /// centre of mass, pixels from the centre of column 0
    pub column: f32,
    /// counts above the background
    pub intensity: f32,
    /// strong pixels
    pub pixels: f32,
}

/// The spots of a frame.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SpotList {
    /// frame
    pub frame_number: u64,
    /// whether the frame is a hit; null where the recipe does not tell hits or could not tell
    pub hit: Option<bool>,
    /// spots found; more than are listed where the recipe keeps fewer, null where the frame is too bright to tell
    pub found: Option<f64>,
    /// spots, as the finder ordered them
    pub spots: Vec<Spot>,
}

/// Those of the four columns, up to where they end.
fn listed(columns: &[Vec<f32>; 4]) -> Vec<Spot> {
    let [rows, places, intensities, pixels] = columns;
    let all = rows.iter().zip(places).zip(intensities).zip(pixels);
    all.map(|(((row, column), intensity), pixels)| Spot {
        row: *row,
        column: *column,
        intensity: *intensity,
        pixels: *pixels,
    })
    .take_while(|spot| spot.row.is_finite())
    .collect()
}

fn in_memory(message: &ResultMessage) -> SpotList {
    let scalar = |name: &str| message.scalars.get(name).copied().filter(|value| value.is_finite());
    SpotList {
        frame_number: message.frame_number,
        hit: scalar("hit").map(|hit| hit == 1.0),
        found: scalar("spots"),
        spots: listed(&CURVES.map(|name| message.curves.get(name).cloned().unwrap_or_default())),
    }
}

fn none_looked_for() -> ApiError {
    ApiError::not_found("this recipe looks for no spots")
}

/// From the master file.
fn from_files(run: &stored::StoredRun, frame: u64) -> Result<SpotList, ApiError> {
    let mut columns: [Vec<f32>; 4] = Default::default();
    for (column, name) in columns.iter_mut().zip(CURVES) {
        *column = storage::read_curve_row(&run.folder, name, frame)?.ok_or_else(none_looked_for)?;
    }
    let index = frame as usize;
    let scalar = |name: &str| -> Result<Option<f64>, ApiError> {
        if !storage::read_names(&run.folder)?
            .scalars
            .iter()
            .any(|(known, _)| known == name)
        {
            return Ok(None);
        }
        let values = storage::read_scalar(&run.folder, name, index..index + 1)?;
        Ok(values.first().copied().filter(|value| value.is_finite()))
    };
    Ok(SpotList {
        frame_number: frame,
        hit: scalar("hit")?.map(|hit| hit == 1.0),
        found: scalar("spots")?,
        spots: listed(&columns),
    })
}

/// The spots of a frame by its number.
#[utoipa::path(get, path = "/runs/{id}/spots/{frame}", params(("id" = String, Path), ("frame" = u64, Path)), responses(
    (status = 200, body = SpotList), (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 425, body = ApiError)))]
pub async fn spots(
    Asked(shared): Asked,
    Path((id, frame)): Path<(String, String)>,
) -> Result<Json<SpotList>, ApiError> {
    let number: u64 = frame
        .parse()
        .map_err(|_| ApiError::bad_request(format!("spots {frame:?}: the number of a frame")))?;
    if let Some(run) = active(&shared, &id) {
        if !run.hub.layout().curves.iter().any(|curve| curve.name == CURVES[0]) {
            return Err(none_looked_for());
        }
        if let Some(kept) = run.hub.of_frame(number) {
            return Ok(Json(in_memory(&kept.message)));
        }
        if run.summary().is_none() {
            let newest = run.hub.newest().map(|kept| kept.message.frame_number);
            return Err(match newest.is_some_and(|newest| number <= newest) {
                false => ApiError::not_yet(format!("frame {number} has not been analysed")),
                true => ApiError::new(
                    StatusCode::CONFLICT,
                    "on_disk",
                    format!(
                        "the spots of frame {number} are gone from memory; they can be read when the run is closed"
                    ),
                ),
            });
        }
    }
    Ok(Json(
        stored::with(&shared, &id, move |run| from_files(run, number)).await?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ends_with_the_first_place_that_has_no_spot() {
        let column = |first: f32| vec![first, first + 1.0, f32::NAN, f32::NAN];
        let spots = listed(&[column(10.0), column(20.0), column(30.0), column(2.0)]);
        let second = Spot {
            row: 11.0,
            column: 21.0,
            intensity: 31.0,
            pixels: 3.0,
        };
        assert_eq!((spots.len(), spots[1]), (2, second));
        assert!(listed(&Default::default()).is_empty());
    }
}
