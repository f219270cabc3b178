/** A stored run again with other parameters: a new run, derived from it. */

import { useMemo, useState } from 'react';
import { runPath, send } from '../api/client';
import type { RunDetail } from '../api/types';
import { operationsOf } from '../techniques/technique';

export interface ReprocessProps {
  id: string;
  detail: RunDetail | null;
  operates: boolean;
  inMemory: boolean;
  /** shows the run that was made; null: the live view */
  onDone: (id: string | null) => void;
}

interface Row {
  operation: string;
  key: string;
  value: unknown;
}

/** A value as somebody writes it: JSON where it is some, else a word. */
export function parseValue(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

export function Reprocess({ id, detail, operates, inMemory, onDone }: ReprocessProps) {
  const [name, setName] = useState('');
  const [drafts, setDrafts] = useState<Record<string, string>>({});
  const [said, setSaid] = useState('');
  const [busy, setBusy] = useState(false);
  const rows = useMemo<Row[]>(() => {
    const used = detail?.record.parameters ?? {};
    return operationsOf(detail).flatMap((operation) => {
      const table = used[operation];
      if (typeof table !== 'object' || table === null) return [];
      return Object.entries(table).map(([key, value]) => ({ operation, key, value: value as unknown }));
    });
  }, [detail]);
  const changed = rows.filter(({ operation, key, value }) => {
    const draft = drafts[`${operation}.${key}`];
    return draft !== undefined && JSON.stringify(parseValue(draft)) !== JSON.stringify(value);
  });
  const start = async () => {
    setBusy(true);
    setSaid('');
    const parameters: Record<string, Record<string, unknown>> = {};
    for (const { operation, key } of changed) (parameters[operation] ??= {})[key] = parseValue(drafts[`${operation}.${key}`] ?? '');
    try {
      const made = await send<RunDetail>('POST', runPath(id, '/reprocess'), { parameters, ...(name.trim() ? { name: name.trim() } : {}) });
      setSaid(`Run ${made.id} is under way`);
      onDone(null);
    } catch (error) {
      setSaid((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  const why = !operates ? 'Log in as operator to reprocess' : inMemory && detail?.store_state === 'recording' ? 'The run has not ended' : '';
  return (
    <section className="panel reprocess-panel" data-testid="reprocess">
      <header className="panel-head">
        <h2>Reprocess</h2>
        <span className={said ? 'amber-text' : 'dim'} data-testid="reprocess-said">
          {said || why || 'Its frames go through the recipe again, without a detector; the result is a run of its own'}
        </span>
      </header>
      <div className="reprocess-head">
        <label className="field">
          Name
          <input className="text" aria-label="Name of the new run" placeholder="made from the time" value={name} onChange={(event) => setName(event.target.value)} />
        </label>
        <span className="dim">
          {changed.length} {changed.length === 1 ? 'parameter differs' : 'parameters differ'}
        </span>
        <button type="button" disabled={changed.length === 0} onClick={() => setDrafts({})}>
          As it was
        </button>
        <button type="button" className="accent-button" data-testid="reprocess-start" disabled={why !== '' || busy} onClick={() => void start()}>
          Reprocess
        </button>
      </div>
      <div className="reprocess-rows">
        {rows.map(({ operation, key, value }, index) => {
          const at = `${operation}.${key}`;
          const text = drafts[at] ?? (typeof value === 'string' ? value : JSON.stringify(value));
          const differs = changed.some((row) => row.operation === operation && row.key === key);
          return (
            <div key={at} className="reprocess-row">
              {rows[index - 1]?.operation !== operation && <h3>{operation}</h3>}
              <label className={differs ? 'differs' : ''}>
                <span>{key.replaceAll('_', ' ')}</span>
                <input className="text" aria-label={at} disabled={why !== ''} value={text} onChange={(event) => setDrafts((last) => ({ ...last, [at]: event.target.value }))} />
              </label>
            </div>
          );
        })}
      </div>
    </section>
  );
}
