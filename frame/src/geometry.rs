//! Detector geometry in pyFAI's convention (Kieffer & Karkoulis 2013; Ashiotis et al. 2015, J. Appl. Cryst. 48:510):
//! axis 1 is the slow one (rows, y), axis 2 the fast one (columns, x); distances in metres, angles in radians; all
//! in f64.

use crate::pixel::Shape;
use crate::pixel_corners::PixelCorners;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Planck's constant times the speed of light, keV·m, from the exact SI values.
pub const HC_KEV_M: f64 = 12.398_419_843_320_026e-10;

/// Unit of a radial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// scattering vector, 1/nm
    #[serde(rename = "q_nm^-1")]
    QNmInv,
    /// scattering vector, 1/Å
    #[serde(rename = "q_A^-1")]
    QAngstromInv,
    /// scattering angle, degrees
    #[serde(rename = "2th_deg")]
    TwoThetaDeg,
    /// scattering angle, radians
    #[serde(rename = "2th_rad")]
    TwoThetaRad,
    /// distance from the beam, millimetres
    #[serde(rename = "r_mm")]
    RadiusMm,
    /// lattice spacing λ / (2 sin θ), Å; grows without bound towards the beam, so a range belongs to it
    #[serde(rename = "d_A")]
    DAngstrom,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Unit; 6] = [
        Unit::QNmInv,
        Unit::QAngstromInv,
        Unit::TwoThetaDeg,
        Unit::TwoThetaRad,
        Unit::RadiusMm,
        Unit::DAngstrom,
    ];

    /// The name that pyFAI uses.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::QNmInv => "q_nm^-1",
            Unit::QAngstromInv => "q_A^-1",
            Unit::TwoThetaDeg => "2th_deg",
            Unit::TwoThetaRad => "2th_rad",
            Unit::RadiusMm => "r_mm",
            Unit::DAngstrom => "d_A",
        }
    }

    /// Name of the quantity: q, 2theta, r or d.
    pub const fn quantity(self) -> &'static str {
        match self {
            Unit::QNmInv | Unit::QAngstromInv => "q",
            Unit::TwoThetaDeg | Unit::TwoThetaRad => "2theta",
            Unit::RadiusMm => "r",
            Unit::DAngstrom => "d",
        }
    }

    /// The unit as NeXus writes it.
    pub const fn nexus(self) -> &'static str {
        match self {
            Unit::QNmInv => "1/nm",
            Unit::QAngstromInv => "1/angstrom",
            Unit::TwoThetaDeg => "deg",
            Unit::TwoThetaRad => "rad",
            Unit::RadiusMm => "mm",
            Unit::DAngstrom => "angstrom",
        }
    }
}

/// Where the detector is and how its pixels lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Geometry {
    /// sample to detector along the normal, metres
    pub dist_m: f64,
    /// point of normal incidence along axis 1, metres
    pub poni1_m: f64,
    /// point of normal incidence along axis 2, metres
    pub poni2_m: f64,
    /// rotation about axis 1
    pub rot1_rad: f64,
    /// rotation about axis 2
    pub rot2_rad: f64,
    /// rotation about the beam
    pub rot3_rad: f64,
    /// wavelength, metres
    pub wavelength_m: Option<f64>,
    /// pixel size along axis 1, metres
    pub pixel1_m: f64,
    /// pixel size along axis 2, metres
    pub pixel2_m: f64,
    /// 1 to 4 as in Exif; 3 is pyFAI's default
    pub orientation: u8,
    /// shape, where the detector's model says it
    pub shape: Option<Shape>,
    /// name of the detector
    pub detector: Option<String>,
    /// corners of every pixel, where they do not lie on one plane grid: `orientation` and the pixel sizes then say
    /// nothing, and distance and point of normal incidence are those of the corners' plane z = 0
    #[serde(skip)]
    pub pixel_corners: Option<Arc<PixelCorners>>,
}

/// Radius and azimuth of the corners of every pixel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corners {
    /// (radius, azimuth in radians), of each vertex of the grid where there is one, else four per pixel
    pub points: Vec<[f64; 2]>,
    /// columns of pixels, where pixels share the vertices of a grid
    pub grid_columns: Option<usize>,
    /// whether going round a pixel's corners goes round the other way, as in orientations 2 and 4
    pub mirrored: bool,
}

