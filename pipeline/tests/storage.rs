//! The store against independent programs: what it writes is opened by h5py and the NeXus validators.

#[path = "storage/support.rs"]
mod support;

use frame::stream::DetectorDescription;
use frame::{Compression, FrameHeader, FrameResult, Geometry, PixelMask, PixelType, Shape, StreamDescription};
use pipeline::storage::{
    RunInfo, RunRecord, RunWriter, Store, StoreError, WriterConfig, curve_path, final_path, image_path,
    read_dataset_f32, read_frame, read_mask, scalar_path,
};
use std::path::Path;
use std::process::Command;
use support::*;

#[test]
fn every_pixel_type_reads_back_identically() {
    let python = python("every_pixel_type_reads_back_identically");
    let folder = Folder::new("pixels");
    let store = Store::open(&folder.0).unwrap();
    let mut masters = Vec::new();
    for pixel_type in PixelType::ALL {
        for compress in [false, true] {
            let stream = stream(Shape::new(37, 29), pixel_type, 7);
            let id = format!("run_{}_{compress}", pixel_type.numpy_name());
            let files = write_run(
                &store,
                &info(&id, "NXmx"),
                &stream,
                &config(compress, 3),
                &[],
                "complete",
            );
            assert_eq!(files.len(), 4, "{files:?}");
            for frame in 0..7 {
                let (found, shape, found_type) = read_frame(&files[0], frame).unwrap();
                assert_eq!((shape, found_type), (stream.shape, pixel_type));
                assert!(found == pixels(stream.shape, pixel_type, frame), "{id} frame {frame}");
            }
            masters.push(files[0].display().to_string());
        }
    }
    if let Some(python) = python {
        let mut arguments = vec!["pixels", "7"];
        arguments.extend(masters.iter().map(String::as_str));
        check_nexus(&python, &arguments);
    }
}

#[test]
fn a_compressed_payload_is_passed_through() {
    let python = python("a_compressed_payload_is_passed_through");
    let folder = Folder::new("passed");
    let store = Store::open(&folder.0).unwrap();
    let mut stream = stream(Shape::new(64, 48), PixelType::U16, 3);
    stream.compression = Compression::BitshuffleLz4;
    let (layout, axes) = layout();
    let (compress, mixed) = (false, 2);
    let mut writer = RunWriter::create(
        &store,
        &info("passed", "NXmx"),
        &stream,
        &layout,
        &axes,
        &config(compress, 2),
    )
    .unwrap();
    let mut sent = Vec::new();
    for frame in 0..3 {
        let raw = pixels(stream.shape, stream.pixel_type, frame);
        let mut head = header(&stream, frame);
        if frame == mixed {
            // An uncompressed frame in a compressed stream is stored as it is, marked as unfiltered.
            writer.write_frame(&head, &raw).unwrap();
            sent.push(raw);
            continue;
        }
        let mut chunk = vec![0; frame::codec::compress_bound(raw.len(), 2)];
        let used = frame::codec::compress(&raw, 2, &mut chunk, &mut frame::codec::Scratch::default()).unwrap();
        chunk.truncate(used);
        head.compression = Compression::BitshuffleLz4 as u8;
        head.payload_bytes.set(used as u64);
        writer.write_frame(&head, &chunk).unwrap();
        sent.push(chunk);
    }
    let files = writer
        .finish(&Books::new(3, &[]).columns(), &[], &[], end("complete"))
        .unwrap();
    for (frame, sent) in sent.iter().enumerate() {
        assert!(
            read_frame(&files[0], frame as u64).unwrap().0 == pixels(stream.shape, stream.pixel_type, frame as u64)
        );
        let file = std::fs::read(&files[1 + frame / 2]).unwrap();
        assert!(
            file.windows(sent.len()).any(|window| window == sent),
            "the bytes of frame {frame} are in its file"
        );
    }
    if let Some(python) = python {
        check_nexus(&python, &["pixels", "3", files[0].to_str().unwrap()]);
    }
}

