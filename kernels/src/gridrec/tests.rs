use super::*;
use crate::backprojector::reference as filtered;
use crate::phantom::{inside, psnr, shepp_logan, sinogram};

/// `[angle][column][16]` with two different rows and 14 empty ones.
fn slab(first: &[Vec<f64>], second: &[Vec<f64>]) -> Vec<f32> {
    let mut values = Vec::new();
    for (first, second) in first.iter().zip(second) {
        for (a, b) in first.iter().zip(second) {
            values.extend([*a as f32, *b as f32]);
            values.extend([0.0; 14]);
        }
    }
    values
}

#[test]
fn slices_are_those_of_filtered_back_projection() {
    for (columns, axis, filter) in [(128, 63.5, Filter::RamLak), (101, 52.25, Filter::Hann)] {
        let angles_deg: Vec<f64> = (0..160).map(|a| 180.0 * f64::from(a) / 160.0).collect();
        let first = sinogram(columns, axis, &angles_deg, 4);
        let second: Vec<Vec<f64>> = first.iter().map(|row| row.iter().map(|v| 0.5 * v).collect()).collect();
        let mut outs = Vec::new();
        for threads in [1, 3] {
            let weights = Vec::new();
            let rotation_axis_px = axis;
            let angles_deg = angles_deg.clone();
            let config = GridrecConfig {
                columns,
                rotation_axis_px,
                angles_deg,
                weights,
                filter,
                threads,
            };
            let mut gridrec = Gridrec::new(&config).unwrap();
            let mut out = vec![f32::NAN; 16 * columns * columns];
            gridrec.run(&slab(&first, &second), &mut out).unwrap();
            outs.push(out);
        }
        assert_eq!(outs[0], outs[1]);
        let pixels = columns * columns;
        let (found, half) = (&outs[0][..pixels], &outs[0][pixels..2 * pixels]);
        assert!(outs[0][2 * pixels..].iter().all(|v| *v == 0.0));
        let twice = found
            .iter()
            .zip(half)
            .map(|(a, b)| (a - 2.0 * b).abs())
            .fold(0.0, f32::max);
        assert!(twice < 1e-4, "{twice}");
        let expected = filtered::backprojector(filter, &first, &angles_deg, axis);
        let range = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        let (mut sum, mut count) = (0.0f64, 0.0);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if inside(i, columns) {
                sum += ((f64::from(*found) - expected) / range).powi(2);
                count += 1.0;
            }
        }
        let rmse = (sum / count).sqrt();
        let truth = shepp_logan(columns);
        let found: Vec<f64> = found.iter().map(|v| f64::from(*v)).collect();
        let (ours, theirs) = (psnr(&found, &truth, columns), psnr(&expected, &truth, columns));
        println!("{columns} {filter:?}: RMSE {rmse:.1e} of range; truth {ours:.2} dB, back-projection {theirs:.2} dB");
        // So few columns are all edges: where columns are sampled, interpolation leaves more than its blur.
        assert!(rmse <= 1.5e-2 && ours >= theirs - 1.0);
    }
}

#[test]
fn the_grid_is_exact_to_a_ten_thousandth() {
    for (columns, axis) in [(24, 11.5), (21, 8.75)] {
        let angles_deg: Vec<f64> = (0..17).map(|a| 11.0 * f64::from(a) - 4.0).collect();
        let config = GridrecConfig {
            columns,
            rotation_axis_px: axis,
            weights: (0..17).map(|a| 1.0 + 0.1 * a as f32).collect(),
            angles_deg: angles_deg.clone(),
            filter: Filter::SheppLogan,
            threads: 1,
        };
        let lines = sinogram(columns, axis, &angles_deg, 2);
        let mut out = vec![0.0; 16 * columns * columns];
        Gridrec::new(&config)
            .unwrap()
            .run(&slab(&lines, &lines), &mut out)
            .unwrap();
        let expected = super::reference::gridrec(&config, &lines);
        let range = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        let worst = out
            .iter()
            .zip(&expected)
            .map(|(f, e)| (f64::from(*f) - e).abs())
            .fold(0.0, f64::max)
            / range;
        println!("{columns}: {worst:.1e} of range");
        assert!(worst <= 1e-4, "{worst}");
    }
}

#[test]
fn it_is_for_many_projections_of_wide_detectors() {
    for (columns, projections) in [
        (2048, 1500),
        (2048, 180),
        (1024, 180),
        (768, 180),
        (640, 181),
        (512, 360),
    ] {
        assert!(is_faster(columns, projections), "{columns} {projections}");
    }
    for (columns, projections) in [
        (2048, 60),
        (1024, 90),
        (512, 90),
        (360, 10_000),
        (256, 1440),
        (64, 10_000),
    ] {
        assert!(!is_faster(columns, projections), "{columns} {projections}");
    }
}

#[test]
fn wrong_values_are_named() {
    let config = GridrecConfig {
        columns: 64,
        rotation_axis_px: 31.5,
        angles_deg: vec![0.0, 90.0],
        weights: vec![1.0],
        filter: Filter::RamLak,
        threads: 1,
    };
    let error = Gridrec::new(&config).err().unwrap();
    assert_eq!(error.to_string(), "the number of weights is 1, expected 2");
    let weights = vec![0.0, 0.0];
    assert!(
        Gridrec::new(&GridrecConfig {
            weights,
            ..config.clone()
        })
        .is_err()
    );
    let weights = Vec::new();
    let mut gridrec = Gridrec::new(&GridrecConfig { weights, ..config }).unwrap();
    assert!(gridrec.run(&[0.0; 3], &mut [0.0; 3]).is_err());
}
