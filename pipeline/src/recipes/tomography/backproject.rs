//! `backproject`: the ramp filter and the incremental back-projection of chosen slices.

use super::super::{Batch, Operation, RecipeError, Setup, Snapshot};
use super::axis::{self, Applied, AxisSearch};
use super::backproject_parameters::BackprojectParameters;
use super::growing::Feed;
use super::lost::{Kept, Lost};
use super::moved::{Moved, oblique};
use super::weights;
use crate::recipes::findings::Findings;
use crate::recipes::live::LiveParameters;
use frame::{Image, ResultLayout, Shape};
use kernels::{
    AcceleratorError, Arrangement, Backprojector, BackprojectorConfig, HalfAcquisition, Plane, Queue, SlidingWindow,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) const NAME: &str = "backproject";
/// What it adds to the results where it looks for the rotation axis, with units.
pub(super) const AXIS_SCALARS: [(&str, &str); 2] = [("axis", "pixel"), ("axis_confidence", "")];
/// Projections from which their mean says what is a stripe.
const STRIPES_FROM: usize = 16;

/// The operation.
pub(super) struct Backproject {
    backprojector: Backprojector,
    rotation_axis_px: f64,
    /// bits of the rotation axis, for what comes after the run
    axis: Arc<AtomicU64>,
    planned_deg: Vec<f64>,
    lost: Lost,
    /// columns of a projection, where slices are those of a half acquisition
    half_columns: Option<usize>,
    arrangement: Arrangement,
    /// projections that were taken, and at how many stripes are looked for again
    taken: u64,
    stripes_next: u64,
    rows: usize,
    width: usize,
    /// of xz, the first vertical plane, and of the oblique one
    xz_plane: usize,
    oblique_plane: usize,
    /// projections that slices are summed anew from, where there is room for any
    history: Option<SlidingWindow>,
    /// how many are to come, and what there is room for
    planned_and_room: (u64, usize),
    /// whether they are all that came
    whole: bool,
    moved: Moved,
    shared: Option<Arc<LiveParameters>>,
    search: Option<AxisSearch>,
    /// of the estimate, in the results
    axis_index: Option<[usize; 2]>,
    /// where the volume is begun while the run records; of pixels without a valid transmission, in the results
    feed: Option<(Feed, usize)>,
}

