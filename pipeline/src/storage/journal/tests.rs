//! The journal against a model: what was written, synced, torn, lost, reordered, flipped, and what must still be known.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const FILES: u32 = 3;
/// Eight records, so that segments change often.
const SMALL_SEGMENT: u64 = 8 * RECORD_BYTES as u64;
const SECTOR: usize = 512;

/// What a power cut makes of writes that no sync has covered.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Lost,
    /// each arrives up to a sector, the ones behind it not at all
    Torn,
    /// any of their sectors, in any mixture
    Reordered,
}

/// What the disk answers to a sync.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Fine,
    DataFails(u32),
    JournalFails,
    JournalFailsForGood,
}

#[derive(Clone, Debug)]
enum Action {
    Append {
        file: u32,
        chunks: u8,
    },
    Seal {
        file: u32,
    },
    Wait {
        ms: u16,
    },
    Flush(Answer),
    /// the power goes: `after` steps into a sync (0: between two), then the next run begins on the same disk
    Crash {
        after: u8,
        cut: Cut,
        seed: u64,
    },
    /// a bit of the journal rots
    Flip {
        at: u32,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let answer = prop_oneof![
        6 => Just(Answer::Fine),
        1 => (0..FILES).prop_map(Answer::DataFails),
        1 => Just(Answer::JournalFails),
        1 => Just(Answer::JournalFailsForGood),
    ];
    let cut = prop_oneof![Just(Cut::Lost), Just(Cut::Torn), Just(Cut::Reordered)];
    let action = prop_oneof![
        6 => (0..FILES, 1..6u8).prop_map(|(file, chunks)| Action::Append { file, chunks }),
        1 => (0..FILES).prop_map(|file| Action::Seal { file }),
        2 => (1..400u16).prop_map(|ms| Action::Wait { ms }),
        4 => answer.prop_map(Action::Flush),
        1 => (0..4u8, cut, any::<u64>()).prop_map(|(after, cut, seed)| Action::Crash { after, cut, seed }),
        1 => any::<u32>().prop_map(|at| Action::Flip { at }),
    ];
    prop::collection::vec(action, 1..40)
}

/// The disk as the power cut leaves it: what is durable, and what is only on its way.
#[derive(Default)]
struct Disk {
    /// chunks by file and offset: what they hold, and whether a sync covered them
    data: BTreeMap<(u32, u64), (u32, bool)>,
    journal: BTreeMap<u32, Vec<u8>>,
    on_their_way: Vec<(JournalPlace, Vec<u8>)>,
    /// files that a sync has failed on
    refused: BTreeSet<u32>,
}

impl Disk {
    fn sync_data(&mut self, file: u32) {
        assert!(!self.refused.contains(&file), "a sync that failed was asked for again");
        for ((at, _), (_, durable)) in &mut self.data {
            *durable |= *at == file;
        }
    }

    fn put(&mut self, place: JournalPlace, bytes: &[u8]) {
        let segment = self.journal.entry(place.segment).or_default();
        let (start, end) = (place.offset as usize, place.offset as usize + bytes.len());
        segment.resize(segment.len().max(end), 0);
        segment[start..end].copy_from_slice(bytes);
    }

    fn sync_journal(&mut self) {
        for (place, bytes) in std::mem::take(&mut self.on_their_way) {
            self.put(place, &bytes);
        }
    }

    fn cut(&mut self, cut: Cut, mut seed: u64) {
        let mut coin = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33
        };
        for (place, bytes) in std::mem::take(&mut self.on_their_way) {
            match cut {
                Cut::Lost => {}
                Cut::Torn => {
                    let to_sector = SECTOR - place.offset as usize % SECTOR;
                    let kept = (to_sector + SECTOR * (coin() % 4) as usize).min(bytes.len());
                    self.put(place, &bytes[..kept]);
                    break;
                }
                Cut::Reordered => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let offset = place.offset + start as u64;
                        let end = (start + SECTOR - offset as usize % SECTOR).min(bytes.len());
                        if coin() % 2 == 0 {
                            self.put(JournalPlace { offset, ..place }, &bytes[start..end]);
                        }
                        start = end;
                    }
                }
            }
        }
        self.data.retain(|_, (_, durable)| *durable || coin() % 2 == 0);
    }
}

