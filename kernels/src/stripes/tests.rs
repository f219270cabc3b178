use super::*;
use crate::testing::random;
use rand::RngExt;

/// A smooth sinogram with noise, and the same with stripes of every kind.
fn sinograms(angles: usize, columns: usize) -> (Vec<f32>, Vec<f32>) {
    let mut random = random(11);
    let clean: Vec<f32> = (0..angles * columns)
        .map(|i| {
            let angle = (i / columns) as f64 / angles as f64 * std::f64::consts::PI;
            let u = ((i % columns) as f64 + 0.5) / columns as f64 * 2.0 - 1.0;
            let chord = |r: f64, at: f64| (r * r - (u - at).powi(2)).max(0.0).sqrt();
            let value = chord(0.8, 0.0) + chord(0.2, 0.4 * angle.cos());
            (value + 0.01 * f64::from(random.random_range(-1.0f32..1.0))) as f32 + 0.2
        })
        .collect();
    let mut striped = clean.clone();
    for (i, value) in striped.iter_mut().enumerate() {
        let (angle, column) = (i / columns, i % columns);
        match column {
            40 => *value *= 1.1,
            75..=79 => *value += 0.15,
            100 => *value = 0.9 + 0.7 * ((angle * 7919 % 13) as f32 / 13.0 - 0.5),
            _ => *value *= 1.0 + 0.01 * ((column * 31 % 17) as f32 / 17.0 - 0.5),
        }
    }
    (clean, striped)
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

#[test]
fn all_kinds_together_are_removed_and_every_method_repeats_itself() {
    let (angles, columns) = (121, 160);
    let (clean, striped) = sinograms(angles, columns);
    for (name, method) in StripeMethod::defaults() {
        let mut found = striped.clone();
        method.remove(&mut found, columns).unwrap();
        assert!(found.iter().all(|v| v.is_finite()), "{name}");
        let (before, after) = (rms(&striped, &clean), rms(&found, &clean));
        println!("{name}: {before:.4} to {after:.4}");
        if name == "all" {
            assert!(after < 0.4 * before, "{name}: {before} to {after}");
        }
        let mut many = [striped.clone(), clean.clone(), striped.clone()].concat();
        remove_from_all(&method, &mut many, angles, columns, 2).unwrap();
        assert_eq!(many[..found.len()], found, "{name}");
        assert_eq!(many[2 * found.len()..], found, "{name}");
    }
}

#[test]
fn flat_and_tiny_sinograms_stay_finite() {
    for (_, method) in StripeMethod::defaults() {
        let mut nothing = vec![0.0; 40 * 33];
        method.remove(&mut nothing, 33).unwrap();
        assert!(nothing.iter().all(|v| v.abs() < 1e-6), "{method:?}");
        let mut tiny: Vec<f32> = (0..21).map(|i| i as f32).collect();
        method.remove(&mut tiny, 7).unwrap();
        assert_eq!(tiny[20], 20.0);
    }
}

#[test]
fn wrong_parameters_are_named() {
    let error = StripeMethod::Sorting { size: 0, square: false }.check().unwrap_err();
    assert_eq!(error.to_string(), "size is 0, but must be 1 to 1024 columns");
    let error = StripeMethod::All {
        snr: 3.0,
        large_size: 51,
        small_size: 21,
        drop_ratio: 0.9,
    }
    .check();
    assert_eq!(
        error.unwrap_err().to_string(),
        "drop_ratio is 0.9, but must be 0 to 0.8"
    );
    assert!(
        StripeMethod::Sorting { size: 5, square: false }
            .remove(&mut [0.0; 10], 3)
            .is_err()
    );
}
