/** Keys of the whole page: a name as `KeyboardEvent.key` has it, and what it does. Not while somebody types. */

import { useEffect, useRef } from 'react';

export function useKeys(keys: Record<string, () => void>): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      const focus = event.target instanceof HTMLElement ? event.target.tagName : '';
      // A button takes its own keys and no others.
      const taken = /^(INPUT|SELECT|TEXTAREA)$/.test(focus) || (focus === 'BUTTON' && (event.key === ' ' || event.key === 'Enter'));
      if (taken || event.ctrlKey || event.altKey || event.metaKey) return;
      const act = latest.current[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener('keydown', listen);
    return () => removeEventListener('keydown', listen);
  }, []);
}
