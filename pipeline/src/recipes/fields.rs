//! Masks, darks and flats that a recipe names as files: `.npy`, or anything that can be replayed (TIFF, CBF,
//! HDF5 as `FILE::/path`).

use super::RecipeError;
use super::files::{FILE_BYTES_MAX, check_regular, read_whole};
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
    let bytes = read_whole(path, FILE_BYTES_MAX)?;
    match parse_npy(&bytes)? {
        (sizes, values) if sizes.len() == 2 => Ok((Shape::new(sizes[0], sizes[1]), values)),
        (sizes, _) => Err(format!(
            "it has {} dimensions, expected 2: rows and columns",
            sizes.len()
        )),
    }
}

/// Sizes, slowest first, and values of a `.npy` file.
pub(crate) fn parse_npy(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f64>), String> {
    let open = || NpyFile::new(Cursor::new(bytes)).map_err(|error| format!("not a .npy file: {error}"));
    let file = open()?;
    let sizes: Vec<usize> = file.shape().iter().map(|size| *size as usize).collect();
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
    Ok((sizes, values))
}

/// Sizes and values of planes of pixels: `.npy`; HDF5 as `FILE::/path`; or the maker's `.bin` of a JUNGFRAU module's gains,
/// 3 or 6 planes of 512 × 1024 float64, or of one plane of float32 or float64.
pub(crate) fn read_planes(path: &Path) -> Result<(Vec<usize>, Vec<f64>), String> {
    let text = path.display().to_string();
    let (file, dataset) = match text.split_once("::") {
        Some((file, dataset)) => (Path::new(file), Some(dataset)),
        None => (path, None),
    };
    let bytes = || read_whole(file, FILE_BYTES_MAX);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => parse_npy(&bytes()?),
        Some("bin") => parse_bin(&bytes()?),
        Some("h5" | "hdf5" | "nxs" | "cxi") => {
            check_regular(file)?;
            crate::storage::read_array(file, dataset).map_err(|error| error.to_string())
        }
        _ => {
            let (shape, values) = read_picture(path)?;
            Ok((vec![shape.rows, shape.columns], values))
        }
    }
}

/// A module's planes without a header, told by their size.
pub(crate) fn parse_bin(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f64>), String> {
    const PIXELS: usize = 512 * 1024;
    let doubles = |planes: usize| {
        let values = bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value));
        (vec![planes, 512, 1024], values.collect())
    };
    match (bytes.len() / PIXELS, bytes.len() % PIXELS) {
        (48, 0) => Ok(doubles(6)),
        (24, 0) => Ok(doubles(3)),
        (8, 0) => Ok((vec![512, 1024], doubles(1).1)),
        (4, 0) => {
            let values = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|value| f64::from(f32::from_le_bytes(*value)));
            Ok((vec![512, 1024], values.collect()))
        }
        _ => Err(format!(
            "it has {} bytes; expected 1, 3 or 6 planes of 512 x 1024 float64, or one of float32",
            bytes.len()
        )),
    }
}

/// The first frame of anything that can be replayed.
pub(crate) fn read_picture(path: &Path) -> Result<(Shape, Vec<f64>), String> {
    let text = path.display().to_string();
    let (file, dataset) = match text.split_once("::") {
        Some((file, dataset)) => (file.to_string(), Some(dataset.to_string())),
        None => (text, None),
    };
    let config = ReplayConfig {
        dataset,
        ..ReplayConfig::default()
    };
    check_regular(Path::new(&file))?;
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
