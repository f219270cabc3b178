//! Reduced data beside the raw data: one row per frame, buffered in blocks.

use super::CurveAxis;
use super::error::{At, StoreError};
use super::h5::RowWriter;
use super::nexus::{self, Nx};
use crate::grid::{Crystal, GRID, GridAnswer};
use frame::{CurveField, FrameResult, Image, ResultLayout, ScalarField, Shape};
use hdf5::Dataset;
use std::path::{Path, PathBuf};

/// Rows that are written together, unless they take more than [`BLOCK_BYTES_MAX`].
const BLOCK_ROWS: usize = 256;
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Names under `/entry/results` that no curve may have.
pub(super) const RESERVED: [&str; 7] = [
    "scalars",
    "grid",
    "final",
    "images",
    "frame_number",
    "parameters_version",
    "partial",
];

/// Path of a scalar: one number per frame.
pub fn scalar_path(name: &str) -> String {
    format!("/entry/results/scalars/{name}")
}

/// Path of a curve: one row per frame. `NAME_errors` lies beside the curve `NAME` that it belongs to.
pub fn curve_path(name: &str) -> String {
    format!("/entry/results/{}/{name}", curve_group(name))
}

/// Path of a curve that belongs to the whole run.
pub fn final_path(name: &str) -> String {
    format!("/entry/results/final/{}/{name}", curve_group(name))
}

/// Path of an image that belongs to the whole run.
pub fn image_path(name: &str) -> String {
    format!("/entry/results/images/{name}/{name}")
}

/// Values in a chunk of a scalar.
pub(super) fn column_chunk(frames: u64) -> u64 {
    nexus::column_chunk(frames as usize) as u64
}

fn curve_group(name: &str) -> &str {
    name.strip_suffix("_errors").unwrap_or(name)
}

/// Rows that are written together.
fn block_rows(layout: &ResultLayout, frames: usize) -> usize {
    let row_bytes = layout.frame_bytes() as usize + 5;
    (BLOCK_BYTES_MAX / row_bytes).clamp(1, BLOCK_ROWS).min(frames)
}

/// Consecutive rows of every result dataset.
#[derive(Debug)]
struct Block {
    /// which block of the run; `None` while empty
    index: Option<usize>,
    filled: usize,
    /// how many of them are in the file already
    shown: usize,
    scalars: Vec<Vec<f64>>,
    curves: Vec<Vec<f32>>,
    version: Vec<u32>,
    partial: Vec<u8>,
}

impl Block {
    fn new(layout: &ResultLayout, rows: usize) -> Self {
        Self {
            index: None,
            filled: 0,
            shown: 0,
            scalars: layout.scalars.iter().map(|_| vec![f64::NAN; rows]).collect(),
            curves: layout.curves.iter().map(|c| vec![f32::NAN; rows * c.length]).collect(),
            version: vec![0; rows],
            partial: vec![0; rows],
        }
    }

    fn clear(&mut self, index: Option<usize>) {
        self.index = index;
        (self.filled, self.shown) = (0, 0);
        self.scalars.iter_mut().for_each(|column| column.fill(f64::NAN));
        self.curves.iter_mut().for_each(|rows| rows.fill(f32::NAN));
        self.version.fill(0);
        self.partial.fill(0);
    }

    fn put(&mut self, row: usize, result: &FrameResult) {
        for (column, value) in self.scalars.iter_mut().zip(&result.scalars) {
            column[row] = *value;
        }
        for (rows, curve) in self.curves.iter_mut().zip(&result.curves) {
            rows[row * curve.len()..][..curve.len()].copy_from_slice(curve);
        }
        self.version[row] = result.parameters_version;
        self.partial[row] = result.partial.into();
        self.filled += 1;
    }
}

/// Every result dataset of a run.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    layout: ResultLayout,
    frames: usize,
    block_rows: usize,
    /// the older one first; a result whose block has been written goes by itself
    blocks: [Block; 2],
    /// highest block begun so far
    newest: Option<usize>,
    scalars: Vec<RowWriter<f64>>,
    curves: Vec<RowWriter<f32>>,
    version: RowWriter<u32>,
    partial: RowWriter<u8>,
    /// one past the highest frame with a result
    end: u64,
}

