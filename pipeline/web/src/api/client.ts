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
    const response = await fetch(`${ROOT}${path}`, { ...init, headers: authorization(), signal: controller.signal });
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

export function runPath(id: string, rest = ''): string {
  return `/runs/${encodeURIComponent(id)}${rest}`;
}

export function resultsUrl(id: string, maxRateHz: number): string {
  const url = new URL(`${ROOT}${runPath(id, '/results')}?policy=sampled&max_rate_hz=${maxRateHz}`);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export function eventsUrl(id: string): string {
  return `${ROOT}${runPath(id, '/events')}`;
}

export function pictureUrl(id: string, file: string): string {
  return `${ROOT}${runPath(id, `/frames/${file}`)}`;
}
