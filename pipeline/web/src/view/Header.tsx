/** The state of the appliance at a glance. Every place has its width, whatever it holds. */

import { useEffect, useState, type ReactNode } from 'react';
import { post, runPath } from '../api/client';
import type { Connection } from '../api/hooks';
import { setToken } from '../api/session';
import type { RunLine, Session, Status } from '../api/types';
import { bytes, bytesPerSecond, count, duration, latency, moment, rate, share } from '../lib/format';
import type { ThemeChoice } from '../lib/theme';
import { titleOf } from '../techniques';
import { forecast, hours } from './Stages';

export interface HeaderProps {
  connection: Connection;
  session: Session | null;
  /** the run in memory as the list has it: how it ended */
  line: RunLine | null;
  /** whether whoever looks may change anything */
  operates: boolean;
  themeChoice: ThemeChoice;
  onTheme: () => void;
  /** shows what became of the frames of a run */
  onDetails: (run: string) => void;
}

export function Header({ connection, session, line, operates, themeChoice, onTheme, onDetails }: HeaderProps) {
  const { status, connected } = connection;
  const badge = badgeOf(connection, line);
  const run = status?.run ?? null;
  return (
    <header className={`top ${connected ? '' : 'stale'}`}>
      <div className="top-row">
        <div className="brand" title={status ? `Fluxline ${status.version}` : 'Fluxline'}>
          <svg viewBox="0 0 32 20" aria-hidden="true">
            <path d="M2 16c7 0 7-12 14-12s7 12 14 12" />
            <path d="M2 10c7 0 7-6 14-6" opacity=".4" />
            <circle cx="28" cy="5" r="2.4" />
          </svg>
          Fluxline
        </div>
        <div className={`badge ${badge.tone}`} data-testid="state-badge" data-state={badge.state} role="status">
          <i />
          {badge.text}
        </div>
        <div className={`message ${badge.bad ? 'bad' : ''}`} data-testid="state-message" title={badge.message}>
          {badge.message}
        </div>
        <dl className="run-facts" data-testid="run-facts">
          <div>
            <dt>Run</dt>
            <dd className="mono">
              <button type="button" className="link" data-testid="run-id" title="Its ledger, files and more" disabled={!run} onClick={() => run && onDetails(run.id)}>
                {run?.id ?? '–'}
              </button>
            </dd>
          </div>
          <Fact name="Technique" value={run ? titleOf(run.technique) : undefined} />
          <Fact name="Sample" value={run?.sample} />
          <Fact name="Proposal" value={run?.proposal} />
          <Fact name="Started" value={run ? moment(run.started) : undefined} />
        </dl>
        <StopButton run={run?.id ?? null} allowed={operates && (status?.state === 'armed' || status?.state === 'recording')} />
        {session !== null && !session.open && (
          <button type="button" className="toggle" data-testid="logout" onClick={() => setToken(null)} title={`${session.name}: ${session.role}. Log out.`}>
            {session.name} ⏏
          </button>
        )}
        <button type="button" className="toggle theme" onClick={onTheme} title={`Colours: ${themeChoice}. Change them.`}>
          {themeChoice === 'auto' ? '◐ Auto' : themeChoice === 'dark' ? '● Dark' : '○ Light'}
        </button>
      </div>
      <div className="top-row stats">
        <Frames status={status} />
        <Stat name="Rate" value={status && rate(status.rate.frames_per_s)} sub={status && bytesPerSecond(status.rate.bytes_per_s).join(' ')} testid="rate" />
        <Stat
          name="Latency p50"
          value={status && latency(status.latency_us.p50)}
          sub={status && `p99 ${latency(status.latency_us.p99).join(' ')}`}
          title={status ? `p99.9 ${latency(status.latency_us.p999).join(' ')}, longest ${latency(status.latency_us.max).join(' ')}` : ''}
          testid="latency"
        />
        <Gauge
          name="Ring"
          used={status?.ring.used}
          capacity={status?.ring.slots}
          sub={status ? `${pages(status.ring.page_kind)}${status.ring.locked ? ', locked' : ''}` : null}
          alert={status?.ring.page_kind === 'transparent'}
        />
        <Gauge name="Analysis" used={status?.queues.analysis.used} capacity={status?.queues.analysis.capacity} {...troubles(status?.analysis.shed, 'shed', status?.analysis.failed)} />
        <Gauge name="Storage" used={status?.queues.storage.used} capacity={status?.queues.storage.capacity} {...troubles(status?.storage.vetoed, 'vetoed', status?.storage.failed)} />
        <div className="stat device" title={status?.device.name}>
          <span className="stat-name">Device</span>
          <span className="stat-text">{status?.device.name ?? '–'}</span>
          <span className="stat-sub">
            {status && (status.device.memory === 'zero_copy' ? 'zero copy' : 'copies frames')}
            {status && `, ${status.cores.mode} cores`}
          </span>
        </div>
        <Stat name="Store free" value={status && bytes(status.store.free_bytes)} sub={status && roomLeft(status)} title={status ? `${status.store.path}: ${forecast(status)}` : ''} testid="store" />
      </div>
    </header>
  );
}

