use super::*;
use crate::backprojector::{Backprojector, BackprojectorConfig, Filter, Plane};
use crate::iterative::{Iteration, Iterative, IterativeConfig};
use crate::phantom::{psnr, shepp_logan, sinogram};
use crate::testing::{cpu, random};
use rand::RngExt;

fn config(columns: usize, angles: usize) -> SlopedConfig {
    SlopedConfig {
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        angles,
        lost: Vec::new(),
        iterations: 60,
        flat: 1e-2,
        nonnegative: true,
        support_px: 0.48 * columns as f64,
    }
}

#[test]
fn the_transform_is_the_sum_that_defines_it_and_its_adjoint() {
    for (columns, lines) in [(12, 8), (15, 6), (10, 24)] {
        let mut transform = PseudoPolar::new(columns, lines);
        let mut random = random(columns as u64);
        let image: Vec<f64> = (0..columns * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        let mut found = vec![Complex::default(); transform.len()];
        transform.forward(&image, &mut found);
        let middle = (columns as f64 - 1.0) / 2.0;
        let (radial, size) = (transform.radial(), found.iter().map(|v| v.norm()).fold(0.0, f64::max));
        for (index, found) in found.iter().enumerate() {
            let (line, k, family) = (index % lines, index / lines % radial, index / lines / radial);
            let (along, across) = (
                k as f64 * transform.step(),
                k as f64 * transform.step() * transform.slope(line),
            );
            let (fx, fy) = if family == 0 { (along, across) } else { (-across, along) };
            let mut expected = Complex::new(0.0, 0.0);
            for (pixel, value) in image.iter().enumerate() {
                let (x, y) = ((pixel % columns) as f64 - middle, (pixel / columns) as f64 - middle);
                expected += Complex::from_polar(*value, -TAU * (fx * x + fy * y));
            }
            assert!(
                (found - expected).norm() <= 1e-9 * size,
                "{columns} {index}: {found} {expected}"
            );
        }
        let other: Vec<Complex<f64>> = (0..found.len())
            .map(|_| Complex::new(random.random_range(-1.0..1.0), random.random_range(-1.0..1.0)))
            .collect();
        let mut back = vec![0.0; image.len()];
        transform.adjoint(&other, &mut back);
        let left: f64 = found.iter().zip(&other).map(|(a, b)| a.re * b.re + a.im * b.im).sum();
        let right: f64 = image.iter().zip(&back).map(|(a, b)| a * b).sum();
        let norms = [&found, &other].map(|values| values.iter().map(|v| v.norm_sqr()).sum::<f64>().sqrt());
        assert!((left - right).abs() <= 1e-9 * norms[0] * norms[1], "{left} {right}");
    }
}

#[test]
fn few_projections_give_more_than_back_projection_and_as_much_as_sirt() {
    let (columns, angles) = (128, 64);
    let config = config(columns, angles);
    let angles_deg = equally_sloped_angles_deg(angles);
    let axis = config.rotation_axis_px;
    let lines: Vec<f32> = sinogram(columns, axis, &angles_deg, 4)
        .concat()
        .iter()
        .map(|v| *v as f32)
        .collect();
    let truth = shepp_logan(columns);
    let value = |slice: &[f32]| {
        psnr(
            &slice.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>(),
            &truth,
            columns,
        )
    };
    let mut slice = vec![0.0; columns * columns];
    let errors = Sloped::new(&config).unwrap().run(&lines, &mut slice).unwrap();
    assert!(errors.windows(2).all(|pair| pair[1] <= pair[0]), "{errors:?}");
    let sloped = value(&slice);

    let (accelerator, queue) = cpu();
    let mut backprojector = Backprojector::new(
        &accelerator,
        &BackprojectorConfig {
            rows: 1,
            columns,
            rotation_axis_px: axis,
            filter: Filter::RamLak,
            planes: vec![Plane::Horizontal { row: 0 }],
        },
    )
    .unwrap();
    for (row, angle) in lines.chunks_exact(columns).zip(&angles_deg) {
        // Slopes evenly apart are closer in angle where they are steep.
        let weight = (2.0 * angle.to_radians()).cos().abs() + 1.0;
        backprojector.push_weighted(&queue, row, *angle, weight as f32).unwrap();
    }
    backprojector.flush(&queue).unwrap();
    backprojector.snapshot(&queue, 0, &mut slice).unwrap();
    let filtered = value(&slice);

    let iterative = IterativeConfig {
        columns,
        rotation_axis_px: axis,
        angles_deg,
        iteration: Iteration::Sirt { nonnegative: false },
        iterations: 100,
    };
    let slab: Vec<f32> = lines.iter().flat_map(|v| [*v; 16]).collect();
    let mut slices = vec![0.0; 16 * columns * columns];
    let mut sirt = Iterative::new(&accelerator, &queue, &iterative).unwrap();
    sirt.run(&queue, &slab, &mut slices, |_| true).unwrap();
    let sirt = value(&slices[..columns * columns]);
    let last = errors[errors.len() - 1];
    println!(
        "64 angles: sloped {sloped:.1} dB ({} iterations, error {last:.1e}), back-projection {filtered:.1}, SIRT {sirt:.1}",
        errors.len() - 1
    );
    assert!(sloped >= filtered + 3.0 && sloped >= sirt - 0.5);
}

#[test]
fn lost_projections_constraints_and_wrong_values() {
    let (columns, angles) = (32, 24);
    let mut config = config(columns, angles);
    config.lost = vec![3, 17];
    config.support_px = 12.0;
    let angles_deg = equally_sloped_angles_deg(angles);
    assert_eq!(
        (angles_deg[0], angles_deg[6], angles_deg[12], angles_deg[18]),
        (-45.0, 0.0, 45.0, 90.0)
    );
    let mut lines: Vec<f32> = sinogram(columns, 15.5, &angles_deg, 2)
        .concat()
        .iter()
        .map(|v| *v as f32)
        .collect();
    lines[3 * columns..4 * columns].fill(f32::NAN);
    let mut slice = vec![f32::NAN; columns * columns];
    let errors = Sloped::new(&config).unwrap().run(&lines, &mut slice).unwrap();
    assert!(errors[errors.len() - 1] < 0.5);
    assert!(slice.iter().all(|v| *v >= 0.0) && slice[0] == 0.0 && slice[16 * columns + 1] == 0.0);
    assert_eq!(
        Sloped::new(&config)
            .unwrap()
            .run(&vec![0.0; lines.len()], &mut slice)
            .unwrap(),
        [0.0]
    );
    let wrong = SlopedConfig {
        angles: 30,
        ..config.clone()
    };
    let error = Sloped::new(&wrong).err().unwrap();
    assert_eq!(
        error.to_string(),
        "angles is 30, but must be a multiple of 4, at most 16384"
    );
    assert!(
        Sloped::new(&SlopedConfig {
            lost: vec![24],
            ..config
        })
        .is_err()
    );
}
