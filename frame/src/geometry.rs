//! Detector geometry in pyFAI's convention (Kieffer & Karkoulis 2013; Ashiotis et al. 2015, J. Appl. Cryst. 48:510):
//! axis 1 is the slow one (rows, y), axis 2 the fast one (columns, x); distances in metres, angles in radians; all
//! in f64.

use crate::pixel::Shape;
use serde::{Deserialize, Serialize};

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
    /// distance from the beam centre, millimetres
    #[serde(rename = "r_mm")]
    RadiusMm,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Unit; 5] = [
        Unit::QNmInv,
        Unit::QAngstromInv,
        Unit::TwoThetaDeg,
        Unit::TwoThetaRad,
        Unit::RadiusMm,
    ];

    /// The name that pyFAI uses.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::QNmInv => "q_nm^-1",
            Unit::QAngstromInv => "q_A^-1",
            Unit::TwoThetaDeg => "2th_deg",
            Unit::TwoThetaRad => "2th_rad",
            Unit::RadiusMm => "r_mm",
        }
    }

    /// Name of the quantity: q, 2theta or r.
    pub const fn quantity(self) -> &'static str {
        match self {
            Unit::QNmInv | Unit::QAngstromInv => "q",
            Unit::TwoThetaDeg | Unit::TwoThetaRad => "2theta",
            Unit::RadiusMm => "r",
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

    /// Laboratory position of the centre of a pixel, counted from 0, of a detector of `shape`.
    pub fn position(&self, row: f64, column: f64, shape: Shape) -> Position {
        let (p1, p2) = self.on_detector(row, column, shape);
        let (s1, c1) = self.rot1_rad.sin_cos();
        let (s2, c2) = self.rot2_rad.sin_cos();
        let (s3, c3) = self.rot3_rad.sin_cos();
        let l = self.dist_m;
        Position {
            t1: p1 * c2 * c3 + p2 * (c3 * s1 * s2 - c1 * s3) - l * (c1 * c3 * s2 + s1 * s3),
            t2: p1 * c2 * s3 + p2 * (c1 * c3 + s1 * s2 * s3) - l * (-(c3 * s1) + c1 * s2 * s3),
            t3: p1 * s2 - p2 * c2 * s1 + l * c1 * c2,
        }
    }

    /// A radial coordinate of every pixel centre, row by row.
    pub fn radial_map(&self, unit: Unit, shape: Shape) -> Result<Vec<f64>, NoWavelength> {
        let q_nm_inv = |two_theta: f64| -> Result<f64, NoWavelength> {
            let wavelength_m = self.wavelength_m.ok_or(NoWavelength { unit: unit.name() })?;
            Ok(4.0e-9 * std::f64::consts::PI * (two_theta / 2.0).sin() / wavelength_m)
        };
        self.pixels(shape)
            .map(|(row, column)| {
                let position = self.position(row, column, shape);
                Ok(match unit {
                    Unit::QNmInv => q_nm_inv(position.two_theta())?,
                    Unit::QAngstromInv => q_nm_inv(position.two_theta())? / 10.0,
                    Unit::TwoThetaDeg => position.two_theta().to_degrees(),
                    Unit::TwoThetaRad => position.two_theta(),
                    Unit::RadiusMm => self.dist_m * position.two_theta().tan() * 1e3,
                })
            })
            .collect()
    }

    /// Azimuth of every pixel centre, radians, row by row.
    pub fn chi_map(&self, shape: Shape) -> Vec<f64> {
        self.pixels(shape)
            .map(|(row, column)| self.position(row, column, shape).chi())
            .collect()
    }

    /// Solid angle of every pixel relative to one at normal incidence, row by row: `(L / √(p1² + p2² + L²))³`.
    pub fn solid_angle_map(&self, shape: Shape) -> Vec<f64> {
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
}
