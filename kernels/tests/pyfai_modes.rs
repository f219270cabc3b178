//! Azimuthal integration in every mode against pyFAI's CSR engine: splitting no, bbox and full, 1-D and 2-D, every unit,
//! error model and orientation, sigma clipping, and real frames, one of them of four tilted panels.
//!
//! Bars: bin centres 1e-9; in every bin with more than one pixel intensity 1e-5 (of the intensity or its error, whichever
//! is larger: where counts cancel or are next to none the intensity alone is no measure), errors 1e-4; counts equal
//! without splitting and within 1e-3 pixels, or 1e-5 of the count where that is more, with it: the reference adds up areas of polygons in single precision.
//! That is also why one bin in a thousand may miss in 2-D with polygons, the ones at the beam and those with a sliver.

#![allow(clippy::unwrap_used)] // a test

use frame::geometry::Unit;
use frame::{HostRegion, PixelCorners, PixelMask, PixelType, Shape, poni};
use kernels::*;
use std::path::Path;
use std::sync::Arc;

mod pyfai_answers;
use pyfai_answers::{answers, f32s, f64s, npy};

/// How far a case may be from the reference.
#[derive(Clone, Copy, Debug)]
struct Bars {
    intensity: f64,
    sigma: f64,
    count: f64,
    /// share of bins that may miss the bars
    missing: f64,
}

fn bars(splitting: Splitting, clipped: bool, cake: bool) -> Bars {
    let cake_of_polygons = cake && splitting == Splitting::Full;
    Bars {
        intensity: 1e-5,
        sigma: 1e-4,
        count: if splitting == Splitting::No { 0.0 } else { 1e-3 },
        missing: if clipped || cake_of_polygons { 1e-3 } else { 0.0 },
    }
}

fn config(asked: &serde_json::Value, path: &dyn Fn(&str) -> std::path::PathBuf, shape: Shape) -> AzimuthalConfig {
    let mut geometry = poni::parse(&std::fs::read_to_string(path(".poni")).unwrap())
        .unwrap()
        .geometry;
    if let Some(corners) = f32s(&path("_corners.npy")) {
        geometry.pixel_corners = Some(Arc::new(PixelCorners::new(shape, &corners).unwrap()));
    }
    let unit: Unit = serde_json::from_value(asked["unit"].clone()).unwrap();
    // pyFAI lays angles out in radians whatever the unit of the axis.
    let degrees = unit == Unit::TwoThetaDeg;
    let native = if degrees { Unit::TwoThetaRad } else { unit };
    let polarization = asked["polarization"].as_f64();
    let splitting: Splitting = serde_json::from_value(asked["splitting"].clone()).unwrap();
    let range = |key: &str| {
        let range = asked[key].as_array()?;
        Some((range[0].as_f64()?, range[1].as_f64()?))
    };
    let mut config = AzimuthalConfig::new(
        AzimuthalGeometry {
            radial: geometry.radial_map(native, shape).unwrap(),
            scale: if degrees { 180.0 / std::f64::consts::PI } else { 1.0 },
            unit: unit.name().into(),
            solid_angle: (asked["solid_angle"] == true).then(|| geometry.solid_angle_map(shape)),
            polarization: polarization.map(|factor| geometry.polarization_map(factor, 0.0, shape)),
            chi: Some(geometry.chi_map(shape)),
            corners: (splitting != Splitting::No).then(|| geometry.corners(native, shape).unwrap()),
        },
        asked["bins"].as_u64().unwrap() as usize,
    );
    config.radial_range = range("range");
    config.azimuthal_range_deg = range("azimuthal_range");
    config.azimuthal_bins = asked["azimuthal_bins"].as_u64().map(|bins| bins as usize);
    config.splitting = splitting;
    config.error_model = serde_json::from_value(asked["errors"].clone()).unwrap();
    config.sigma_clip = range("clip").map(|(cutoff, cycles)| SigmaClip {
        cutoff,
        cycles: cycles as u32,
    });
    config.saturation = asked["saturation"].as_f64();
    config.dummy = asked["dummy"].as_f64();
    config.delta_dummy = asked["delta_dummy"].as_f64();
    config.normalization_factor = asked["factor"].as_f64().unwrap();
    config.dark = f32s(&path("_dark.npy"));
    config.flat = f32s(&path("_flat.npy"));
    config
}

/// Largest difference of centres, relative to the axis's largest value.
fn apart(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    let worst = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs());
    worst.fold(0.0, f64::max) / largest
}

