//! What analysis says about a frame: named scalars and curves whose layout a recipe declares once, so
//! that results are filled in place and nothing is allocated while a run records.

use crate::header::FrameKind;
use crate::pixel::Shape;

/// A named number per frame.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ScalarField {
    /// name, `snake_case`
    pub name: String,
    /// unit as NeXus writes it; empty for a pure number
    pub unit: String,
}

/// A named curve per frame, or a picture.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CurveField {
    /// name, `snake_case`
    pub name: String,
    /// unit as NeXus writes it
    pub unit: String,
    /// number of points, all of them
    pub length: usize,
    /// rows of a picture, which lie behind each other; 1: a curve
    pub rows: usize,
}

/// The layout of every [`FrameResult`] of a run.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ResultLayout {
    /// one number each per frame
    pub scalars: Vec<ScalarField>,
    /// one curve each per frame
    pub curves: Vec<CurveField>,
}

impl ResultLayout {
    /// Adds a scalar and returns its index.
    pub fn scalar(&mut self, name: &str, unit: &str) -> usize {
        self.scalars.push(ScalarField {
            name: name.into(),
            unit: unit.into(),
        });
        self.scalars.len() - 1
    }

    /// Adds a curve and returns its index.
    pub fn curve(&mut self, name: &str, unit: &str, length: usize) -> usize {
        self.curves.push(CurveField {
            name: name.into(),
            unit: unit.into(),
            length,
            rows: 1,
        });
        self.curves.len() - 1
    }

    /// Adds a picture among the curves, row by row, and returns its index.
    pub fn picture(&mut self, name: &str, unit: &str, shape: Shape) -> usize {
        let index = self.curve(name, unit, shape.pixels());
        self.curves[index].rows = shape.rows;
        index
    }

    /// Bytes of the values of one frame.
    pub fn frame_bytes(&self) -> u64 {
        let curves: usize = self.curves.iter().map(|curve| curve.length * size_of::<f32>()).sum();
        (curves + self.scalars.len() * size_of::<f64>()) as u64
    }
}

/// The result of one frame.
#[derive(Clone, Debug)]
pub struct FrameResult {
    /// number of the frame within the run
    pub frame_number: u64,
    /// what the frame was taken for
    pub kind: FrameKind,
    /// whether the frame lacked parts
    pub partial: bool,
    /// whether the recipe decided against storing the frame
    pub vetoed: bool,
    /// version of the parameters that made the result
    pub parameters_version: u32,
    /// rotation angle in degrees; NaN where there is none
    pub angle_deg: f64,
    /// arrival of the frame, monotonic ns
    pub arrival_time_ns: u64,
    /// completion of the result, monotonic ns
    pub result_time_ns: u64,
    /// in the order of [`ResultLayout::scalars`]; NaN where there is none
    pub scalars: Box<[f64]>,
    /// in the order of [`ResultLayout::curves`]
    pub curves: Box<[Box<[f32]>]>,
}

impl FrameResult {
    /// An empty result of this layout.
    pub fn empty(layout: &ResultLayout) -> Self {
        Self {
            frame_number: 0,
            kind: FrameKind::Sample,
            partial: false,
            vetoed: false,
            parameters_version: 0,
            angle_deg: f64::NAN,
            arrival_time_ns: 0,
            result_time_ns: 0,
            scalars: vec![f64::NAN; layout.scalars.len()].into(),
            curves: layout.curves.iter().map(|c| vec![f32::NAN; c.length].into()).collect(),
        }
    }
}

/// A named picture that a recipe builds over many frames, for example a slice.
#[derive(Clone, Debug)]
pub struct Image {
    /// name, `snake_case`
    pub name: String,
    /// rows by columns
    pub shape: Shape,
    /// unit as NeXus writes it
    pub unit: String,
    /// row by row
    pub values: Vec<f32>,
    /// frames that it rests on
    pub frames_used: u64,
    /// frames that it will rest on when the run is complete; 0 where unknown
    pub frames_expected: u64,
}
