//! Any HDF5 file of a closed run, object by object: what it is, its attributes, its values. What leads out of the run's folder
//! is not followed, and what is too large for one answer is refused: whoever wants more takes a slice of it.
//!
//! libhdf5 has one lock for the whole process, and a run that records needs it: large values are read a few rows at a time.

use super::h5;
use super::open;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor, VarLenUnicode};
use hdf5::{Container, Dataset, Group, Hyperslab, LinkType, LocationType, Selection, SliceOrIndex};
use ndarray::IxDyn;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Largest answer, bytes of values.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Most bytes that are decompressed for one answer, as for a pixel of every frame.
pub const DECODED_BYTES_MAX: usize = 1 << 30;
/// Most values that are written as text.
pub const TEXT_VALUES_MAX: usize = 1 << 20;
/// Most children of a group, and most paths, in one answer.
pub const CHILDREN_MAX: usize = 10_000;
/// What is read under one hold of the library's lock, where a chunk is no larger.
const PIECE_BYTES: usize = 8 << 20;
/// Deepest nesting of groups whose paths are listed.
const DEPTH_MAX: usize = 32;

/// Why something of a file is not answered.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// no such object; the words are those that readers of such files know
    #[error("{0:?} is not a valid path: the file has no such object")]
    Missing(String),
    /// an object of another file
    #[error("{0:?} lies outside of the run's files")]
    Outside(String),
    /// a group where values were asked for
    #[error("{0:?} has no values: it is no dataset")]
    NoDataset(String),
    /// a slice that the dataset does not have
    #[error("selection = {selection:?}: {expected}")]
    Slice {
        /// asked for
        selection: String,
        /// what was expected
        expected: String,
    },
    /// more than is answered at once
    #[error("{what} is more than {most} {unit}: ask for a slice of it (selection=0,:,:)")]
    TooLarge {
        /// what was asked for
        what: String,
        /// bound
        most: usize,
        /// of the bound
        unit: &'static str,
    },
    /// a type that is not answered
    #[error("values of the type {0} are not answered")]
    Type(String),
    /// libhdf5
    #[error("{0}")]
    Hdf5(#[from] hdf5::Error),
}

/// Values of a dataset, little-endian and in row order, or texts.
#[derive(Debug)]
pub struct Values {
    /// NumPy's name of the type, `<f4`; empty of texts
    pub descr: &'static str,
    /// lengths of the dimensions that were not indexed away
    pub shape: Vec<usize>,
    /// the numbers; empty of texts
    pub bytes: Vec<u8>,
    /// the texts
    texts: Vec<String>,
    /// a number's text, from its bytes
    number: fn(&[u8]) -> Value,
    size: usize,
}

impl Values {
    /// The values as JSON: nested as their shape is, or one after the other.
    ///
    /// # Errors
    /// [`BrowseError::TooLarge`]
    pub fn json(&self, flatten: bool) -> Result<Value, BrowseError> {
        let count: usize = self.shape.iter().product();
        if count > TEXT_VALUES_MAX {
            return Err(BrowseError::TooLarge {
                what: format!("{count} values as text"),
                most: TEXT_VALUES_MAX,
                unit: "values",
            });
        }
        let mut values: Vec<Value> = match self.descr.is_empty() {
            true => self.texts.iter().map(|text| json!(text)).collect(),
            false => self.bytes.chunks_exact(self.size).map(self.number).collect(),
        };
        if self.shape.is_empty() {
            return Ok(values.pop().unwrap_or_default());
        }
        for length in self.shape.iter().skip(1).rev().filter(|_| !flatten) {
            values = values.chunks((*length).max(1)).map(|row| json!(row)).collect();
        }
        Ok(values.into())
    }
}

/// A number that is answered.
trait Cell: hdf5::H5Type + Copy {
    const DESCR: &'static str;
    fn put(self, bytes: &mut Vec<u8>);
    fn text(bytes: &[u8]) -> Value;
}

macro_rules! cells {
    ($($number:ty, $descr:literal;)*) => {$(
        impl Cell for $number {
            const DESCR: &'static str = $descr;
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn text(bytes: &[u8]) -> Value {
                // What is not finite has no text in JSON, and is null.
                bytes.try_into().map_or(Value::Null, |bytes| json!(<$number>::from_le_bytes(bytes)))
            }
        }
    )*};
}

