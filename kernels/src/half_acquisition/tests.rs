use super::*;
use crate::backprojector::{Backprojector, BackprojectorConfig, Filter, Plane};
use crate::testing::cpu;

/// Smooth discs that reach beyond one side of the detector.
fn row(columns: usize, axis: f64, angle_deg: f64) -> Vec<f32> {
    let (sin, cos) = angle_deg.to_radians().sin_cos();
    let discs = [
        (0.0, 0.0, 50.0, 1.0),
        (28.0, -12.0, 14.0, -0.5),
        (-35.0, 20.0, 8.0, 0.7),
        (3.0, 38.0, 6.0, 1.3),
    ];
    (0..columns)
        .map(|column| {
            let t = column as f64 - axis;
            let chord = |(x, y, r, value): &(f64, f64, f64, f64)| {
                let away = (t - x * cos - y * sin).powi(2);
                value * (r * r - away).max(0.0) / r
            };
            discs.iter().map(chord).sum::<f64>() as f32
        })
        .collect()
}

fn slice(columns: usize, axis: f64, projections: impl Iterator<Item = (Vec<f32>, f64)>) -> Vec<f32> {
    let (accelerator, queue) = cpu();
    let planes = vec![Plane::Horizontal { row: 0 }];
    let config = BackprojectorConfig {
        rows: 1,
        columns,
        rotation_axis_px: axis,
        filter: Filter::RamLak,
        planes,
    };
    let mut backprojector = Backprojector::new(&accelerator, &config).unwrap();
    projections.for_each(|(row, angle)| backprojector.push_values(&queue, &row, angle).unwrap());
    backprojector.flush(&queue).unwrap();
    let mut out = vec![0.0; columns * columns];
    backprojector.snapshot(&queue, 0, &mut out).unwrap();
    out
}

#[test]
fn a_whole_turn_with_an_axis_at_the_edge_is_half_a_turn_of_a_wide_detector() {
    for (columns, axis) in [(70, 12.0), (71, 12.25), (70, 57.75)] {
        let angles = 180;
        let half = HalfAcquisition::new(columns, axis).unwrap();
        let (wide, wide_axis) = (half.wide_columns(), half.wide_axis_px());
        let angle = |a: usize| 360.0 * a as f64 / angles as f64;
        let expected = slice(
            wide,
            wide_axis,
            (0..angles / 2).map(|a| (row(wide, wide_axis, angle(a)), angle(a))),
        );
        let found = slice(
            wide,
            wide_axis,
            (0..angles).map(|a| {
                let mut out = vec![0.0; wide];
                half.place(&row(columns, axis, angle(a)), &mut out).unwrap();
                (out, angle(a))
            }),
        );
        let sinogram: Vec<f32> = (0..angles).flat_map(|a| row(columns, axis, angle(a))).collect();
        let angles_deg: Vec<f64> = (0..angles).map(angle).collect();
        let stitching = Stitching::new(half, &angles_deg).unwrap();
        let mut stitched = vec![0.0; angles / 2 * wide];
        stitching.stitch(&sinogram, &mut stitched).unwrap();
        assert_eq!(stitching.angles_deg(), &angles_deg[..angles / 2]);
        let whole = slice(
            wide,
            wide_axis,
            stitched
                .chunks_exact(wide)
                .enumerate()
                .map(|(a, row)| (row.to_vec(), angle(a))),
        );
        let range = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let rms = |slice: &[f32]| {
            let middle = (wide as f64 - 1.0) / 2.0;
            let inside = |i: &usize| ((i % wide) as f64 - middle).hypot((i / wide) as f64 - middle) < 50.0;
            let square = |i: usize| f64::from((slice[i] - expected[i]) / range).powi(2);
            let count = (0..wide * wide).filter(inside).count() as f64;
            ((0..wide * wide).filter(inside).map(square).sum::<f64>() / count).sqrt()
        };
        println!(
            "{columns} columns, axis {axis}: placed {:.1e}, stitched {:.1e} of range",
            rms(&found),
            rms(&whole)
        );
        assert!(rms(&found) < 6e-3 && rms(&whole) < 6e-3);
    }
}

