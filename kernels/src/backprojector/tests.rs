use super::*;
use crate::MemoryMode;
use crate::testing::{cpu, with_memory};

/// Smooth sinograms of `rows` different rows: a few discs, their exact chords.
fn sinograms(rows: usize, columns: usize, angles: usize, axis: f64) -> (Vec<Vec<Vec<f64>>>, Vec<f64>) {
    let discs = [
        (0.0, 0.0, 0.8, 1.0),
        (0.3, -0.2, 0.25, -0.5),
        (-0.35, 0.3, 0.15, 0.7),
        (0.1, 0.5, 0.08, 1.3),
    ];
    let half = columns as f64 / 2.0;
    let angles_deg: Vec<f64> = (0..angles).map(|a| 180.0 * a as f64 / angles as f64).collect();
    let row = |row: usize, angle: f64| {
        let (sin, cos) = angle.to_radians().sin_cos();
        (0..columns)
            .map(|column| {
                let u = (column as f64 - axis) / half;
                let chord = |(x, y, r, value): &(f64, f64, f64, f64)| {
                    let t = u - x * cos - y * sin;
                    value * (1.0 + 0.1 * row as f64) * 2.0 * (r * r - t * t).max(0.0).sqrt()
                };
                discs.iter().map(chord).sum::<f64>()
            })
            .collect()
    };
    (
        (0..rows)
            .map(|r| angles_deg.iter().map(|angle| row(r, *angle)).collect())
            .collect(),
        angles_deg,
    )
}

fn projection(sinograms: &[Vec<Vec<f64>>], angle: usize) -> Vec<f32> {
    sinograms
        .iter()
        .flat_map(|rows| rows[angle].iter().map(|v| *v as f32))
        .collect()
}

fn config(rows: usize, columns: usize, axis: f64, planes: Vec<Plane>) -> BackprojectorConfig {
    BackprojectorConfig {
        rows,
        columns,
        rotation_axis_px: axis,
        filter: Filter::RamLak,
        planes,
    }
}

fn reconstruct(
    memory: MemoryMode,
    config: &BackprojectorConfig,
    sinograms: &[Vec<Vec<f64>>],
    angles_deg: &[f64],
    order: &[usize],
) -> Vec<Vec<f32>> {
    let (accelerator, queue) = with_memory(memory);
    let mut backprojector = Backprojector::new(&accelerator, config).unwrap();
    for angle in order {
        backprojector
            .push_values(&queue, &projection(sinograms, *angle), angles_deg[*angle])
            .unwrap();
    }
    backprojector.flush(&queue).unwrap();
    assert_eq!(backprojector.angles_used(), order.len() as u64);
    let points = |plane: &Plane| match plane {
        Plane::Horizontal { .. } => config.columns * config.columns,
        Plane::Slab { .. } => BLOCK_ROWS * config.columns * config.columns,
        _ => config.rows * config.columns,
    };
    let snapshot = |(index, plane)| {
        let mut out = vec![f32::NAN; points(plane)];
        backprojector.snapshot(&queue, index, &mut out).unwrap();
        out
    };
    config.planes.iter().enumerate().map(snapshot).collect()
}

fn worst(found: &[f32], expected: &[f64]) -> f64 {
    let (low, high) = expected
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f64::from(*f) - e).abs())
        .fold(0.0, f64::max);
    worst / (high - low)
}

#[test]
fn every_filter_width_and_axis_agrees_with_the_reference() {
    for (columns, axis, filter) in [
        (64, 31.5, Filter::RamLak),
        (65, 30.2, Filter::SheppLogan),
        (50, 27.75, Filter::Hann),
        (33, 16.0, Filter::Cosine),
        (40, 19.5, Filter::Hamming),
        (41, 19.5, Filter::None),
    ] {
        let (rows, angles) = (3, 45);
        let (sinograms, angles_deg) = sinograms(rows, columns, angles, axis);
        let mut config = config(
            rows,
            columns,
            axis,
            (0..rows).map(|row| Plane::Horizontal { row }).collect(),
        );
        config.filter = filter;
        let order: Vec<usize> = (0..angles).collect();
        let found = reconstruct(MemoryMode::Auto, &config, &sinograms, &angles_deg, &order);
        for (row, found) in found.iter().enumerate() {
            let expected = reference::backprojector(filter, &sinograms[row], &angles_deg, axis);
            let worst = worst(found, &expected);
            assert!(
                worst <= 1e-5,
                "{columns} columns, axis {axis}, {filter:?}, row {row}: {worst:.2e} of range"
            );
        }
    }
}

#[test]
fn a_disc_comes_back_with_its_density() {
    let (columns, angles) = (128, 201);
    let (sinograms, angles_deg) = sinograms(1, columns, angles, 63.5);
    let order: Vec<usize> = (0..angles).collect();
    let config = config(1, columns, 63.5, vec![Plane::Horizontal { row: 0 }]);
    let slice = &reconstruct(MemoryMode::Auto, &config, &sinograms, &angles_deg, &order)[0];
    // Values are per half width; a point 0.6 left of the axis lies in the large disc alone.
    let value = f64::from(slice[63 * columns + (63.5 - 0.6 * 64.0) as usize]) * 64.0;
    assert!((value - 1.0).abs() < 0.02, "{value}");
    let small = f64::from(slice[(63.5 + 0.5 * 64.0) as usize * columns + (63.5 + 0.1 * 64.0) as usize]) * 64.0;
    assert!((small - 2.3).abs() < 0.1, "{small}");
}