interface Badge {
  /** for tests and styles: the appliance's state or `not connected` */
  state: string;
  text: string;
  tone: string;
  message: string;
  bad: boolean;
}

function badgeOf({ status, connected, answered, refused }: Connection, line: RunLine | null): Badge {
  if (refused) return { state: 'log in', text: 'Log in', tone: 'grey', message: 'This appliance asks for a token', bad: false };
  if (!connected) {
    const silence = answered === null ? '' : ` for ${duration((Date.now() - answered) / 1000)}`;
    const message = answered === null && !status ? 'Asking the server' : `No answer from the server${silence}; trying again`;
    return { state: 'not connected', text: 'Not connected', tone: 'red', message, bad: answered !== null };
  }
  const state = status?.state ?? 'idle';
  const messages: Record<string, string> = {
    idle: line ? endings[line.state] ?? `Last run: ${line.state}` : 'No run yet',
    armed: 'Ready, waiting for the first frame',
    recording: 'Frames are arriving',
    finishing: 'Writing and closing the files',
    error: 'The last run failed',
  };
  const tones: Record<string, string> = { idle: 'grey', armed: 'amber', recording: 'green', finishing: 'blue', error: 'red' };
  return {
    state,
    text: state.charAt(0).toUpperCase() + state.slice(1),
    tone: tones[state] ?? 'grey',
    message: status?.message ?? messages[state] ?? '',
    bad: state === 'error' || Boolean(status?.message),
  };
}

const endings: Record<string, string> = {
  complete: 'The last run is complete',
  stopped: 'The last run was stopped early; everything so far is kept',
  aborted: 'The last run was aborted',
  failed: 'The last run failed',
};

/** What the store's free bytes mean: when it is full at the present rate, else where it is. */
function roomLeft({ store }: Status): string {
  const left = store.keep?.forecast.hours_left ?? null;
  return left === null ? store.path : `full in ${hours(left)}`;
}

function pages(kind: string): string {
  return kind === 'transparent' ? 'transparent pages' : kind ? `${kind.replace(/(\d)(\D)/, '$1 $2')} pages` : '–';
}

function troubles(left: number | undefined, leftName: string, failed: number | undefined): { sub: string | null; alert: boolean } {
  if (left === undefined || failed === undefined) return { sub: null, alert: false };
  const parts = [left > 0 ? `${count(left)} ${leftName}` : '', failed > 0 ? `${count(failed)} failed` : ''].filter(Boolean);
  return { sub: parts.length > 0 ? parts.join(', ') : `none ${leftName}`, alert: parts.length > 0 };
}

function Fact({ name, value, mono, testid }: { name: string; value: string | undefined; mono?: boolean; testid?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd className={mono ? 'mono' : ''} title={value} data-testid={testid}>
        {value || '–'}
      </dd>
    </div>
  );
}