#[test]
fn validators_find_nothing_missing() {
    let Some(python) = python("validators_find_nothing_missing") else {
        return;
    };
    let folder = Folder::new("valid");
    let store = Store::open(&folder.0).unwrap();

    let mut rotation = stream(Shape::new(40, 30), PixelType::U32, 6);
    rotation.angles_deg = (0..6).map(|i| 0.1 * f64::from(i)).collect();
    let mx = write_run(
        &store,
        &info("mx", "NXmx"),
        &rotation,
        &config(true, 4),
        &[],
        "complete",
    );

    let mut bare = stream(Shape::new(40, 30), PixelType::U16, 2);
    bare.detector = DetectorDescription::default();
    bare.saturation_value = None;
    bare.mask = None;
    let bare = write_run(
        &store,
        &info("bare", "NXmx"),
        &bare,
        &config(true, 1000),
        &[],
        "complete",
    );
    check_nexus(
        &python,
        &["validate", "NXmx", mx[0].to_str().unwrap(), bare[0].to_str().unwrap()],
    );

    let tomography = tomography_stream();
    let files = write_run(
        &store,
        &info("tomo", "NXtomo"),
        &tomography,
        &config(true, 4),
        &[5],
        "complete",
    );
    check_nexus(&python, &["validate", "NXtomo", files[0].to_str().unwrap()]);
    check_nexus(&python, &["tomography", files[0].to_str().unwrap(), "5"]);
}

