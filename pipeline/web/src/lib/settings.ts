/** Choices that a browser keeps for its user. */

import { useCallback, useState } from 'react';

const PREFIX = 'fluxline.';

/** Like `useState`, kept under `key`; a stored value that lacks newer fields gets them from `initial`. */
export function useStored<T>(key: string, initial: T): [T, (change: Partial<T> | T) => void] {
  const [value, setValue] = useState<T>(() => {
    try {
      const text = localStorage.getItem(PREFIX + key);
      if (text === null) return initial;
      const stored = JSON.parse(text) as T;
      return isRecord(initial) && isRecord(stored) ? { ...initial, ...stored } : stored;
    } catch {
      return initial;
    }
  });
  const change = useCallback(
    (next: Partial<T> | T) => {
      setValue((last) => {
        const merged = isRecord(last) && isRecord(next) ? { ...last, ...next } : (next as T);
        try {
          localStorage.setItem(PREFIX + key, JSON.stringify(merged));
        } catch {
          // A browser without storage forgets; nothing else changes.
        }
        return merged;
      });
    },
    [key],
  );
  return [value, change];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