/// A run on the disk, and what was said about its frames.
struct Run {
    journal: Journal,
    tag: u64,
    written: BTreeMap<u64, Chunk>,
    acknowledged: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    sealed: u64,
    flips: u64,
}

impl Run {
    fn new(tag: u64) -> Self {
        Self {
            journal: Journal::with_segments(tag, 64, SMALL_SEGMENT),
            tag,
            written: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            failed: BTreeSet::new(),
            sealed: 0,
            flips: 0,
        }
    }

    fn append(&mut self, disk: &mut Disk, file: u32, now_ns: u64) {
        let frame = self.written.len() as u64;
        let chunk = Chunk {
            frame,
            file,
            offset: 4096 * (self.tag * 10_000 + frame),
            bytes: 100 + frame as u32,
            crc32c: (self.tag * 1000 + frame) as u32,
            filters_skipped: (frame % 2) as u8,
            kind: (frame % 3) as u8,
            receipt: 1,
            parts_missing: frame as u32,
            missing_bytes: 7,
            angle_deg: frame as f64 / 8.0,
        };
        self.written.insert(frame, chunk);
        disk.data.insert((file, chunk.offset), (chunk.crc32c, false));
        if !self.journal.written(Record::Chunk(chunk), now_ns) {
            assert!(self.journal.has_failed(file));
            self.failed.insert(frame);
        }
    }

    /// One sync as the writer does it, up to a power cut after so many steps; whether it came to its end.
    fn flush(&mut self, disk: &mut Disk, answer: Answer, steps: u8) -> bool {
        let Some(sync) = self.journal.begin() else { return true };
        if steps == 1 {
            return false;
        }
        for file in sync.files {
            if matches!(answer, Answer::DataFails(failing) if failing == file) {
                disk.refused.insert(file);
                let lost = self.journal.data_failed(file);
                self.failed.extend(lost.iter().map(|chunk| chunk.frame));
            } else {
                disk.sync_data(file);
            }
        }
        if steps == 2 {
            return false;
        }
        disk.on_their_way.push((self.journal.place(), self.journal.records()));
        if steps == 3 {
            return false;
        }
        let tries = match answer {
            Answer::JournalFails => 1,
            Answer::JournalFailsForGood => 2,
            _ => 0,
        };
        for _ in 0..tries {
            // The kernel forgets what it could not write; some of it may have arrived all the same.
            disk.cut(Cut::Reordered, self.written.len() as u64);
            let before = self.journal.place().segment;
            self.journal.journal_failed();
            assert_eq!(
                self.journal.place(),
                JournalPlace {
                    segment: before + 1,
                    offset: 0
                }
            );
            disk.on_their_way.push((self.journal.place(), self.journal.records()));
        }
        if matches!(answer, Answer::JournalFailsForGood) {
            disk.cut(Cut::Lost, 0);
            let given_up = self.journal.abandoned();
            self.failed.extend(given_up.iter().map(|chunk| chunk.frame));
            return true;
        }
        disk.sync_journal();
        self.acknowledged.extend(self.journal.synced().map(|chunk| chunk.frame));
        true
    }

