//! Frames and slices as `.npy` and `.png`: decoding, binning for the page, and grey levels.

use frame::{Compression, FrameHeader, PixelType, Shape, codec};

/// Pixels that percentiles are taken from.
const PERCENTILE_SAMPLE: usize = 100_000;

/// A frame taken out of the ring or read from a file: plain pixels.
#[derive(Clone, Debug)]
pub struct Picture {
    /// shape
    pub shape: Shape,
    /// pixel type of `bytes`
    pub pixel_type: PixelType,
    /// little-endian pixels, row by row
    pub bytes: Vec<u8>,
}

/// The pixels of a payload, decompressed where it is compressed.
pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Picture, String> {
    let pixel_type = PixelType::from_code(header.pixel_type).ok_or("unknown pixel type")?;
    let compression = Compression::from_code(header.compression).ok_or("unknown compression")?;
    let shape = header.shape();
    let bytes = match compression {
        Compression::None => payload.to_vec(),
        Compression::BitshuffleLz4 | Compression::BitshuffleZstd => {
            let beneath = codec::Beneath::of(compression).unwrap_or(codec::Beneath::Lz4);
            let mut bytes = vec![0; shape.pixels() * pixel_type.bytes()];
            codec::decompress(
                beneath,
                payload,
                pixel_type.bytes(),
                &mut bytes,
                &mut codec::Scratch::default(),
            )
            .map_err(|e| e.to_string())?;
            bytes
        }
    };
    Ok(Picture {
        shape,
        pixel_type,
        bytes,
    })
}

macro_rules! for_pixels {
    ($picture:expr, $t:ident, $values:ident => $body:expr) => {{
        macro_rules! typed {
            ($ty:ty) => {{
                type $t = $ty;
                let $values = $picture
                    .bytes
                    .as_chunks::<{ size_of::<$ty>() }>()
                    .0
                    .iter()
                    .map(|b| <$ty>::from_le_bytes(*b));
                $body
            }};
        }
        match $picture.pixel_type {
            PixelType::U8 => typed!(u8),
            PixelType::U16 => typed!(u16),
            PixelType::U32 => typed!(u32),
            PixelType::I16 => typed!(i16),
            PixelType::I32 => typed!(i32),
            PixelType::F32 => typed!(f32),
        }
    }};
}

impl Picture {
    /// The picture reduced by the smallest whole factor that brings it to `pixels_max` pixels; a block
    /// keeps its largest value, so that spots stay visible. Returns the factor too.
    pub fn reduced(self, pixels_max: usize) -> (Picture, usize) {
        self.reduced_without(pixels_max, |_| false)
    }

    /// The same without the pixels that `left_out` names by their index; a block of none but those has 0.
    pub fn reduced_without(self, pixels_max: usize, left_out: impl Fn(usize) -> bool) -> (Picture, usize) {
        let factor = factor(self.shape, pixels_max);
        if factor == 1 {
            return (self, 1);
        }
        let shape = Shape::new(self.shape.rows.div_ceil(factor), self.shape.columns.div_ceil(factor));
        let bytes = for_pixels!(self, T, values => {
            let mut out: Vec<Option<T>> = vec![None; shape.pixels()];
            for (index, value) in values.enumerate().filter(|(index, _)| !left_out(*index)) {
                let (row, column) = (index / self.shape.columns, index % self.shape.columns);
                let slot = &mut out[row / factor * shape.columns + column / factor];
                if slot.is_none_or(|best| value > best) {
                    *slot = Some(value);
                }
            }
            out.into_iter().flat_map(|v| v.unwrap_or_default().to_le_bytes()).collect()
        });
        (
            Picture {
                shape,
                pixel_type: self.pixel_type,
                bytes,
            },
            factor,
        )
    }

    /// Values as f64, row by row.
    pub fn values(&self) -> Vec<f64> {
        for_pixels!(self, T, values => values.map(|v: T| f64::from(v)).collect())
    }

    /// NumPy's `.npy`, version 1.0.
    pub fn npy(&self) -> Vec<u8> {
        npy(
            self.pixel_type.numpy_descr(),
            &[self.shape.rows, self.shape.columns],
            &self.bytes,
        )
    }

