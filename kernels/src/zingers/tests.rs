use super::*;
use crate::testing::random;
use rand::RngExt;

#[test]
fn nearly_all_zingers_go_and_nearly_nothing_else() {
    let (rows, columns) = (200, 300);
    let mut random = random(3);
    let smooth = |i: usize| 0.6 + 0.3 * ((i % columns) as f32 / 40.0).sin() + 0.02 * (i / columns) as f32 / 200.0;
    let clean: Vec<f32> = (0..rows * columns)
        .map(|i| smooth(i) * (1.0 + 0.01 * random.random_range(-1.0f32..1.0)))
        .collect();
    for method in [
        ZingerMethod::Mean {
            threshold: 0.08,
            size: 2,
        },
        ZingerMethod::Median { threshold: 0.05 },
    ] {
        let mut image = clean.clone();
        // At least 5 apart, so that none is another's surroundings.
        let struck: Vec<usize> = (0..200)
            .map(|k| (5 * (k / 10) + 3) * columns + 29 * (k % 10) + 4)
            .collect();
        for (k, place) in struck.iter().enumerate() {
            image[*place] *= 1.5 + k as f32 / 50.0;
        }
        let replaced = Zingers::new(&method, rows, columns).unwrap().run(&mut image).unwrap();
        let removed = struck
            .iter()
            .filter(|i| (image[**i] / clean[**i] - 1.0).abs() < 0.1)
            .count();
        let others = (0..clean.len())
            .filter(|i| image[*i] != clean[*i] && !struck.contains(i))
            .count();
        println!("{method:?}: {removed} of 200 removed, {others} clean pixels changed");
        assert!(
            removed >= 198 && others as f64 <= 1e-4 * clean.len() as f64,
            "{removed} {others}"
        );
        assert_eq!(
            replaced,
            struck.iter().filter(|i| image[**i] != clean[**i]).count() + others
        );
    }
}

#[test]
fn wrong_values_are_named() {
    let error = Zingers::new(
        &ZingerMethod::Mean {
            threshold: 0.0,
            size: 2,
        },
        4,
        4,
    )
    .err()
    .unwrap();
    assert_eq!(error.to_string(), "the zingers' threshold is 0, but must be above 0");
    let mut zingers = Zingers::new(&ZingerMethod::Median { threshold: 0.1 }, 4, 4).unwrap();
    assert!(zingers.run(&mut [0.0; 15]).is_err());
    let mut odd = [f32::NAN; 16];
    assert_eq!(zingers.run(&mut odd).unwrap(), 0);
}
