/** A run's ledger in a line: which frames are not as they should be, in ranges, and in a strip of so many cells. */

import type { FrameState, LedgerEntry } from '../api/types';

export interface FrameRange {
  first: number;
  last: number;
  state: FrameState;
}

/** Worst first: a cell of the strip shows the worst of its frames. */
const WORST: FrameState[] = ['lost', 'corrupt', 'partial', 'expected'];

/** Neighbours in one state together, in the order of frames. */
export function ranges(entries: Pick<LedgerEntry, 'frame_number' | 'state'>[]): FrameRange[] {
  const sorted = entries.toSorted((a, b) => a.frame_number - b.frame_number);
  const found: FrameRange[] = [];
  for (const { frame_number, state } of sorted) {
    const last = found.at(-1);
    if (last && last.state === state && last.last + 1 === frame_number) last.last = frame_number;
    else found.push({ first: frame_number, last: frame_number, state });
  }
  return found;
}

/** The worst state within each of `cells` equal parts of `frames` frames; `complete` where nothing is amiss. */
export function strip(found: FrameRange[], frames: number, cells: number): FrameState[] {
  const states = new Array<FrameState>(cells).fill('complete');
  for (const { first, last, state } of found) {
    const from = Math.floor((first * cells) / Math.max(1, frames));
    const to = Math.min(cells - 1, Math.ceil(((last + 1) * cells) / Math.max(1, frames)) - 1);
    for (let cell = from; cell <= to; cell += 1) {
      const before = states[cell]!;
      if (before === 'complete' || WORST.indexOf(state) < WORST.indexOf(before)) states[cell] = state;
    }
  }
  return states;
}