cells! {
    i8, "|i1"; i16, "<i2"; i32, "<i4"; i64, "<i8"; u8, "|u1"; u16, "<u2"; u32, "<u4"; u64, "<u8"; f32, "<f4"; f64, "<f8";
}

impl Cell for bool {
    const DESCR: &'static str = "|b1";
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }
    fn text(bytes: &[u8]) -> Value {
        json!(bytes != [0u8])
    }
}

/// Does `$body` with the Rust type of a descriptor, or `$other`.
macro_rules! with_cell {
    ($descriptor:expr, $cell:ident => $body:expr, $other:expr) => {
        match $descriptor {
            TypeDescriptor::Integer(IntSize::U1) => {
                type $cell = i8;
                $body
            }
            TypeDescriptor::Integer(IntSize::U2) => {
                type $cell = i16;
                $body
            }
            TypeDescriptor::Integer(IntSize::U4) => {
                type $cell = i32;
                $body
            }
            TypeDescriptor::Integer(IntSize::U8) => {
                type $cell = i64;
                $body
            }
            TypeDescriptor::Unsigned(IntSize::U1) => {
                type $cell = u8;
                $body
            }
            TypeDescriptor::Unsigned(IntSize::U2) => {
                type $cell = u16;
                $body
            }
            TypeDescriptor::Unsigned(IntSize::U4) => {
                type $cell = u32;
                $body
            }
            TypeDescriptor::Unsigned(IntSize::U8) => {
                type $cell = u64;
                $body
            }
            TypeDescriptor::Float(FloatSize::U4) => {
                type $cell = f32;
                $body
            }
            TypeDescriptor::Float(FloatSize::U8) => {
                type $cell = f64;
                $body
            }
            TypeDescriptor::Boolean => {
                type $cell = bool;
                $body
            }
            _ => $other,
        }
    };
}

/// A file that is looked at.
pub struct Browser {
    file: hdf5::File,
    folder: PathBuf,
    root: PathBuf,
}

