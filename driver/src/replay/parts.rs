//! Frames that a virtual dataset shows and that lie in data files beside it, `data_000001` and so on: read from those
//! files, frame by frame, instead of through the virtual dataset, which would take memory for all of them.

use super::hdf5::Reader;
use super::stack::Stack;
use crate::source::SourceError;
use frame::Shape;
use hdf5::Dataset;

/// Where the frames of a virtual dataset are.
pub(super) struct Parts {
    pub stacks: Vec<Stack>,
    /// stack and index within it, by frame
    pub places: Vec<(usize, usize)>,
}

/// The data files of `dataset`; `None` where it has none of its own or they are not one chunk a frame.
pub(super) fn open(reader: &Reader<'_>, dataset: &Dataset) -> Result<Option<Parts>, SourceError> {
    if dataset.chunk().is_some() || dataset.offset().is_some() {
        return Ok(None);
    }
    // It may have been found by another of its names than the one beside its files, or be said to have been.
    let name = dataset.name();
    let entry = name.split('/').nth(1).unwrap_or_default();
    let Ok(group) = reader.file.group(&format!("/{entry}/data")) else {
        return Ok(None);
    };
    let mut names: Vec<String> = group.member_names().unwrap_or_default();
    names.retain(|name| {
        let digits = name.strip_prefix("data_");
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    });
    names.sort();
    let mut parts = Parts {
        stacks: Vec::new(),
        places: Vec::new(),
    };
    for name in names {
        let part = group.dataset(&name).map_err(|_| {
            let found = format!("{}/{name} links to a file that is missing", group.name());
            reader.wrong(found, "every data file beside its master")
        })?;
        let Some(stack) = sparse(reader, &part)? else {
            return Ok(None);
        };
        let number = parts.stacks.len();
        parts.places.extend((0..stack.frames()).map(|index| (number, index)));
        parts.stacks.push(stack);
    }
    let frames = dataset.shape().first().copied().unwrap_or(0);
    // A run that ended early has its last file cut; longer ones than the virtual dataset are no matter.
    Ok(Some(parts).filter(|parts| !parts.stacks.is_empty() && parts.places.len() >= frames))
}

/// The frames of a data file as they are, one chunk each; those that were never written have no bytes.
pub(super) fn sparse(reader: &Reader<'_>, dataset: &Dataset) -> Result<Option<Stack>, SourceError> {
    let (&[frames, rows, columns], (pixel_type, true)) = (&dataset.shape()[..], reader.pixel_type(dataset)?) else {
        return Ok(None);
    };
    reader.in_place(dataset, frames, Shape::new(rows, columns), pixel_type, true)
}
