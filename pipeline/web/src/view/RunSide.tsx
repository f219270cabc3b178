/** The runs, newest first. */

import type { RunList } from '../api/types';
import { count, moment } from '../lib/format';
import { titleOf } from '../techniques';

const TONES: Record<string, string> = {
  armed: 'amber',
  recording: 'green',
  finishing: 'blue',
  complete: 'ok',
  closed: 'ok',
  pushed: 'ok',
  verified: 'ok',
  safe_to_delete: 'ok',
  deleted: 'grey',
  stopped: 'grey',
  aborted: 'red',
  failed: 'red',
};

export interface RunSideProps {
  list: RunList | null;
  /** id of the run in memory */
  current: string | null;
  /** id of the run that is looked at */
  shown: string | null;
  onShow: (id: string | null) => void;
}

export function RunSide({ list, current, shown, onShow }: RunSideProps) {
  return (
    <nav className="side" aria-label="Runs">
      <header className="panel-head">
        <h2>Runs</h2>
        <span className="dim steady-text">{list ? count(list.total) : ''}</span>
      </header>
      <ol data-testid="run-list">
        {list?.runs.map((run) => {
          const troubled = run.frames_complete < run.frames_expected && run.state !== 'recording' && run.state !== 'armed' && run.state !== 'finishing';
          return (
            <li key={run.id}>
              <button
                type="button"
                className="run"
                aria-current={run.id === shown}
                onClick={() => onShow(run.id === current ? null : run.id)}
                title={`${run.id}\n${run.proposal}`}
                data-state={run.state}
              >
                <span className="run-top">
                  <i className={`dot ${TONES[run.state] ?? 'grey'}`} />
                  <b>{run.sample || run.id}</b>
                  <span className="run-state">{run.state.replaceAll('_', ' ')}</span>
                </span>
                <span className="run-sub">
                  <span>{titleOf(run.technique)}</span>
                  <span className={troubled ? 'amber-text' : ''}>
                    {count(run.frames_complete)}
                    {run.frames_complete === run.frames_expected ? '' : `/${count(run.frames_expected)}`}
                  </span>
                  <time dateTime={run.started}>{moment(run.started)}</time>
                </span>
              </button>
            </li>
          );
        })}
      </ol>
      {list && list.runs.length === 0 && <p className="dim empty">No run yet</p>}
    </nav>
  );
}