#[test]
fn results_lie_beside_the_frames() {
    let python = python("results_lie_beside_the_frames");
    let folder = Folder::new("results");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(16, 16), PixelType::U16, 1100);
    let (layout, axes) = layout();
    let id = "results";
    let mut writer =
        RunWriter::create(&store, &info(id, "NXmx"), &stream, &layout, &axes, &config(true, 1000)).unwrap();
    for frame in 0..stream.frames_expected {
        writer
            .write_frame(&header(&stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
            .unwrap();
    }
    // Workers overtake each other, one result comes very late, two never.
    let mut order: Vec<u64> = (0..stream.frames_expected)
        .filter(|f| ![3, 700, 1000].contains(f))
        .collect();
    order.chunks_mut(50).for_each(|chunk| chunk.reverse());
    order.push(3);
    for frame in order {
        writer.write_result(&result(&layout, frame)).unwrap();
    }
    let datasets = writer.datasets();
    let finals = [
        (
            "intensity".to_string(),
            (0..7).map(|i| i as f32).collect(),
            String::new(),
        ),
        ("intensity_errors".to_string(), vec![0.5; 7], String::new()),
    ];
    let files = writer
        .finish(&Books::new(1100, &[]).columns(), &[], &finals, end("complete"))
        .unwrap();

    let (sums, shape) = read_dataset_f32(&files[0], &scalar_path("sum"), 0..usize::MAX).unwrap();
    assert_eq!(shape, [1100]);
    for (frame, sum) in sums.iter().enumerate() {
        assert!(
            if [700, 1000].contains(&frame) {
                sum.is_nan()
            } else {
                *sum == frame as f32
            },
            "frame {frame}: {sum}"
        );
    }
    for (index, name) in ["intensity", "intensity_errors"].iter().enumerate() {
        let (rows, shape) = read_dataset_f32(files[0].parent().unwrap(), &curve_path(name), 3..1002).unwrap();
        assert_eq!((shape, rows.len()), (vec![1100, 7], 999 * 7));
        for (row, curve) in rows.chunks(7).enumerate() {
            let frame = row + 3;
            let right =
                |(point, value): (usize, &f32)| *value == frame as f32 + 0.125 * point as f32 + 10000.0 * index as f32;
            let nothing = curve.iter().all(|v| v.is_nan());
            assert!(
                if [700, 1000].contains(&frame) {
                    nothing
                } else {
                    curve.iter().enumerate().all(right)
                },
                "{name} {frame}: {curve:?}"
            );
        }
    }
    let (mean, _) = read_dataset_f32(&files[0], &final_path("intensity"), 0..100).unwrap();
    assert_eq!(mean, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert!(read_dataset_f32(&files[0], &image_path("none"), 0..1).is_err());
    if let Some(python) = python {
        let described = serde_json::to_string(&datasets).unwrap();
        check_nexus(&python, &["results", files[0].to_str().unwrap(), &described]);
    }
}

#[test]
fn frames_that_never_came_keep_their_place() {
    let python = python("frames_that_never_came_keep_their_place");
    let folder = Folder::new("missing");
    let store = Store::open(&folder.0).unwrap();
    for pixel_type in [PixelType::U16, PixelType::I32, PixelType::F32] {
        let stream = stream(Shape::new(16, 24), pixel_type, 12);
        let lost = [0, 4, 5, 6, 7, 11];
        let id = format!("lost_{}", pixel_type.numpy_name());
        let files = write_run(&store, &info(&id, "NXmx"), &stream, &config(true, 4), &lost, "complete");
        assert_eq!(files.len(), 4);
        assert!(matches!(
            read_frame(&files[0], 5),
            Err(StoreError::FrameMissing { frame: 5, .. })
        ));
        assert!(matches!(
            read_frame(&files[0], 12),
            Err(StoreError::FrameNumber { frame: 12, frames: 12 })
        ));
        assert!(read_frame(&files[0], 8).unwrap().0 == pixels(stream.shape, pixel_type, 8));
        if let Some(python) = &python {
            check_nexus(python, &["missing", files[0].to_str().unwrap(), "12", "0,4,5,6,7,11"]);
        }
    }
}

#[test]
fn a_run_that_ends_early_is_as_long_as_what_came() {
    let python = python("a_run_that_ends_early_is_as_long_as_what_came");
    let folder = Folder::new("early");
    let store = Store::open(&folder.0).unwrap();
    let mut tomography = tomography_stream();
    tomography.frames_expected = 10;
    let files = write_run(
        &store,
        &info("early", "NXtomo"),
        &tomography,
        &config(true, 3),
        &[3, 7, 8, 9],
        "stopped",
    );
    assert_eq!(files.len(), 4, "the fourth data file held nothing: {files:?}");
    assert_eq!(std::fs::read_dir(files[0].parent().unwrap()).unwrap().count(), 4 + 3);
    assert!(matches!(
        read_frame(&files[0], 7),
        Err(StoreError::FrameNumber { frame: 7, frames: 7 })
    ));
    assert!(read_frame(&files[0], 6).is_ok());
    if let Some(python) = &python {
        check_nexus(python, &["missing", files[0].to_str().unwrap(), "7", "3"]);
        check_nexus(python, &["validate", "NXtomo", files[0].to_str().unwrap()]);
    }

    let stream = stream(Shape::new(8, 8), PixelType::U8, 5);
    let all: Vec<u64> = (0..5).collect();
    let nothing = write_run(
        &store,
        &info("nothing", "NXmx"),
        &stream,
        &config(true, 2),
        &all,
        "aborted",
    );
    assert_eq!(nothing.len(), 2);
    assert!(matches!(
        read_frame(&nothing[0], 0),
        Err(StoreError::FrameNumber { frame: 0, frames: 0 })
    ));
}

#[test]
fn frames_may_come_in_any_order_across_files() {
    let folder = Folder::new("order");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(8, 8), PixelType::U16, 40);
    let (layout, axes) = layout();
    let mut writer = RunWriter::create(
        &store,
        &info("order", "NXmx"),
        &stream,
        &layout,
        &axes,
        &config(true, 4),
    )
    .unwrap();
    // 40 and 17 have no common divisor: every frame once, ten files in turn, four open at a time.
    for step in 0..40 {
        let frame = step * 17 % 40;
        writer
            .write_frame(&header(&stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
            .unwrap();
    }
    let files = writer
        .finish(&Books::new(40, &[]).columns(), &[], &[], end("complete"))
        .unwrap();
    for frame in 0..40 {
        assert!(read_frame(&files[0], frame).unwrap().0 == pixels(stream.shape, stream.pixel_type, frame));
    }
}

#[test]
fn the_geometry_is_where_pyfai_puts_it() {
    let Some(python) = python("the_geometry_is_where_pyfai_puts_it") else {
        return;
    };
    let folder = Folder::new("geometry");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(21, 33), PixelType::U16, 1);
    let mut masters = Vec::new();
    for orientation in 1..=4u8 {
        let geometry = Geometry {
            dist_m: 0.15,
            poni1_m: 0.004,
            poni2_m: 0.001,
            rot1_rad: 0.2,
            rot2_rad: -0.1,
            rot3_rad: 0.5,
            wavelength_m: Some(0.9e-10),
            pixel1_m: 172e-6,
            pixel2_m: 100e-6,
            orientation,
            shape: Some(stream.shape),
            detector: None,
            pixel_corners: None,
        };
        let config = WriterConfig {
            geometry: Some(geometry),
            ..config(true, 10)
        };
        let id = format!("geometry_{orientation}");
        let files = write_run(&store, &info(&id, "NXmx"), &stream, &config, &[], "complete");
        masters.push(files[0].display().to_string());
    }
    let arguments: Vec<&str> = std::iter::once("geometry")
        .chain(masters.iter().map(String::as_str))
        .collect();
    check_nexus(&python, &arguments);
}

#[test]
fn run_json_is_the_last_word() {
    let folder = Folder::new("record");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(8, 8), PixelType::U16, 5);
    let (layout, axes) = layout();
    let about = info("run_0001", "NXmx");
    let mut writer = RunWriter::create(&store, &about, &stream, &layout, &axes, &config(true, 2)).unwrap();
    let run = store.root().join("mx1234/20261122/run_0001");
    assert_eq!(writer.folder(), run);
    assert!(
        writer.files().iter().all(|file| file.is_file()),
        "every file exists before frame 0"
    );
    assert!(
        matches!(read_frame(&run, 0), Err(StoreError::NotARun { .. })),
        "a recording run is not whole"
    );
    assert_eq!(
        (store.runs().unwrap().len(), store.find("run_0001").unwrap()),
        (0, None)
    );
    let error = RunWriter::create(&store, &about, &stream, &layout, &axes, &config(true, 2)).unwrap_err();
    assert!(error.to_string().contains("a run is never overwritten"), "{error}");
    for frame in 0..5 {
        writer
            .write_frame(&header(&stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
            .unwrap();
    }
    let files = writer
        .finish(&Books::new(5, &[]).columns(), &[], &[], end("complete"))
        .unwrap();
    assert_eq!(store.find("run_0001").unwrap(), Some(run.clone()));
    assert_eq!(store.find("../run_0001").unwrap(), None);
    let record = RunRecord::read(&run).unwrap();
    assert_eq!(record.files.len(), files.len());
    for (file, path) in record.files.iter().zip(&files) {
        assert_eq!(
            (file.name.as_str(), file.bytes),
            (
                path.file_name().unwrap().to_str().unwrap(),
                path.metadata().unwrap().len()
            )
        );
        let hash = blake3::hash(&std::fs::read(path).unwrap());
        assert_eq!(
            (file.algorithm.as_str(), &file.hash),
            ("blake3", &hash.to_hex().to_string())
        );
    }
    assert_eq!(
        (record.start_time, record.state.as_str()),
        (about.start_time, "complete")
    );
    assert_eq!(record.parameters, about.parameters);
    let states: Vec<serde_json::Value> = std::fs::read_to_string(run.join("state.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        states.iter().map(|s| s["state"].as_str().unwrap()).collect::<Vec<_>>(),
        ["recording", "closed"]
    );
    assert_eq!(states[1]["files"], 4);

    let mut later = info("run_0002", "NXmx");
    later.start_time = "2026-11-23T00:30:00Z".parse().unwrap();
    write_run(&store, &later, &stream, &config(false, 1000), &[], "complete");
    let runs: Vec<String> = store.runs().unwrap().into_iter().map(|run| run.record.id).collect();
    assert_eq!(runs, ["run_0002", "run_0001"], "newest first");
    assert_eq!(store.records().unwrap()[1]["id"], "run_0001");
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let folder = Folder::new("refused");
    let store = Store::open(&folder.0).unwrap();
    let good = stream(Shape::new(8, 8), PixelType::U16, 5);
    let (layout, axes) = layout();
    let try_create = |info: &RunInfo, stream: &StreamDescription, config: &WriterConfig| {
        RunWriter::create(&store, info, stream, &layout, &axes, config)
            .unwrap_err()
            .to_string()
    };
    let error = try_create(&info("../escape", "NXmx"), &good, &config(true, 2));
    assert!(error.contains("run name \"../escape\" is not a name"), "{error}");
    let mut elsewhere = info("run", "NXmx");
    elsewhere.proposal = "/etc".into();
    assert!(try_create(&elsewhere, &good, &config(true, 2)).contains("proposal \"/etc\""));
    let error = try_create(&info("run", "NXsas"), &good, &config(true, 2));
    assert!(error.contains("NXmx or NXtomo"), "{error}");
    assert!(try_create(&info("run", "NXmx"), &good, &config(true, 0)).contains("frames_per_file is 0"));
    let mut masked = good.clone();
    masked.mask = Some(PixelMask::none(Shape::new(8, 9)));
    assert!(try_create(&info("run", "NXmx"), &masked, &config(true, 2)).contains("8x9"));
    assert!(
        !store.root().join("mx1234/20261122/run").exists(),
        "nothing is left behind"
    );

    // A run that is taken back leaves its name free.
    let create = || RunWriter::create(&store, &info("run", "NXmx"), &good, &layout, &axes, &config(true, 2)).unwrap();
    create().discard().unwrap();
    let mut writer = create();
    let raw = pixels(good.shape, good.pixel_type, 0);
    let mut refuse =
        |header: &FrameHeader, payload: &[u8]| writer.write_frame(header, payload).unwrap_err().to_string();
    assert_eq!(
        refuse(&header(&good, 5), &raw),
        "frame 5 is outside the run of 5 frames"
    );
    let short = refuse(&header(&good, 1), &raw[..100]);
    assert_eq!(
        short,
        "frame 1 has a payload of 100 bytes, the run's files are made for 128 bytes"
    );
    let other = stream(Shape::new(8, 9), PixelType::U16, 5);
    assert!(refuse(&header(&other, 1), &raw).contains("shape 8x9"));
    let other = stream(Shape::new(8, 8), PixelType::I16, 5);
    assert!(refuse(&header(&other, 1), &raw).contains("pixel type int16"));
    let mut bomb = header(&good, 1);
    bomb.compression = Compression::BitshuffleLz4 as u8;
    let mut payload = vec![0u8; 64];
    payload[..8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    assert!(refuse(&bomb, &payload).contains("without a valid size"));
    let mut wrong = FrameResult::empty(&layout);
    wrong.scalars = vec![0.0; 3].into();
    let error = writer.write_result(&wrong).unwrap_err().to_string();
    assert_eq!(error, "the result of frame 0 has 3 scalars, its layout has 2");
    let short = Books::new(4, &[]);
    let error = writer
        .finish(&short.columns(), &[], &[], end("complete"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("the run expects 5 frames"), "{error}");
    assert!(
        !store.root().join("mx1234/20261122/run/run.json").exists(),
        "a failed close leaves no run.json"
    );
}

#[test]
fn a_store_that_cannot_be_written_says_so() {
    let folder = Folder::new("read-only");
    let mut mode = std::fs::metadata(&folder.0).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&folder.0, mode.clone()).unwrap();
    // Permissions do not stop the superuser; the kernel's own tree does.
    let error = match Store::open(&folder.0) {
        Ok(_) => Store::open(Path::new("/sys/kernel")).unwrap_err(),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{text}");
    assert!(
        text.contains("cannot be written") && text.contains("[store] path"),
        "{text}"
    );
    // The owner takes the write permission back, so that the folder can be removed.
    #[allow(clippy::permissions_set_readonly_false)]
    mode.set_readonly(false);
    std::fs::set_permissions(&folder.0, mode).unwrap();
}

#[test]
fn a_full_disk_costs_the_frames_that_did_not_fit() {
    let folder = Folder::new("full");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=7m", "tmpfs"])
        .arg(&folder.0)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("SKIPPED a_full_disk_costs_the_frames_that_did_not_fit: a small file system cannot be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&folder.0).unwrap();
        let stream = stream(Shape::new(256, 256), PixelType::U16, 40);
        let (layout, axes) = layout();
        let about = info("full", "NXmx");
        let mut writer = RunWriter::create(&store, &about, &stream, &layout, &axes, &config(false, 1000)).unwrap();
        let mut refused = Vec::new();
        for frame in 0..40 {
            if let Err(error) =
                writer.write_frame(&header(&stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
            {
                let text = error.to_string();
                assert!(
                    matches!(
                        error,
                        StoreError::DiskFull {
                            needed_bytes: 131072,
                            ..
                        }
                    ),
                    "{text}"
                );
                assert!(
                    text.contains("the disk is full") && text.contains("full_data_000001.h5"),
                    "{text}"
                );
                refused.push(frame);
            }
        }
        assert!(refused.len() > 10 && refused.len() < 30, "{refused:?}");
        let closed = writer.finish(&Books::new(40, &refused).columns(), &[], &[], end("complete"));
        let files = closed.unwrap();
        for frame in 0..40 {
            match read_frame(&files[0], frame) {
                Ok((found, ..)) => assert!(found == pixels(stream.shape, stream.pixel_type, frame), "{frame}"),
                Err(StoreError::FrameMissing { .. }) => assert!(refused.contains(&frame), "{frame}"),
                Err(error) => panic!("frame {frame}: {error}"),
            }
        }
    });
    // Lazily: a program that another test has just started may hold a file for a moment.
    let unmounted = Command::new("umount").arg("-l").arg(&folder.0).status().unwrap();
    assert!(unmounted.success());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// The mask of a large detector takes next to no room, in the file that readers open and in the one that is kept for a crash,
/// and is the same when it is read.
#[test]
fn the_mask_is_packed() {
    let folder = Folder::new("mask");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(2000, 1500), PixelType::U16, 2);
    let (layout, axes) = layout();
    let writer = RunWriter::create(&store, &info("run", "NXmx"), &stream, &layout, &axes, &config(true, 2)).unwrap();
    let run = writer.folder().to_path_buf();
    for name in ["run_master.h5", ".start.h5"] {
        let bytes = std::fs::metadata(run.join(name)).unwrap().len();
        assert!(
            bytes < 1_000_000,
            "{name} has {bytes} bytes, the mask alone 12 MB of them"
        );
    }
    writer
        .finish(&Books::new(2, &[]).columns(), &[], &[], end("complete"))
        .unwrap();
    let (shape, bits) = read_mask(&run).unwrap().expect("a mask");
    let mask = stream.mask.as_ref().unwrap();
    assert_eq!((shape, bits.as_slice()), (mask.shape(), mask.bits()));
    if let Some(python) = python("the_mask_is_packed") {
        check_nexus(
            &python,
            &["validate", "NXmx", run.join("run_master.h5").to_str().unwrap()],
        );
    }
}
