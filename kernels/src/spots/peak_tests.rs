use super::vectors::{make_for_peaks, peaks, rings};
use super::*;
use crate::testing;
use rand::RngExt;
use reference::Picture;
use std::collections::HashMap;

/// A device and the programs built for it so far, by their options.
struct Bench {
    accelerator: Accelerator,
    queue: Queue,
    programs: HashMap<String, Program>,
}

impl Bench {
    fn new() -> Self {
        let (accelerator, queue) = testing::cpu();
        let programs = HashMap::new();
        Self {
            accelerator,
            queue,
            programs,
        }
    }

    /// Peaks by the device, frame by frame.
    fn find(
        &mut self,
        config: &SpotConfig,
        shape: Shape,
        pixel_type: PixelType,
        frames: &[Vec<f64>],
        mask: &PixelMask,
    ) -> Vec<FrameSpots> {
        let (device, limit) = (&self.accelerator, frames.len());
        let options = options(device, config, pixel_type);
        let build = || device.program("spots", SOURCE, &options).unwrap();
        let program = self.programs.entry(options.clone()).or_insert_with(build);
        let mut finder = SpotFinder::with_program(device, program, config, shape, pixel_type, mask, limit).unwrap();
        let mut stager = testing::staged(device, pixel_type, frames);
        let mut outputs = vec![FrameSpots::default(); limit];
        let batch = stager.finish(&self.queue).unwrap();
        finder.run(&self.queue, batch, &mut outputs).unwrap();
        outputs
    }
}

/// The same peak: centroid within 0.01 pixels, as many pixels.
fn same(a: &Spot, b: &Spot) -> bool {
    (a.row - b.row).hypot(a.column - b.column) <= 0.01 && a.pixels == b.pixels
}

/// How many of `listed` are not among `found`.
fn missing(listed: &[Spot], found: &[Spot]) -> usize {
    let alone = |spot: &&Spot| !found.iter().any(|other| same(spot, other));
    listed
        .iter()
        .filter(alone)
        .inspect(|spot| println!("without an equal: {spot:?}"))
        .count()
}

/// How many intensities differ by more than 1e-4.
fn unlike(listed: &[Spot], found: &[Spot]) -> usize {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * a.abs();
    let differs = |a: &&Spot| found.iter().any(|b| same(a, b) && !near(a.intensity, b.intensity));
    listed
        .iter()
        .filter(differs)
        .inspect(|spot| println!("of another intensity: {spot:?}"))
        .count()
}

/// One intensity may differ where OM's single precision takes a centroid that lies half-way between two pixels for the
/// other one's. In frames of several panels OM also looks at places that an earlier panel left behind, and joins peaks that
/// do not touch: there the peaks are compared less strictly.
#[test]
fn peaks_are_those_of_om() {
    let (mut bench, mut frames) = (Bench::new(), 0);
    // By whether the frame has panels: peaks, of them without an equal on either side, of another intensity.
    let mut counts = [[0; 3]; 2];
    for (seed, expected) in peaks() {
        let vector = make_for_peaks(seed);
        let mask = PixelMask::from_nonzero(vector.shape, vector.masked.iter().copied()).unwrap();
        let frame = std::slice::from_ref(&vector.values);
        let output = bench
            .find(&vector.config, vector.shape, PixelType::U16, frame, &mask)
            .remove(0);
        assert_eq!(output.found, Some(output.spots.len() as u64), "seed {seed}");
        let [listed, alone, other] = &mut counts[usize::from(vector.config.panel.is_some())];
        *listed += expected.len();
        *alone += missing(&expected, &output.spots) + missing(&output.spots, &expected);
        *other += unlike(&expected, &output.spots);
        frames += 1;
    }
    let [[listed, alone, other], [in_panels, alone_in_panels, _]] = counts;
    println!("{frames} frames; {listed} peaks, {alone} without an equal, {other} of another intensity");
    println!("with panels {in_panels} peaks, {alone_in_panels} without an equal");
    assert!(frames >= 1000 && alone * 1000 <= listed && other * 1000 <= listed);
    assert!(in_panels > 100 && alone_in_panels * 20 <= in_panels);
}

