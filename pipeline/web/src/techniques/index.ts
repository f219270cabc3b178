/**
 * Which panel shows a run: one file per technique, found by being here.
 *
 * To add a technique, add `NAME.tsx` that exports `technique`; nothing else changes. Runs of a technique without
 * a file of its own are shown by `generic.tsx`.
 */

import { technique as generic } from './generic';
import type { Technique } from './technique';

const files = import.meta.glob<{ technique: Technique }>('./*.tsx', { eager: true });
const techniques = new Map(Object.values(files).map(({ technique }) => [technique.name, technique]));

export function techniqueOf(name: string): Technique {
  return techniques.get(name) ?? generic;
}

/** What a technique is called on the page. */
export function titleOf(name: string): string {
  return techniques.get(name)?.title ?? (name ? name.charAt(0).toUpperCase() + name.slice(1).replaceAll('_', ' ') : '–');
}
