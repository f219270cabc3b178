//! Detectors whose pixels lie anywhere: several panels, tilted against each other, described by the corners of every
//! pixel as in the NeXus files that pyFAI writes (`pixel_corners`, rows × columns × 4 × (z, y, x)).

use crate::pixel::Shape;

/// Corners of every pixel, metres; in the order (row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1).
#[derive(Clone, Debug, PartialEq)]
pub struct PixelCorners {
    shape: Shape,
    /// z along the detector's normal from its plane, y along the slow axis, x along the fast one
    corners: Vec<[[f32; 3]; 4]>,
}

/// Corners that describe no detector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PixelCornersError {
    /// another number of values than the shape needs
    #[error(
        "pixel_corners has {found} values; a detector of {shape} pixels needs {expected}: 4 corners of z, y, x each"
    )]
    WrongLength {
        /// shape of the detector
        shape: Shape,
        /// values needed
        expected: usize,
        /// values given
        found: usize,
    },
    /// a place that is no number
    #[error(
        "pixel_corners of row {row}, column {column} is not finite: write the place of every pixel, masked ones too"
    )]
    NotFinite {
        /// row of the pixel
        row: usize,
        /// column of the pixel
        column: usize,
    },
}

impl PixelCorners {
    /// From values in the order of the file: rows, columns, 4 corners, (z, y, x), metres.
    pub fn new(shape: Shape, values: &[f32]) -> Result<Self, PixelCornersError> {
        let expected = shape.pixels() * 12;
        if values.len() != expected {
            return Err(PixelCornersError::WrongLength {
                shape,
                expected,
                found: values.len(),
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let pixel = at / 12;
            return Err(PixelCornersError::NotFinite {
                row: pixel / shape.columns,
                column: pixel % shape.columns,
            });
        }
        let corners = values.as_chunks::<12>().0.iter();
        let corners = corners.map(|pixel| [0, 3, 6, 9].map(|at| [pixel[at], pixel[at + 1], pixel[at + 2]]));
        Ok(Self {
            shape,
            corners: corners.collect(),
        })
    }

    /// Pixels of the detector.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The corners of a pixel as (z, y, x), metres.
    pub fn of(&self, pixel: usize) -> [[f64; 3]; 4] {
        self.corners[pixel].map(|corner| corner.map(f64::from))
    }

    /// A place inside a pixel as (z, y, x), metres: `row` and `column` count from the centre of the first pixel.
    pub fn at(&self, row: f64, column: f64) -> [f64; 3] {
        let inside = |value: f64, count: usize| (value.round().max(0.0) as usize).min(count.max(1) - 1);
        let (whole_row, whole_column) = (inside(row, self.shape.rows), inside(column, self.shape.columns));
        let (down, right) = (row - whole_row as f64 + 0.5, column - whole_column as f64 + 0.5);
        let [a, b, c, d] = self.of(whole_row * self.shape.columns + whole_column);
        [0, 1, 2].map(|axis| {
            (1.0 - down) * ((1.0 - right) * a[axis] + right * d[axis])
                + down * ((1.0 - right) * b[axis] + right * c[axis])
        })
    }

    /// Unit vector along the normal of a pixel, (z, y, x), away from the sample.
    pub(crate) fn normal(&self, pixel: usize) -> [f64; 3] {
        let [a, b, c, d] = self.of(pixel);
        let along = |from: [f64; 3], to: [f64; 3]| [0, 1, 2].map(|axis| to[axis] - from[axis]);
        let ([z1, y1, x1], [z2, y2, x2]) = (along(a, c), along(b, d));
        let normal = [y1 * x2 - x1 * y2, x1 * z2 - z1 * x2, z1 * y2 - y1 * z2];
        let length = normal.iter().map(|part| part * part).sum::<f64>().sqrt();
        let sign = if normal[0] < 0.0 { -1.0 } else { 1.0 };
        normal.map(|part| sign * part / length.max(f64::MIN_POSITIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_between_corners_and_wrong_arrays_are_refused() {
        let shape = Shape::new(1, 2);
        let corner = |y: f32, x: f32| [0.5 * x, y, x];
        let pixel = |x: f32| {
            [
                corner(0.0, x),
                corner(1.0, x),
                corner(1.0, x + 1.0),
                corner(0.0, x + 1.0),
            ]
        };
        let values: Vec<f32> = [pixel(0.0), pixel(3.0)].into_iter().flatten().flatten().collect();
        let corners = PixelCorners::new(shape, &values).unwrap();
        assert_eq!(corners.at(0.0, 1.0), [1.75, 0.5, 3.5]);
        assert_eq!(corners.at(-0.5, 0.5), [1.5, 0.0, 3.0]);
        let [z, y, x] = corners.normal(0);
        assert!(y == 0.0 && (x / z + 0.5).abs() < 1e-12, "{z} {y} {x}");
        let message = PixelCorners::new(shape, &values[1..]).unwrap_err().to_string();
        assert!(
            message.contains("has 23 values; a detector of 1x2 pixels needs 24"),
            "{message}"
        );
        let mut broken = values;
        broken[13] = f32::NAN;
        let message = PixelCorners::new(shape, &broken).unwrap_err().to_string();
        assert!(message.contains("row 0, column 1 is not finite"), "{message}");
    }
}
