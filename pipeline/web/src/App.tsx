import { useEffect, useState } from 'react';
import { lineOf, useDecisions, useEvents, useRuns, useSession, useStatus } from './api/hooks';
import { useRoute, type View } from './lib/route';
import { useTheme } from './lib/theme';
import { techniqueOf } from './techniques';
import { Decisions } from './view/Decisions';
import { Footer } from './view/Footer';
import { Header } from './view/Header';
import { Login } from './view/Login';
import { RunSide } from './view/RunSide';
import { StoredRun } from './view/StoredRun';

export function App() {
  const connection = useStatus();
  const { status, connected } = connection;
  const session = useSession(connected);
  const { choice, theme, next } = useTheme();
  const [route, go] = useRoute();
  const [query, setQuery] = useState('');
  const current = status?.run?.id ?? null;
  const known = useRuns(connected, `${current} ${status?.state}`, query);
  const list = connection.refused ? null : known.list;
  const events = useEvents(current, connected);
  const operates = connected && session !== null && session.role !== 'viewer';

  // The run in memory has the live view, unless its address asks for another.
  const stored = route.run !== null && (route.run !== current || route.view !== null) ? route.run : null;
  const technique = techniqueOf(status?.run?.technique ?? '');
  const shown = stored ?? current;
  const decided = events.filter((event) => event.event === 'decision').length;
  const decisions = useDecisions(shown, connected, shown === current ? `${decided} ${status?.state}` : '');

  const show = (run: string | null, view: View | null = null) => go({ run, view, frame: null });

  useEffect(() => {
    const state = connected ? (status?.state ?? '') : 'not connected';
    document.title = status?.run ? `${state} · ${status.run.sample || status.run.id} · Fluxline` : 'Fluxline';
  }, [connected, status?.state, status?.run]);

  return (
    <div className="page">
      <Header
        connection={connection}
        operates={operates}
        session={session}
        line={current ? lineOf(list, current) : null}
        themeChoice={choice}
        onTheme={next}
        onDetails={(run) => show(run, 'ledger')}
      />
      <RunSide list={list} current={current} shown={shown} onShow={show} query={query} onQuery={setQuery} problem={known.problem}>
        {!connection.refused && <Decisions run={shown} list={decisions} by={operates && shown === current ? (session?.name ?? null) : null} />}
      </RunSide>
      <main className={connected || connection.refused ? '' : 'stale'} data-testid="main" data-technique={stored ? '' : (status?.run?.technique ?? '')}>
        {connection.refused ? (
          <div className="panel nothing">
            <Login />
          </div>
        ) : stored !== null ? (
          <StoredRun
            key={stored}
            id={stored}
            list={list}
            line={lineOf(list, stored)}
            view={route.view ?? 'frames'}
            frame={route.frame}
            go={(view, frame, replace) => go({ run: stored, view, frame }, replace)}
            inMemory={stored === current}
            connected={connected}
            operates={operates}
            theme={theme}
            onShow={show}
          />
        ) : status && current !== null ? (
          <technique.Panel key={technique.name} run={current} status={status} connected={connected} theme={theme} events={events} operates={operates} />
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