    /// A TIFF of one page with every value as it is.
    pub fn tiff(&self) -> Result<Vec<u8>, String> {
        use tiff::encoder::{TiffEncoder, colortype};
        let mut out = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut out).map_err(|error| error.to_string())?;
        let (width, height) = (self.shape.columns as u32, self.shape.rows as u32);
        macro_rules! page {
            ($colour:ident, $type:ty) => {{
                let pieces = self.bytes.as_chunks::<{ size_of::<$type>() }>().0;
                let values: Vec<$type> = pieces.iter().map(|b| <$type>::from_le_bytes(*b)).collect();
                encoder.write_image::<colortype::$colour>(width, height, &values)
            }};
        }
        match self.pixel_type {
            PixelType::U8 => page!(Gray8, u8),
            PixelType::U16 => page!(Gray16, u16),
            PixelType::U32 => page!(Gray32, u32),
            PixelType::I16 => page!(GrayI16, i16),
            PixelType::I32 => page!(GrayI32, i32),
            PixelType::F32 => page!(Gray32Float, f32),
        }
        .map_err(|error| error.to_string())?;
        Ok(out.into_inner())
    }

    /// An 8-bit grey picture from the 1st to the 99.5th percentile, on a square-root scale for counts. Pixels that
    /// `masked` rejects are black and take no part in the percentiles.
    pub fn png(&self, masked: impl Fn(usize) -> bool, square_root: bool) -> Result<Vec<u8>, String> {
        let values = self.values();
        // A sample finds the percentiles well enough; an odd step meets every column.
        let step = (values.len() / PERCENTILE_SAMPLE).max(1) | 1;
        let mut good: Vec<f64> = (0..values.len())
            .step_by(step)
            .filter(|i| values[*i].is_finite() && !masked(*i))
            .map(|i| values[i])
            .collect();
        good.sort_by(f64::total_cmp);
        let at = |fraction: f64| {
            good.get(((good.len().max(1) - 1) as f64 * fraction) as usize)
                .copied()
                .unwrap_or(0.0)
        };
        let (low, high) = (at(0.01), at(0.995));
        let span = if high > low { high - low } else { 1.0 };
        let grey: Vec<u8> = values
            .iter()
            .enumerate()
            .map(|(i, v)| {
                if masked(i) || !v.is_finite() {
                    return 0;
                }
                let level = ((v - low) / span).clamp(0.0, 1.0);
                ((if square_root { level.sqrt() } else { level }) * 255.0) as u8
            })
            .collect();
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.shape.columns as u32, self.shape.rows as u32);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder
            .write_header()
            .and_then(|mut w| w.write_image_data(&grey))
            .map_err(|e| e.to_string())?;
        Ok(out)
    }

    /// A picture of single-precision values, reduced by the smallest whole factor that brings it to `pixels_max` pixels: a block
    /// has the mean of its values. Returns the factor too.
    pub fn mean_of(shape: Shape, values: &[f32], pixels_max: usize) -> (Picture, usize) {
        let factor = factor(shape, pixels_max);
        if factor == 1 {
            return (Picture::from_f32(shape, values), 1);
        }
        let small = Shape::new(shape.rows.div_ceil(factor), shape.columns.div_ceil(factor));
        let mut sums = vec![(0.0f64, 0u32); small.pixels()];
        for (row, line) in values.chunks_exact(shape.columns).enumerate() {
            for (block, part) in line.chunks(factor).enumerate() {
                let (sum, count) = &mut sums[row / factor * small.columns + block];
                *sum += part.iter().map(|value| f64::from(*value)).sum::<f64>();
                *count += part.len() as u32;
            }
        }
        let means: Vec<f32> = sums
            .iter()
            .map(|(sum, count)| (sum / f64::from(*count)) as f32)
            .collect();
        (Picture::from_f32(small, &means), factor)
    }

    /// A picture of single-precision values.
    pub fn from_f32(shape: Shape, values: &[f32]) -> Picture {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Picture {
            shape,
            pixel_type: PixelType::F32,
            bytes,
        }
    }
}

