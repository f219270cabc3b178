import { useEffect, useState } from 'react';
import { lineOf, useEvents, useRuns, useSession, useStatus } from './api/hooks';
import { useTheme } from './lib/theme';
import { techniqueOf } from './techniques';
import { Footer } from './view/Footer';
import { Header } from './view/Header';
import { Login } from './view/Login';
import { RunSide } from './view/RunSide';
import { StoredRun } from './view/StoredRun';

/** The run that an address names, `#/runs/ID`; none means the live one, whichever it is. */
function useSelectedRun(): [string | null, (id: string | null) => void] {
  const read = () => {
    const match = /^#\/runs\/(.+)$/.exec(location.hash);
    return match?.[1] ? decodeURIComponent(match[1]) : null;
  };
  const [selected, setSelected] = useState(read);
  useEffect(() => {
    const update = () => setSelected(read());
    addEventListener('hashchange', update);
    return () => removeEventListener('hashchange', update);
  }, []);
  return [selected, (id) => (location.hash = id === null ? '#/' : `#/runs/${encodeURIComponent(id)}`)];
}

export function App() {
  const connection = useStatus();
  const { status, connected } = connection;
  const session = useSession(connected);
  const { choice, theme, next } = useTheme();
  const [selected, select] = useSelectedRun();
  const current = status?.run?.id ?? null;
  const known = useRuns(connected, `${current} ${status?.state}`);
  const list = connection.refused ? null : known;
  const events = useEvents(current, connected);

  const stored = selected !== null && selected !== current ? selected : null;
  const technique = techniqueOf(status?.run?.technique ?? '');

  useEffect(() => {
    const state = connected ? (status?.state ?? '') : 'not connected';
    document.title = status?.run ? `${state} · ${status.run.sample || status.run.id} · Fluxline` : 'Fluxline';
  }, [connected, status?.state, status?.run]);

  return (
    <div className="page">
      <Header connection={connection} session={session} line={current ? lineOf(list, current) : null} themeChoice={choice} onTheme={next} />
      <RunSide list={list} current={current} shown={stored ?? current} onShow={select} />
      <main className={connected || connection.refused ? '' : 'stale'} data-testid="main" data-technique={stored ? '' : (status?.run?.technique ?? '')}>
        {connection.refused ? (
          <div className="panel nothing">
            <Login />
          </div>
        ) : stored !== null ? (
          <StoredRun id={stored} line={lineOf(list, stored)} connected={connected} onBack={() => select(null)} />
        ) : status && current !== null ? (
          <technique.Panel key={technique.name} run={current} status={status} connected={connected} theme={theme} />
        ) : (
          <div className="panel nothing">
            <p>{status ? 'No run yet. The first one appears here by itself when it is armed.' : 'Waiting for the server'}</p>
          </div>
        )}
      </main>
      <Footer status={status} events={events} />
    </div>
  );
}