/// Frames with everything that a pixel type can hold, in batches, with panels.
#[test]
fn peaks_are_those_of_the_reference_for_every_pixel_type() {
    let shape = Shape::new(138, 548);
    let (mut bench, mut random) = (Bench::new(), testing::random(11));
    let mask = PixelMask::from_nonzero(shape, (0..shape.pixels()).map(|_| random.random_bool(0.02))).unwrap();
    for pixel_type in PixelType::ALL {
        let frames: Vec<Vec<f64>> = (0..3u64)
            .map(|seed| {
                let frame = testing::frame(pixel_type, shape.pixels(), seed + 170);
                frame.iter().map(|v| if *v > 3e7 { 3e7 } else { *v }).collect()
            })
            .collect();
        for (panel, saturation) in [(None, None), (Some(Shape::new(69, 137)), Some(90.0))] {
            let config = SpotConfig {
                algorithm: SpotAlgorithm::Peakfinder8,
                rings: rings(shape, (60.0, 301.0)).into(),
                panel,
                saturation,
                strong_sigmas: 1.5,
                min_pixels: 1,
                max_pixels: 40,
                spots_max: 65536,
                pixels_max: 65536,
                ..SpotConfig::default()
            };
            let outputs = bench.find(&config, shape, pixel_type, &frames, &mask);
            for (frame, output) in frames.iter().zip(&outputs) {
                let whole = |v: &f64| match pixel_type {
                    PixelType::F32 => f64::from((*v as f32).round_ties_even()),
                    _ => *v,
                };
                let values: Vec<f64> = frame.iter().map(whole).collect();
                let usable = |(index, v): (usize, &f64)| {
                    !mask.rejects(index) && *v >= 0.0 && saturation.is_none_or(|saturation| *v < saturation)
                };
                let valid: Vec<bool> = values.iter().enumerate().map(usable).collect();
                let picture = Picture {
                    shape,
                    values: &values,
                    valid: &valid,
                };
                let expected = reference::peaks(&config, &picture);
                let strong = reference::strong(&config, &picture);
                let what = format!("{pixel_type:?}, panel {panel:?}");
                assert_eq!(
                    output.strong_pixels,
                    strong.iter().filter(|s| **s).count() as u64,
                    "{what}"
                );
                assert_eq!(output.found, Some(expected.len() as u64), "{what}");
                let wrong = missing(&expected, &output.spots) + missing(&output.spots, &expected);
                assert_eq!(wrong + unlike(&expected, &output.spots), 0, "{what}");
            }
            let found: u64 = outputs.iter().filter_map(|output| output.found).sum();
            println!("{pixel_type:?}, panel {panel:?}: {found} peaks");
        }
    }
}

#[test]
fn what_peakfinder8_cannot_do_is_refused_by_name() {
    let (accelerator, _) = testing::cpu();
    let shape = Shape::new(40, 40);
    let refused = |config: SpotConfig| {
        SpotFinder::new(&accelerator, &config, shape, PixelType::U16, &PixelMask::none(shape), 1)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let config = SpotConfig {
        algorithm: SpotAlgorithm::Peakfinder8,
        rings: rings(shape, (20.0, 20.0)).into(),
        ..SpotConfig::default()
    };
    let panel = refused(SpotConfig {
        panel: Some(Shape::new(20, 30)),
        ..config.clone()
    });
    assert!(
        panel.contains("panels' shape") && panel.contains("without a rest"),
        "{panel}"
    );
    let none = refused(SpotConfig {
        rings: Arc::new([]),
        ..config.clone()
    });
    assert!(none.contains("rings"), "{none}");
    let radius = refused(SpotConfig {
        background_radius: 0,
        ..config
    });
    assert_eq!(radius, "background_radius is 0; allowed: 1 to 20");
}