impl Backproject {
    pub(super) fn new(
        setup: &Setup<'_>,
        parameters: &BackprojectParameters,
        planned_deg: &[f64],
        live: &mut LiveParameters,
        snapshot: &mut Snapshot,
        layout: &mut ResultLayout,
    ) -> Result<Self, RecipeError> {
        let (stream, shape) = (setup.stream, setup.stream.shape);
        let middle = (shape.columns as f64 - 1.0) / 2.0;
        let rotation_axis_px = parameters
            .rotation_axis_px
            .or(stream.detector.rotation_axis_px)
            .unwrap_or(middle);
        if !(0.0..=shape.columns as f64 - 1.0).contains(&rotation_axis_px) {
            let expected = format!("allowed is 0 to {}: the axis lies on the detector", shape.columns - 1);
            return Err(setup.wrong(NAME, "rotation_axis_px", rotation_axis_px, expected));
        }
        if stream.samples() < 2 || !planned_deg.iter().any(|angle| angle.is_finite()) {
            let reason = format!(
                "{} has {} projections with {} angles: tomography needs at least 2 projections, each with its angle; \
                 where the source tells none, backproject.start_deg and step_deg do",
                stream.origin,
                stream.samples(),
                planned_deg.iter().filter(|angle| angle.is_finite()).count()
            );
            return Err(RecipeError::frames(NAME)(reason));
        }
        let rows = match (parameters.row, &parameters.rows[..]) {
            (None, []) => vec![shape.rows / 2],
            (Some(row), []) => vec![row],
            (None, rows) => rows.to_vec(),
            (Some(row), _) => return Err(setup.wrong(NAME, "row", row, "give row or rows, not both")),
        };
        if parameters.half_acquisition && !weights::goes_round(planned_deg) {
            let expected = format!(
                "the projections must go once round, at least {} degrees",
                weights::RANGE_DEG_MIN
            );
            return Err(setup.wrong(NAME, "half_acquisition", true, expected));
        }
        let half = parameters.half_acquisition.then(|| {
            let wide = parameters.half_columns(shape.columns, rotation_axis_px);
            HalfAcquisition::within(shape.columns, rotation_axis_px, wide)
        });
        let half = half
            .transpose()
            .map_err(|error| setup.wrong(NAME, "rotation_axis_px", rotation_axis_px, error.to_string()))?;
        let width = half.as_ref().map_or(shape.columns, HalfAcquisition::wide_columns);
        let mut planes = Vec::new();
        let mut add = |plane, name: String, shape| {
            planes.push(plane);
            snapshot.images.push(Image {
                name,
                shape,
                unit: "1/pixel".into(),
                values: vec![0.0; shape.pixels()],
                frames_used: 0,
                frames_expected: stream.samples(),
            });
        };
        let square = Shape::new(width, width);
        for row in &rows {
            if *row >= shape.rows {
                let expected = format!("the detector has rows 0 to {}", shape.rows - 1);
                return Err(setup.wrong(NAME, "rows", row, expected));
            }
            let name = if rows.len() == 1 {
                "xy".into()
            } else {
                format!("xy_{row}")
            };
            add(Plane::Horizontal { row: *row }, name, square);
        }
        if parameters.vertical {
            let upright = Shape::new(shape.rows, width);
            add(
                Plane::VerticalXz {
                    y_px: parameters.xz_at_px.unwrap_or(0.0),
                },
                "xz".into(),
                upright,
            );
            add(
                Plane::VerticalYz {
                    x_px: parameters.yz_at_px.unwrap_or(0.0),
                },
                "yz".into(),
                upright,
            );
        }
        let [xz_plane, oblique_plane] = [rows.len(), rows.len() + if parameters.vertical { 2 } else { 0 }];
        if parameters.oblique {
            let (tilt, turn) = (parameters.oblique_tilt_deg, parameters.oblique_turn_deg);
            let plane = oblique(tilt, turn, parameters.oblique_offset_px, shape.rows, width);
            add(plane, "oblique".into(), square);
        }
        let projection_bytes = shape.rows * shape.columns * size_of::<f32>();
        let room = ((parameters.history_mib << 20) / projection_bytes).min(stream.samples() as usize);
        let window_deg_max = weights::window_deg_max(planned_deg, room);
        if parameters.window_deg > window_deg_max {
            let expected = format!(
                "history_mib = {} holds {room} projections of {} MiB, the last {window_deg_max} degrees",
                parameters.history_mib,
                projection_bytes.div_ceil(1 << 20)
            );
            return Err(setup.wrong(NAME, "window_deg", parameters.window_deg, expected));
        }
        if parameters.stripes_px > 0 && room < STRIPES_FROM {
            let expected = format!(
                "history_mib = {} holds {room} projections, stripes are told from the sample in {STRIPES_FROM}",
                parameters.history_mib
            );
            return Err(setup.wrong(NAME, "stripes_px", parameters.stripes_px, expected));
        }
        let span_deg = span(parameters.window_deg);
        let history = (room > 0).then(|| SlidingWindow::new(shape.rows, shape.columns, room, span_deg));
        let axis_range_px = match half {
            None => Some((0.0, shape.columns as f64 - 1.0)),
            Some(_) => parameters
                .half_range_px(shape.columns)
                .map(|(low, high)| (low.min(rotation_axis_px), high.max(rotation_axis_px))),
        };
        let axis = (rotation_axis_px, axis_range_px);
        let keeps = (window_deg_max, room >= STRIPES_FROM);
        let moved = Moved::new(parameters, shape, axis, &rows, keeps, live);
        let search = search(setup, parameters, planned_deg, rotation_axis_px, &moved)?;
        let axis_index = search
            .as_ref()
            .map(|_| AXIS_SCALARS.map(|(name, unit)| layout.scalar(name, unit)));
        let config = BackprojectorConfig {
            rows: shape.rows,
            columns: width,
            rotation_axis_px: half.as_ref().map_or(rotation_axis_px, HalfAcquisition::wide_axis_px),
            filter: parameters.filter.into(),
            planes,
        };
        let backprojector = Backprojector::new(setup.accelerator, &config).map_err(RecipeError::device(NAME))?;
        Ok(Self {
            backprojector,
            rotation_axis_px,
            axis: Arc::new(AtomicU64::new(rotation_axis_px.to_bits())),
            planned_deg: planned_deg.to_vec(),
            lost: Lost::new(planned_deg.len(), room, parameters.half_acquisition),
            half_columns: half.as_ref().map(|_| shape.columns),
            arrangement: Arrangement::new(shape.rows, shape.columns, half),
            taken: 0,
            stripes_next: STRIPES_FROM as u64,
            rows: shape.rows,
            width,
            xz_plane,
            oblique_plane,
            planned_and_room: (stream.samples(), room),
            history: history.transpose().map_err(RecipeError::device(NAME))?,
            whole: true,
            moved,
            shared: None,
            search,
            axis_index,
            feed: None,
        })
    }

