//! TIFF files: one, one with several pages, or a numbered series.

use super::stack::{MEMORY_BYTES_MAX, Stack, blank};
use super::{Content, Planned};
use crate::source::SourceError;
use flate2::read::GzDecoder;
use frame::{FrameKind, PixelType, Shape};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use tiff::decoder::{Decoder, DecodingResult, Limits};

/// The files of the series that `first` begins: same name but for its last number, in the number's order.
pub(super) fn series(first: &Path) -> Vec<PathBuf> {
    let name = first
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let Some(stem_end) = name.find('.') else {
        return vec![first.into()];
    };
    let (stem, ending) = name.split_at(stem_end);
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 {
        return vec![first.into()];
    }
    let (prefix, number) = stem.split_at(stem.len() - digits);
    let begin: u64 = number.parse().unwrap_or(0);
    let folder = first
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![first.into()];
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix(prefix)?.strip_suffix(ending)?;
            let number: u64 = number
                .parse()
                .ok()
                .filter(|_| number.bytes().all(|b| b.is_ascii_digit()))?;
            Some((number, folder.join(name)))
        })
        .filter(|(number, _)| *number >= begin)
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// A file's bytes, unpacked where its name says that it is packed.
pub(super) fn read_packed(path: &Path) -> Result<Vec<u8>, SourceError> {
    let failed = |reason: std::io::Error| SourceError::Read {
        path: path.into(),
        reason: reason.to_string(),
    };
    let bytes = std::fs::read(path).map_err(failed)?;
    let mut out = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => GzDecoder::new(&bytes[..])
            .take(MEMORY_BYTES_MAX)
            .read_to_end(&mut out)
            .map_err(failed)?,
        Some("bz2") => bzip2::read::BzDecoder::new(&bytes[..])
            .take(MEMORY_BYTES_MAX)
            .read_to_end(&mut out)
            .map_err(failed)?,
        _ => return Ok(bytes),
    };
    Ok(out)
}

/// Pixels of one page.
struct Page {
    shape: Shape,
    pixel_type: PixelType,
    bytes: Vec<u8>,
}

fn pages(path: &Path) -> Result<Vec<Page>, SourceError> {
    let wrong = |found: String| SourceError::Content {
        path: path.into(),
        found,
        expected: "a grey TIFF of 8-, 16- or 32-bit integers or 32-bit floating point".into(),
    };
    let bytes = read_packed(path)?;
    let decoder = Decoder::new(Cursor::new(&bytes)).map_err(|error| wrong(error.to_string()))?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MEMORY_BYTES_MAX as usize;
    limits.intermediate_buffer_size = MEMORY_BYTES_MAX as usize;
    let mut decoder = decoder.with_limits(limits);
    let mut out = Vec::new();
    loop {
        let (columns, rows) = decoder.dimensions().map_err(|error| wrong(error.to_string()))?;
        let shape = Shape::new(rows as usize, columns as usize);
        macro_rules! page {
            ($values:expr, $kind:ident) => {
                (
                    PixelType::$kind,
                    $values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
                )
            };
        }
        let (pixel_type, bytes) = match decoder.read_image().map_err(|error| wrong(error.to_string()))? {
            DecodingResult::U8(values) => page!(values, U8),
            DecodingResult::U16(values) => page!(values, U16),
            DecodingResult::U32(values) => page!(values, U32),
            DecodingResult::I16(values) => page!(values, I16),
            DecodingResult::I32(values) => page!(values, I32),
            DecodingResult::F32(values) => page!(values, F32),
            _ => return Err(wrong("pixels of another type".into())),
        };
        if bytes.len() != shape.pixels() * pixel_type.bytes() {
            return Err(wrong("several values per pixel".into()));
        }
        out.push(Page {
            shape,
            pixel_type,
            bytes,
        });
        if !decoder.more_images() {
            return Ok(out);
        }
        decoder.next_image().map_err(|error| wrong(error.to_string()))?;
    }
}

/// Opens a file or the series that it begins.
pub(super) fn open(path: &Path) -> Result<Content, SourceError> {
    let files = series(path);
    let mut content = Content {
        stacks: Vec::new(),
        plan: Vec::new(),
        stream: blank(path.display().to_string()),
    };
    let mut total = 0;
    for file in &files {
        for page in pages(file)? {
            total += page.bytes.len() as u64;
            if total > MEMORY_BYTES_MAX {
                return Err(too_large(path, total));
            }
            let stack = content.stacks.len();
            content
                .stacks
                .push(Stack::in_memory(page.shape, page.pixel_type, page.bytes));
            content.plan.push(Planned {
                stack,
                index: 0,
                kind: FrameKind::Sample,
                angle_deg: f64::NAN,
                partial: false,
            });
        }
    }
    content
        .stream
        .metadata
        .insert("source_files".into(), files.len().to_string());
    Ok(content)
}

/// The error of frames that do not fit into memory.
pub(super) fn too_large(path: &Path, bytes: u64) -> SourceError {
    SourceError::Content {
        path: path.into(),
        found: format!("its frames take {bytes} bytes of memory"),
        expected: format!("at most {MEMORY_BYTES_MAX}: replay a part with source.first and source.last"),
    }
}