impl Results {
    /// Creates `/entry/results` with every per-frame dataset; returns those datasets, which a run that ends early makes
    /// shorter.
    pub(super) fn create(
        entry: &Nx,
        path: &Path,
        layout: &ResultLayout,
        axes: &[CurveAxis],
        frames: usize,
    ) -> Result<Vec<Dataset>, StoreError> {
        check_layout(layout, axes)?;
        Self::build(entry, layout, axes, frames).at("creating the results in", path)
    }

    /// The datasets that [`Results::create`] made.
    pub(super) fn open(entry: &Nx, path: &Path, layout: &ResultLayout, frames: usize) -> Result<Self, hdf5::Error> {
        let dataset = |name: &str| entry.group_ref().dataset(name);
        let of_scalar = |scalar: &ScalarField| RowWriter::new(dataset(&scalar_path(&scalar.name))?);
        let of_curve = |curve: &CurveField| RowWriter::new(dataset(&curve_path(&curve.name))?);
        let block_rows = block_rows(layout, frames);
        Ok(Self {
            path: path.to_path_buf(),
            layout: layout.clone(),
            frames,
            block_rows,
            blocks: [Block::new(layout, block_rows), Block::new(layout, block_rows)],
            newest: None,
            scalars: layout.scalars.iter().map(of_scalar).collect::<Result<_, _>>()?,
            curves: layout.curves.iter().map(of_curve).collect::<Result<_, _>>()?,
            version: RowWriter::new(dataset("results/parameters_version")?)?,
            partial: RowWriter::new(dataset("results/partial")?)?,
            end: 0,
        })
    }

    fn build(
        entry: &Nx,
        layout: &ResultLayout,
        axes: &[CurveAxis],
        frames: usize,
    ) -> Result<Vec<Dataset>, hdf5::Error> {
        let block_rows = block_rows(layout, frames);
        let group = entry.group("results", "NXcollection")?;
        let numbers = group.column::<u64>("frame_number", frames, 0)?;
        numbers.write_raw(&(0..frames as u64).collect::<Vec<_>>())?;
        let version = group.column::<u32>("parameters_version", frames, 0)?;
        let partial = group.column::<u8>("partial", frames, 0)?;
        nexus::attr_text(&partial, "meaning", "1: the frame lacked parts when it was analysed")?;
        let mut datasets = vec![numbers, version, partial];
        if let Some(first) = layout.scalars.first() {
            let data = group.group("scalars", "NXdata")?;
            let others: Vec<&str> = layout.scalars[1..].iter().map(|s| s.name.as_str()).collect();
            describe_data(&data, &first.name, &["frame_number"])?;
            if !others.is_empty() {
                nexus::attr_texts(data.group_ref(), "auxiliary_signals", &others)?;
            }
            data.link("/entry/results/frame_number", "frame_number")?;
            for field in &layout.scalars {
                let dataset = data.column::<f64>(&field.name, frames, f64::NAN)?;
                units(&dataset, &field.unit)?;
                datasets.push(dataset);
            }
        }
        for field in &layout.curves {
            let data = curve_data(&group, &field.name, field.length, axes, true)?;
            let new = data.group_ref().new_dataset::<f32>().fill_value(f32::NAN);
            let (columns, name) = (field.length / field.rows, field.name.as_str());
            let dataset = if field.rows == 1 {
                new.chunk((block_rows, columns)).shape((frames, columns)).create(name)?
            } else {
                new.chunk((1, field.rows, columns))
                    .shape((frames, field.rows, columns))
                    .create(name)?
            };
            units(&dataset, &field.unit)?;
            let interpretation = if field.rows == 1 { "spectrum" } else { "image" };
            nexus::attr_text(&dataset, "interpretation", interpretation)?;
            datasets.push(dataset);
        }
        Ok(datasets)
    }

    /// One past the highest frame that has a result.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Rows in a chunk of a curve.
    pub(super) fn block_rows(&self) -> u64 {
        self.block_rows as u64
    }

    /// Takes one result. Allocates nothing.
    pub(super) fn write(&mut self, result: &FrameResult) -> Result<(), StoreError> {
        self.check(result)?;
        self.end = self.end.max(result.frame_number + 1);
        let frame = result.frame_number as usize;
        let (block, row) = (frame / self.block_rows, frame % self.block_rows);
        let mut turned = Ok(());
        let slot = match self.blocks.iter().position(|b| b.index == Some(block)) {
            Some(slot) => slot,
            None if self.newest.is_some_and(|newest| block <= newest) => return self.write_alone(frame, result),
            None => {
                turned = self.turn(block);
                1
            }
        };
        self.blocks[slot].put(row, result);
        if self.blocks[slot].filled < self.rows_of(block) {
            return turned;
        }
        let flushed = self.flush(slot);
        self.blocks[slot].clear(None);
        flushed.and(turned)
    }

