//! What a crash leaves of a run, and what the next start makes of it; and who reads a run while it is written.

#[path = "storage/support.rs"]
#[allow(dead_code)]
mod support;

use frame::{PixelType, Shape};
use pipeline::storage::{RunRecord, RunWriter, Store, StoreError, read_curve_row, read_frame, read_scalar};
use std::path::Path;
use std::process::Command;
use support::*;

#[test]
fn an_interrupted_run_is_finished_from_its_journal() {
    let python = python("an_interrupted_run_is_finished_from_its_journal");
    for (frames_per_file, definition) in [(4, "NXmx"), (1000, "NXtomo")] {
        let folder = Folder::new("interrupted");
        let store = Store::open(&folder.0).unwrap();
        let stream = match definition {
            "NXtomo" => tomography_stream(),
            _ => stream(Shape::new(20, 30), PixelType::U16, 10),
        };
        let (layout, axes) = layout();
        let about = info("cut", definition);
        let mut writer =
            RunWriter::create(&store, &about, &stream, &layout, &axes, &config(true, frames_per_file)).unwrap();
        for frame in [1, 0, 2, 3, 5, 7] {
            let mut header = header(&stream, frame);
            header.kind = stream.kinds.get(frame as usize).map_or(0, |kind| *kind as u8);
            writer
                .write_frame(&header, &pixels(stream.shape, stream.pixel_type, frame))
                .unwrap();
        }
        let run = writer.folder().to_path_buf();
        assert!(
            store.recover().unwrap().is_empty(),
            "a run that is being written is left alone"
        );
        writer.drain().unwrap();
        drop(writer);
        // A master that a crash has left, and a head that a power cut has torn.
        std::fs::write(run.join("cut_master.h5"), b"torn").unwrap();
        let damaged = run.join("cut_data_000001.h5");
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes[..1000].fill(0);
        std::fs::write(&damaged, &bytes).unwrap();
        let mut recovered = store.recover().unwrap();
        assert_eq!(recovered.len(), 1);
        let recovered = recovered.pop().unwrap().unwrap();
        assert_eq!(recovered.frames, (6, 10));
        let master = run.join("cut_master.h5");
        for frame in [0, 1, 2, 3, 5, 7] {
            assert!(read_frame(&master, frame).unwrap().0 == pixels(stream.shape, stream.pixel_type, frame));
        }
        assert!(matches!(read_frame(&master, 6), Err(StoreError::FrameMissing { .. })));
        assert!(matches!(
            read_frame(&master, 8),
            Err(StoreError::FrameNumber { frames: 8, .. })
        ));
        let record = recovered.publish().unwrap();
        assert_eq!(record.files, RunRecord::read(&run).unwrap().files);
        assert_eq!(
            (record.state.as_str(), &record.frames["lost"]),
            ("interrupted", &serde_json::json!(4))
        );
        for file in record.files.iter().chain(&record.journal) {
            let bytes = std::fs::read(run.join(&file.name)).unwrap();
            assert_eq!(
                (bytes.len() as u64, blake3::hash(&bytes).to_hex().to_string()),
                (file.bytes, file.hash.clone())
            );
        }
        assert_eq!(pipeline::storage::read_journal(&run, &record).unwrap().damaged, 0);
        assert!(store.recover().unwrap().is_empty());
        let left: Vec<_> = std::fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            left.iter().all(|name| !name.to_string_lossy().starts_with('.')),
            "{left:?}"
        );
        if let Some(python) = &python {
            check_nexus(python, &["missing", master.to_str().unwrap(), "8", "4,6"]);
            check_nexus(python, &["validate", definition, master.to_str().unwrap()]);
        }
    }
}