/// The smallest whole factor that brings `shape` to `pixels_max` pixels.
pub fn factor(shape: Shape, pixels_max: usize) -> usize {
    let mut factor = 1;
    while shape.rows.div_ceil(factor) * shape.columns.div_ceil(factor) > pixels_max.max(1) {
        factor += 1;
    }
    factor
}

/// Mask bits reduced like a picture: a block has the bits of all its pixels.
pub fn reduced_mask(mask: &frame::PixelMask, pixels_max: usize) -> (Shape, Vec<u32>, usize) {
    let full = mask.shape();
    let factor = factor(full, pixels_max);
    let shape = Shape::new(full.rows.div_ceil(factor), full.columns.div_ceil(factor));
    let mut bits = vec![0; shape.pixels()];
    for (index, value) in mask.bits().iter().enumerate() {
        let (row, column) = (index / full.columns, index % full.columns);
        bits[row / factor * shape.columns + column / factor] |= value;
    }
    (shape, bits, factor)
}

/// Whether a mask rejects all of the block that a pixel of the reduced picture stands for.
pub fn rejects_blocks(mask: &frame::PixelMask, factor: usize) -> Vec<bool> {
    let full = mask.shape();
    let shape = Shape::new(full.rows.div_ceil(factor), full.columns.div_ceil(factor));
    let mut all = vec![true; shape.pixels()];
    for index in (0..full.pixels()).filter(|index| !mask.rejects(*index)) {
        let (row, column) = (index / full.columns, index % full.columns);
        all[row / factor * shape.columns + column / factor] = false;
    }
    all
}

/// NumPy's `.npy` format, version 1.0, for a C-ordered array.
pub fn npy(descr: &str, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
        dims.join(" ")
    );
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding % 64));
    header.push('\n');
    let mut out = Vec::with_capacity(10 + header.len() + bytes.len());
    out.extend_from_slice(b"\x93NUMPY\x01\x00");
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduction_keeps_the_brightest_pixel_of_each_block() {
        let values: Vec<u16> = (0..35).collect();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let picture = Picture {
            shape: Shape::new(5, 7),
            pixel_type: PixelType::U16,
            bytes,
        };
        let (small, factor) = picture.reduced(12);
        assert_eq!((small.shape, factor), (Shape::new(3, 4), 2));
        assert_eq!(
            small.values(),
            [8., 10., 12., 13., 22., 24., 26., 27., 29., 31., 33., 34.]
        );
    }

    #[test]
    fn blocks_of_a_slice_have_their_mean_and_masked_pixels_take_no_part_in_a_frame() {
        let values: Vec<f32> = (0..35).map(|value| value as f32).collect();
        let (small, factor) = Picture::mean_of(Shape::new(5, 7), &values, 12);
        assert_eq!((small.shape, factor), (Shape::new(3, 4), 2));
        let means = [4., 6., 8., 9.5, 18., 20., 22., 23.5, 28.5, 30.5, 32.5, 34.];
        assert_eq!(small.values(), means);
        assert_eq!(Picture::mean_of(Shape::new(5, 7), &values, 35).1, 1);
        let bytes = (0..35u16).flat_map(|v| v.to_le_bytes()).collect();
        let picture = Picture {
            shape: Shape::new(5, 7),
            pixel_type: PixelType::U16,
            bytes,
        };
        // The last block is its only pixel.
        let (small, _) = picture.reduced_without(12, |index| [8, 10, 34].contains(&index));
        assert_eq!(
            small.values(),
            [7., 9., 12., 13., 22., 24., 26., 27., 29., 31., 33., 0.]
        );
    }

    #[test]
    fn npy_header_is_a_multiple_of_64_bytes() {
        for columns in [1, 10, 1000, 123_456] {
            let file = npy("<u2", &[1, columns], &[]);
            assert_eq!(file.len() % 64, 0, "{columns}");
            assert_eq!(file.last(), Some(&b'\n'));
        }
    }
}
