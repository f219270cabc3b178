//! Which rows of the ledger the readers of a run that records do not see yet.

use crate::ledger::{Columns, Ledger};
use crate::storage::{LedgerColumns, StoreError};

/// Rows that are written together.
const BLOCK_ROWS: u64 = 4096;

/// What was shown so far. Blocks whose rows were all final when they were written are never written again.
#[derive(Debug)]
pub struct LiveLedger {
    final_blocks: Vec<bool>,
    /// the first block that is not final
    first: usize,
    /// [`Ledger::changes`] when it was written
    changes: u64,
    rows: Columns,
}

impl LiveLedger {
    /// Of a ledger of which nothing was shown.
    pub fn new(expected: u64) -> Self {
        Self {
            final_blocks: vec![false; expected.div_ceil(BLOCK_ROWS) as usize],
            first: 0,
            changes: 0,
            rows: Columns::with_room(BLOCK_ROWS as usize),
        }
    }

    /// Whether there is something to show.
    pub fn behind(&self, ledger: &Ledger) -> bool {
        ledger.changes() != self.changes
    }

    /// Hands every block that may have changed to `write`, with the number of its first row. Allocates nothing.
    ///
    /// # Errors
    /// The first of `write`; the block is tried again when there is more to show.
    pub fn show(
        &mut self,
        ledger: &Ledger,
        mut write: impl FnMut(u64, &LedgerColumns<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.changes = ledger.changes();
        let end = ledger.furthest().div_ceil(BLOCK_ROWS) as usize;
        for block in self.first..end.min(self.final_blocks.len()) {
            if self.final_blocks[block] {
                continue;
            }
            let first = block as u64 * BLOCK_ROWS;
            let rows = first as usize..(first + BLOCK_ROWS).min(ledger.expected()) as usize;
            let is_final = ledger.copy(rows, &mut self.rows);
            write(first, &self.rows.as_storage())?;
            self.final_blocks[block] = is_final;
        }
        let open = self.final_blocks[self.first..].iter().position(|is_final| !is_final);
        self.first = open.map_or(self.final_blocks.len(), |open| self.first + open);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Analysis, Storage};
    use driver::tracker::FrameState;

    fn shown(live: &mut LiveLedger, ledger: &Ledger) -> Vec<(u64, usize)> {
        let mut blocks = Vec::new();
        let write = |first, rows: &LedgerColumns<'_>| {
            blocks.push((first, rows.storage.len()));
            Ok(())
        };
        live.show(ledger, write).unwrap();
        assert!(!live.behind(ledger));
        blocks
    }

    #[test]
    fn final_blocks_are_written_once_and_those_behind_the_last_frame_never() {
        let ledger = Ledger::new(3 * BLOCK_ROWS + 5, 0);
        let mut live = LiveLedger::new(ledger.expected());
        assert!(!live.behind(&ledger) && !ledger.waits());
        let settle = |frame| {
            ledger.receipt(frame, FrameState::Complete, 1);
            ledger.analysed(frame, Analysis::Done, 1);
            ledger.stored(frame, Storage::Synced);
        };
        settle(0);
        assert!(live.behind(&ledger));
        assert_eq!(shown(&mut live, &ledger), [(0, BLOCK_ROWS as usize)]);
        (1..BLOCK_ROWS - 1).for_each(settle);
        ledger.receipt(BLOCK_ROWS - 1, FrameState::Lost, 0);
        ledger.receipt(BLOCK_ROWS, FrameState::Complete, 1);
        assert!(ledger.waits());
        let both = [(0, BLOCK_ROWS as usize), (BLOCK_ROWS, BLOCK_ROWS as usize)];
        assert_eq!(shown(&mut live, &ledger), both);
        settle(3 * BLOCK_ROWS + 4);
        let rest = [both[1], (2 * BLOCK_ROWS, BLOCK_ROWS as usize), (3 * BLOCK_ROWS, 5)];
        assert_eq!(shown(&mut live, &ledger), rest);
        ledger.analysed(BLOCK_ROWS, Analysis::Failed, 1);
        assert!(ledger.waits());
        ledger.stored(BLOCK_ROWS, Storage::Failed);
        assert!(!ledger.waits());
        let failed = live.show(&ledger, |_, _| Err(StoreError::FrameNumber { frame: 0, frames: 0 }));
        assert!(failed.is_err() && !live.final_blocks[1]);
    }
}
