/** What the page knows of the appliance, kept fresh. */

import { useEffect, useMemo, useRef, useState } from 'react';
import { CurveHistory } from '../lib/curveHistory';
import { geometryOf, type Geometry } from '../lib/geometry';
import { Trend } from '../lib/trend';
import { makeMask, makePicture, type Mask, type Picture } from '../lib/picture';
import { eventsUrl, getArray, getJson, RequestError, resultsUrl, runPath } from './client';
import { usePoll, useVisible } from './poll';
import { authorization, protocols, useLogin } from './session';
import { listen } from './sse';
import type {
  DecisionList,
  FrameInfo,
  ParameterList,
  Profile,
  ResultMessage,
  RunDetail,
  RunEvent,
  RunLine,
  RunList,
  Session,
  SliceInfo,
  SliceList,
  SpotList,
  Status,
} from './types';

const STATUS_INTERVAL_MS = 500;
const RUNS_INTERVAL_MS = 5_000;
const IMAGE_INTERVAL_MS = 250;
const RESULTS_RATE_HZ = 10;
const RESULTS_RETRY_MS = 2_000;
const DRAW_INTERVAL_MS = 250;

/** Pixels asked for where the whole frame is looked at: an Eiger 1M as it is, a 4M binned by two, a 16M by four. */
export const OVERVIEW_PIXELS = 1_200_000;
const FULL_PIXELS = 64 << 20;

export interface Connection {
  status: Status | null;
  connected: boolean;
  /** when the server answered last, ms since the epoch; null before the first answer */
  answered: number | null;
  /** whether the appliance asks for a token */
  refused: boolean;
}

export function useStatus(): Connection {
  const [connection, setConnection] = useState<Connection>({ status: null, connected: false, answered: null, refused: false });
  const { token } = useLogin();
  usePoll(`status ${token !== null}`, STATUS_INTERVAL_MS, async (signal) => {
    try {
      const status = await getJson<Status>('/status', signal);
      setConnection({ status, connected: true, answered: Date.now(), refused: false });
    } catch (error) {
      const refused = error instanceof RequestError && error.needsToken;
      if (!signal.aborted) {
        // Whoever has no token sees nothing of what was there before.
        setConnection((last) => (refused ? { status: null, connected: false, answered: null, refused } : { ...last, connected: false }));
      }
      throw error;
    }
  });
  return connection;
}

/** Who this page asks for; null until it is known. */
export function useSession(connected: boolean): Session | null {
  const { token } = useLogin();
  const [session, setSession] = useState<Session | null>(null);
  usePoll(connected ? `session ${token !== null}` : null, RUNS_INTERVAL_MS, async (signal) => {
    const next = await getJson<Session>('/session', signal);
    setSession((last) => (JSON.stringify(last) === JSON.stringify(next) ? last : next));
  });
  return connected ? session : null;
}

/** The list of runs; `change` is anything that makes a fresh list worthwhile at once. */
export function useRuns(connected: boolean, change: string, query: string): { list: RunList | null; problem: string } {
  const [list, setList] = useState<RunList | null>(null);
  const [problem, setProblem] = useState('');
  usePoll(connected ? `runs ${change} ${query}` : null, RUNS_INTERVAL_MS, async (signal) => {
    try {
      const asked = query.trim() === '' ? '' : `&query=${encodeURIComponent(query.trim())}`;
      const found = await getJson<RunList>(`/runs?limit=100${asked}`, signal);
      if (signal.aborted) return;
      setList(found);
      setProblem('');
    } catch (error) {
      if (!signal.aborted) setProblem(error instanceof RequestError && error.status === 400 ? error.message : '');
      throw error;
    }
  });
  return { list, problem };
}

/** What is known of a run. Asked once of a stored run, and again of one in memory when `change` moves on. */
export function useRunDetail(run: string | null, enabled: boolean, change = ''): RunDetail | null {
  const [detail, setDetail] = useState<{ run: string | null; detail: RunDetail } | null>(null);
  const fetched = useRef('');
  usePoll(run !== null && enabled ? `detail ${run}` : null, RESULTS_RETRY_MS, async (signal) => {
    const tag = `${run} ${change}`;
    if (run === null || tag === fetched.current) return;
    const next = await getJson<RunDetail>(runPath(run), signal);
    if (signal.aborted) return;
    fetched.current = tag;
    setDetail({ run, detail: next });
  });
  return detail?.run === run ? (detail?.detail ?? null) : null;
}

/** Where the pixels of a run's frames are; null where nobody knows. */
export function useGeometry(detail: RunDetail | null): Geometry | null {
  return useMemo(() => geometryOf(detail?.record.parameters), [detail]);
}

const SPOTS_KEPT = 64;