    /// Hands every projection to the volume, too; pixels without a valid transmission have place `invalid_index` in the results.
    pub(super) fn feed(&mut self, feed: Feed, invalid_index: usize) {
        self.feed = Some((feed, invalid_index));
    }

    pub(super) fn rotation_axis_px(&self) -> f64 {
        self.rotation_axis_px
    }

    /// Columns and rows of a horizontal slice.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The rotation axis as it is now and when the run ends: the bits of a number of pixels.
    pub(super) fn axis(&self) -> Arc<AtomicU64> {
        self.axis.clone()
    }
}

impl Backproject {
    /// Gives it the live parameters that it has added to, and begins to search the axis where that is asked for.
    pub(super) fn share(&mut self, live: &Arc<LiveParameters>, found: &Arc<Findings>) -> Result<(), RecipeError> {
        self.shared = Some(live.clone());
        let Some(search) = &mut self.search else { return Ok(()) };
        let (planned, room) = self.planned_and_room;
        if search.applies() && (room as u64) < planned {
            found.warn(format!(
                "history_mib holds {room} of {planned} projections: when the axis is found, live slices go on with these alone"
            ));
        }
        search.begin(live, found).map_err(RecipeError::frames(NAME))
    }

    /// Takes over what has been changed since the last batch.
    fn follow(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        let Some(shared) = self.shared.clone() else {
            return Ok(());
        };
        let version = shared.version();
        let damaged = self.backprojector.is_damaged();
        if version == self.moved.version && !damaged {
            return Ok(());
        }
        self.moved.version = version;
        let failed = RecipeError::device(NAME);
        let (mut planes, mut begins_again) = (false, damaged);
        if let Some(axis) = &mut self.moved.axis
            && axis.follow(&shared)
        {
            self.axis.store(axis.value.to_bits(), Relaxed);
            let mut axis_px = axis.value;
            if let Some(columns) = self.half_columns {
                let half = HalfAcquisition::within(columns, axis_px, self.width).map_err(RecipeError::frames(NAME))?;
                axis_px = half.wide_axis_px();
                self.arrangement.set_half(half).map_err(&failed)?;
            }
            self.backprojector.set_rotation_axis(queue, axis_px).map_err(&failed)?;
            begins_again = true;
        }
        if let Some(window) = &mut self.moved.window
            && window.follow(&shared)
            && let Some(history) = &mut self.history
        {
            history.set_span(span(window.value));
            // What a window has driven out does not come back.
            self.whole &= window.value == 0.0;
            begins_again = true;
        }
        let mut stripes_change = false;
        if let Some(stripes) = &mut self.moved.stripes {
            stripes_change = stripes.follow(&shared);
        }
        let mut move_to = |plane: usize, to: Plane| {
            planes = true;
            self.backprojector.set_plane(queue, plane, to).map_err(&failed)
        };
        if let Some(row) = &mut self.moved.row
            && row.follow(&shared)
        {
            let row = row.value as usize;
            move_to(0, Plane::Horizontal { row })?;
        }
        if let Some([xz, yz]) = &mut self.moved.vertical {
            if xz.follow(&shared) {
                move_to(self.xz_plane, Plane::VerticalXz { y_px: xz.value })?;
            }
            if yz.follow(&shared) {
                move_to(self.xz_plane + 1, Plane::VerticalYz { x_px: yz.value })?;
            }
        }
        if let Some(numbers) = &mut self.moved.oblique {
            let changed = numbers
                .iter_mut()
                .fold(false, |any, number| number.follow(&shared) | any);
            if changed {
                let [tilt, turn, offset] = numbers.map(|number| number.value);
                move_to(self.oblique_plane, oblique(tilt, turn, offset, self.rows, self.width))?;
            }
        }
        if stripes_change {
            self.find_stripes();
        }
        // Where some projections are not kept, the planes that stay know more than what is kept.
        let all_kept = self.all_kept();
        match &mut self.history {
            Some(history) if begins_again || (planes || stripes_change) && all_kept => history
                .rebuild(queue, &mut self.backprojector, &mut self.arrangement)
                .map_err(failed),
            // Nothing is kept: they begin again with what comes.
            None if damaged => self.backprojector.reset(queue).map_err(failed),
            _ => Ok(()),
        }
    }

