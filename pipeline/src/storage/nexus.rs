//! Small words of NeXus: groups with a class, fields with units, attributes.

use frame::PixelType;
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, Group, H5Type, Location};

type Result<T> = std::result::Result<T, hdf5::Error>;

/// Values per chunk of a column with one number per frame.
const COLUMN_CHUNK: usize = 4096;

/// Bytes of a chunk of a compressed image.
const PACKED_CHUNK_BYTES: usize = 1 << 20;

/// A NeXus group.
#[derive(Clone, Debug)]
pub(super) struct Nx(Group);

impl Nx {
    /// The root of a file.
    pub(super) fn root(file: &hdf5::File) -> Result<Nx> {
        Ok(Nx(file.group("/")?))
    }

    /// A group within this one, created with its class.
    pub(super) fn group(&self, name: &str, class: &str) -> Result<Nx> {
        let group = self.0.create_group(name)?;
        attr_text(&group, "NX_class", class)?;
        Ok(Nx(group))
    }

    /// A group that exists within this one.
    pub(super) fn child(&self, name: &str) -> Option<Nx> {
        self.has(name).then(|| self.0.group(name).ok()).flatten().map(Nx)
    }

    /// Whether a group or field of this name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.link_exists(name)
    }

    /// The HDF5 group.
    pub(super) fn group_ref(&self) -> &Group {
        &self.0
    }

    /// A text field.
    pub(super) fn text(&self, name: &str, value: &str) -> Result<Dataset> {
        let dataset = self.0.new_dataset::<VarLenUnicode>().create(name)?;
        dataset.write_scalar(&unicode(value))?;
        Ok(dataset)
    }

    /// Replaces a text field.
    pub(super) fn replace_text(&self, name: &str, value: &str) -> Result<()> {
        if self.has(name) {
            self.0.dataset(name)?.write_scalar(&unicode(value))
        } else {
            self.text(name, value).map(drop)
        }
    }

    /// A field of one number or flag.
    pub(super) fn value<T: H5Type>(&self, name: &str, value: T) -> Result<Dataset> {
        let dataset = self.0.new_dataset::<T>().create(name)?;
        dataset.write_scalar(&value)?;
        Ok(dataset)
    }

    /// A number with its unit.
    pub(super) fn quantity(&self, name: &str, value: f64, units: &str) -> Result<Dataset> {
        let dataset = self.value(name, value)?;
        attr_text(&dataset, "units", units)?;
        Ok(dataset)
    }

    /// A field of one dimension.
    pub(super) fn array<T: H5Type>(&self, name: &str, values: &[T]) -> Result<Dataset> {
        self.0.new_dataset_builder().with_data(values).create(name)
    }

    /// A field of one dimension with its unit.
    pub(super) fn quantities(&self, name: &str, values: &[f64], units: &str) -> Result<Dataset> {
        let dataset = self.array(name, values)?;
        attr_text(&dataset, "units", units)?;
        Ok(dataset)
    }

    /// An image, row by row.
    pub(super) fn image<T: H5Type>(&self, name: &str, shape: frame::Shape, values: &[T]) -> Result<Dataset> {
        let dataset = self
            .0
            .new_dataset::<T>()
            .shape((shape.rows, shape.columns))
            .create(name)?;
        dataset.write_raw(values)?;
        Ok(dataset)
    }

    /// An image of few different values, row by row, compressed as every reader of HDF5 knows.
    pub(super) fn packed_image<T: H5Type>(&self, name: &str, shape: frame::Shape, values: &[T]) -> Result<Dataset> {
        let rows = (PACKED_CHUNK_BYTES / (shape.columns * size_of::<T>()).max(1)).clamp(1, shape.rows.max(1));
        let new = self.0.new_dataset::<T>().shuffle().deflate(1);
        let new = new.chunk((rows, shape.columns)).shape((shape.rows, shape.columns));
        let dataset = new.create(name)?;
        dataset.write_raw(values)?;
        Ok(dataset)
    }

    /// An empty column with one number per frame, which a run that ends early makes shorter.
    pub(super) fn column<T: H5Type>(&self, name: &str, frames: usize, fill: T) -> Result<Dataset>
    where
        hdf5::types::OwnedDynValue: From<T>,
    {
        self.0
            .new_dataset::<T>()
            .chunk(column_chunk(frames))
            .fill_value(fill)
            .shape(frames)
            .create(name)
    }

    /// Another name for an object of the same file.
    pub(super) fn link(&self, target: &str, name: &str) -> Result<()> {
        self.0.link_hard(target, name)
    }
}

/// Values in a chunk of a column.
pub(super) fn column_chunk(frames: usize) -> usize {
    frames.clamp(1, COLUMN_CHUNK)
}

/// A dataset builder for pixels of this type. What is never written reads as [`missing_value`].
pub(super) fn empty_pixels(group: &Group, pixel_type: PixelType) -> hdf5::DatasetBuilderEmpty {
    match pixel_type {
        PixelType::U8 => group.new_dataset::<u8>().fill_value(u8::MAX),
        PixelType::U16 => group.new_dataset::<u16>().fill_value(u16::MAX),
        PixelType::U32 => group.new_dataset::<u32>().fill_value(u32::MAX),
        PixelType::I16 => group.new_dataset::<i16>().fill_value(i16::MAX),
        PixelType::I32 => group.new_dataset::<i32>().fill_value(i32::MAX),
        PixelType::F32 => group.new_dataset::<f32>().fill_value(f32::NAN),
    }
}

/// What a pixel of a frame that was never stored reads as.
pub(super) fn missing_value(pixel_type: PixelType) -> f64 {
    match pixel_type {
        PixelType::F32 => f64::NAN,
        integer => integer.max_value(),
    }
}

/// A text attribute.
pub(super) fn attr_text(at: &Location, name: &str, value: &str) -> Result<()> {
    at.new_attr::<VarLenUnicode>()
        .create(name)?
        .write_scalar(&unicode(value))
}

/// An attribute of several texts.
pub(super) fn attr_texts(at: &Location, name: &str, values: &[&str]) -> Result<()> {
    let values: Vec<VarLenUnicode> = values.iter().map(|v| unicode(v)).collect();
    at.new_attr::<VarLenUnicode>()
        .shape(values.len())
        .create(name)?
        .write_raw(&values)
}

/// An attribute of one number.
pub(super) fn attr<T: H5Type>(at: &Location, name: &str, value: &T) -> Result<()> {
    at.new_attr::<T>().create(name)?.write_scalar(value)
}

/// An attribute of three numbers.
pub(super) fn attr_vector(at: &Location, name: &str, value: [f64; 3]) -> Result<()> {
    at.new_attr::<f64>().shape(3).create(name)?.write_raw(&value)
}

/// HDF5 text holds no NUL.
fn unicode(text: &str) -> VarLenUnicode {
    text.replace('\0', " ").parse().unwrap_or_default()
}

/// `text` with everything that NeXus does not allow in a name replaced by `_`.
pub(super) fn valid_name(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    if name.is_empty() { "_".into() } else { name }
}