/** The spots of a frame; null while they are not there, or where the recipe looks for none. */
export function useSpots(run: string, frame: number | null, enabled: boolean): SpotList | null {
  const kept = useRef<{ run: string; lists: Map<number, SpotList> }>({ run, lists: new Map() });
  const [, redraw] = useState(0);
  if (kept.current.run !== run) kept.current = { run, lists: new Map() };
  const { lists } = kept.current;
  const found = frame === null ? null : (lists.get(frame) ?? null);
  usePoll(enabled && frame !== null && !found ? `spots ${run} ${frame}` : null, IMAGE_INTERVAL_MS, async (signal) => {
    if (frame === null) return;
    const list = await getJson<SpotList>(runPath(run, `/spots/${frame}`), signal);
    lists.set(frame, list);
    // The oldest goes first: a map keeps the order in which it was filled.
    for (const old of lists.keys()) if (lists.size > SPOTS_KEPT) lists.delete(old);
    if (!signal.aborted) redraw((n) => n + 1);
  });
  return found;
}

/** What may be changed of the run in memory; `refresh` asks at once. */
export function useParameters(run: string, enabled: boolean): { list: ParameterList | null; take: (list: ParameterList) => void } {
  const [list, setList] = useState<ParameterList | null>(null);
  usePoll(enabled ? `parameters ${run}` : null, RESULTS_RETRY_MS / 2, async (signal) => {
    const next = await getJson<ParameterList>('/parameters', signal);
    if (!signal.aborted) setList((last) => (JSON.stringify(last) === JSON.stringify(next) ? last : next));
  });
  return { list: list?.run === run ? list : null, take: setList };
}

/** What the rules have decided in a run. */
export function useDecisions(run: string | null, enabled: boolean, change: string): DecisionList | null {
  const [found, setFound] = useState<{ run: string | null; list: DecisionList } | null>(null);
  usePoll(run !== null && enabled ? `decisions ${run} ${change}` : null, RUNS_INTERVAL_MS, async (signal) => {
    if (run === null) return;
    const list = await getJson<DecisionList>(runPath(run, '/decisions'), signal);
    if (!signal.aborted) setFound({ run, list });
  });
  return found?.run === run ? found.list : null;
}

/** A stored run as the list has it, or null while it is not known. */
export function lineOf(list: RunList | null, id: string): RunLine | null {
  return list?.runs.find((run) => run.id === id) ?? null;
}

/** The pixel mask of the run in memory, reduced like its pictures. */
export function useMask(run: string, available: boolean, fullResolution: boolean): Mask | null {
  const [mask, setMask] = useState<{ key: string; mask: Mask } | null>(null);
  const pixels = fullResolution ? FULL_PIXELS : OVERVIEW_PIXELS;
  const key = `mask ${run} ${pixels}`;
  const have = mask?.key === key;
  usePoll(available && !have ? key : null, RESULTS_RETRY_MS, async (signal) => {
    const { array } = await getArray(runPath(run, `/mask.npy?max_pixels=${pixels}`), signal);
    if (!signal.aborted) setMask({ key, mask: makeMask(array) });
  });
  return have ? mask.mask : null;
}

export interface ShownFrame {
  run: string;
  info: FrameInfo;
  picture: Picture;
}

export interface FrameRequest {
  run: string;
  /** a number, `latest` or `hit` */
  which: string;
  mask: Mask | null;
  fullResolution: boolean;
  enabled: boolean;
}

/** A frame of a run as a picture: fetched when its number has changed, and kept while there is nothing newer. */
export function useFrame({ run, which, mask, fullResolution, enabled }: FrameRequest): { frame: ShownFrame | null; problem: string | null } {
  const [frame, setFrame] = useState<ShownFrame | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const shown = useRef('');
  const pixels = fullResolution ? FULL_PIXELS : OVERVIEW_PIXELS;
  usePoll(enabled ? `frame ${run} ${which} ${pixels}` : null, IMAGE_INTERVAL_MS, async (signal) => {
    try {
      const info = await getJson<FrameInfo>(runPath(run, `/frames/${which}.json`), signal);
      const tag = `${run} ${info.frame_number} ${pixels} ${mask !== null}`;
      if (tag === shown.current) return;
      const fetched = await getArray(runPath(run, `/frames/${which}.npy?max_pixels=${pixels}`), signal);
      const frame_number = fetched.frameNumber ?? info.frame_number;
      const picture = makePicture(fetched.array, fetched.binning, mask, info.saturation);
      if (signal.aborted) return;
      shown.current = tag;
      setFrame({ run, info: { ...info, frame_number }, picture });
      setProblem(null);
    } catch (error) {
      const patient = error instanceof RequestError && (error.notYet || error.status === 0);
      if (!signal.aborted) setProblem(patient ? null : String((error as Error).message));
      throw error;
    }
  });
  const same = frame?.run === run;
  return { frame: same ? frame : null, problem: same ? null : problem };
}

