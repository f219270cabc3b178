//! Azimuthal integration against pyFAI's CSR engine: counts equal in every bin, intensity to 1e-5, errors to 1e-4,
//! bin centres to 1e-9, over synthetic EIGER-like frames and the real CeO2 frame.

#![allow(clippy::unwrap_used)] // a test

use frame::geometry::Unit;
use frame::{HostRegion, PixelMask, PixelType, Shape, poni};
use kernels::*;
use std::path::Path;
use std::sync::Arc;

mod pyfai_answers;
use pyfai_answers::{answers, f32s, f64s, npy};

const CASES: [&str; 6] = ["eiger", "saturated", "tilted", "signed", "floats", "empty"];
const REAL_CASES: [&str; 2] = ["ceo2_0", "ceo2_1"];

fn check(accelerator: &Accelerator, folder: &Path, name: &str) {
    let path = |key: &str| folder.join(format!("{name}{key}"));
    let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(path(".json")).unwrap()).unwrap();
    let geometry = poni::parse(&std::fs::read_to_string(path(".poni")).unwrap())
        .unwrap()
        .geometry;
    let (_, sizes, raw) = npy(&path("_raw.npy")).unwrap();
    let shape = Shape::new(sizes[0], sizes[1]);
    let of_name = |pixel_type: &PixelType| pixel_type.numpy_name() == asked["dtype"].as_str().unwrap();
    let pixel_type = PixelType::ALL.into_iter().find(of_name).unwrap();
    let mask = npy(&path("_mask.npy")).unwrap().2;
    let mask = PixelMask::from_nonzero(shape, mask.into_iter().map(|masked| masked != 0)).unwrap();
    let unit: Unit = serde_json::from_value(asked["unit"].clone()).unwrap();
    // pyFAI lays angles out in radians whatever the unit of the axis.
    let degrees = unit == Unit::TwoThetaDeg;
    let native = if degrees { Unit::TwoThetaRad } else { unit };
    let bins = asked["bins"].as_u64().unwrap() as usize;
    let polarization = asked["polarization"].as_f64();
    let mut config = AzimuthalConfig::new(
        AzimuthalGeometry {
            radial: geometry.radial_map(native, shape).unwrap(),
            scale: if degrees { 180.0 / std::f64::consts::PI } else { 1.0 },
            unit: unit.name().into(),
            solid_angle: Some(geometry.solid_angle_map(shape)),
            polarization: polarization.map(|factor| geometry.polarization_map(factor, 0.0, shape)),
            ..Default::default()
        },
        bins,
    );
    config.radial_range = asked["range"]
        .as_array()
        .map(|range| (range[0].as_f64().unwrap(), range[1].as_f64().unwrap()));
    config.saturation = asked["saturation"].as_f64();
    config.dummy = asked["dummy"].as_f64();
    config.delta_dummy = asked["delta_dummy"].as_f64();
    config.normalization_factor = asked["factor"].as_f64().unwrap();
    config.dark = f32s(&path("_dark.npy"));
    config.flat = f32s(&path("_flat.npy"));

    let pages = HostPages::new(raw.len()).unwrap();
    pages.fill(0, &raw).unwrap();
    let region: Arc<dyn HostRegion> = Arc::new(pages);
    let queue = accelerator.queue().unwrap();
    // Alone and sixteen at once: two kernels.
    for frames in [1, 16] {
        let mut stager = Stager::new(accelerator, region.clone(), raw.len(), frames, false).unwrap();
        stager.begin().unwrap();
        (0..frames).for_each(|_| stager.add_in_region(0).unwrap());
        let batch = stager.finish(&queue).unwrap();
        let mut integrator = AzimuthalIntegrator::new(accelerator, &config, shape, pixel_type, &mask, frames).unwrap();
        let radial = f64s(&path("_radial.npy"));
        let worst = integrator
            .radial()
            .iter()
            .zip(&radial)
            .map(|(ours, theirs)| (ours / theirs - 1.0).abs());
        let worst_radial = worst.fold(0.0, f64::max);
        assert!(worst_radial <= 1e-9, "{name}: bin centres differ by {worst_radial:.1e}");
        let (expected_i, expected_s, expected_n) = (
            f64s(&path("_intensity.npy")),
            f64s(&path("_sigma.npy")),
            f64s(&path("_count.npy")),
        );
        integrator
            .integrate_with(&queue, batch, |_, intensity, sigma, count| {
                let (mut worst_i, mut worst_s) = (0f64, 0f64);
                for bin in 0..bins {
                    assert_eq!(f64::from(count[bin]), expected_n[bin], "{name}: pixels of bin {bin}");
                    if count[bin] == 0.0 {
                        assert_eq!((intensity[bin], sigma[bin]), (0.0, 0.0), "{name}: empty bin {bin}");
                        continue;
                    }
                    worst_i = worst_i.max((f64::from(intensity[bin]) / expected_i[bin] - 1.0).abs());
                    worst_s = worst_s.max((f64::from(sigma[bin]) / expected_s[bin] - 1.0).abs());
                }
                assert!(worst_i <= 1e-5, "{name}: intensities differ by {worst_i:.1e}");
                assert!(worst_s <= 1e-4, "{name}: errors differ by {worst_s:.1e}");
                if frames == 1 {
                    println!("{name}: centres {worst_radial:.1e}, intensity {worst_i:.1e}, errors {worst_s:.1e}");
                }
            })
            .unwrap();
    }
}

#[test]
fn agrees_with_pyfai() {
    let (folder, data) = match answers("azimuthal_reference") {
        Ok(answers) => answers,
        Err(reason) => return eprintln!("SKIPPED agrees_with_pyfai: {reason}"),
    };
    let accelerator = Accelerator::open(&AcceleratorConfig {
        device: "cpu".into(),
        ..Default::default()
    })
    .unwrap();
    for name in CASES {
        check(&accelerator, &folder.0, name);
    }
    if !data.join("pw-ceo2-dioptas").is_dir() {
        return eprintln!("SKIPPED agrees_with_pyfai on the CeO2 frame: no pw-ceo2-dioptas; set FLUXLINE_DATA");
    }
    for name in REAL_CASES {
        check(&accelerator, &folder.0, name);
    }
}