impl Corners {
    /// The four corners of a pixel: (row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1).
    pub fn of(&self, pixel: usize) -> [[f64; 2]; 4] {
        match self.grid_columns {
            Some(columns) => {
                let above = pixel / columns * (columns + 1) + pixel % columns;
                let below = above + columns + 1;
                [above, below, below + 1, above + 1].map(|vertex| self.points[vertex])
            }
            None => [0, 1, 2, 3].map(|corner| self.points[4 * pixel + corner]),
        }
    }

    /// Number of pixels that the corners belong to.
    pub fn pixels(&self) -> usize {
        match self.grid_columns {
            Some(columns) => (self.points.len() / (columns + 1)).saturating_sub(1) * columns,
            None => self.points.len() / 4,
        }
    }
}

/// A unit needs the wavelength and nobody said it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unit} needs a wavelength and the geometry has none: add `Wavelength: <metres>` to the .poni file")]
pub struct NoWavelength {
    /// unit asked for
    pub unit: &'static str,
}

/// Cartesian position of a pixel centre in the laboratory: `t1`, `t2` across the beam, `t3` along it, metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// across the beam, along axis 1
    pub t1: f64,
    /// across the beam, along axis 2
    pub t2: f64,
    /// along the beam
    pub t3: f64,
}

impl Position {
    /// Scattering angle, radians.
    pub fn two_theta(self) -> f64 {
        self.t1.hypot(self.t2).atan2(self.t3)
    }

    /// Azimuth, radians, from -π to π.
    pub fn chi(self) -> f64 {
        self.t1.atan2(self.t2)
    }
}

impl Geometry {
    /// Rows and columns as counted by pyFAI for this orientation, for a detector of `shape`.
    fn oriented(&self, row: f64, column: f64, shape: Shape) -> (f64, f64) {
        let (last_row, last_column) = (shape.rows as f64 - 1.0, shape.columns as f64 - 1.0);
        match self.orientation {
            1 => (last_row - row, last_column - column),
            2 => (last_row - row, column),
            4 => (row, last_column - column),
            _ => (row, column),
        }
    }

    /// Position of a place on the detector in its own plane relative to the point of normal incidence, metres.
    fn on_detector(&self, row: f64, column: f64, shape: Shape) -> (f64, f64) {
        let (row, column) = self.oriented(row, column, shape);
        (
            (row + 0.5) * self.pixel1_m - self.poni1_m,
            (column + 0.5) * self.pixel2_m - self.poni2_m,
        )
    }

    /// Laboratory position of a place on a detector of `shape`; rows and columns count from the centre of the first pixel.
    pub fn position(&self, row: f64, column: f64, shape: Shape) -> Position {
        if let Some(corners) = &self.pixel_corners {
            return self.position_of(corners.at(row, column));
        }
        let (p1, p2) = self.on_detector(row, column, shape);
        self.turned(p1, p2, self.dist_m)
    }

    /// Laboratory position of a place (z, y, x) of the detector's own frame, metres.
    fn position_of(&self, [z, y, x]: [f64; 3]) -> Position {
        self.turned(y - self.poni1_m, x - self.poni2_m, self.dist_m + z)
    }

    fn turned(&self, p1: f64, p2: f64, l: f64) -> Position {
        let (s1, c1) = self.rot1_rad.sin_cos();
        let (s2, c2) = self.rot2_rad.sin_cos();
        let (s3, c3) = self.rot3_rad.sin_cos();
        Position {
            t1: p1 * c2 * c3 + p2 * (c3 * s1 * s2 - c1 * s3) - l * (c1 * c3 * s2 + s1 * s3),
            t2: p1 * c2 * s3 + p2 * (c1 * c3 + s1 * s2 * s3) - l * (-(c3 * s1) + c1 * s2 * s3),
            t3: p1 * s2 - p2 * c2 * s1 + l * c1 * c2,
        }
    }

    /// A radial coordinate of every pixel centre, row by row.
    pub fn radial_map(&self, unit: Unit, shape: Shape) -> Result<Vec<f64>, NoWavelength> {
        self.pixels(shape)
            .map(|(row, column)| self.radial(self.position(row, column, shape), unit))
            .collect()
    }