    /// Makes room for a newer block: the older one is written.
    fn turn(&mut self, block: usize) -> Result<(), StoreError> {
        let flushed = self.flush(0);
        self.blocks.swap(0, 1);
        self.blocks[1].clear(Some(block));
        self.newest = Some(block);
        flushed
    }

    fn rows_of(&self, block: usize) -> usize {
        self.block_rows.min(self.frames - block * self.block_rows)
    }

    /// Puts every result so far into the file.
    pub(super) fn show(&mut self) -> Result<(), StoreError> {
        let older = self.flush(0);
        self.flush(1).and(older)
    }

    fn flush(&mut self, slot: usize) -> Result<(), StoreError> {
        let block = &mut self.blocks[slot];
        let Some(index) = block.index.filter(|_| block.filled > block.shown) else {
            return Ok(());
        };
        block.shown = block.filled;
        let (first, rows) = (index * self.block_rows, self.rows_of(index));
        let Self {
            blocks,
            scalars,
            curves,
            version,
            partial,
            layout,
            path,
            ..
        } = self;
        let block = &blocks[slot];
        let mut write = || -> Result<(), hdf5::Error> {
            for (writer, column) in scalars.iter_mut().zip(&block.scalars) {
                writer.write(first, &column[..rows])?;
            }
            for ((writer, values), field) in curves.iter_mut().zip(&block.curves).zip(&layout.curves) {
                writer.write(first, &values[..rows * field.length])?;
            }
            version.write(first, &block.version[..rows])?;
            partial.write(first, &block.partial[..rows])
        };
        write().map_err(|error| StoreError::hdf5("writing results to", path, &error, 0))
    }

    /// A result whose block has been written already.
    fn write_alone(&mut self, frame: usize, result: &FrameResult) -> Result<(), StoreError> {
        let Self {
            scalars,
            curves,
            version,
            partial,
            path,
            ..
        } = self;
        let mut write = || -> Result<(), hdf5::Error> {
            for (writer, value) in scalars.iter_mut().zip(&result.scalars) {
                writer.write(frame, std::slice::from_ref(value))?;
            }
            for (writer, curve) in curves.iter_mut().zip(&result.curves) {
                writer.write(frame, curve)?;
            }
            version.write(frame, &[result.parameters_version])?;
            partial.write(frame, &[u8::from(result.partial)])
        };
        write().map_err(|error| StoreError::hdf5("writing a result to", path, &error, 0))
    }

    fn check(&self, result: &FrameResult) -> Result<(), StoreError> {
        let frame = result.frame_number;
        if frame >= self.frames as u64 {
            return Err(StoreError::FrameNumber {
                frame,
                frames: self.frames as u64,
            });
        }
        let wrong = |what: &str, found, expected| {
            Err(StoreError::ResultLayout {
                frame,
                what: what.to_string(),
                found,
                expected,
            })
        };
        if result.scalars.len() != self.layout.scalars.len() {
            return wrong("scalars", result.scalars.len(), self.layout.scalars.len());
        }
        if result.curves.len() != self.layout.curves.len() {
            return wrong("curves", result.curves.len(), self.layout.curves.len());
        }
        for (curve, field) in result.curves.iter().zip(&self.layout.curves) {
            if curve.len() != field.length {
                return wrong(&format!("points in {}", field.name), curve.len(), field.length);
            }
        }
        Ok(())
    }
}