#[test]
fn an_axis_off_the_detector_is_refused() {
    assert!(
        HalfAcquisition::new(64, -3.0)
            .unwrap_err()
            .to_string()
            .contains("on the detector")
    );
    assert!(HalfAcquisition::new(64, 0.5).is_err() && HalfAcquisition::new(64, f64::NAN).is_err());
    let half = HalfAcquisition::new(64, 10.0).unwrap();
    assert_eq!((half.wide_columns(), half.wide_axis_px()), (107, 53.0));
    assert!(half.place(&[0.0; 64], &mut [0.0; 106]).is_err());
    let roomy = HalfAcquisition::within(64, 10.0, 128).unwrap();
    assert_eq!((roomy.wide_columns(), roomy.wide_axis_px()), (128, 63.0));
    let roomy = HalfAcquisition::within(64, 53.0, 128).unwrap();
    assert_eq!((roomy.wide_columns(), roomy.wide_axis_px()), (128, 63.0));
    assert!(HalfAcquisition::within(64, 10.0, 106).is_err());
    assert!(Stitching::new(half.clone(), &[0.0, 90.0, f64::NAN, 270.0]).is_err());
    let stitching = Stitching::new(half, &[0.0, 90.0, 180.0, 270.0]).unwrap();
    assert!(stitching.stitch(&[0.0; 64 * 3], &mut [0.0; 107 * 2]).is_err());
}

#[test]
fn a_slab_is_placed_as_its_rows_are() {
    let half = HalfAcquisition::new(20, 6.25).unwrap();
    let (columns, wide) = (20, half.wide_columns());
    let value = |projection: usize, column: usize, row: usize| (projection * 100 + column * 3 + row) as f32;
    let mut slab = Vec::new();
    for projection in 0..3 {
        for column in 0..columns {
            slab.extend((0..BLOCK_ROWS).map(|row| value(projection, column, row)));
        }
    }
    let mut placed = vec![7.0; 3 * wide * BLOCK_ROWS];
    half.place_slab(&slab, &mut placed).unwrap();
    for row in [0, 9, 15] {
        let rows: Vec<f32> = (0..3 * columns).map(|i| value(i / columns, i % columns, row)).collect();
        let mut expected = vec![7.0; 3 * wide];
        half.place(&rows, &mut expected).unwrap();
        let found: Vec<f32> = placed[row..].iter().step_by(BLOCK_ROWS).copied().collect();
        assert_eq!(found, expected);
    }
    assert!(half.place_slab(&slab[1..], &mut placed).is_err());
}

#[test]
fn projections_without_a_partner_are_put_together_with_what_lies_beside() {
    let (columns, axis, count) = (60, 14.0, 240);
    let half = HalfAcquisition::new(columns, axis).unwrap();
    let wide = half.wide_columns();
    let all: Vec<f64> = (0..count).map(|n| 1.5 * f64::from(n) + 20.0).collect();
    let made = |angles_deg: &[f64]| {
        let stitching = Stitching::new(half.clone(), angles_deg).unwrap();
        let sinogram: Vec<f32> = angles_deg.iter().flat_map(|angle| row(columns, axis, *angle)).collect();
        let mut out = vec![0.0; stitching.angles_deg().len() * wide];
        stitching.stitch(&sinogram, &mut out).unwrap();
        (stitching.angles_deg().to_vec(), out)
    };
    let (angles_deg, expected) = made(&all);
    assert_eq!(angles_deg, all[..count as usize / 2]);
    // Two are lost, of different halves, and the others come in another order, some a turn later.
    let mut some: Vec<f64> = all
        .iter()
        .enumerate()
        .filter(|(n, _)| ![7, 150].contains(n))
        .map(|(_, a)| *a)
        .collect();
    some.reverse();
    some[3] += 360.0;
    let (angles_deg, found) = made(&some);
    assert_eq!(angles_deg.len(), 120);
    let range = expected.iter().fold(0f32, |most, value| most.max(*value));
    let worst = found
        .iter()
        .zip(&expected)
        .fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    println!("worst {:.1e} of range", worst / range);
    assert!(worst < 0.03 * range && worst > 0.0);
    // An odd number of projections has none opposite to another.
    let odd: Vec<f64> = (0..239).map(|n| 360.0 * f64::from(n) / 239.0).collect();
    assert_eq!(made(&odd).0.len(), 120);
}
