//! Masks, darks and flats that a recipe names as files: `.npy`, or anything that can be replayed (TIFF, CBF,
//! HDF5 as `FILE::/path`).

use super::RecipeError;
use crate::config::ConfigError;
use crate::feedback::pictures;
use driver::memory::{FrameRing, HugePages, PageSize, PagesConfig};
use driver::replay::{Replay, ReplayConfig};
use driver::source::{Arrival, FrameSource, WhenFull};
use frame::{PixelMask, Shape};
use npyz::{DType, NpyFile};
use std::io::Cursor;
use std::path::Path;

/// Values of a picture of `shape`, row by row. `key` names the parameter in messages.
pub fn read(key: &str, path: &Path, shape: Shape) -> Result<Vec<f64>, RecipeError> {
    let wrong = |expected: String| RecipeError::from(ConfigError::value(key, path.display(), expected));
    let (found, values) = if path.extension().is_some_and(|extension| extension == "npy") {
        read_npy(path).map_err(wrong)?
    } else {
        read_picture(path).map_err(wrong)?
    };
    if found != shape {
        return Err(wrong(format!(
            "it is {found} pixels, the frames are {shape}: they must be equal"
        )));
    }
    Ok(values)
}

/// A mask in pyFAI's convention (anything but zero is masked) or, where values need more than one bit, NXmx bits.
pub fn read_mask(key: &str, path: &Path, shape: Shape) -> Result<PixelMask, RecipeError> {
    let values = read(key, path, shape)?;
    let wrong = |expected: String| RecipeError::from(ConfigError::value(key, path.display(), expected));
    if let Some(value) = values
        .iter()
        .find(|v| !(**v >= 0.0 && **v <= f64::from(u32::MAX) && v.fract() == 0.0))
    {
        return Err(wrong(format!(
            "a mask holds whole numbers from 0 to 4294967295, this one holds {value}"
        )));
    }
    let bits = values.iter().any(|value| *value > 1.0);
    let mask = if bits {
        PixelMask::from_bits(shape, values.iter().map(|value| *value as u32).collect())
    } else {
        PixelMask::from_nonzero(shape, values.iter().map(|value| *value != 0.0))
    };
    mask.map_err(|error| wrong(error.to_string()))
}

fn read_npy(path: &Path) -> Result<(Shape, Vec<f64>), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let open = || NpyFile::new(Cursor::new(&bytes)).map_err(|error| format!("not a .npy file: {error}"));
    let file = open()?;
    let &[rows, columns] = file.shape() else {
        return Err(format!(
            "it has {} dimensions, expected 2: rows and columns",
            file.shape().len()
        ));
    };
    if file.order() != npyz::Order::C {
        return Err("it is in Fortran order; save it as numpy.ascontiguousarray(...)".into());
    }
    let DType::Plain(kind) = file.dtype() else {
        return Err("it holds records, expected plain numbers".into());
    };
    macro_rules! values {
        ($ty:ty) => {
            open()?
                .into_vec::<$ty>()
                .map_err(|error| error.to_string())?
                .into_iter()
                .map(|v| v as f64)
                .collect()
        };
    }
    use npyz::TypeChar::{Bool, Float, Int, Uint};
    let values = match (kind.type_char(), kind.size_field()) {
        (Bool, _) => open()?
            .into_vec::<bool>()
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|v| f64::from(u8::from(v)))
            .collect(),
        (Uint, 1) => values!(u8),
        (Uint, 2) => values!(u16),
        (Uint, 4) => values!(u32),
        (Uint, 8) => values!(u64),
        (Int, 1) => values!(i8),
        (Int, 2) => values!(i16),
        (Int, 4) => values!(i32),
        (Int, 8) => values!(i64),
        (Float, 4) => values!(f32),
        (Float, 8) => values!(f64),
        _ => {
            return Err(format!(
                "it holds {kind}, expected booleans, integers or floating-point numbers"
            ));
        }
    };
    Ok((Shape::new(rows as usize, columns as usize), values))
}

/// The first frame of anything that can be replayed.
fn read_picture(path: &Path) -> Result<(Shape, Vec<f64>), String> {
    let text = path.display().to_string();
    let (file, dataset) = match text.split_once("::") {
        Some((file, dataset)) => (file.to_string(), Some(dataset.to_string())),
        None => (text, None),
    };
    let config = ReplayConfig {
        dataset,
        ..ReplayConfig::default()
    };
    let mut source = Replay::open(Path::new(&file), &config).map_err(|error| error.to_string())?;
    source.arm(0).map_err(|error| error.to_string())?;
    let payload_bytes = source.stream().payload_bytes_max;
    let pages = HugePages::reserve(&PagesConfig {
        bytes: FrameRing::bytes_needed(2, payload_bytes),
        page_size: PageSize::Transparent,
        numa_node: None,
        lock: false,
        allow_transparent: true,
    });
    let ring = pages.map_err(|error| error.to_string())?;
    let ring = FrameRing::new(ring, 2, payload_bytes).map_err(|error| error.to_string())?;
    loop {
        match source.next(&ring, WhenFull::Wait).map_err(|error| error.to_string())? {
            Arrival::Frame(lease) => {
                let picture = pictures::decode(lease.header(), lease.payload())?;
                return Ok((picture.shape, picture.values()));
            }
            Arrival::End => return Err("it holds no frame".into()),
            Arrival::Idle | Arrival::Dropped { .. } => {}
        }
    }
}
