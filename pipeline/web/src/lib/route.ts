/** What an address shows: `#/` the run in memory, `#/runs/ID/VIEW?frame=N` a run of the store. */

import { useCallback, useEffect, useState } from 'react';

export const VIEWS = ['frames', 'curves', 'slices', 'ledger', 'files', 'explore', 'reprocess'] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  /** null: the run in memory */
  run: string | null;
  /** null where the address names none */
  view: View | null;
  frame: number | null;
}

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?');
  const [, run, view] = /^\/runs\/([^/]+)(?:\/(\w+))?$/.exec(path) ?? [];
  const frame = Number(new URLSearchParams(query).get('frame') ?? Number.NaN);
  let id: string | null = null;
  try {
    id = run ? decodeURIComponent(run) : null;
  } catch {
    // A broken escape names no run.
  }
  return {
    run: id,
    view: VIEWS.find((known) => known === view) ?? null,
    frame: Number.isInteger(frame) && frame >= 0 ? frame : null,
  };
}

export function formatRoute({ run, view, frame }: Route): string {
  if (run === null) return '#/';
  return `#/runs/${encodeURIComponent(run)}${view ? `/${view}` : ''}${frame === null ? '' : `?frame=${frame}`}`;
}

/** The route of the address, and how to change it; `replace` leaves no step behind to go back to. */
export function useRoute(): [Route, (route: Route, replace?: boolean) => void] {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const update = () => setRoute(parseRoute(location.hash));
    addEventListener('hashchange', update);
    return () => removeEventListener('hashchange', update);
  }, []);
  const go = useCallback((next: Route, replace = false) => {
    if (replace) history.replaceState(null, '', formatRoute(next));
    else history.pushState(null, '', formatRoute(next));
    setRoute(next);
  }, []);
  return [route, go];
}
