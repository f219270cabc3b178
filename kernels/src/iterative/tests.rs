use super::*;
use crate::phantom::{psnr, shepp_logan, sinogram};
use crate::testing::{cpu, random};
use rand::RngExt;

fn config(columns: usize, angles: usize, iteration: Iteration, iterations: usize) -> IterativeConfig {
    IterativeConfig {
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        angles_deg: (0..angles).map(|a| 180.0 * a as f64 / angles as f64).collect(),
        iteration,
        iterations,
    }
}

/// Every lane its own multiple of a sinogram.
fn slab(sinogram: &[f64]) -> Vec<f32> {
    let lane = |v: &f64| {
        (0..LANES)
            .map(|lane| (v * (1.0 + lane as f64)) as f32)
            .collect::<Vec<f32>>()
    };
    sinogram.iter().flat_map(lane).collect()
}

fn run(config: &IterativeConfig, sinograms: &[f32]) -> (Vec<f32>, Vec<f64>) {
    let (accelerator, queue) = cpu();
    let mut iterative = Iterative::new(&accelerator, &queue, config).unwrap();
    let mut slices = vec![f32::NAN; iterative.slices_len()];
    let norms = iterative.run(&queue, sinograms, &mut slices, |_| true).unwrap();
    (slices, norms)
}

#[test]
fn the_projector_and_its_transpose_are_adjoint_and_those_of_the_reference() {
    let (accelerator, queue) = cpu();
    for (columns, angles, axis) in [(33, 20, 16.0), (40, 31, 17.3)] {
        let mut config = config(columns, angles, Iteration::Cgls, 0);
        config.rotation_axis_px = axis;
        let mut iterative = Iterative::new(&accelerator, &queue, &config).unwrap();
        let mut random = random(columns as u64);
        let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect() };
        let (image, rays) = (values(iterative.image.len()), values(iterative.residual.len()));
        queue.write(&iterative.image, 0, &image).unwrap();
        iterative.project(&queue, 0, None).unwrap();
        let mut projected = vec![0.0; rays.len()];
        queue.read(&iterative.residual, 0, &mut projected).unwrap();
        queue.write(&iterative.residual, 0, &rays).unwrap();
        iterative.spread(&queue, 0).unwrap();
        let mut spread = vec![0.0; image.len()];
        queue.read(&iterative.image, 0, &mut spread).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let norm = dot(&projected, &projected).sqrt() * dot(&rays, &rays).sqrt();
        let difference = (dot(&projected, &rays) - dot(&image, &spread)).abs() / norm;
        println!("{columns}: adjoint to {difference:.1e}");
        assert!(difference <= 1e-5);
        let matrix = reference::Rays::new(columns, axis, &config.angles_deg);
        let lane = |values: &[f32]| {
            values
                .iter()
                .skip(3)
                .step_by(LANES)
                .map(|v| f64::from(*v))
                .collect::<Vec<f64>>()
        };
        for (found, expected) in [
            (lane(&projected), matrix.project(&lane(&image))),
            (lane(&spread), matrix.spread(&lane(&rays), columns * columns)),
        ] {
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(f, e)| (f - e).abs())
                .fold(0.0, f64::max);
            assert!(worst < 1e-3, "{worst}");
        }
    }
}

#[test]
fn iterations_are_those_of_the_reference_and_residuals_never_grow() {
    let (columns, angles) = (48, 30);
    for (iteration, iterations) in [(Iteration::Sirt { nonnegative: false }, 40), (Iteration::Cgls, 5)] {
        let config = config(columns, angles, iteration, iterations);
        let lines = sinogram(columns, config.rotation_axis_px, &config.angles_deg, 4).concat();
        let (slices, norms) = run(&config, &slab(&lines));
        assert_eq!(norms.len(), iterations + 1);
        assert!(
            norms.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-6)),
            "{norms:?}"
        );
        let matrix = reference::Rays::new(columns, config.rotation_axis_px, &config.angles_deg);
        let expected = match iteration {
            Iteration::Cgls => matrix.cgls(&lines, columns * columns, iterations),
            _ => matrix.sirt(&lines, columns * columns, iterations),
        };
        for lane in [0, 7] {
            let slice = &slices[lane * columns * columns..][..columns * columns];
            let scale = 1.0 + lane as f64;
            let worst = slice
                .iter()
                .zip(&expected)
                .map(|(f, e)| (f64::from(*f) / scale - e).abs())
                .fold(0.0, f64::max);
            println!("{iteration:?}, slice {lane}: {worst:.1e}");
            assert!(worst < 1e-4, "{worst}");
        }
        let found: Vec<f64> = slices[..columns * columns].iter().map(|v| f64::from(*v)).collect();
        println!("{iteration:?}: {:.1} dB", psnr(&found, &shepp_logan(columns), columns));
    }
}

/// In single precision conjugate directions lose each other after a few iterations, in every program; the residual still falls.
#[test]
fn many_conjugate_iterations_still_never_grow() {
    let config = config(48, 30, Iteration::Cgls, 25);
    let lines = sinogram(48, config.rotation_axis_px, &config.angles_deg, 4).concat();
    let (slices, norms) = run(&config, &slab(&lines));
    assert!(
        norms.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-6)),
        "{norms:?}"
    );
    let found: Vec<f64> = slices[..48 * 48].iter().map(|v| f64::from(*v)).collect();
    println!("25 iterations: {:.1} dB", psnr(&found, &shepp_logan(48), 48));
}

#[test]
fn positivity_progress_and_wrong_values() {
    let (columns, angles) = (32, 20);
    let config = config(columns, angles, Iteration::Sirt { nonnegative: true }, 30);
    let lines = sinogram(columns, config.rotation_axis_px, &config.angles_deg, 4).concat();
    let (slices, _) = run(&config, &slab(&lines));
    assert!(slices.iter().all(|v| *v >= 0.0));
    let (accelerator, queue) = cpu();
    let mut iterative = Iterative::new(&accelerator, &queue, &config).unwrap();
    let mut out = vec![0.0; iterative.slices_len()];
    let norms = iterative.run(&queue, &slab(&lines), &mut out, |done| done < 4).unwrap();
    assert_eq!(norms.len(), 5, "stopped after the fourth");
    assert!(iterative.run(&queue, &[0.0; 3], &mut out, |_| true).is_err());
    let wrong = IterativeConfig {
        angles_deg: Vec::new(),
        ..config
    };
    let error = Iterative::new(&accelerator, &queue, &wrong).err().unwrap();
    assert!(error.to_string().contains("0x32"), "{error}");
}