/// Names must work as NeXus names and not meet each other; axes must fit their curves.
fn check_layout(layout: &ResultLayout, axes: &[CurveAxis]) -> Result<(), StoreError> {
    let wrong = |field, value: &str, expected| {
        Err(StoreError::Description {
            field,
            value: value.into(),
            expected,
        })
    };
    for name in layout
        .scalars
        .iter()
        .map(|s| &s.name)
        .chain(layout.curves.iter().map(|c| &c.name))
    {
        if nexus::valid_name(name) != *name {
            return wrong("the name of a result", name, "letters, digits and '_' only");
        }
    }
    for (index, field) in layout.curves.iter().enumerate() {
        if RESERVED.contains(&curve_group(&field.name)) {
            return wrong(
                "the name of a curve",
                &field.name,
                "this name is taken by the file's layout",
            );
        }
        if layout.curves[..index].iter().any(|c| c.name == field.name) {
            return wrong("the name of a curve", &field.name, "every name once");
        }
        if field.length == 0 {
            return wrong("the length of a curve", &field.name, "at least one point");
        }
        let of_field = axes.iter().filter(|axis| axis.curve == field.name);
        let lengths: Vec<usize> = of_field.map(|axis| axis.values.len()).collect();
        if field.rows == 0 || field.length % field.rows != 0 {
            return wrong("the rows of a picture", &field.name, "as many as divide its points");
        }
        let fits = match field.rows {
            1 => lengths.iter().all(|length| *length == field.length),
            rows => lengths.is_empty() || lengths == [rows, field.length / rows],
        };
        if !fits {
            return wrong(
                "the axis of a curve",
                &field.name,
                "as many values as the curve has points; of a picture, rows and columns",
            );
        }
    }
    for (index, field) in layout.scalars.iter().enumerate() {
        if field.name == "frame_number" || layout.scalars[..index].iter().any(|s| s.name == field.name) {
            return wrong(
                "the name of a scalar",
                &field.name,
                "every name once, and not frame_number",
            );
        }
    }
    Ok(())
}

fn units(dataset: &Dataset, unit: &str) -> Result<(), hdf5::Error> {
    if unit.is_empty() {
        Ok(())
    } else {
        nexus::attr_text(dataset, "units", unit)
    }
}

fn describe_data(data: &Nx, signal: &str, axes: &[&str]) -> Result<(), hdf5::Error> {
    nexus::attr_text(data.group_ref(), "signal", signal)?;
    nexus::attr_texts(data.group_ref(), "axes", axes)
}

/// The NXdata group of a curve, created with its axis for the first curve that belongs there.
fn curve_data(parent: &Nx, name: &str, length: usize, axes: &[CurveAxis], per_frame: bool) -> Result<Nx, hdf5::Error> {
    let base = curve_group(name);
    if let Some(known) = parent.child(base) {
        // The curve itself is the signal, even if its errors came first.
        if name == base {
            known.group_ref().delete_attr("signal")?;
            nexus::attr_text(known.group_ref(), "signal", name)?;
        }
        return Ok(known);
    }
    let data = parent.group(base, "NXdata")?;
    // One axis of a curve, two of a picture: slow, fast.
    let of = |curve: &str| axes.iter().filter(|axis| axis.curve == curve).collect::<Vec<_>>();
    let own = Some(of(name)).filter(|own| !own.is_empty()).unwrap_or_else(|| of(base));
    let points: usize = own.iter().map(|axis| axis.values.len()).product();
    let known = if points == length { own } else { Vec::new() };
    let names: Vec<String> = match known[..] {
        [] => vec![".".into()],
        _ => known.iter().map(|axis| nexus::valid_name(&axis.name)).collect(),
    };
    let mut listed: Vec<&str> = names.iter().map(String::as_str).collect();
    if per_frame {
        listed.insert(0, "frame_number");
    }
    describe_data(&data, name, &listed)?;
    if per_frame {
        data.link("/entry/results/frame_number", "frame_number")?;
    }
    for (axis, name) in known.iter().zip(&names) {
        let dataset = data.quantities(name, &axis.values, &axis.unit)?;
        nexus::attr_text(&dataset, "long_name", &axis.name)?;
    }
    Ok(data)
}