    /// What the next start finds.
    fn check(&self, disk: &Disk) -> Result<(), TestCaseError> {
        let (mut found, mut damaged, mut torn) = (BTreeMap::new(), 0, 0);
        for segment in disk.journal.values() {
            let replayed = replay(segment, self.tag);
            damaged += replayed.damaged;
            torn += replayed.torn_bytes;
            for (_, record) in replayed.records {
                if let Record::Chunk(chunk) = record {
                    found.insert(chunk.frame, chunk);
                }
            }
        }
        for (frame, chunk) in &found {
            prop_assert_eq!(Some(chunk), self.written.get(frame), "a record that was never written");
            let data = disk.data.get(&(chunk.file, chunk.offset));
            prop_assert_eq!(
                data,
                Some(&(chunk.crc32c, true)),
                "a record whose frame is not on the disk"
            );
        }
        let missing = self
            .acknowledged
            .iter()
            .filter(|frame| !found.contains_key(frame))
            .count() as u64;
        prop_assert!(
            missing <= self.flips,
            "{} acknowledged frames are lost, {} bits rotted",
            missing,
            self.flips
        );
        prop_assert!(
            damaged + torn > 0 || missing == 0,
            "frames are missing and nothing says so"
        );
        let both = self.acknowledged.intersection(&self.failed).count();
        prop_assert_eq!(both, 0, "a frame both safe and failed");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(10_000), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_disk_a_synced_frame_is_known(actions in actions()) {
        let mut disk = Disk::default();
        let mut run = Run::new(1);
        let mut now_ns = 0;
        for action in actions {
            match action {
                Action::Append { file, chunks } => (0..chunks).for_each(|_| run.append(&mut disk, file, now_ns)),
                Action::Seal { file } => {
                    run.sealed += 1;
                    let record = Record::Sealed { file, bytes: run.sealed, hash: [run.sealed as u8; 32] };
                    prop_assert!(run.journal.written(record, now_ns));
                }
                Action::Wait { ms } => {
                    now_ns += u64::from(ms) * 1_000_000;
                    // The writer's loop: what is due is synced.
                    if run.journal.due_ns().is_some_and(|due| now_ns >= due) {
                        prop_assert!(run.flush(&mut disk, Answer::Fine, 0));
                    }
                    let oldest = run.journal.due_ns().map_or(now_ns, |due| due - SYNC_AFTER_NS);
                    prop_assert!(now_ns - oldest < SYNC_AFTER_NS, "something waits too long");
                }
                Action::Flush(answer) => {
                    prop_assert!(run.flush(&mut disk, answer, 0));
                    prop_assert_eq!(run.journal.waiting(), 0);
                    let settled = run.acknowledged.len() + run.failed.len();
                    prop_assert_eq!(settled, run.written.len(), "a frame without an answer");
                }
                Action::Crash { after, cut, seed } => {
                    if after > 0 {
                        run.flush(&mut disk, Answer::Fine, after);
                    }
                    disk.cut(cut, seed);
                    run.check(&disk)?;
                    // The next run writes over what the last one left.
                    disk.refused.clear();
                    run = Run::new(run.tag + 1);
                }
                Action::Flip { at } => {
                    let bits: usize = disk.journal.values().map(|segment| 8 * segment.len()).sum();
                    if bits == 0 {
                        continue;
                    }
                    let mut at = at as usize % bits;
                    for segment in disk.journal.values_mut() {
                        if at < 8 * segment.len() {
                            segment[at / 8] ^= 1 << (at % 8);
                            run.flips += 1;
                            break;
                        }
                        at -= 8 * segment.len();
                    }
                }
            }
        }
        run.flush(&mut disk, Answer::Fine, 0);
        disk.cut(Cut::Lost, 0);
        run.check(&disk)?;
    }
}

#[test]
fn every_bit_of_a_record_counts() {
    let hash = std::array::from_fn(|i| i as u8);
    for record in [
        Record::Sealed {
            file: 3,
            bytes: 1 << 40,
            hash,
        },
        Record::Replaced {
            file: 9,
            slot: 4,
            generation: 2,
        },
    ] {
        let bytes = record.encode(5, 17);
        assert_eq!(Record::decode(&bytes, 17), Some((5, record)));
        assert_eq!(Record::decode(&bytes, 18), None, "of another run");
        for bit in 0..8 * RECORD_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&flipped, 17), None, "bit {bit}");
        }
    }
}

#[test]
fn a_damaged_record_costs_itself_and_a_torn_end_nothing() {
    let record = |slot| Record::Replaced {
        file: 1,
        slot,
        generation: 2,
    };
    let mut segment: Vec<u8> = (1..=5).flat_map(|n| record(n).encode(n, 1)).collect();
    segment[2 * RECORD_BYTES + 20] ^= 4;
    segment.extend(&record(6).encode(6, 1)[..40]);
    let replayed = replay(&segment, 1);
    let numbers: Vec<u64> = replayed.records.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(
        (numbers, replayed.damaged, replayed.torn_bytes),
        (vec![1, 2, 4, 5], 1, 40)
    );
}