impl Browser {
    /// Opens `path`, a file of a run of the store at `root`.
    ///
    /// # Errors
    /// [`BrowseError::Outside`] where the file, or a link of its name, leads out of the store.
    pub fn open(path: &Path, root: &Path) -> Result<Browser, BrowseError> {
        h5::register_bitshuffle()?;
        let shown = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into());
        let outside = || BrowseError::Outside(shown.clone());
        let path = path.canonicalize().map_err(|_| outside())?;
        let folder = path
            .parent()
            .filter(|folder| folder.starts_with(root))
            .ok_or_else(outside)?;
        Ok(Browser {
            file: open::read(&path)?,
            folder: folder.to_path_buf(),
            root: root.to_path_buf(),
        })
    }

    /// What the object at `path` is: of a group with its children, of a dataset with type and shape, of both the attributes; in
    /// the words of h5grove.
    pub fn entity(&self, path: &str) -> Result<Value, BrowseError> {
        let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("/");
        match self.object(path)? {
            Object::Dataset(dataset) => dataset_entity(name, &dataset),
            Object::Group(group) => {
                let mut entity = group_entity(name, &group)?;
                let links = group.links(hdf5::IndexType::Name, hdf5::IterationOrder::Increasing)?;
                if links.len() > CHILDREN_MAX {
                    return Err(BrowseError::TooLarge {
                        what: format!("a group of {}", links.len()),
                        most: CHILDREN_MAX,
                        unit: "children",
                    });
                }
                let children = links
                    .iter()
                    .map(|(name, link)| self.child(&group, name, link.link_type));
                entity["children"] = Value::Array(children.collect());
                Ok(entity)
            }
        }
    }

    /// A child without its own children; one that cannot be opened, or leads out, is a link that is not resolved.
    fn child(&self, group: &Group, name: &str, link: LinkType) -> Value {
        let opened = self.step(group, name).and_then(|object| match object {
            Object::Dataset(dataset) => dataset_entity(name, &dataset),
            Object::Group(group) => group_entity(name, &group),
        });
        opened.unwrap_or_else(|_| match link {
            LinkType::External => {
                json!({ "kind": "external_link", "name": name, "target_file": "", "target_path": "" })
            }
            _ => json!({ "kind": "soft_link", "name": name, "target_path": "" }),
        })
    }

    /// The attributes of the object at `path`; null where one has a type that is not answered.
    pub fn attributes(&self, path: &str) -> Result<Map<String, Value>, BrowseError> {
        let object = self.object(path)?;
        let at: &hdf5::Location = match &object {
            Object::Group(group) => group,
            Object::Dataset(dataset) => dataset,
        };
        let mut all = Map::new();
        for name in at.attr_names()? {
            let attribute = at.attr(&name)?;
            let value = read(&attribute, None, attribute.shape());
            let value = value.and_then(|value| value.json(false)).unwrap_or_default();
            all.insert(name, value);
        }
        Ok(all)
    }

    /// The values of the dataset at `path`, or a slice of them: `0,:,10:20`, a number for a dimension that goes.
    pub fn values(&self, path: &str, selection: Option<&str>) -> Result<Values, BrowseError> {
        let Object::Dataset(dataset) = self.object(path)? else {
            return Err(BrowseError::NoDataset(path.into()));
        };
        self.check_sources(path, &dataset)?;
        let shape = dataset.shape();
        let wanted = parse(selection.unwrap_or_default(), &shape)?;
        let (mut answer, mut decoded) = (1usize, 1usize);
        let chunk = chunk_of(&dataset, &shape);
        for ((wanted, chunk), length) in wanted.iter().zip(&chunk).zip(&shape) {
            answer = answer.saturating_mul(wanted.count);
            decoded = decoded.saturating_mul(wanted.touched(*chunk).min(*length));
        }
        let size = dataset.dtype()?.size();
        for (values, most, what) in [
            (answer, ANSWER_BYTES_MAX, "an answer"),
            (decoded, DECODED_BYTES_MAX, "decoding"),
        ] {
            let bytes = values.saturating_mul(size);
            if bytes > most {
                return Err(BrowseError::TooLarge {
                    what: format!("{what} of {bytes} bytes"),
                    most,
                    unit: "bytes",
                });
            }
        }
        let kept = wanted
            .iter()
            .filter(|wanted| !wanted.index)
            .map(|wanted| wanted.count)
            .collect();
        read(&dataset, Some((&wanted, &chunk)), kept)
    }

    /// Every path below `path`, in the order of names.
    pub fn paths(&self, path: &str) -> Result<Vec<String>, BrowseError> {
        let path = path.trim_end_matches('/');
        let mut found = vec![if path.is_empty() { "/".into() } else { path.to_string() }];
        if let Object::Group(group) = self.object(path)? {
            self.below(&group, path, 0, &mut found)?;
        }
        Ok(found)
    }

    fn below(&self, group: &Group, path: &str, depth: usize, found: &mut Vec<String>) -> Result<(), BrowseError> {
        for (name, link) in group.links(hdf5::IndexType::Name, hdf5::IterationOrder::Increasing)? {
            if found.len() >= CHILDREN_MAX || depth >= DEPTH_MAX {
                return Ok(());
            }
            let child = format!("{path}/{name}");
            found.push(child.clone());
            // A link may lead back to where one came from.
            if link.link_type == LinkType::Hard
                && let Ok(Object::Group(group)) = self.step(group, &name)
            {
                self.below(&group, &child, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// The object at a path, reached step by step.
    fn object(&self, path: &str) -> Result<Object, BrowseError> {
        let missing = || BrowseError::Missing(path.chars().take(200).collect());
        let mut at = Object::Group(self.file.as_group()?);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Object::Group(group) = &at else {
                return Err(missing());
            };
            // `.` and what libhdf5 would take apart itself are no names.
            if part == "." || part.contains('\0') || !group.link_exists(part) {
                return Err(missing());
            }
            at = self.step(group, part).map_err(|error| match error {
                BrowseError::Hdf5(_) => missing(),
                other => other,
            })?;
        }
        Ok(at)
    }

    /// A child of a group, where it lies in a file of the same folder.
    fn step(&self, group: &Group, name: &str) -> Result<Object, BrowseError> {
        let object = match group.loc_type_by_name(name)? {
            LocationType::Group => Object::Group(group.group(name)?),
            LocationType::Dataset => Object::Dataset(group.dataset(name)?),
            LocationType::NamedDatatype => return Err(BrowseError::Type("of a named type".into())),
        };
        let file = match &object {
            Object::Group(group) => group.filename(),
            Object::Dataset(dataset) => dataset.filename(),
        };
        let inside = Path::new(&file)
            .canonicalize()
            .is_ok_and(|file| file.parent() == Some(&*self.folder));
        match inside {
            true => Ok(object),
            false => Err(BrowseError::Outside(name.into())),
        }
    }

    /// A dataset that is put together from others takes them from the store only.
    fn check_sources(&self, path: &str, dataset: &Dataset) -> Result<(), BrowseError> {
        if dataset.layout() != hdf5::dataset::Layout::Virtual {
            return Ok(());
        }
        for source in dataset.dcpl()?.virtual_map() {
            let file = self.folder.join(&source.src_filename);
            // One that is not there reads as missing frames.
            let inside =
                source.src_filename == "." || file.canonicalize().map_or(true, |file| file.starts_with(&self.root));
            if !inside {
                return Err(BrowseError::Outside(path.into()));
            }
        }
        Ok(())
    }
}

enum Object {
    Group(Group),
    Dataset(Dataset),
}

fn group_entity(name: &str, group: &Group) -> Result<Value, BrowseError> {
    Ok(json!({ "kind": "group", "name": name, "attributes": attributes_of(group)? }))
}

fn dataset_entity(name: &str, dataset: &Dataset) -> Result<Value, BrowseError> {
    Ok(json!({
        "kind": "dataset", "name": name, "attributes": attributes_of(dataset)?, "shape": dataset.get_shape()?,
        "type": type_of(&dataset.dtype()?), "chunks": dataset.chunk(),
    }))
}

fn attributes_of(at: &hdf5::Location) -> Result<Vec<Value>, BrowseError> {
    let one = |name: String| {
        let attribute = at.attr(&name)?;
        Ok(json!({ "name": name, "shape": attribute.get_shape()?, "type": type_of(&attribute.dtype()?) }))
    };
    at.attr_names()?.into_iter().map(one).collect()
}

/// A type in the numbers that libhdf5 has for classes (`H5T_class_t`). Values are answered little-endian, however they lie.
fn type_of(dtype: &hdf5::Datatype) -> Value {
    dtype
        .to_descriptor()
        .map_or(json!({ "class": 5, "size": dtype.size(), "tag": "" }), |type_| {
            described(&type_)
        })
}

fn described(type_: &TypeDescriptor) -> Value {
    let size = type_.size();
    match type_ {
        TypeDescriptor::Integer(_) => json!({ "class": 0, "size": size, "order": 0, "sign": 1 }),
        TypeDescriptor::Unsigned(_) => json!({ "class": 0, "size": size, "order": 0, "sign": 0 }),
        TypeDescriptor::Float(_) => json!({ "class": 1, "size": size, "order": 0 }),
        TypeDescriptor::FixedAscii(_) => json!({ "class": 3, "size": size, "cset": 0, "strPad": 1, "vlen": false }),
        TypeDescriptor::FixedUnicode(_) => json!({ "class": 3, "size": size, "cset": 1, "strPad": 1, "vlen": false }),
        TypeDescriptor::VarLenAscii => json!({ "class": 3, "size": size, "cset": 0, "strPad": 0, "vlen": true }),
        TypeDescriptor::VarLenUnicode => json!({ "class": 3, "size": size, "cset": 1, "strPad": 0, "vlen": true }),
        TypeDescriptor::Boolean => {
            let base = json!({ "class": 0, "size": 1, "order": 0, "sign": 0 });
            json!({ "class": 8, "size": 1, "base": base, "members": { "FALSE": 0, "TRUE": 1 } })
        }
        TypeDescriptor::Enum(of) => {
            let members: Map<String, Value> = of.members.iter().map(|m| (m.name.clone(), json!(m.value))).collect();
            json!({ "class": 8, "size": size, "base": described(&of.base_type()), "members": members })
        }
        TypeDescriptor::Compound(of) => {
            let member = |field: &hdf5::types::CompoundField| {
                let mut member = described(&field.ty);
                member["name"] = json!(field.name);
                member
            };
            json!({ "class": 6, "size": size, "members": of.fields.iter().map(member).collect::<Vec<_>>() })
        }
        TypeDescriptor::FixedArray(of, length) => {
            json!({ "class": 10, "size": size, "base": described(of), "dims": [length] })
        }
        TypeDescriptor::VarLenArray(of) => json!({ "class": 9, "size": size, "base": described(of) }),
        TypeDescriptor::Reference(_) => json!({ "class": 7, "size": size }),
    }
}

/// What is wanted of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    start: usize,
    step: usize,
    count: usize,
    /// one place of it, which is no dimension of the answer
    index: bool,
}

impl Wanted {
    /// Values of the chunks of this length that hold what is wanted.
    fn touched(&self, chunk: usize) -> usize {
        if self.count == 0 {
            return 0;
        }
        let last = self.start + (self.count - 1) * self.step;
        let chunks = last / chunk - self.start / chunk + 1;
        chunks.min(self.count).saturating_mul(chunk)
    }

    /// The places from `first` on, `count` of them.
    fn part(&self, first: usize, count: usize) -> SliceOrIndex {
        match self.index {
            true => SliceOrIndex::Index(self.start),
            false => SliceOrIndex::SliceCount {
                start: self.start + first * self.step,
                step: self.step,
                count,
                block: 1,
            },
        }
    }
}

/// Reads a selection as NumPy writes it, without negative numbers; dimensions that are not named are wanted whole.
fn parse(selection: &str, shape: &[usize]) -> Result<Vec<Wanted>, BrowseError> {
    let wrong = |expected: String| BrowseError::Slice {
        selection: selection.chars().take(80).collect(),
        expected,
    };
    let parts: Vec<&str> = selection
        .split(',')
        .map(str::trim)
        .filter(|_| !selection.is_empty())
        .collect();
    if parts.len() > shape.len() {
        return Err(wrong(format!("the dataset has {} dimensions", shape.len())));
    }
    let number = |text: &str, default: usize| match text.is_empty() {
        true => Ok(default),
        false => text
            .parse()
            .map_err(|_| wrong(format!("{text:?} is no whole number from 0"))),
    };
    let one = |(dimension, length): (usize, &usize)| {
        let (part, length) = (parts.get(dimension).copied().unwrap_or(":"), *length);
        let Some((start, rest)) = part.split_once(':') else {
            let start: usize = part
                .parse()
                .map_err(|_| wrong(format!("{part:?} is no whole number from 0")))?;
            if start >= length {
                return Err(wrong(format!("dimension {dimension} has {length} places, from 0")));
            }
            return Ok(Wanted {
                start,
                step: 1,
                count: 1,
                index: true,
            });
        };
        let (end, step) = rest.split_once(':').unwrap_or((rest, ""));
        let (start, end, step) = (number(start, 0)?, number(end, length)?.min(length), number(step, 1)?);
        if step == 0 {
            return Err(wrong("a step of 1 or more".into()));
        }
        let count = end.saturating_sub(start).div_ceil(step);
        Ok(Wanted {
            start,
            step,
            count,
            index: false,
        })
    };
    shape.iter().enumerate().map(one).collect()
}

/// Lengths of what is decompressed at once: a chunk, a frame of a dataset that is put together from files of them, a value.
fn chunk_of(dataset: &Dataset, shape: &[usize]) -> Vec<usize> {
    let whole = || match (dataset.layout(), shape.len()) {
        (hdf5::dataset::Layout::Virtual, 3) => vec![1, shape[1], shape[2]],
        _ => vec![1; shape.len()],
    };
    let chunk = dataset
        .chunk()
        .filter(|chunk| chunk.len() == shape.len())
        .unwrap_or_else(whole);
    chunk.into_iter().map(|length| length.max(1)).collect()
}

/// The values of a dataset or attribute; of a slice a few rows at a time.
fn read(container: &Container, slice: Option<(&[Wanted], &[usize])>, shape: Vec<usize>) -> Result<Values, BrowseError> {
    let type_ = container.dtype()?.to_descriptor()?;
    if let TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii = type_ {
        let texts: Vec<VarLenUnicode> = pieces(container, slice, size_of::<VarLenUnicode>())?;
        return Ok(Values {
            descr: "",
            shape,
            bytes: Vec::new(),
            texts: texts.iter().map(|text| text.to_string()).collect(),
            number: |_| Value::Null,
            size: 0,
        });
    }
    with_cell!(
        type_,
        T => {
            let numbers: Vec<T> = pieces(container, slice, size_of::<T>())?;
            let mut bytes = Vec::with_capacity(numbers.len() * size_of::<T>());
            numbers.into_iter().for_each(|number| number.put(&mut bytes));
            Ok(Values { descr: T::DESCR, shape, bytes, texts: Vec::new(), number: T::text, size: size_of::<T>() })
        },
        Err(BrowseError::Type(type_.to_string()))
    )
}

fn pieces<T: hdf5::H5Type + Clone>(
    container: &Container,
    slice: Option<(&[Wanted], &[usize])>,
    size: usize,
) -> Result<Vec<T>, BrowseError> {
    let Some((wanted, chunk)) = slice.filter(|(wanted, _)| !wanted.is_empty()) else {
        return Ok(container.read_raw()?);
    };
    let count: usize = wanted.iter().map(|wanted| wanted.count).product();
    let mut values = Vec::with_capacity(count);
    if count == 0 {
        return Ok(values);
    }
    let rows = wanted[0].count;
    let row_bytes = count / rows * size;
    let at_once = (PIECE_BYTES / row_bytes.max(1))
        .max(1)
        .next_multiple_of(chunk[0])
        .min(rows);
    let mut first = 0;
    while first < rows {
        let taken = at_once.min(rows - first);
        let mut part = vec![wanted[0].part(first, taken)];
        part.extend(wanted[1..].iter().map(|wanted| wanted.part(0, wanted.count)));
        let array = container.read_slice::<T, _, IxDyn>(Selection::from(Hyperslab::from(part)))?;
        values.extend(array.iter().cloned());
        first += taken;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_read_as_numpy_writes_it_and_nothing_else_is() {
        let wanted = |start, step, count, index| Wanted {
            start,
            step,
            count,
            index,
        };
        let shape = [10, 20, 30];
        for (selection, expected) in [
            (
                "",
                [
                    wanted(0, 1, 10, false),
                    wanted(0, 1, 20, false),
                    wanted(0, 1, 30, false),
                ],
            ),
            (
                "3",
                [wanted(3, 1, 1, true), wanted(0, 1, 20, false), wanted(0, 1, 30, false)],
            ),
            (
                "3,:,5:7",
                [wanted(3, 1, 1, true), wanted(0, 1, 20, false), wanted(5, 1, 2, false)],
            ),
            (
                " 0:10:4 ,19,:40",
                [wanted(0, 4, 3, false), wanted(19, 1, 1, true), wanted(0, 1, 30, false)],
            ),
            (
                "9:3,::,::7",
                [wanted(9, 1, 0, false), wanted(0, 1, 20, false), wanted(0, 7, 5, false)],
            ),
        ] {
            assert_eq!(parse(selection, &shape).unwrap(), expected, "{selection}");
        }
        for bad in [
            "10",
            "-1",
            "a",
            "0:1:0",
            "0,0,0,0",
            ",",
            "1.5",
            "0x1",
            "0;1",
            "18446744073709551616",
        ] {
            assert!(parse(bad, &shape).is_err(), "{bad}");
        }
        assert!(parse("0", &[]).is_err() && parse("", &[]).unwrap().is_empty());
        let every_frame = wanted(0, 1, 10, false).touched(1) * wanted(5, 1, 1, true).touched(20);
        assert_eq!(
            every_frame, 200,
            "a pixel of every frame decodes every frame's row of chunks"
        );
        assert_eq!(wanted(0, 100, 3, false).touched(10), 30);
    }
}
