/** The runs, newest first. */

import { useEffect, useState, type ReactNode } from 'react';
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
  /** what is searched for; empty: everything */
  query: string;
  onQuery: (query: string) => void;
  /** why the search was refused */
  problem: string;
  /** beneath the list */
  children?: ReactNode;
}

/** So long after the last key the search begins. */
const TYPING_MS = 300;

export function RunSide({ list, current, shown, onShow, query, onQuery, problem, children }: RunSideProps) {
  const [draft, setDraft] = useState(query);
  useEffect(() => {
    const timer = setTimeout(() => onQuery(draft), TYPING_MS);
    return () => clearTimeout(timer);
    // `onQuery` is new with every drawing and does the same.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [draft]);
  return (
    <nav className="side" aria-label="Runs">
      <header className="panel-head">
        <h2>Runs</h2>
        <span className="dim steady-text">{list ? count(list.total) : ''}</span>
      </header>
      <input
        type="search"
        className="search"
        aria-label="Search runs"
        placeholder="Search: words, field:value"
        title={
          problem ||
          'Words that name, sample, proposal or metadata have; or field:beginning, field=value, field>=number for one field: id, proposal, sample, technique, state, start, frames, complete, or any of the metadata'
        }
        aria-invalid={problem !== ''}
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
      />
      <ol data-testid="run-list" data-query={query}>
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
      {list && list.runs.length === 0 && <p className="dim empty">{query ? 'No run fits' : 'No run yet'}</p>}
      {children}
    </nav>
  );
}