#[test]
fn vertical_planes_are_cuts_through_horizontal_ones() {
    let (rows, columns, angles, axis) = (19, 48, 40, 22.5);
    let (sinograms, angles_deg) = sinograms(rows, columns, angles, axis);
    let mut planes: Vec<Plane> = (0..rows).map(|row| Plane::Horizontal { row }).collect();
    planes.extend([Plane::VerticalXz { y_px: 4.5 }, Plane::VerticalYz { x_px: -7.5 }]);
    let order: Vec<usize> = (0..angles).collect();
    let found = reconstruct(
        MemoryMode::Auto,
        &config(rows, columns, axis, planes),
        &sinograms,
        &angles_deg,
        &order,
    );
    let (i_of_x, j_of_y) = ((-7.5 + 23.5) as usize, (4.5 + 23.5) as usize);
    for row in 0..rows {
        for k in 0..columns {
            assert!((found[rows][row * columns + k] - found[row][j_of_y * columns + k]).abs() < 1e-5);
            assert!((found[rows + 1][row * columns + k] - found[row][k * columns + i_of_x]).abs() < 1e-5);
        }
    }
}

#[test]
fn a_slab_is_its_horizontal_planes() {
    let (rows, columns, angles, axis) = (19, 40, 25, 18.5);
    let (sinograms, angles_deg) = sinograms(rows, columns, angles, axis);
    let planes = vec![
        Plane::Slab { block: 1 },
        Plane::Horizontal { row: 16 },
        Plane::Horizontal { row: 18 },
    ];
    let order: Vec<usize> = (0..angles).collect();
    let found = reconstruct(
        MemoryMode::Auto,
        &config(rows, columns, axis, planes),
        &sinograms,
        &angles_deg,
        &order,
    );
    let slice = columns * columns;
    assert_eq!(found[0][..slice], found[1]);
    assert_eq!(found[0][2 * slice..3 * slice], found[2]);
    assert!(
        found[0][3 * slice..].iter().all(|value| *value == 0.0),
        "rows beyond the detector are empty"
    );
}

#[test]
fn order_batches_and_memory_make_no_difference() {
    let (rows, columns, angles, axis) = (2, 60, 37, 29.5);
    let (sinograms, angles_deg) = sinograms(rows, columns, angles, axis);
    let config = config(
        rows,
        columns,
        axis,
        vec![Plane::Horizontal { row: 1 }, Plane::VerticalXz { y_px: 0.0 }],
    );
    let order: Vec<usize> = (0..angles).collect();
    let mut shuffled = order.clone();
    shuffled.sort_by_key(|i| i * 7919 % 37);
    let plain = reconstruct(MemoryMode::Auto, &config, &sinograms, &angles_deg, &order);
    assert_eq!(
        plain,
        reconstruct(MemoryMode::Copy, &config, &sinograms, &angles_deg, &order)
    );
    let other = reconstruct(MemoryMode::Auto, &config, &sinograms, &angles_deg, &shuffled);
    for (a, b) in plain.iter().zip(&other) {
        let expected: Vec<f64> = a.iter().map(|v| f64::from(*v)).collect();
        assert!(worst(b, &expected) < 1e-5);
    }
}

#[test]
fn reset_begins_anew_and_an_empty_plane_is_zero() {
    let (accelerator, queue) = cpu();
    let config = config(1, 32, 15.5, vec![Plane::Horizontal { row: 0 }]);
    let mut backprojector = Backprojector::new(&accelerator, &config).unwrap();
    let mut out = vec![1.0; 32 * 32];
    backprojector.snapshot(&queue, 0, &mut out).unwrap();
    assert!(out.iter().all(|v| *v == 0.0));
    backprojector.push_values(&queue, &[1.0; 32], 10.0).unwrap();
    backprojector.flush(&queue).unwrap();
    backprojector.reset(&queue).unwrap();
    backprojector.snapshot(&queue, 0, &mut out).unwrap();
    assert!(out.iter().all(|v| *v == 0.0) && backprojector.angles_used() == 0);
    let error = Backprojector::new(&accelerator, &BackprojectorConfig { columns: 1, ..config })
        .err()
        .unwrap();
    assert!(error.to_string().contains("2 to 32768 columns"), "{error}");
}

#[test]
fn the_ramp_has_no_offset_and_rises_to_one() {
    let response = filter::response(Filter::RamLak, 300);
    assert_eq!(response.len(), 513);
    assert!(response[0].abs() < 1e-3 && (response[512] - 1.0).abs() < 1e-3);
    assert!((response[256] - 0.5).abs() < 1e-3);
}