function Frames({ status }: { status: Status | null }) {
  const frames = status?.frames;
  const expected = frames?.expected ?? 0;
  const width = (part: number) => ({ width: `${expected > 0 ? Math.min(100, (100 * part) / expected) : 0}%` });
  const oddities: [number, string, string][] = frames
    ? [
        [frames.lost, 'lost', 'red'],
        [frames.corrupt, 'corrupt', 'red'],
        [frames.partial, 'partial', 'amber'],
        [frames.duplicate, 'duplicate', ''],
        [frames.late, 'late', ''],
      ]
    : [];
  return (
    <div className="stat frames">
      <span className="stat-name">Frames</span>
      <span className="frames-line">
        <b data-testid="frames-complete" data-value={frames?.complete ?? 0}>
          {count(frames?.complete)}
        </b>
        <span className="dim"> of {count(frames?.expected)}</span>
        <span className="frames-share">{frames ? share(frames.complete, expected) : ''}</span>
        <span className="oddities">
          {oddities.map(([n, name, tone]) => (
            <span key={name} className={n > 0 ? tone : 'none'} data-testid={`frames-${name}`}>
              {count(n)} {name}
            </span>
          ))}
        </span>
      </span>
      <span className="bar" role="progressbar" aria-label="Frames" aria-valuemin={0} aria-valuemax={expected} aria-valuenow={frames?.complete ?? 0}>
        <i className="green" style={width(frames?.complete ?? 0)} />
        <i className="amber" style={width(frames?.partial ?? 0)} />
        <i className="red" style={width((frames?.lost ?? 0) + (frames?.corrupt ?? 0))} />
      </span>
    </div>
  );
}

function Stat(props: { name: string; value: [string, string] | null; sub: string | null; title?: string; testid: string }) {
  return (
    <div className="stat" title={props.title} data-testid={props.testid}>
      <span className="stat-name">{props.name}</span>
      <span className="stat-value">
        <b>{props.value?.[0] ?? '–'}</b> {props.value?.[1] ?? ''}
      </span>
      <span className="stat-sub">{props.sub}</span>
    </div>
  );
}

function Gauge(props: { name: string; used: number | undefined; capacity: number | undefined; sub: ReactNode; alert: boolean }) {
  const filled = props.capacity ? (props.used ?? 0) / props.capacity : 0;
  const tone = filled > 0.9 ? 'red' : filled > 0.6 ? 'amber' : 'accent';
  return (
    <div className="stat gauge">
      <span className="stat-name">{props.name}</span>
      <span className="gauge-line">
        <span className="bar">
          <i className={tone} style={{ width: `${Math.min(100, 100 * filled)}%` }} />
        </span>
        <span className="steady-text">
          {count(props.used)}/{count(props.capacity)}
        </span>
      </span>
      <span className={`stat-sub ${props.alert ? 'amber-text' : ''}`}>{props.sub}</span>
    </div>
  );
}

/** Asks once before it stops; says what the server answered if it refuses. */
function StopButton({ run, allowed }: { run: string | null; allowed: boolean }) {
  const [asking, setAsking] = useState(false);
  const [problem, setProblem] = useState('');
  useEffect(() => {
    setAsking(false);
    setProblem('');
  }, [run, allowed]);
  const stop = async () => {
    setAsking(false);
    if (!run) return;
    try {
      await post(runPath(run, '/stop'));
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <div className="stop" title={problem || 'End the run early and keep everything'}>
      {asking && allowed ? (
        <>
          <button type="button" className="danger" data-testid="stop-confirm" onClick={() => void stop()}>
            Stop it
          </button>
          <button type="button" className="toggle" onClick={() => setAsking(false)}>
            Go on
          </button>
        </>
      ) : (
        <button type="button" className={`wide ${problem ? 'danger' : ''}`} data-testid="stop" disabled={!allowed} onClick={() => setAsking(true)}>
          {problem ? 'Not stopped' : '■ Stop run'}
        </button>
      )}
    </div>
  );
}