/// `/entry/results/grid`: where the crystals of a grid scan are, one row per crystal.
pub(super) fn write_grid(results: &Nx, answer: &GridAnswer) -> Result<(), hdf5::Error> {
    let group = results.group(GRID, "NXcollection")?;
    let text = "boxes of the grid that hang together above the threshold; x (columns), y (rows) and, of two sweeps, z (layers), \
                box 0 from 0 to 1; the scores are /entry/results/images/grid_score";
    nexus::attr_text(group.group_ref(), "description", text)?;
    group.text("score", &answer.score)?;
    for (name, value) in [
        ("boxes", answer.boxes as u64),
        ("boxes_scored", answer.boxes_scored as u64),
        ("boxes_without_score", answer.boxes_without_score as u64),
        ("frames_partial", answer.frames_partial),
        ("frames_outside", answer.frames_outside),
        ("crystals_found", answer.crystals_found as u64),
    ] {
        group.value(name, value)?;
    }
    group.value("threshold", answer.threshold.unwrap_or(f64::NAN))?;
    let crystals = &answer.crystals;
    let axes = if answer.layers > 0 { 3 } else { 2 };
    let points = |name: &str, value: &dyn Fn(&Crystal) -> Vec<f64>, unit: &str| -> Result<(), hdf5::Error> {
        let values: Vec<f64> = crystals.iter().flat_map(value).collect();
        units(&group.image(name, Shape::new(crystals.len(), axes), &values)?, unit)
    };
    let boxes = |name: &str, value: &dyn Fn(&Crystal) -> Vec<f64>, unit: &str| -> Result<(), hdf5::Error> {
        let values: Vec<f64> = crystals.iter().flat_map(value).collect();
        let new = group.group_ref().new_dataset::<f64>();
        let dataset = new.shape((crystals.len(), 2, axes)).create(name)?;
        dataset.write_raw(&values)?;
        units(&dataset, unit)
    };
    let both = |edges: &[Vec<u64>; 2]| edges.iter().flatten().map(|at| *at as f64).collect();
    points("centre_of_mass", &|crystal| crystal.centre_of_mass.clone(), "")?;
    boxes("bounding_box", &|crystal| both(&crystal.bounding_box), "")?;
    let best = |crystal: &Crystal| crystal.max_voxel.iter().map(|at| *at as f64).collect();
    points("max_voxel", &best, "")?;
    if crystals.iter().any(|crystal| crystal.centre_of_mass_mm.is_some()) {
        let centre = |crystal: &Crystal| crystal.centre_of_mass_mm.clone().unwrap_or_default();
        points("centre_of_mass_mm", &centre, "mm")?;
        let edges = |crystal: &Crystal| crystal.bounding_box_mm.iter().flatten().flatten().copied().collect();
        boxes("bounding_box_mm", &edges, "mm")?;
    }
    let column = |value: fn(&Crystal) -> f64| crystals.iter().map(value).collect::<Vec<f64>>();
    group.array("max_count", &column(|crystal| crystal.max_count))?;
    group.array("total_count", &column(|crystal| crystal.total_count))?;
    let voxels: Vec<u64> = crystals.iter().map(|crystal| crystal.n_voxels).collect();
    group.array("n_voxels", &voxels).map(drop)
}

/// Writes curves and images that belong to the whole run.
pub(super) fn write_finals(
    results: &Nx,
    finals: &[(String, Vec<f32>, String)],
    images: &[Image],
    axes: &[CurveAxis],
) -> Result<(), hdf5::Error> {
    if !finals.is_empty() {
        let group = results.group("final", "NXcollection")?;
        for (name, values, unit) in finals {
            let name = nexus::valid_name(name);
            let data = curve_data(&group, &name, values.len(), axes, false)?;
            units(&data.array(&name, values)?, unit)?;
        }
    }
    if !images.is_empty() {
        let group = results.group("images", "NXcollection")?;
        for image in images {
            let name = nexus::valid_name(&image.name);
            let data = group.group(&name, "NXdata")?;
            nexus::attr_text(data.group_ref(), "signal", &name)?;
            let of: Vec<&CurveAxis> = axes.iter().filter(|axis| axis.curve == image.name).collect();
            if let [slow, fast] = of[..] {
                let names = [slow, fast].map(|axis| nexus::valid_name(&axis.name));
                nexus::attr_texts(data.group_ref(), "axes", &names.each_ref().map(String::as_str))?;
                for (axis, name) in [slow, fast].into_iter().zip(&names) {
                    data.quantities(name, &axis.values, &axis.unit)?;
                }
            }
            let dataset = data.image(&name, image.shape, &image.values)?;
            units(&dataset, &image.unit)?;
            nexus::attr_text(&dataset, "interpretation", "image")?;
            nexus::attr(&dataset, "frames_used", &image.frames_used)?;
            nexus::attr(&dataset, "frames_expected", &image.frames_expected)?;
        }
    }
    Ok(())
}