/** A curve of a run; `change` moves on when there may be a newer one. */
export function useProfile(run: string, which: 'latest' | 'sum', enabled: boolean, change: number): Profile | null {
  const [profile, setProfile] = useState<{ run: string; profile: Profile } | null>(null);
  const fetched = useRef('');
  usePoll(enabled ? `profile ${run} ${which}` : null, IMAGE_INTERVAL_MS, async (signal) => {
    const tag = `${run} ${change}`;
    if (tag === fetched.current) return;
    const next = await getJson<Profile>(runPath(run, `/profiles/${which}`), signal);
    if (signal.aborted) return;
    fetched.current = tag;
    setProfile({ run, profile: next });
  });
  return profile?.run === run ? profile.profile : null;
}

export interface ShownSlice {
  info: SliceInfo;
  picture: Picture;
}

/** The slices of a run, each fetched again when its version has changed. */
export function useSlices(run: string, enabled: boolean): ShownSlice[] {
  const [shown, setShown] = useState<{ run: string; slices: ShownSlice[] }>({ run: '', slices: [] });
  const current = useRef(shown);
  current.current = shown;
  usePoll(enabled ? `slices ${run}` : null, 2 * IMAGE_INTERVAL_MS, async (signal) => {
    const { slices } = await getJson<SliceList>(runPath(run, '/slices'), signal);
    const last = current.current.run === run ? current.current.slices : [];
    const next: ShownSlice[] = [];
    for (const info of slices) {
      const old = last.find((slice) => slice.info.name === info.name);
      if (info.frames_used === 0) continue;
      if (old && old.info.version === info.version) {
        next.push(old);
        continue;
      }
      const path = `/slices/${encodeURIComponent(info.name)}.npy?max_pixels=${OVERVIEW_PIXELS}`;
      const { array, binning } = await getArray(runPath(run, path), signal);
      next.push({ info, picture: makePicture(array, binning, null, null) });
    }
    const changed = next.length !== last.length || next.some((slice, index) => slice !== last[index]);
    if (!signal.aborted && changed) setShown({ run, slices: next });
  });
  return shown.run === run ? shown.slices : [];
}

export interface Results {
  trend: Trend;
  /** the run's first curve of the last frames */
  curves: CurveHistory;
  last: ResultMessage | null;
  /** counts redraws: the trend is the same object all through a run */
  version: number;
}

/** Results of a run as they come, sampled; drawn a few times a second however many there are. */
export function useResults(run: string, enabled: boolean, curve: string | null = null): Results {
  const visible = useVisible();
  const { trend, curves } = useMemo(() => ({ run, trend: new Trend(), curves: new CurveHistory() }), [run]);
  const last = useRef<ResultMessage | null>(null);
  const [version, setVersion] = useState(0);

  useEffect(() => {
    last.current = null;
    setVersion(0);
  }, [run]);

  useEffect(() => {
    if (!enabled || !visible) return;
    let socket: WebSocket | null = null;
    let retry: ReturnType<typeof setTimeout> | undefined;
    let fresh = false;
    let over = false;
    const connect = () => {
      socket = new WebSocket(resultsUrl(run, RESULTS_RATE_HZ, curve !== null), protocols());
      socket.onmessage = (event: MessageEvent<string>) => {
        const message = JSON.parse(event.data) as ResultMessage;
        trend.push(message.frame_number, message.scalars);
        const values = curve === null ? undefined : message.curves?.[curve];
        if (values) curves.push(message.frame_number, values);
        last.current = message;
        fresh = true;
      };
      socket.onclose = () => {
        if (!over) retry = setTimeout(connect, RESULTS_RETRY_MS);
      };
    };
    connect();
    const draw = setInterval(() => {
      if (fresh) setVersion((n) => n + 1);
      fresh = false;
    }, DRAW_INTERVAL_MS);
    return () => {
      over = true;
      clearTimeout(retry);
      clearInterval(draw);
      socket?.close();
      if (fresh) setVersion((n) => n + 1);
    };
  }, [run, enabled, visible, trend, curves, curve]);

  return { trend, curves, last: last.current, version };
}

const EVENTS_KEPT = 50;

/** What happened to the run in memory, newest last; progress is left out, the counters show it. */
export function useEvents(run: string | null, enabled: boolean): RunEvent[] {
  const visible = useVisible();
  const [events, setEvents] = useState<{ run: string | null; list: RunEvent[] }>({ run: null, list: [] });
  useEffect(() => {
    // A browser allows six connections to a server: hidden pages hold none.
    if (run === null || !enabled || !visible) return;
    const controller = new AbortController();
    void listen(eventsUrl(run), authorization, controller.signal, ({ event: name, data }) => {
      if (name === 'progress') return true;
      const event = JSON.parse(data) as RunEvent;
      setEvents((last) => {
        const list = last.run === run ? last.list.filter((old) => old.sequence < event.sequence) : [];
        return { run, list: [...list, event].slice(-EVENTS_KEPT) };
      });
      return name !== 'end';
    });
    return () => controller.abort();
  }, [run, enabled, visible]);
  return events.run === run ? events.list : [];
}