/// The disk refused a file twice, and later the journal's record of the first change rots: the frames are found in the files
/// that have them all the same.
#[test]
fn a_damaged_record_of_a_change_of_files_costs_no_frame() {
    use pipeline::storage::journal::{RECORD_BYTES, Record, replay};
    let folder = Folder::new("replaced");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(20, 30), PixelType::U16, 10);
    let (layout, axes) = layout();
    let about = info("cut", "NXmx");
    let mut writer = RunWriter::create(&store, &about, &stream, &layout, &axes, &config(false, 1000)).unwrap();
    for frame in 0..9 {
        let pixels = pixels(stream.shape, stream.pixel_type, frame);
        writer.write_frame(&header(&stream, frame), &pixels).unwrap();
    }
    let run = writer.folder().to_path_buf();
    writer.drain().unwrap();
    drop(writer);
    let start: serde_json::Value = serde_json::from_slice(&std::fs::read(run.join(".start.json")).unwrap()).unwrap();
    let record: RunRecord = serde_json::from_value(start["record"].clone()).unwrap();
    let text = format!("{}/{}/{:.3}", record.proposal, record.id, record.start_time);
    let tag = u64::from_le_bytes(blake3::hash(text.as_bytes()).as_bytes()[..8].try_into().unwrap());
    let journal = run.join("cut_journal_0001.bin");
    let known = replay(&std::fs::read(&journal).unwrap(), tag).records;
    // As if the disk had refused the file after frames 0 to 2, and the next one after frames 3 to 5.
    let (first, mut written) = (run.join("cut_data_000001.h5"), Vec::new());
    let bytes = std::fs::read(&first).unwrap();
    for (file, name) in ["cut_data_000001.h5", "cut_data_000001_2.h5", "cut_data_000001_3.h5"]
        .iter()
        .enumerate()
    {
        let mut bytes = bytes.clone();
        if file > 0 {
            let generation = file as u32 + 1;
            written.push(Record::Replaced {
                file: file as u32,
                slot: 0,
                generation,
            });
        }
        for (_, record) in &known {
            let Record::Chunk(chunk) = record else { continue };
            if chunk.frame / 3 == file as u64 {
                written.push(Record::Chunk(pipeline::storage::journal::Chunk {
                    file: file as u32,
                    ..*chunk
                }));
            } else {
                bytes[chunk.offset as usize..][..chunk.bytes as usize].fill(0xee);
            }
        }
        std::fs::write(run.join(name), bytes).unwrap();
    }
    let mut bytes: Vec<u8> = Vec::new();
    for (record, sequence) in written.iter().zip(1..) {
        bytes.extend(record.encode(sequence, tag));
    }
    assert_eq!(bytes.len(), 11 * RECORD_BYTES);
    let rotten = written
        .iter()
        .position(|record| matches!(record, Record::Replaced { .. }))
        .unwrap();
    bytes[rotten * RECORD_BYTES + 20] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let recovered = store.recover().unwrap().pop().unwrap().unwrap();
    assert_eq!(recovered.frames, (9, 10), "{:?}", recovered.warnings);
    let master = run.join("cut_master.h5");
    for frame in 0..9 {
        assert!(
            read_frame(&master, frame).unwrap().0 == pixels(stream.shape, stream.pixel_type, frame),
            "{frame}"
        );
    }
    let record = recovered.publish().unwrap();
    assert_eq!(record.files.len(), 4, "{:?}", record.files);
}

/// Numbers that look random, the same for the same seed.
fn coin(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}

