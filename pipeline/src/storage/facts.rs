//! Where the detector stands, put together from the calibrated geometry and from what the detector says.
//!
//! Laboratory frame of NeXus: z along the beam, y up, x to the left of who looks downstream. pyFAI's axes are
//! 1 = y (slow), 2 = -x (fast), 3 = z; its `rot1` and `rot2` turn left-handed and `rot3` right-handed (Kieffer
//! and Wright, Powder Diffr. 28 (2013) S339). Positions are those of a pixel's outer corner.

use frame::{Geometry, StreamDescription};

/// Facts for the instrument; `None` where nobody told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) pixel_size_slow_m: Option<f64>,
    pub(super) pixel_size_fast_m: Option<f64>,
    /// along the direct beam
    pub(super) distance_m: Option<f64>,
    pub(super) wavelength_m: Option<f64>,
    /// pixels from the outer corner of pixel (0, 0), along the fast axis
    pub(super) beam_center_x_px: Option<f64>,
    /// the same along the slow axis
    pub(super) beam_center_y_px: Option<f64>,
    pub(super) fast: [f64; 3],
    pub(super) slow: [f64; 3],
    /// from the foot of the distance to the outer corner of pixel (0, 0), metres, before any rotation
    pub(super) corner_m: Option<[f64; 3]>,
    /// from the sample to the detector's plane, metres
    pub(super) plane_distance_m: Option<f64>,
    /// name, axis, angle in rad; the first one turns first
    pub(super) rotations: Vec<(&'static str, [f64; 3], f64)>,
}

impl Facts {
    /// What geometry and detector say; the geometry goes first.
    pub(super) fn new(stream: &StreamDescription, geometry: Option<&Geometry>) -> Self {
        match geometry {
            // Panels that lie anywhere are on no one plane: where the detector stands is what it says itself.
            Some(geometry) if geometry.pixel_corners.is_some() => Self {
                pixel_size_slow_m: Some(geometry.pixel1_m),
                pixel_size_fast_m: Some(geometry.pixel2_m),
                wavelength_m: geometry.wavelength_m.or(stream.detector.wavelength_m),
                ..Self::nominal(stream)
            },
            Some(geometry) => Self::calibrated(stream, geometry),
            None => Self::nominal(stream),
        }
    }

    /// The detector upright in the beam, the first row on top, as detectors describe themselves.
    fn nominal(stream: &StreamDescription) -> Self {
        let detector = &stream.detector;
        let (fast_m, slow_m) = (detector.pixel_size_fast_m, detector.pixel_size_slow_m);
        let corner = |((x, y), (fast_m, slow_m)): ((f64, f64), (f64, f64))| [x * fast_m, y * slow_m, 0.0];
        let center = detector.beam_center_x_px.zip(detector.beam_center_y_px);
        Self {
            pixel_size_slow_m: slow_m,
            pixel_size_fast_m: fast_m,
            distance_m: detector.distance_m,
            wavelength_m: detector.wavelength_m,
            beam_center_x_px: detector.beam_center_x_px,
            beam_center_y_px: detector.beam_center_y_px,
            fast: [-1.0, 0.0, 0.0],
            slow: [0.0, -1.0, 0.0],
            corner_m: center.zip(fast_m.zip(slow_m)).map(corner),
            plane_distance_m: detector.distance_m,
            rotations: Vec::new(),
        }
    }

