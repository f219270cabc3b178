//! Projections that never came, as live slices learn of them. Frames come in order: one that is passed over is lost, late, or
//! lacks parts of itself, and leaves its share of the half turn to its neighbours in angle among those that are kept.

use super::weights::Shares;
use kernels::SlidingWindow;

/// A projection that never came.
struct Missing {
    angle_deg: f64,
    /// projections that had come before it
    before: u64,
}

/// What the projections that are kept are of all that slices rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// all of them
    All,
    /// all of a sliding window
    Window,
    /// the last ones: slices rest on others besides
    Last,
}

/// See the module.
pub(super) struct Lost {
    /// after so many degrees the angles repeat
    turn_deg: f64,
    next_frame: usize,
    missing: Vec<Missing>,
    /// of these, how many have left their share
    shared: usize,
    shares: Shares,
    weights: Vec<f32>,
}

impl Lost {
    /// Of `planned` frames; `room` projections are kept. Everything is allocated here.
    pub(super) fn new(planned: usize, room: usize, half_acquisition: bool) -> Self {
        Self {
            turn_deg: if half_acquisition { 360.0 } else { 180.0 },
            next_frame: 0,
            missing: Vec::with_capacity(planned),
            shared: 0,
            shares: Shares::with_room(room),
            weights: Vec::with_capacity(room),
        }
    }

    /// A projection came as frame `frame`, behind `came` others: those that were planned and passed over are lost.
    pub(super) fn came(&mut self, frame: usize, planned_deg: &[f64], came: u64) {
        if (self.next_frame..planned_deg.len()).contains(&frame) {
            self.passed(frame, planned_deg, came);
            self.next_frame = frame + 1;
        }
    }

    /// No more come.
    pub(super) fn end(&mut self, planned_deg: &[f64], came: u64) {
        self.passed(planned_deg.len(), planned_deg, came);
        self.next_frame = planned_deg.len();
    }

    fn passed(&mut self, frame: usize, planned_deg: &[f64], before: u64) {
        let angles = planned_deg.get(self.next_frame..frame).unwrap_or_default().iter();
        // Darks, flats and what nobody planned an angle for have none.
        let missing = angles.filter(|angle| angle.is_finite());
        self.missing.extend(missing.map(|angle_deg| Missing {
            angle_deg: *angle_deg,
            before,
        }));
    }

    /// Whether some were lost whose share nobody has yet.
    pub(super) fn any_new(&self) -> bool {
        self.shared < self.missing.len()
    }

    /// The weights that the projections in `history` are to have after `came` of them; none where nothing was lost.
    pub(super) fn weights(&mut self, history: &SlidingWindow, kept: Kept, came: u64) -> Option<&[f32]> {
        // Of those that are not kept nothing can be changed; what was lost before them is theirs.
        let first_kept = came - (history.projections() as u64).min(came);
        let shared = std::mem::replace(&mut self.shared, self.missing.len());
        if self.missing.is_empty() {
            return None;
        }
        let missing = self.missing.iter().enumerate().filter(|(number, missing)| match kept {
            Kept::All => true,
            Kept::Window => missing.before > first_kept,
            Kept::Last => *number >= shared && missing.before > first_kept,
        });
        let missing_deg = missing.map(|(_, missing)| missing.angle_deg);
        let came_deg = history.kept().map(|(angle_deg, _)| angle_deg);
        self.shares.find(came_deg, missing_deg, self.turn_deg);
        let found = self.shares.weights.iter().zip(history.kept());
        self.weights.clear();
        self.weights.extend(found.map(|(found, (_, has))| match kept {
            Kept::All | Kept::Window => *found as f32,
            // Shares that were left before stay.
            Kept::Last => has + *found as f32 - 1.0,
        }));
        Some(&self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(angles_deg: &[f64], room: usize) -> SlidingWindow {
        let mut history = SlidingWindow::new(1, 2, room, f64::INFINITY).unwrap();
        for angle_deg in angles_deg {
            history.keep(&[0.0; 2], *angle_deg).unwrap();
        }
        history
    }

    #[test]
    fn what_is_passed_over_is_lost_and_leaves_its_share() {
        let planned: Vec<f64> = std::iter::once(f64::NAN).chain((0..6).map(f64::from)).collect();
        let mut lost = Lost::new(7, 6, false);
        lost.came(1, &planned, 0);
        assert!(!lost.any_new() && lost.weights(&history(&[0.0], 6), Kept::All, 1).is_none());
        lost.came(3, &planned, 1);
        assert!(lost.any_new());
        let kept = history(&[0.0, 2.0], 6);
        assert_eq!(lost.weights(&kept, Kept::All, 2), Some(&[1.5, 1.5][..]));
        assert!(!lost.any_new());
        // Again and again: the same; only what is lost anew adds to what cannot be told anew.
        assert_eq!(lost.weights(&kept, Kept::All, 2), Some(&[1.5, 1.5][..]));
        assert_eq!(lost.weights(&kept, Kept::Last, 2), Some(&[1.0, 1.0][..]));
        lost.came(5, &planned, 2);
        let kept = history(&[0.0, 2.0, 4.0], 2);
        assert_eq!(lost.weights(&kept, Kept::Last, 3), Some(&[1.5, 1.5][..]));
        // A window that has driven out the first: what was lost beside it is no loss to the others.
        assert_eq!(lost.weights(&kept, Kept::Window, 3), Some(&[1.5, 1.5][..]));
        lost.came(99, &planned, 3);
        assert!(!lost.any_new());
        lost.end(&planned, 3);
        assert!(lost.any_new());
    }
}