/// What a power cut may leave of the bytes of a file that no sync covered: by sectors, as written, zeros or anything.
fn tear(bytes: &mut [u8], synced: &[std::ops::Range<usize>], seed: &mut u64) {
    for start in (0..bytes.len()).step_by(512) {
        let choice = coin(seed) % 4;
        for at in start..(start + 512).min(bytes.len()) {
            if !synced.iter().any(|range| range.contains(&at)) {
                match choice {
                    0 => bytes[at] = 0,
                    1 => bytes[at] = coin(seed) as u8,
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_power_cut_costs_no_frame_that_was_synced() {
    use pipeline::storage::journal::{RECORD_BYTES, Record};
    let folder = Folder::new("power");
    // Frames that go through the page cache, and some that go past it into files that were made longer ahead of them.
    let [small, large] =
        [(20, 30), (400, 400)].map(|(rows, columns)| stream(Shape::new(rows, columns), PixelType::U16, 60));
    let (layout, axes) = layout();
    let cuts: u64 = std::env::var("FLUXLINE_CUTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25);
    let (mut frames, mut results, mut masters) = (0, 0, Vec::new());
    for cut in 0..cuts {
        let mut seed = cut;
        let stream = if cut % 8 == 3 { &large } else { &small };
        let store = Store::open(&folder.0.join(cut.to_string())).unwrap();
        let mut writer = RunWriter::create(
            &store,
            &info("cut", "NXmx"),
            stream,
            &layout,
            &axes,
            &config(cut % 2 == 0, 25),
        )
        .unwrap();
        for frame in 0..60 {
            let frame = frame / 4 * 4 + (frame + 1) % 4;
            writer
                .write_frame(&header(stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
                .unwrap();
            let result = result(&layout, frame);
            writer.write_result(&result).unwrap();
            writer.keep_result(&result).unwrap();
        }
        let run = writer.folder().to_path_buf();
        writer.drain().unwrap();
        drop(writer);
        let start: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run.join(".start.json")).unwrap()).unwrap();
        let record: RunRecord = serde_json::from_value(start["record"].clone()).unwrap();
        // The power went when the journal had been synced up to here; a record behind may be half there.
        let path = run.join("cut_journal_0001.bin");
        let mut journal = std::fs::read(&path).unwrap();
        let records = journal.len() / RECORD_BYTES;
        let synced = RECORD_BYTES * (coin(&mut seed) as usize % (records + 1));
        tear(&mut journal, std::slice::from_ref(&(0..synced)), &mut seed);
        journal.truncate(synced + coin(&mut seed) as usize % (journal.len() - synced + 1));
        std::fs::write(&path, &journal).unwrap();
        let known = pipeline::storage::read_journal(&run, &record).unwrap().records;
        let chunks = |file: u32| {
            known.iter().filter_map(move |record| match record {
                Record::Chunk(chunk) if chunk.file == file => Some(*chunk),
                _ => None,
            })
        };
        let sealed = |file: u32| {
            known
                .iter()
                .any(|record| matches!(record, Record::Sealed { file: f, .. } if *f == file))
        };
        for file in 0..3u32 {
            let path = run.join(format!("cut_data_{:06}.h5", file + 1));
            let mut bytes = std::fs::read(&path).unwrap();
            let mut safe: Vec<_> = chunks(file)
                .map(|c| c.offset as usize..c.offset as usize + c.bytes as usize)
                .collect();
            if sealed(file) {
                safe = std::iter::once(0..bytes.len()).collect();
            }
            tear(&mut bytes, &safe, &mut seed);
            let end = safe.iter().map(|range| range.end).max().unwrap_or(0);
            bytes.truncate(end + coin(&mut seed) as usize % (bytes.len() - end + 1));
            std::fs::write(&path, &bytes).unwrap();
        }
        // Of the results, too, some were synced.
        let path = run.join(".results.bin");
        let mut kept = std::fs::read(&path).unwrap();
        let record_bytes = kept.len() / 60;
        let results_synced = coin(&mut seed) as usize % 61;
        tear(
            &mut kept,
            std::slice::from_ref(&(0..results_synced * record_bytes)),
            &mut seed,
        );
        kept.truncate(
            results_synced * record_bytes + coin(&mut seed) as usize % (kept.len() + 1 - results_synced * record_bytes),
        );
        std::fs::write(&path, &kept).unwrap();
        let mut master = std::fs::read(run.join("cut_master.h5")).unwrap();
        tear(&mut master, &[], &mut seed);
        std::fs::write(run.join("cut_master.h5"), &master).unwrap();
        // And a line of its states, which a disk that was full had cut off.
        let states = run.join("state.jsonl");
        let mut lines = std::fs::read(&states).unwrap();
        let cut_off = b"{\"time\":\"2026-11-28T10:00:00.000Z\",\"state\":\"closed\"";
        lines.extend(&cut_off[..coin(&mut seed) as usize % cut_off.len()]);
        std::fs::write(&states, &lines).unwrap();
        // The first start after it is cut off, too, as late as can be.
        drop(store.recover().unwrap());
        let recovered = store.recover().unwrap().pop().unwrap().unwrap();
        let master = run.join("cut_master.h5");
        for file in 0..3 {
            for chunk in chunks(file) {
                let (found, ..) = read_frame(&master, chunk.frame).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
                assert!(
                    found == pixels(stream.shape, stream.pixel_type, chunk.frame),
                    "cut {cut}: {}",
                    chunk.frame
                );
                frames += 1;
            }
        }
        for (at, frame) in (0..60).map(|frame| frame / 4 * 4 + (frame + 1) % 4).enumerate() {
            let expected = result(&layout, frame);
            let (row, name) = (frame as usize, &layout.scalars[0].name);
            let rows = read_scalar(&master, name, row..row + 1).unwrap();
            let found = rows.first().copied().unwrap_or(f64::NAN);
            if at < results_synced {
                assert_eq!(found, expected.scalars[0], "cut {cut}: result {frame} was synced");
                results += 1;
            } else {
                assert!(
                    found.is_nan() || found == expected.scalars[0],
                    "cut {cut}: {frame} {found}"
                );
            }
            if !found.is_nan() {
                let curve = read_curve_row(&master, &layout.curves[0].name, frame).unwrap().unwrap();
                assert_eq!(curve, expected.curves[0].to_vec(), "cut {cut}: {frame}");
            }
        }
        recovered.publish().unwrap();
        let life = pipeline::keep::Life::read(&run).unwrap();
        assert_eq!(life.state, pipeline::keep::State::Closed, "cut {cut}");
        masters.push(master.display().to_string());
    }
    println!("{cuts} power cuts, {frames} frames and {results} results that were synced, 0 lost");
    if let Some(python) = python("a_power_cut_costs_no_frame_that_was_synced") {
        let program =
            "import h5py, hdf5plugin, sys\nfor path in sys.argv[1:]:\n    h5py.File(path)['entry/data/data'][...]";
        let read = Command::new(python)
            .args(["-c", program])
            .args(&masters)
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn a_reader_follows_a_run_live() {
    let Some(python) = python("a_reader_follows_a_run_live") else {
        return;
    };
    let folder = Folder::new("live");
    let store = Store::open(&folder.0).unwrap();
    let stream = stream(Shape::new(400, 400), PixelType::U16, 300);
    let (layout, axes) = layout();
    let mut writer = RunWriter::create(
        &store,
        &info("live", "NXmx"),
        &stream,
        &layout,
        &axes,
        &config(true, 100),
    )
    .unwrap();
    let reader = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/live_reader.py"))
        .args([writer.folder().to_str().unwrap(), "live", "300", "100"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for frame in 0..300 {
        writer
            .write_frame(&header(&stream, frame), &pixels(stream.shape, stream.pixel_type, frame))
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    writer.drain().unwrap();
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let looks: u64 = said.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(looks >= 5, "the reader saw the run grow only {looks} times: {said}");
    writer
        .finish(&Books::new(300, &[]).columns(), &[], &[], end("complete"))
        .unwrap();
}
