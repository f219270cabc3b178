use super::*;
use crate::frame_metadata::{Batch, BatchColumn, Value};

fn config(size: [usize; 3]) -> GridConfig {
    GridConfig {
        score: "spots".into(),
        scalar: 1,
        size,
        frames_per_box: 1,
        snake: false,
        rows_fast: false,
        told: None,
        min_score: 3.0,
        threshold: 0.25,
        step_mm: None,
        origin_mm: [0.0; 3],
        crystals_max: 2,
    }
}

fn order(config: &GridConfig) -> Vec<(usize, usize, usize)> {
    (0..).map_while(|frame| config.numbered(frame)).collect()
}

#[test]
fn boxes_come_in_the_order_of_the_motors() {
    let raster = config([3, 2, 0]);
    assert_eq!(
        order(&raster),
        [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 0, 1), (0, 1, 1), (0, 2, 1)]
    );
    let snake = GridConfig {
        snake: true,
        ..config([3, 2, 0])
    };
    assert_eq!(
        order(&snake),
        [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 2, 1), (0, 1, 1), (0, 0, 1)]
    );
    let rows = GridConfig {
        snake: true,
        rows_fast: true,
        ..config([3, 2, 0])
    };
    assert_eq!(
        order(&rows),
        [(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (0, 2, 0), (0, 2, 1)]
    );
    // The second sweep begins at its own first box.
    let two = GridConfig {
        snake: true,
        frames_per_box: 2,
        ..config([2, 1, 2])
    };
    let (a, b, c, d) = ((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0));
    assert_eq!(
        order(&two),
        [a, a, b, b, c, c, d, d, (1, 1, 1), (1, 1, 1), (1, 0, 1), (1, 0, 1)]
    );
    assert_eq!(two.boxes(), 6);
}

/// Scores of the scalar at place 1.
fn take(grid: &GridScan, scores: &[(u64, f64)]) {
    scores
        .iter()
        .for_each(|(frame, score)| grid.score(*frame, &[9.0, *score], *frame == 4));
}

#[test]
fn boxes_without_a_score_are_counted_and_belong_to_no_crystal() {
    let metadata = FrameMetadata::new(6);
    let grid = GridScan::new(config([3, 2, 0]), 6);
    let before = grid.look(&metadata, true);
    assert_eq!(
        (before.boxes_scored, before.crystals_found, before.threshold),
        (0, 0, None)
    );
    // Frame 1 is lost, frame 3 was too bright to tell, and frame 4 lacked parts; 2 is below the least score.
    take(&grid, &[(0, 8.0), (2, 2.9), (3, f64::NAN), (4, 12.0), (5, 4.0)]);
    let answer = grid.look(&metadata, true);
    assert_eq!(
        (answer.boxes_scored, answer.boxes_without_score, answer.complete),
        (4, 2, false)
    );
    assert_eq!((answer.frames_partial, answer.frames_outside), (1, 0));
    assert_eq!((answer.threshold, answer.max_count), (Some(3.0), Some(12.0)));
    assert_eq!(answer.crystals_found, 2);
    assert_eq!(answer.crystals[0].bounding_box, [vec![1, 1], vec![3, 2]]);
    assert_eq!(
        answer.crystals[0].centre_of_mass,
        [(1.5 * 12.0 + 2.5 * 4.0) / 16.0, 1.5]
    );
    assert!(answer.gaps().starts_with("2 of 6 boxes"));
    let mut images = grid.pictures();
    grid.show(&mut images);
    assert_eq!(
        (images.len(), images[0].frames_used, images[0].frames_expected),
        (1, 4, 6)
    );
    assert!(images[0].values[1].is_nan() && images[0].values[4] == 12.0);
}

#[test]
fn nothing_in_the_beam_is_no_crystal() {
    let grid = GridScan::new(
        GridConfig {
            min_score: 0.0,
            ..config([3, 2, 0])
        },
        6,
    );
    take(&grid, &[(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0), (5, 0.0)]);
    let answer = grid.look(&FrameMetadata::new(6), true);
    assert_eq!(
        (answer.complete, answer.crystals_found, answer.max_count),
        (true, 0, None)
    );
}

#[test]
fn positions_may_come_after_their_frames_and_be_in_mm() {
    let told = Told {
        column: "x".into(),
        row: "y".into(),
        layer: None,
        mm: true,
    };
    let asked = GridConfig {
        told: Some(told),
        step_mm: Some([0.5, -0.25, 1.0]),
        origin_mm: [10.0, 2.0, 0.0],
        ..config([3, 2, 0])
    };
    let grid = GridScan::new(asked, 3);
    let metadata = FrameMetadata::new(3);
    take(&grid, &[(0, 5.0), (1, 6.0), (2, 7.0)]);
    let early = grid.look(&metadata, true);
    assert_eq!((early.boxes_scored, early.frames_outside), (0, 3));
    let column = |name: &str, values: [f64; 3]| BatchColumn {
        name: name.into(),
        unit: None,
        values: values.iter().map(|value| Some(Value::Number(*value))).collect(),
    };
    let batch = Batch {
        frames: vec![0, 1, 2],
        // The third lies outside.
        columns: vec![column("x", [11.02, 10.51, 9.7]), column("y", [1.76, 1.74, 2.0])],
        last: false,
    };
    metadata.take(&batch).unwrap();
    let answer = grid.look(&metadata, true);
    assert_eq!((answer.boxes_scored, answer.frames_outside), (2, 1));
    let crystal = &answer.crystals[0];
    assert_eq!(crystal.bounding_box, [vec![1, 1], vec![3, 2]]);
    let centre = crystal.centre_of_mass_mm.as_ref().unwrap();
    assert!((centre[0] - (11.0 * 5.0 + 10.5 * 6.0) / 11.0).abs() < 1e-12 && (centre[1] - 1.75).abs() < 1e-12);
    // The motor of rows runs backwards: the edges are in order all the same.
    assert_eq!(crystal.bounding_box_mm, Some([vec![10.25, 1.625], vec![11.25, 1.875]]));
    assert_eq!(grid.message(1, &metadata).voxel, Some([1, 1]));
    assert_eq!(grid.message(2, &metadata).voxel, None);
}
