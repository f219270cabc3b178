/** What became of every frame of a run: where some were lost, and what was not analysed or stored. */

import { useMemo, useState } from 'react';
import { getJson, runPath } from '../api/client';
import { usePoll } from '../api/poll';
import type { FrameState, LedgerEntry, LedgerPage } from '../api/types';
import { count, share } from '../lib/format';
import { ranges, strip, type FrameRange } from '../lib/ledger';

export interface LedgerViewProps {
  id: string;
  /** frames of the run */
  frames: number;
  connected: boolean;
  onFrame: (frame: number) => void;
}

interface Known {
  entries: LedgerEntry[];
  frames: LedgerPage['frames'];
  outcomes: Record<string, number>;
  /** whether there are more frames in trouble than are listed */
  cut: boolean;
}

const ASKED: FrameState[] = ['lost', 'corrupt', 'partial', 'expected'];
const LINES_MAX = 10_000;
const CELLS = 400;
const SHOWN_MAX = 500;
const INTERVAL_MS = 2_000;

const WORDS: Record<FrameState, string> = {
  lost: 'lost',
  corrupt: 'corrupt',
  partial: 'not whole',
  expected: 'not come',
  complete: 'complete',
};

export function LedgerView({ id, frames, connected, onFrame }: LedgerViewProps) {
  const [known, setKnown] = useState<Known | null>(null);
  const [problem, setProblem] = useState('');
  usePoll(connected ? `ledger ${id}` : null, INTERVAL_MS, async (signal) => {
    try {
      const pages = await Promise.all(
        ASKED.map((state) => getJson<LedgerPage & { outcomes: Record<string, number> }>(runPath(id, `/ledger?state=${state}&limit=${LINES_MAX}`), signal)),
      );
      if (signal.aborted) return;
      setKnown({
        entries: pages.flatMap((page) => page.entries),
        frames: pages[0]?.frames ?? {},
        outcomes: pages[0]?.outcomes ?? {},
        cut: pages.some((page) => page.entries.length >= LINES_MAX),
      });
      setProblem('');
    } catch (error) {
      if (!signal.aborted) setProblem((error as Error).message);
      throw error;
    }
  });
  const found = useMemo(() => ranges(known?.entries ?? []), [known]);
  const expected = known?.frames.expected ?? frames;
  return (
    <section className="panel ledger-panel" data-testid="ledger" data-ready={known !== null} data-ranges={found.length}>
      <header className="panel-head">
        <h2>Ledger</h2>
        <span className="dim">{problem || (known ? `${count(known.frames.complete)} of ${count(expected)} frames are complete (${share(known.frames.complete ?? 0, expected)})` : 'Reading the ledger')}</span>
      </header>
      <Strip found={found} frames={expected} onFrame={onFrame} />
      <div className="ledger-body">
        <FrameRanges found={found} frames={expected} cut={known?.cut ?? false} ready={known !== null} onFrame={onFrame} />
        <dl className="outcomes">
          {Object.entries(known?.outcomes ?? {}).map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll('_', ' ')}</dt>
              <dd className={value > 0 && /failed|shed/.test(name) ? 'red-text' : ''}>{count(value)}</dd>
            </div>
          ))}
        </dl>
      </div>
    </section>
  );
}

function Strip({ found, frames, onFrame }: { found: FrameRange[]; frames: number; onFrame: (frame: number) => void }) {
  const cells = Math.max(1, Math.min(CELLS, frames));
  const states = useMemo(() => strip(found, frames, cells), [found, frames, cells]);
  return (
    <div className="ledger-strip">
      <svg
        viewBox={`0 0 ${cells} 1`}
        preserveAspectRatio="none"
        role="img"
        aria-label="Frames of the run from the first to the last"
        data-testid="ledger-strip"
        onClick={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          onFrame(Math.min(frames - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * frames))));
        }}
      >
        {states.map((state, index) => (
          <rect key={index} x={index} y={0} width={1.02} height={1} className={state} />
        ))}
      </svg>
      <span className="dim ledger-ends">
        <span>0</span>
        <span>{count(Math.max(0, frames - 1))}</span>
      </span>
    </div>
  );
}

interface RangesProps {
  found: FrameRange[];
  frames: number;
  cut: boolean;
  ready: boolean;
  onFrame: (frame: number) => void;
}

function FrameRanges({ found, frames, cut, ready, onFrame }: RangesProps) {
  if (ready && found.length === 0) return <p className="dim ledger-fine">Every frame came, whole and once.</p>;
  return (
    <ol className="ledger-ranges" data-testid="ledger-ranges">
      {found.slice(0, SHOWN_MAX).map(({ first, last, state }) => {
        const seen = state === 'partial' ? first : first > 0 ? first - 1 : Math.min(frames - 1, last + 1);
        return (
          <li key={`${state} ${first}`} data-state={state}>
            <i className={`dot ${state === 'lost' || state === 'corrupt' ? 'red' : state === 'partial' ? 'amber' : 'grey'}`} />
            <b>
              {count(first)}
              {last > first && `–${count(last)}`}
            </b>
            <span>{WORDS[state]}</span>
            <span className="dim">{last > first ? `${count(last - first + 1)} frames` : ''}</span>
            <button type="button" className="small" onClick={() => onFrame(seen)}>
              Show frame {count(seen)}
            </button>
          </li>
        );
      })}
      {(cut || found.length > SHOWN_MAX) && <li className="dim">and more: the ledger in the run's file has them all</li>}
    </ol>
  );
}
