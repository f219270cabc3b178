/** Asking again and again, one request at a time, and not while nobody looks. */

import { useEffect, useRef, useState } from 'react';

/** A hidden tab asks this seldom, so that it neither loads the server nor holds its connections. */
const HIDDEN_INTERVAL_MS = 10_000;

/** After failures the pauses double up to this. */
const RETRY_INTERVAL_MAX_MS = 2_000;

export function useVisible(): boolean {
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const update = () => setVisible(!document.hidden);
    document.addEventListener('visibilitychange', update);
    return () => document.removeEventListener('visibilitychange', update);
  }, []);
  return visible;
}

/**
 * Calls `task` every `intervalMs`, counted from start to start, and never before the last call has ended. `key` names
 * what is asked for: when it changes, the call under way is aborted and the next begins at once. A null key asks for nothing.
 */
export function usePoll(key: string | null, intervalMs: number, task: (signal: AbortSignal) => Promise<void>): void {
  const latest = useRef(task);
  latest.current = task;
  useEffect(() => {
    if (key === null) return;
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let wake: (() => void) | undefined;
    const pause = (ms: number) =>
      new Promise<void>((resolve) => {
        wake = resolve;
        timer = setTimeout(resolve, ms);
      });
    const onVisible = () => {
      if (!document.hidden) wake?.();
    };
    document.addEventListener('visibilitychange', onVisible);
    void (async () => {
      let failures = 0;
      while (!controller.signal.aborted) {
        const begun = performance.now();
        try {
          await latest.current(controller.signal);
          failures = 0;
        } catch {
          // What failed is the task's to show; a later turn asks again.
          failures += 1;
        }
        if (controller.signal.aborted) return;
        const retry = Math.max(intervalMs, Math.min(RETRY_INTERVAL_MAX_MS, intervalMs * 2 ** failures));
        const interval = document.hidden ? HIDDEN_INTERVAL_MS : retry;
        await pause(Math.max(20, interval - (performance.now() - begun)));
      }
    })();
    return () => {
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, [key, intervalMs]);
}