    /// The detector where calibration puts it: its rows and columns as pyFAI counts them for its orientation.
    fn calibrated(stream: &StreamDescription, geometry: &Geometry) -> Self {
        let nominal = Self::nominal(stream);
        let (slow_m, fast_m) = (geometry.pixel1_m, geometry.pixel2_m);
        let flip_rows = matches!(geometry.orientation, 1 | 2);
        let flip_columns = matches!(geometry.orientation, 1 | 4);
        let first = |flip: bool, pixels: usize, size_m: f64| if flip { pixels as f64 * size_m } else { 0.0 };
        // Outer corner of pixel (0, 0) in the detector's plane, along axes 1 and 2.
        let corner1 = first(flip_rows, stream.shape.rows, slow_m) - geometry.poni1_m;
        let corner2 = first(flip_columns, stream.shape.columns, fast_m) - geometry.poni2_m;
        let sign = |flip: bool| if flip { -1.0 } else { 1.0 };
        let center = geometry.beam_center_px(stream.shape);
        let along_beam = geometry.rot1_rad.cos() * geometry.rot2_rad.cos();
        let rotations = [
            ("rot1", [0.0, -1.0, 0.0], geometry.rot1_rad),
            ("rot2", [1.0, 0.0, 0.0], geometry.rot2_rad),
            ("rot3", [0.0, 0.0, 1.0], geometry.rot3_rad),
        ];
        Self {
            pixel_size_slow_m: Some(slow_m),
            pixel_size_fast_m: Some(fast_m),
            distance_m: Some(geometry.dist_m / along_beam),
            wavelength_m: geometry.wavelength_m.or(nominal.wavelength_m),
            // The geometry counts from the centre of the first pixel.
            beam_center_x_px: center.map(|(_, column)| column + 0.5),
            beam_center_y_px: center.map(|(row, _)| row + 0.5),
            fast: [-sign(flip_columns), 0.0, 0.0],
            slow: [0.0, sign(flip_rows), 0.0],
            corner_m: Some([-corner2, corner1, 0.0]),
            plane_distance_m: Some(geometry.dist_m),
            rotations: rotations.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame::stream::DetectorDescription;
    use frame::{Compression, PixelType, Shape};

    fn stream(shape: Shape) -> StreamDescription {
        StreamDescription {
            origin: "test".into(),
            shape,
            pixel_type: PixelType::U16,
            compression: Compression::None,
            payload_bytes_max: 2 * shape.pixels(),
            frames_expected: 1,
            darks: 0,
            flats: 0,
            angles_deg: Vec::new(),
            kinds: Vec::new(),
            pausable: true,
            parts: 0,
            saturation_value: None,
            mask: None,
            detector: DetectorDescription::default(),
            metadata: Default::default(),
        }
    }

    /// Rodrigues' formula.
    fn turn(v: [f64; 3], k: [f64; 3], angle: f64) -> [f64; 3] {
        let (s, c) = angle.sin_cos();
        let dot: f64 = (0..3).map(|i| k[i] * v[i]).sum();
        let cross = |i: usize| k[(i + 1) % 3] * v[(i + 2) % 3] - k[(i + 2) % 3] * v[(i + 1) % 3];
        std::array::from_fn(|i| v[i] * c + cross(i) * s + k[i] * dot * (1.0 - c))
    }

    #[test]
    fn the_chain_puts_every_pixel_where_the_geometry_does() {
        let shape = Shape::new(31, 17);
        for orientation in 1..=4 {
            let geometry = Geometry {
                dist_m: 0.2,
                poni1_m: 0.003,
                poni2_m: -0.005,
                rot1_rad: 0.2,
                rot2_rad: -0.3,
                rot3_rad: 0.4,
                wavelength_m: Some(1e-10),
                pixel1_m: 100e-6,
                pixel2_m: 120e-6,
                orientation,
                shape: None,
                detector: None,
                pixel_corners: None,
            };
            let facts = Facts::new(&stream(shape), Some(&geometry));
            let corner = facts.corner_m.unwrap();
            for (row, column) in [(0.0, 0.0), (30.0, 0.0), (0.0, 16.0), (12.5, 3.0)] {
                let (fast_m, slow_m) = (geometry.pixel2_m * (column + 0.5), geometry.pixel1_m * (row + 0.5));
                let mut place: [f64; 3] =
                    std::array::from_fn(|i| corner[i] + facts.fast[i] * fast_m + facts.slow[i] * slow_m);
                place[2] += facts.plane_distance_m.unwrap();
                for (_, axis, angle) in &facts.rotations {
                    place = turn(place, *axis, *angle);
                }
                let expected = geometry.position(row, column, shape);
                for (found, expected) in place.iter().zip([-expected.t2, expected.t1, expected.t3]) {
                    assert!(
                        (found - expected).abs() < 1e-14,
                        "{orientation} ({row}, {column}): {found} {expected}"
                    );
                }
            }
        }
    }
}