    /// Whether the projections that are kept are all that the slices rest on.
    fn all_kept(&self) -> bool {
        self.kept() != Kept::Last
    }

    /// What is kept of all that the slices rest on.
    fn kept(&self) -> Kept {
        match self.moved.window.is_some_and(|window| window.value > 0.0) {
            true => Kept::Window,
            false if self.whole => Kept::All,
            false => Kept::Last,
        }
    }

    /// Takes a projection into the slices, and keeps it where there is room.
    fn take(&mut self, queue: &Queue, projection: &[f32], angle_deg: f64) -> Result<(), AcceleratorError> {
        let windowed = self.kept() == Kept::Window;
        let (backprojector, arrangement) = (&mut self.backprojector, &mut self.arrangement);
        match &mut self.history {
            Some(history) if windowed => {
                return history.push(queue, backprojector, arrangement, projection, angle_deg);
            }
            Some(history) => {
                self.whole &= history.has_room();
                history.keep(projection, angle_deg)?;
            }
            None => {}
        }
        let projection = arrangement.run(projection)?;
        backprojector.push_values(queue, projection, angle_deg)
    }

    /// Gives what was lost to its neighbours in angle, in the slices that these are part of.
    fn share_lost(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        let kept = self.kept();
        let Some(history) = &mut self.history else {
            return Ok(());
        };
        let Some(weights) = self.lost.weights(history, kept, self.taken) else {
            return Ok(());
        };
        history.weigh(queue, &mut self.backprojector, &mut self.arrangement, weights)
    }

    /// Says anew what is a stripe, or that nothing is; says whether there is anything to be taken away.
    fn find_stripes(&mut self) -> bool {
        let size = self.moved.stripes.map_or(0, |stripes| stripes.value as usize);
        let Some(history) = &self.history else { return false };
        let enough = history.projections() >= STRIPES_FROM;
        history.find_stripes(&mut self.arrangement, if enough { size } else { 0 });
        // Again when as many have come as there are now: the mean has changed by then, and the work is no more than doubled.
        self.stripes_next = self.taken + history.projections().max(STRIPES_FROM) as u64;
        size > 0 && enough
    }

    /// Looks for stripes again and sums the slices anew without them, where all that they rest on is kept.
    fn clean(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        if !self.moved.stripes.is_some_and(|stripes| stripes.value > 0.0) || !self.find_stripes() {
            return Ok(());
        }
        let all_kept = self.all_kept();
        match &mut self.history {
            Some(history) if all_kept => history
                .rebuild(queue, &mut self.backprojector, &mut self.arrangement)
                .map_err(RecipeError::device(NAME)),
            _ => Ok(()),
        }
    }
}

/// Degrees that are kept for a window of so many; 0 is no window.
fn span(window_deg: f64) -> f64 {
    if window_deg > 0.0 { window_deg } else { f64::INFINITY }
}