    fn radial(&self, position: Position, unit: Unit) -> Result<f64, NoWavelength> {
        let two_theta = position.two_theta();
        let q_nm_inv = || -> Result<f64, NoWavelength> {
            let wavelength_m = self.wavelength_m.ok_or(NoWavelength { unit: unit.name() })?;
            Ok(4.0e-9 * std::f64::consts::PI * (two_theta / 2.0).sin() / wavelength_m)
        };
        Ok(match unit {
            Unit::QNmInv => q_nm_inv()?,
            Unit::QAngstromInv => q_nm_inv()? / 10.0,
            Unit::TwoThetaDeg => two_theta.to_degrees(),
            Unit::TwoThetaRad => two_theta,
            // Where the pixel is, not where its ray would meet a detector that stands upright.
            Unit::RadiusMm => position.t1.hypot(position.t2) * 1e3,
            Unit::DAngstrom => 20.0 * std::f64::consts::PI / q_nm_inv()?,
        })
    }

    /// Radius in a unit and azimuth of the corners of every pixel.
    pub fn corners(&self, unit: Unit, shape: Shape) -> Result<Corners, NoWavelength> {
        let place = |position: Position| Ok([self.radial(position, unit)?, position.chi()]);
        if let Some(corners) = &self.pixel_corners {
            let all = (0..shape.pixels()).flat_map(|pixel| corners.of(pixel));
            return Ok(Corners {
                points: all
                    .map(|corner| place(self.position_of(corner)))
                    .collect::<Result<_, _>>()?,
                grid_columns: None,
                mirrored: false,
            });
        }
        let vertices =
            (0..=shape.rows).flat_map(|row| (0..=shape.columns).map(move |column| (row as f64, column as f64)));
        let points = vertices.map(|(row, column)| place(self.position(row - 0.5, column - 0.5, shape)));
        Ok(Corners {
            points: points.collect::<Result<_, _>>()?,
            grid_columns: Some(shape.columns),
            mirrored: matches!(self.orientation, 2 | 4),
        })
    }

    /// Azimuth of every pixel centre, radians, row by row.
    pub fn chi_map(&self, shape: Shape) -> Vec<f64> {
        self.pixels(shape)
            .map(|(row, column)| self.position(row, column, shape).chi())
            .collect()
    }

    /// Solid angle of every pixel relative to one at normal incidence, row by row: `(L / √(p1² + p2² + L²))³`. Where
    /// corners are given `cos α (L / distance)²`, α between the ray and the pixel's normal; sizes belong in the flat.
    pub fn solid_angle_map(&self, shape: Shape) -> Vec<f64> {
        if let Some(corners) = &self.pixel_corners {
            let of = |pixel: usize, (row, column): (f64, f64)| {
                let [z, y, x] = corners.at(row, column);
                let ray = [self.dist_m + z, y - self.poni1_m, x - self.poni2_m];
                let distance2: f64 = ray.iter().map(|part| part * part).sum();
                let normal = corners.normal(pixel);
                let along: f64 = ray.iter().zip(normal).map(|(ray, normal)| ray * normal).sum();
                along.abs() / distance2.sqrt() * self.dist_m.powi(2) / distance2
            };
            return self
                .pixels(shape)
                .enumerate()
                .map(|(pixel, at)| of(pixel, at))
                .collect();
        }
        self.pixels(shape)
            .map(|(row, column)| {
                let (p1, p2) = self.on_detector(row, column, shape);
                let l = self.dist_m;
                (l / (p1 * p1 + p2 * p2 + l * l).sqrt()).powi(3)
            })
            .collect()
    }

    /// Polarisation correction of every pixel, row by row: `½ [1 + cos²2θ − f cos 2(χ + χ₀) sin²2θ]`, `factor` from
    /// -1 (vertical) to 1 (horizontal), `axis_offset_rad` from the horizontal.
    pub fn polarization_map(&self, factor: f64, axis_offset_rad: f64, shape: Shape) -> Vec<f64> {
        self.pixels(shape)
            .map(|(row, column)| {
                let position = self.position(row, column, shape);
                let cos2 = position.two_theta().cos().powi(2);
                let azimuth = (2.0 * (position.chi() + axis_offset_rad)).cos();
                0.5 * (1.0 + cos2 - factor * azimuth * (1.0 - cos2))
            })
            .collect()
    }

