/** Dark or light: the user's choice, else the system's. */

import { useEffect, useState } from 'react';
import { useStored } from './settings';

export type ThemeChoice = 'auto' | 'dark' | 'light';
export type Theme = 'dark' | 'light';

const SYSTEM_LIGHT = matchMedia('(prefers-color-scheme: light)');

export function useTheme(): { choice: ThemeChoice; theme: Theme; next: () => void } {
  const [choice, setChoice] = useStored<ThemeChoice>('theme', 'auto');
  const [systemLight, setSystemLight] = useState(SYSTEM_LIGHT.matches);
  useEffect(() => {
    const update = () => setSystemLight(SYSTEM_LIGHT.matches);
    SYSTEM_LIGHT.addEventListener('change', update);
    return () => SYSTEM_LIGHT.removeEventListener('change', update);
  }, []);
  const theme: Theme = choice === 'auto' ? (systemLight ? 'light' : 'dark') : choice;
  document.documentElement.dataset['theme'] = theme;
  const order: Record<ThemeChoice, ThemeChoice> = { auto: 'dark', dark: 'light', light: 'auto' };
  return { choice, theme, next: () => setChoice(order[choice]) };
}
