/** Requests to the interface that serves this page. */

import type { ErrorBody } from './types';
import { parseNpy, type NpyArray } from './npy';
import { authorization, currentToken, setToken } from './session';

const ROOT = new URL('api/v1', document.baseURI).href;

/** A request may take this long; past it the server counts as gone. */
const TIMEOUT_MS = 15_000;

/** An answer that is not what was asked for. `status` is 0 where there was no answer at all. */
export class RequestError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  /** The appliance wants to know first who asks. */
  get needsToken(): boolean {
    return this.code === 'token' || this.code === 'throttled';
  }

  /** Asking again later helps: nothing is wrong. */
  get notYet(): boolean {
    return this.status === 425;
  }
}

async function request(path: string, signal: AbortSignal | undefined, init: RequestInit): Promise<Response> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, TIMEOUT_MS);
  signal?.addEventListener('abort', abort);
  const shown = currentToken();
  try {
    const response = await fetch(`${ROOT}${path}`, { ...init, headers: { ...init.headers, ...authorization() }, signal: controller.signal });
    if (response.ok) return response;
    const body = (await response.json().catch(() => null)) as ErrorBody | null;
    // A token that does not hold is not shown again: every time would count as a guess.
    const wrong = body?.error === 'token' || body?.error === 'throttled';
    if (wrong && shown !== null && shown === currentToken()) setToken(null, body.message);
    throw new RequestError(response.status, body?.error ?? 'http', body?.message ?? `the server answered ${response.status}`);
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError(0, 'unreachable', 'no answer from the server');
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, signal, { cache: 'no-store' });
  return (await response.json()) as T;
}

export interface FetchedArray {
  array: NpyArray;
  binning: number;
  frameNumber: number | null;
}

export async function getArray(path: string, signal?: AbortSignal): Promise<FetchedArray> {
  const response = await request(path, signal, { cache: 'no-store' });
  const frame = response.headers.get('x-fluxline-frame');
  return {
    array: parseNpy(await response.arrayBuffer()),
    binning: Math.max(1, Number(response.headers.get('x-fluxline-binning') ?? 1) || 1),
    frameNumber: frame === null ? null : Number(frame),
  };
}

export async function post(path: string): Promise<void> {
  await request(path, undefined, { method: 'POST' });
}

/** Sends a JSON body and gives the answer. */
export async function send<T>(method: 'POST' | 'PUT', path: string, body: unknown): Promise<T> {
  const response = await request(path, undefined, { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  return (await response.json()) as T;
}

/** Sends a file and gives the answer. */
export async function upload<T>(path: string, body: Uint8Array<ArrayBuffer>): Promise<T> {
  const response = await request(path, undefined, { method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body });
  return (await response.json()) as T;
}

export async function getText(path: string, signal?: AbortSignal): Promise<string> {
  return (await request(path, signal, { cache: 'no-store' })).text();
}

/** The browser saves what is at `path`. With a token it has to pass through the page: an address is no place for one. */
export async function download(path: string, name: string): Promise<void> {
  const link = document.createElement('a');
  link.download = name;
  if (currentToken() === null) {
    link.href = `${ROOT}${path}`;
    link.click();
    return;
  }
  const response = await fetch(`${ROOT}${path}`, { headers: authorization() });
  if (!response.ok) throw new RequestError(response.status, 'http', `the server answered ${response.status}`);
  const address = URL.createObjectURL(await response.blob());
  link.href = address;
  link.click();
  // The browser has taken it over by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** The address of a path of the interface. */
export function apiUrl(path: string): string {
  return `${ROOT}${path}`;
}

export function runPath(id: string, rest = ''): string {
  return `/runs/${encodeURIComponent(id)}${rest}`;
}

export function resultsUrl(id: string, maxRateHz: number, curves: boolean): string {
  const url = new URL(`${ROOT}${runPath(id, '/results')}?policy=sampled&max_rate_hz=${maxRateHz}&curves=${curves}`);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export function eventsUrl(id: string): string {
  return `${ROOT}${runPath(id, '/events')}`;
}