    /// Where the direct beam meets the detector: row and column counted from the centre of the first pixel.
    /// `None` where it misses the detector's plane.
    pub fn beam_center_px(&self, shape: Shape) -> Option<(f64, f64)> {
        let (s1, c1) = self.rot1_rad.sin_cos();
        let (s2, c2) = self.rot2_rad.sin_cos();
        if (c1 * c2).abs() < 1e-12 {
            return None;
        }
        // Solves t1 = t2 = 0; rot3 turns about the beam and moves nothing here.
        let p1 = self.dist_m * s2 / c2 * (c1 + s1 * s1 / c1);
        let p2 = -self.dist_m * s1 / c1;
        let row = (p1 + self.poni1_m) / self.pixel1_m - 0.5;
        let column = (p2 + self.poni2_m) / self.pixel2_m - 0.5;
        Some(self.oriented(row, column, shape))
    }

    fn pixels(&self, shape: Shape) -> impl Iterator<Item = (f64, f64)> + use<> {
        (0..shape.rows).flat_map(move |row| (0..shape.columns).map(move |column| (row as f64, column as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tilted(orientation: u8) -> Geometry {
        Geometry {
            dist_m: 0.2,
            poni1_m: 0.03,
            poni2_m: 0.05,
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
        }
    }

    #[test]
    fn the_direct_beam_scatters_by_no_angle() {
        let shape = Shape::new(1000, 800);
        for orientation in 1..=4 {
            let geometry = tilted(orientation);
            let (row, column) = geometry.beam_center_px(shape).unwrap();
            let angle = geometry.position(row, column, shape).two_theta();
            assert!(angle.abs() < 1e-12, "orientation {orientation}: {angle}");
        }
    }

    #[test]
    fn units_agree_with_each_other() {
        let (geometry, shape) = (tilted(3), Shape::new(7, 5));
        let map = |unit| geometry.radial_map(unit, shape).unwrap();
        let (q, angstrom, degrees) = (map(Unit::QNmInv), map(Unit::QAngstromInv), map(Unit::TwoThetaDeg));
        for i in 0..shape.pixels() {
            assert!((q[i] / 10.0 - angstrom[i]).abs() < 1e-14);
            let again = 4.0 * std::f64::consts::PI / 0.1 * (degrees[i].to_radians() / 2.0).sin();
            assert!((again / q[i] - 1.0).abs() < 1e-14);
        }
        let blind = Geometry {
            wavelength_m: None,
            ..geometry
        };
        assert!(blind.radial_map(Unit::QNmInv, shape).is_err() && blind.radial_map(Unit::TwoThetaDeg, shape).is_ok());
    }

    #[test]
    fn a_flat_detector_by_its_corners_is_the_flat_detector() {
        let (mut geometry, shape) = (tilted(3), Shape::new(5, 4));
        let corner = |row: usize, column: usize| [0.0, row as f32 * 1e-4, column as f32 * 1.2e-4];
        let pixel = |index: usize| {
            let (row, column) = (index / shape.columns, index % shape.columns);
            [
                corner(row, column),
                corner(row + 1, column),
                corner(row + 1, column + 1),
                corner(row, column + 1),
            ]
        };
        let values: Vec<f32> = (0..shape.pixels()).flat_map(pixel).flatten().collect();
        let all = |geometry: &Geometry| {
            let corners = geometry.corners(Unit::QNmInv, shape).unwrap();
            assert_eq!(corners.pixels(), shape.pixels());
            let corners = (0..shape.pixels()).flat_map(|pixel| corners.of(pixel)).flatten();
            let maps = [
                geometry.radial_map(Unit::QNmInv, shape).unwrap(),
                geometry.solid_angle_map(shape),
            ];
            maps.concat().into_iter().chain(corners).collect::<Vec<f64>>()
        };
        let flat = all(&geometry);
        geometry.pixel_corners = Some(Arc::new(PixelCorners::new(shape, &values).unwrap()));
        for (flat, corners) in flat.iter().zip(all(&geometry)) {
            assert!((flat / corners - 1.0).abs() < 1e-6, "{flat} {corners}");
        }
    }
}
