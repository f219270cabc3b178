use super::*;
use frame::Shape;

fn store(name: &str) -> (PathBuf, Calibrations) {
    let root = std::env::temp_dir().join(format!("fluxline-calibrations-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    let calibrations = Calibrations::open(&root, 3.0).unwrap();
    (root, calibrations)
}

fn dark(value: f64, conditions: Conditions) -> Proposed {
    Proposed {
        kind: CalibrationKind::Dark,
        content: Content::Array(vec![4, 5], vec![value; 20]),
        noise: Some(vec![2.0; 20]),
        conditions,
        origin: "a test".into(),
        frames: Some([10, 0]),
        valid_from: None,
        valid_to: None,
        comment: String::new(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_newest_that_holds_and_fits_is_found_and_a_file_that_changed_is_not_read() {
    let (root, calibrations) = store("newest");
    let monday = at("2026-11-23T08:00:00Z");
    let add = |proposed, now| calibrations.add(proposed, None, now).unwrap();
    let first = add(dark(1.0, Conditions::default()), monday);
    let again = add(dark(2.0, Conditions::default()), monday);
    assert_ne!(first.version, again.version, "two at one time have two names");
    let long = Conditions {
        exposure_s: Some(1.0),
        ..Conditions::default()
    };
    let slow = add(dark(3.0, long.clone()), at("2026-11-24T08:00:00Z"));
    let mut short_lived = dark(4.0, Conditions::default());
    short_lived.valid_to = Some(at("2026-11-26T00:00:00Z"));
    let ends = add(short_lived, at("2026-11-25T08:00:00Z"));
    let newest = |time: &str, run: &Conditions| {
        let fits = |record: &CalibrationRecord| record.conditions.hold_for(run) && record.shape == Some([4, 5]);
        calibrations
            .newest(CalibrationKind::Dark, at(time), fits)
            .unwrap()
            .map(|record| record.version)
    };
    let any = Conditions::default();
    let fast = Conditions {
        exposure_s: Some(0.1),
        ..Conditions::default()
    };
    assert_eq!(newest("2026-11-22T00:00:00Z", &any), None);
    assert_eq!(newest("2026-11-24T00:00:00Z", &any), Some(again.version.clone()));
    assert_eq!(newest("2026-11-24T09:00:00Z", &any), Some(slow.version.clone()));
    assert_eq!(newest("2026-11-24T09:00:00Z", &fast), Some(again.version.clone()));
    assert_eq!(newest("2026-11-25T12:00:00Z", &fast), Some(ends.version));
    assert_eq!(newest("2026-11-27T00:00:00Z", &long), Some(slow.version));
    assert!(
        calibrations
            .newest(CalibrationKind::Flat, monday, |_| true)
            .unwrap()
            .is_none()
    );
    match calibrations.read(&again).unwrap() {
        Content::Array(sizes, values) => assert_eq!((sizes, values), (vec![4, 5], vec![2.0; 20])),
        Content::Text(_) => panic!("a dark is no text"),
    }
    fs::write(calibrations.path(&again), b"something else").unwrap();
    assert!(
        calibrations
            .read(&again)
            .unwrap_err()
            .to_string()
            .contains("was changed after it was kept")
    );
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_drift_is_measured_in_sigmas_of_one_frame() {
    let (root, calibrations) = store("drift");
    let monday = at("2026-11-23T08:00:00Z");
    let first = calibrations
        .add(dark(10.0, Conditions::default()), None, monday)
        .unwrap();
    assert_eq!((first.drift_sigmas, &first.compared_with), (None, &None));
    let mut moved = dark(12.0, Conditions::default());
    if let Content::Array(_, values) = &mut moved.content {
        values[..3].fill(100.0);
    }
    let second = calibrations.add(moved, None, at("2026-11-24T08:00:00Z")).unwrap();
    assert_eq!((second.drift_sigmas, second.drifted_pixels), (Some(1.0), Some(3)));
    assert!(second.warnings.is_empty());
    let third = calibrations
        .add(dark(20.0, Conditions::default()), None, at("2026-11-25T08:00:00Z"))
        .unwrap();
    assert_eq!(
        (third.drift_sigmas, third.compared_with),
        (Some(4.0), Some(second.version))
    );
    assert!(
        third.warnings[0].contains("more than 4.0 sigma"),
        "{:?}",
        third.warnings
    );
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn planes_without_a_header_are_told_by_their_size() {
    use crate::recipes::fields::{parse_bin, parse_npy};
    let doubles = |planes: usize| vec![0u8; planes * 512 * 1024 * 8];
    assert_eq!(parse_bin(&doubles(6)).unwrap().0, [6, 512, 1024]);
    assert_eq!(parse_bin(&doubles(3)).unwrap().0, [3, 512, 1024]);
    assert_eq!(parse_bin(&[0; 512 * 1024 * 4]).unwrap().0, [512, 1024]);
    assert!(parse_bin(&[0; 100]).unwrap_err().contains("100 bytes"));
    let file = npy("<f8", &[2, 1, 3], &[0; 48]);
    assert_eq!(parse_npy(&file).unwrap(), (vec![2, 1, 3], vec![0.0; 6]));
}

#[test]
fn another_detectors_geometry_is_told_by_its_shape_or_its_pixels() {
    let poni = |pixel: &str| {
        format!(
            "poni_version: 2\nDetector: Detector\nDetector_config: {{\"pixel1\": {pixel}, \"pixel2\": {pixel}}}\n\
             Distance: 0.1\nPoni1: 0\nPoni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\n"
        )
    };
    let detector = Detector {
        shape: Shape::new(4, 5),
        pixel_m: Some([75e-6, 75e-6]),
        pixel_type: None,
    };
    let fits = |text: &str| check::poni_fits(&frame::poni::parse(text).unwrap(), &detector);
    assert_eq!(fits(&poni("7.5e-5")), Ok(()));
    let error = fits(&poni("1.72e-4")).unwrap_err();
    assert!(
        error.contains("another detector") && error.contains("172.0 x 172.0"),
        "{error}"
    );
}