fn check(accelerator: &Accelerator, folder: &Path, name: &str) -> Result<(), String> {
    let path = |key: &str| folder.join(format!("{name}{key}"));
    let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(path(".json")).unwrap()).unwrap();
    let (_, sizes, raw) = npy(&path("_raw.npy")).unwrap();
    let shape = Shape::new(sizes[0], sizes[1]);
    let of_name = |pixel_type: &PixelType| pixel_type.numpy_name() == asked["dtype"].as_str().unwrap();
    let pixel_type = PixelType::ALL.into_iter().find(of_name).unwrap();
    let mask = npy(&path("_mask.npy")).unwrap().2;
    let mask = PixelMask::from_nonzero(shape, mask.into_iter().map(|masked| masked != 0)).unwrap();
    let config = config(&asked, &path, shape);
    let bars = bars(
        config.splitting,
        config.sigma_clip.is_some(),
        config.azimuthal_bins.is_some(),
    );
    let pages = HostPages::new(raw.len()).unwrap();
    pages.fill(0, &raw).unwrap();
    let region: Arc<dyn HostRegion> = Arc::new(pages);
    let queue = accelerator.queue().unwrap();
    let (expected_i, expected_n) = (f64s(&path("_intensity.npy")), f64s(&path("_count.npy")));
    let expected_s = path("_sigma.npy").exists().then(|| f64s(&path("_sigma.npy")));
    let mut problems = Vec::new();
    // Alone and several at once: where there are two kernels, both.
    let batches: &[usize] = if shape.pixels() > 2_000_000 { &[1] } else { &[1, 6] };
    for frames in batches.iter().copied() {
        let mut stager = Stager::new(accelerator, region.clone(), raw.len(), frames, false).unwrap();
        stager.begin().unwrap();
        (0..frames).for_each(|_| stager.add_in_region(0).unwrap());
        let batch = stager.finish(&queue).unwrap();
        let mut engine = AzimuthalEngine::new(accelerator, &config, shape, pixel_type, &mask, frames).unwrap();
        let mut centers = apart(engine.radial(), &f64s(&path("_radial.npy")));
        if let Some(azimuthal) = engine.azimuthal() {
            centers = centers.max(apart(azimuthal, &f64s(&path("_azimuthal.npy"))));
        }
        if centers > 1e-9 {
            problems.push(format!("bin centres differ by {centers:.1e}"));
        }
        let clipped = config.sigma_clip.is_some();
        engine
            .integrate_with(&queue, batch, |frame, intensity, sigma, count| {
                assert!(intensity.iter().chain(sigma).chain(count).all(|value| value.is_finite()), "{name}");
                let (mut worst_i, mut worst_s, mut worst_n, mut bins, mut missing) = (0f64, 0f64, 0f64, 0, 0);
                for bin in 0..expected_n.len() {
                    let (ours, theirs) = (f64::from(count[bin]), expected_n[bin]);
                    // The reference's clipping says 3 where there are fewer.
                    if clipped && ours < 3.0 && theirs == 3.0 || ours < 1e-5 && theirs < 1e-5 {
                        continue;
                    }
                    let off_n = (ours - theirs).abs();
                    worst_n = worst_n.max(off_n);
                    bins += 1;
                    let mut missed = off_n > bars.count.max(if bars.count > 0.0 { 1e-5 * theirs } else { 0.0 });
                    if theirs > 1.0 {
                        let off = |ours: f32, theirs: f64, scale: f64| (f64::from(ours) - theirs).abs() / scale.max(1e-9);
                        let error = expected_s.as_ref().map_or(0.0, |expected| expected[bin]);
                        let off_i = off(intensity[bin], expected_i[bin], expected_i[bin].abs().max(error));
                        let off_s = expected_s.as_ref().map_or(0.0, |_| off(sigma[bin], error, error));
                        missed |= off_i > bars.intensity || off_s > bars.sigma;
                        (worst_i, worst_s) = (worst_i.max(off_i), worst_s.max(off_s));
                    }
                    missing += usize::from(missed);
                }
                let line = format!("{bins} bins: centres {centers:.0e}, intensity {worst_i:.1e}, errors {worst_s:.1e}, counts {worst_n:.1e}");
                if frame == 0 && frames == 1 {
                    println!("{name}: {line}");
                }
                if missing as f64 > bars.missing * bins as f64 && frame < 2 {
                    problems.push(format!("{frames} frames: {missing} of {line}"));
                }
            })
            .unwrap();
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{name}: {}", problems.join("; ")))
    }
}

#[test]
fn every_mode_agrees_with_pyfai() {
    let (folder, data) = match answers("azimuthal_modes") {
        Ok(answers) => answers,
        Err(reason) => return eprintln!("SKIPPED every_mode_agrees_with_pyfai: {reason}"),
    };
    for (needed, what) in [("pw-ceo2-dioptas", "CeO2"), ("pw-ceria-hexrd", "ceria")] {
        if !data.join(needed).is_dir() {
            eprintln!("SKIPPED every_mode_agrees_with_pyfai on the {what} frames: no {needed}; set FLUXLINE_DATA");
        }
    }
    let accelerator = Accelerator::open(&AcceleratorConfig {
        device: "cpu".into(),
        ..Default::default()
    })
    .unwrap();
    let entries = std::fs::read_dir(&folder.0).unwrap();
    let cases = entries.filter_map(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_str()?
            .strip_suffix(".json")
            .map(str::to_owned)
    });
    let mut cases: Vec<String> = cases.collect();
    cases.sort();
    assert!(cases.len() >= 75, "only {} cases", cases.len());
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|name| check(&accelerator, &folder.0, name).err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}