/// The search for the axis, where one is asked for and possible.
fn search(
    setup: &Setup<'_>,
    parameters: &BackprojectParameters,
    planned_deg: &[f64],
    given_px: f64,
    moved: &Moved,
) -> Result<Option<AxisSearch>, RecipeError> {
    let (stream, mode) = (setup.stream, parameters.axis);
    if !parameters.searches() {
        return Ok(None);
    }
    let words = format!("{mode:?}").to_lowercase();
    if let Some(reason) = axis::too_few(stream.samples(), planned_deg, parameters.half_acquisition) {
        return Err(setup.wrong(NAME, "axis", words, reason));
    }
    let applied = Applied {
        mode,
        confidence_min: parameters.axis_confidence,
        given_px,
        parameter: moved.axis.map(|axis| axis.index),
        half_acquisition: parameters.half_acquisition,
    };
    let (range_px, shape) = (parameters.axis_range_px, stream.shape);
    AxisSearch::new(shape.rows, shape.columns, stream.samples(), range_px, applied)
        .map(Some)
        .map_err(|error| match range_px {
            Some(range) => setup.wrong(NAME, "axis_range_px", format!("{range:?}"), error.to_string()),
            None => setup.wrong(NAME, "axis", words, error.to_string()),
        })
}

impl Operation for Backproject {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        self.follow(batch.queue)?;
        let Some(corrected) = batch.corrected.as_deref_mut() else {
            return Ok(());
        };
        let failed = RecipeError::device(NAME);
        let pixels = corrected.shape().pixels();
        let values = corrected.map(batch.queue).map_err(&failed)?;
        for (index, projection) in values.chunks_exact(pixels).enumerate() {
            let told = batch.angles_deg.get(index).copied().filter(|angle| angle.is_finite());
            let frame = batch
                .results
                .get(index)
                .map_or(usize::MAX, |result| result.frame_number as usize);
            // One that lacks parts of itself would draw them across the slices: it counts as lost.
            if batch.results.get(index).is_some_and(|result| result.partial) {
                continue;
            }
            let planned = self.planned_deg.get(frame).copied();
            // A projection without an angle belongs nowhere.
            let Some(angle_deg) = told.or(planned.filter(|angle| angle.is_finite())) else {
                continue;
            };
            if let Some(search) = &self.search {
                search.push(projection, angle_deg).map_err(RecipeError::frames(NAME))?;
            }
            if let (Some((feed, invalid_index)), Some(result)) = (&mut self.feed, batch.results.get(index)) {
                let invalid_pixels = result.scalars[*invalid_index] as u64;
                feed.offer(frame, angle_deg, invalid_pixels, projection);
            }
            self.lost.came(frame, &self.planned_deg, self.taken);
            self.taken += 1;
            self.take(batch.queue, projection, angle_deg).map_err(&failed)?;
            // At once, so that slices have the same bits whatever the batches are.
            if self.lost.any_new() {
                self.share_lost(batch.queue).map_err(&failed)?;
            }
        }
        values.unmap().map_err(failed)?;
        if self.taken >= self.stripes_next {
            self.clean(batch.queue)?;
        }
        if let (Some(search), Some(places)) = (&self.search, self.axis_index) {
            let estimate = search.estimate();
            for result in batch.results.iter_mut().filter_map(Arc::get_mut) {
                for (place, value) in places.into_iter().zip(estimate) {
                    result.scalars[place] = value;
                }
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        for (plane, image) in snapshot.images.iter_mut().enumerate() {
            self.backprojector
                .snapshot(queue, plane, &mut image.values)
                .map_err(RecipeError::device(NAME))?;
            image.frames_used = self.backprojector.plane_used(plane);
        }
        Ok(())
    }

    fn finish(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        if let Some(search) = &self.search {
            search.finish();
        }
        self.follow(queue)?;
        self.lost.end(&self.planned_deg, self.taken);
        self.share_lost(queue).map_err(RecipeError::device(NAME))?;
        // By all projections: the last slices are the same however fast these came.
        self.clean(queue)?;
        self.backprojector.flush(queue).map_err(RecipeError::device(NAME))
    }
}
