use super::*;
use crate::testing::cpu;

/// Smooth line integrals of some balls, `rows`×`columns`, at an angle.
fn projection(rows: usize, columns: usize, axis: f64, angle_deg: f64) -> Vec<f32> {
    let (sin, cos) = angle_deg.to_radians().sin_cos();
    let half = columns as f64 / 2.0;
    let balls = [
        (0.0, 0.0, 0.5, 0.7, 1.0),
        (0.3, -0.2, 0.4, 0.25, -0.5),
        (-0.35, 0.3, 0.7, 0.2, 0.7),
    ];
    (0..rows * columns)
        .map(|i| {
            let (u, v) = (((i % columns) as f64 - axis) / half, (i / columns) as f64 / half);
            let chord = |(x, y, z, r, value): &(f64, f64, f64, f64, f64)| {
                let away = (u - x * cos - y * sin).powi(2) + (v - z).powi(2);
                value * 2.0 * (r * r - away).max(0.0)
            };
            balls.iter().map(chord).sum::<f64>() as f32
        })
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

fn snapshot(backprojector: &mut Backprojector, queue: &Queue, plane: usize, points: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; points];
    backprojector.flush(queue).unwrap();
    backprojector.snapshot(queue, plane, &mut out).unwrap();
    out
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn oblique_planes_are_the_others_where_they_lie_so_and_cut_the_volume_elsewhere() {
    let (rows, columns, angles, axis) = (37, 40, 60, 18.75);
    let (accelerator, queue) = cpu();
    let half = (columns as f64 - 1.0) / 2.0;
    let oblique = |origin_px, along_i_px, along_j_px, ni, nj| Plane::Oblique {
        origin_px,
        along_i_px,
        along_j_px,
        ni,
        nj,
    };
    let mut planes = vec![
        Plane::VerticalXz { y_px: 2.5 },
        oblique([-half, 2.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], columns, rows),
        oblique([-half, -half, 20.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], columns, columns),
        // rising along x, beyond the detector at its ends
        oblique([-half, 1.5, -4.0], [1.0, 0.0, 1.3], [0.0, 1.0, 0.0], columns, 3),
    ];
    planes.extend((0..rows).map(|row| Plane::Horizontal { row }));
    let mut backprojector = Backprojector::new(&accelerator, &config(rows, columns, axis, planes)).unwrap();
    for a in 0..angles {
        let angle = 180.0 * f64::from(a) / f64::from(angles);
        backprojector
            .push_values(&queue, &projection(rows, columns, axis, angle), angle)
            .unwrap();
    }
    let plane = columns * columns;
    let volume: Vec<Vec<f32>> = (0..rows)
        .map(|row| snapshot(&mut backprojector, &queue, 4 + row, plane))
        .collect();
    let upright = snapshot(&mut backprojector, &queue, 0, rows * columns);
    assert!(furthest(&upright, &snapshot(&mut backprojector, &queue, 1, rows * columns)) < 1e-5);
    assert!(furthest(&volume[20], &snapshot(&mut backprojector, &queue, 2, plane)) < 1e-5);
    let tilted = snapshot(&mut backprojector, &queue, 3, 3 * columns);
    let (mut worst, mut inside) = (0f32, 0);
    for (index, found) in tilted.iter().enumerate() {
        let (i, j) = (index % columns, index / columns);
        let z = -4.0 + 1.3 * i as f64;
        if z < 0.0 || z > rows as f64 - 1.0 {
            assert_eq!(*found, 0.0, "beyond the detector");
            continue;
        }
        let at = |row: f64| volume[(row as usize).min(rows - 1)][(21 + j) * columns + i];
        let share = z.fract() as f32;
        let expected = at(z.floor()) * (1.0 - share) + at(z.floor() + 1.0) * share;
        worst = worst.max((expected - found).abs());
        inside += 1;
    }
    let (low, high) = volume
        .iter()
        .flatten()
        .fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    println!(
        "tilted plane against the volume: {:.1e} of range over {inside} points",
        worst / (high - low)
    );
    assert!(inside > 80 && worst / (high - low) < 1e-5, "{worst} {inside}");
    let wrong = oblique([f64::NAN; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], 4, 4);
    assert!(Backprojector::new(&accelerator, &config(4, 8, 3.5, vec![wrong])).is_err());
}

#[test]
fn a_sliding_window_is_the_last_half_turn() {
    let (rows, columns, axis, step) = (2, 48, 23.0, 3.0);
    let (accelerator, queue) = cpu();
    let planes = vec![Plane::Horizontal { row: 1 }];
    let mut sliding = Backprojector::new(&accelerator, &config(rows, columns, axis, planes.clone())).unwrap();
    let mut window = SlidingWindow::new(rows, columns, 64, 180.0).unwrap();
    let mut plain = Arrangement::new(rows, columns, None);
    // The sample changes: it grows with every projection.
    let frame = |n: usize| -> Vec<f32> {
        let values = projection(rows, columns, axis, step * n as f64);
        values.iter().map(|v| v * (1.0 + n as f32 / 100.0)).collect()
    };
    for n in 0..200 {
        // An encoder begins again at 0.
        let angle = (step * n as f64) % 360.0;
        window.push(&queue, &mut sliding, &mut plain, &frame(n), angle).unwrap();
        if [30, 59, 60, 100, 121, 150, 199].contains(&n) {
            let found = snapshot(&mut sliding, &queue, 0, columns * columns);
            let mut batch = Backprojector::new(&accelerator, &config(rows, columns, axis, planes.clone())).unwrap();
            let first = (n + 1).saturating_sub(60);
            for n in first..=n {
                batch.push_values(&queue, &frame(n), step * n as f64).unwrap();
            }
            let expected = snapshot(&mut batch, &queue, 0, columns * columns);
            assert_eq!(
                (window.projections(), sliding.angles_used()),
                (n + 1 - first, (n + 1 - first) as u64)
            );
            let range = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = furthest(&found, &expected) / range;
            assert!(worst < 1e-5, "after {n}: {worst:.1e} of range");
        }
    }
    assert!(SlidingWindow::new(1, 8, 0, 180.0).is_err() && SlidingWindow::new(1, 8, 4, 0.0).is_err());
}

#[test]
fn stripes_leave_the_slices_that_rest_on_them() {
    let (rows, columns, axis) = (3, 64, 30.0);
    let (accelerator, queue) = cpu();
    let planes = vec![Plane::Horizontal { row: 1 }];
    let config = config(rows, columns, axis, planes);
    let mut window = SlidingWindow::new(rows, columns, 90, f64::INFINITY).unwrap();
    let mut arrangement = Arrangement::new(rows, columns, None);
    let slice = |stripe: f32, window: &mut SlidingWindow, arrangement: &mut Arrangement, size: usize| {
        let mut backprojector = Backprojector::new(&accelerator, &config).unwrap();
        for n in 0..90 {
            let mut values = projection(rows, columns, axis, 2.0 * f64::from(n));
            (0..rows).for_each(|row| values[row * columns + 41] += stripe);
            window.keep(&values, 2.0 * f64::from(n)).unwrap();
        }
        window.find_stripes(arrangement, size);
        window.rebuild(&queue, &mut backprojector, arrangement).unwrap();
        let slice = snapshot(&mut backprojector, &queue, 0, columns * columns);
        assert_eq!(backprojector.angles_used(), 90);
        slice
    };
    let clean = slice(0.0, &mut window, &mut arrangement, 0);
    let striped = slice(0.3, &mut window, &mut arrangement, 0);
    let cleaned = slice(0.3, &mut window, &mut arrangement, 9);
    let away = |slice: &[f32]| -> f32 { slice.iter().zip(&clean).map(|(a, b)| (a - b).powi(2)).sum() };
    println!(
        "squares away: {} with the stripe, {} without",
        away(&striped),
        away(&cleaned)
    );
    assert!(away(&cleaned) < 0.3 * away(&striped));
    // Nothing is taken away any more.
    assert_eq!(slice(0.0, &mut window, &mut arrangement, 0), clean);
    assert!(arrangement.run(&[0.0; 7]).is_err());
}

#[test]
fn slabs_are_the_slices_of_the_same_projections_and_stay_within_their_memory() {
    let (columns, angles, axis) = (40, 37, 20.25);
    let (accelerator, queue) = cpu();
    let angles_deg: Vec<f64> = (0..angles).map(|a| 180.0 * f64::from(a) / f64::from(angles)).collect();
    let weights: Vec<f32> = (0..angles).map(|a| if a == 5 { 2.0 } else { 1.0 }).collect();
    let planes = vec![Plane::Slab { block: 0 }];
    let mut plain = Backprojector::new(&accelerator, &config(16, columns, axis, planes)).unwrap();
    let mut sinograms = Vec::new();
    for (angle, weight) in angles_deg.iter().zip(&weights) {
        let rows = projection(16, columns, axis, *angle);
        sinograms.extend((0..16 * columns).map(|i| rows[i % 16 * columns + i / 16]));
        plain.push_weighted(&queue, &rows, *angle, *weight).unwrap();
    }
    let expected = snapshot(&mut plain, &queue, 0, 16 * columns * columns);
    for threads in [1, 3] {
        let mut config = SlabConfig {
            columns,
            rotation_axis_px: axis,
            angles_deg: angles_deg.clone(),
            weights: weights.clone(),
            filter: Filter::RamLak,
            threads,
            memory_budget_bytes: 1 << 20,
        };
        let mut slabs = SlabReconstructor::new(&accelerator, &config).unwrap();
        let mut found = vec![0.0; slabs.slices_len()];
        for _ in 0..2 {
            slabs.run(&queue, &sinograms, &mut found).unwrap();
            assert_eq!(found, expected, "{threads} threads");
        }
        config.memory_budget_bytes = config.bytes_needed() - 1;
        let error = SlabReconstructor::new(&accelerator, &config).err().unwrap().to_string();
        assert!(error.contains("where a slab of 16 slices takes"), "{error}");
    }
}

#[test]
fn a_weight_stands_for_a_projection_that_was_lost() {
    let (columns, angles, axis) = (64, 90, 31.5);
    let (accelerator, queue) = cpu();
    let slice = |weights: &dyn Fn(usize) -> f32| {
        let planes = vec![Plane::Horizontal { row: 0 }];
        let mut backprojector = Backprojector::new(&accelerator, &config(1, columns, axis, planes)).unwrap();
        for a in 0..angles {
            let angle = 180.0 * a as f64 / angles as f64;
            if weights(a) > 0.0 {
                let values = projection(1, columns, axis, angle);
                backprojector.push_weighted(&queue, &values, angle, weights(a)).unwrap();
            }
        }
        snapshot(&mut backprojector, &queue, 0, columns * columns)
    };
    let whole = slice(&|_| 1.0);
    let lost = |a: usize| (30..33).contains(&a);
    let plain = slice(&|a| if lost(a) { 0.0 } else { 1.0 });
    let weighted = slice(&|a| {
        if lost(a) {
            0.0
        } else if a == 29 || a == 33 {
            2.5
        } else {
            1.0
        }
    });
    let rms = |slice: &[f32]| {
        slice
            .iter()
            .zip(&whole)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f32>()
            .sqrt()
    };
    println!(
        "three of 90 lost: {:.3}, neighbours weighted: {:.3}",
        rms(&plain),
        rms(&weighted)
    );
    assert!(rms(&weighted) < 0.9 * rms(&plain));
}

#[test]
fn weights_that_change_later_give_the_slices_of_those_that_were_known_before() {
    let (rows, columns, axis) = (3, 64, 30.0);
    let (accelerator, queue) = cpu();
    let config = config(
        rows,
        columns,
        axis,
        vec![Plane::Horizontal { row: 1 }, Plane::VerticalXz { y_px: 2.0 }],
    );
    let mut plain = Arrangement::new(rows, columns, None);
    let came: Vec<usize> = (0..90).filter(|n| ![0, 30, 31, 62].contains(n)).collect();
    let angle = |n: usize| 2.0 * n as f64;
    let weight = |n: usize| match n {
        1 | 89 | 61 | 63 => 1.5,
        29 | 32 => 2.0,
        _ => 1.0,
    };
    let slices = |backprojector: &mut Backprojector| {
        let flat = snapshot(backprojector, &queue, 0, columns * columns);
        [flat, snapshot(backprojector, &queue, 1, rows * columns)].concat()
    };
    let mut known = Backprojector::new(&accelerator, &config).unwrap();
    for n in came.iter().rev() {
        let values = projection(rows, columns, axis, angle(*n));
        known.push_weighted(&queue, &values, angle(*n), weight(*n)).unwrap();
    }
    let expected = slices(&mut known);
    let range = expected.iter().fold(0f32, |m, v| m.max(v.abs()));

    let mut window = SlidingWindow::new(rows, columns, 90, f64::INFINITY).unwrap();
    let mut later = Backprojector::new(&accelerator, &config).unwrap();
    for n in &came {
        let values = projection(rows, columns, axis, angle(*n));
        window.keep(&values, angle(*n)).unwrap();
        later.push_values(&queue, &values, angle(*n)).unwrap();
    }
    let unweighted = slices(&mut later);
    let weights: Vec<f32> = came.iter().map(|n| weight(*n)).collect();
    window.weigh(&queue, &mut later, &mut plain, &weights).unwrap();
    let found = slices(&mut later);
    assert_eq!((later.angles_used(), later.plane_used(1)), (86, 86));
    let apart = |found: &[f32]| furthest(found, &expected) / range;
    println!(
        "{:.1e} of range; without weights {:.1e}",
        apart(&found),
        apart(&unweighted)
    );
    assert!(apart(&found) < 1e-5 && apart(&unweighted) > 1e-3);
    // Summed anew they are the same, and a weight that is taken back leaves nothing.
    window.rebuild(&queue, &mut later, &mut plain).unwrap();
    assert!(apart(&slices(&mut later)) < 1e-5);
    window.weigh(&queue, &mut later, &mut plain, &vec![1.0; 86]).unwrap();
    assert!(furthest(&slices(&mut later), &unweighted) / range < 1e-5);
    assert!(window.weigh(&queue, &mut later, &mut plain, &[1.0]).is_err());

    // Driven out of a window, a projection goes with all of its weight.
    let mut window = SlidingWindow::new(rows, columns, 90, 90.0).unwrap();
    let mut sliding = Backprojector::new(&accelerator, &config).unwrap();
    let mut last = Backprojector::new(&accelerator, &config).unwrap();
    for n in 0..70 {
        let values = projection(rows, columns, axis, angle(n));
        window
            .push(&queue, &mut sliding, &mut plain, &values, angle(n))
            .unwrap();
        if n == 20 {
            let weights: Vec<f32> = (0..21).map(|n| 1.0 + (n % 3) as f32).collect();
            window.weigh(&queue, &mut sliding, &mut plain, &weights).unwrap();
        }
        if n >= 25 {
            last.push_values(&queue, &values, angle(n)).unwrap();
        }
    }
    let apart = furthest(&slices(&mut sliding), &slices(&mut last)) / range;
    assert_eq!(sliding.angles_used(), 45);
    assert!(apart < 1e-5, "{apart}");
}
