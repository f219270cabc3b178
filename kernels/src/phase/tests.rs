use super::*;
use crate::testing::random;
use rand::RngExt;

fn config(rows: usize, columns: usize) -> PaganinConfig {
    PaganinConfig {
        rows,
        columns,
        pixel_size_um: 1.3,
        energy_kev: 23.5,
        distance_mm: 120.0,
        delta_beta: 250.0,
        padding: Padding::Edge,
        clip_epsilon: 1e-6,
        threads: 2,
    }
}

fn projections(count: usize, pixels: usize) -> Vec<f32> {
    let mut random = random(7);
    (0..count * pixels).map(|_| random.random_range(0.3f32..1.0)).collect()
}

#[test]
fn agrees_with_the_reference_in_any_batch() {
    for (rows, columns, padding) in [
        (24, 40, Padding::Edge),
        (17, 23, Padding::Symmetric),
        (9, 50, Padding::Edge),
    ] {
        let config = PaganinConfig {
            padding,
            ..config(rows, columns)
        };
        let given = projections(5, rows * columns);
        let mut paganin = Paganin::new(&config).unwrap();
        let (mut found, mut single) = (given.clone(), given[..rows * columns].to_vec());
        paganin.filter(&mut found).unwrap();
        paganin.filter(&mut single).unwrap();
        assert_eq!(single, found[..rows * columns], "a batch changes no bit");
        for (given, found) in given
            .chunks_exact(rows * columns)
            .zip(found.chunks_exact(rows * columns))
        {
            let given: Vec<f64> = given.iter().map(|v| f64::from(*v)).collect();
            let expected = reference::paganin(&config, &given);
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(f, e)| (f64::from(*f) / e - 1.0).abs());
            let worst = worst.fold(0.0, f64::max);
            assert!(worst <= 1e-6, "{rows}x{columns} {padding:?}: {worst:.1e}");
        }
    }
}

#[test]
fn a_wave_is_damped_by_the_filter_and_the_mean_stays() {
    let (rows, columns) = (8, 1024);
    let mut config = config(rows, columns);
    config.delta_beta = 60.0;
    // A cosine that is even about both edges goes on by itself when it is mirrored.
    config.padding = Padding::Symmetric;
    let turns = 60.0;
    let wave = |column: usize| (std::f64::consts::PI * turns * (column as f64 + 0.5) / columns as f64).cos();
    let mut values: Vec<f32> = (0..rows * columns)
        .map(|i| (0.7 + 0.2 * wave(i % columns)) as f32)
        .collect();
    Paganin::new(&config).unwrap().filter(&mut values).unwrap();
    let f_per_um = turns / 2.0 / columns as f64 / config.pixel_size_um;
    // F = 1 / (1 + π λ z δ/β f²), all in metres.
    let wavelength_m = 1.239_841_984e-9 / config.energy_kev;
    let term = std::f64::consts::PI * wavelength_m * (config.distance_mm * 1e-3) * config.delta_beta;
    let gain = 1.0 / (1.0 + term * (f_per_um * 1e6).powi(2));
    assert!((0.3..0.9).contains(&gain), "{gain}");
    for (i, value) in values.iter().enumerate() {
        let expected = 0.7 + 0.2 * gain * wave(i % columns);
        assert!(
            (f64::from(*value) - expected).abs() < 1e-6,
            "{i}: {value} and {expected}"
        );
    }
    let mean: f64 = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    assert!((mean - 0.7).abs() < 1e-6, "{mean}");
}

#[test]
fn absorption_comes_out_and_what_is_not_a_number_does_not_spread() {
    let config = config(16, 16);
    let mut values = vec![0.5f32; 256];
    let mut paganin = Paganin::new(&config).unwrap();
    paganin.run(&mut values).unwrap();
    assert!(values.iter().all(|v| (v - 2f32.ln()).abs() < 1e-6));
    let mut values = vec![1.0f32; 256];
    (values[77], values[3], values[200]) = (f32::NAN, f32::INFINITY, -5.0);
    paganin.run(&mut values).unwrap();
    assert!(values.iter().all(|v| v.is_finite()));
}

#[test]
fn units_are_checked() {
    let wrong = |change: fn(&mut PaganinConfig)| {
        let mut config = config(8, 8);
        change(&mut config);
        Paganin::new(&config).err().unwrap().to_string()
    };
    assert_eq!(
        wrong(|c| c.energy_kev = 23_500.0),
        "energy_kev is 23500, but must be 0.1 to 1000 (keV, not eV)"
    );
    assert!(wrong(|c| c.pixel_size_um = 1.3e-6).contains("micrometres, not metres"));
    assert!(wrong(|c| c.distance_mm = f64::NAN).contains("distance_mm is NaN"));
    assert!(wrong(|c| c.delta_beta = 0.0).contains("delta_beta"));
    assert!(wrong(|c| c.threads = 0).contains("threads is 0"));
    let error = Paganin::new(&config(8, 8)).unwrap().run(&mut [0.0; 65]).unwrap_err();
    assert_eq!(error.to_string(), "the number of values is 65, expected 128");
}
