/** How a picture is shown: the user's choices, kept per kind of picture. */

import type { ColorMap } from '@h5web/lib';
import { useRef } from 'react';
import { autoRange, steadyRange, validRange, type AutoRange, type Picture, type Range, type Scale } from '../lib/picture';
import { useStored } from '../lib/settings';

export interface ViewSettings {
  colourMap: ColorMap;
  invert: boolean;
  scale: Scale;
  auto: AutoRange;
  min: number;
  max: number;
  showMask: boolean;
  maskedColour: string;
  showSaturated: boolean;
  saturatedColour: string;
  fullResolution: boolean;
  showRings: boolean;
  /** lattice spacings, Å, between commas; empty for those that fit */
  rings: string;
  showCentre: boolean;
  showSpots: boolean;
  showRegions: boolean;
}

/** Of h5web's maps, those that serve counts and densities. */
export const COLOUR_MAPS: ColorMap[] = [
  'Inferno',
  'Viridis',
  'Magma',
  'Plasma',
  'Cividis',
  'Turbo',
  'Greys',
  'Blues',
  'Greens',
  'Oranges',
  'Cubehelix',
  'YlGnBu',
  'RdBu',
  'Spectral',
];

const DEFAULTS: ViewSettings = {
  colourMap: 'Inferno',
  invert: false,
  scale: 'linear',
  auto: '99.5',
  min: 0,
  max: 1,
  showMask: true,
  maskedColour: '#4b5a6b',
  showSaturated: true,
  saturatedColour: '#ff2ad4',
  fullResolution: false,
  showRings: true,
  rings: '',
  showCentre: true,
  showSpots: true,
  showRegions: true,
};

export function useViewSettings(kind: string, own: Partial<ViewSettings>): [ViewSettings, (change: Partial<ViewSettings>) => void] {
  return useStored<ViewSettings>(`view.${kind}`, { ...DEFAULTS, ...own });
}

/** The range of the colours of pictures shown together. It moves when the pictures really change. */
export function useRange(settings: ViewSettings, pictures: Picture[]): Range {
  const last = useRef<{ key: string; range: Range } | null>(null);
  const samples = pictures.map((picture) => picture.sample);
  if (settings.auto === 'manual') {
    last.current = null;
    return validRange([settings.min, settings.max], settings.scale, samples);
  }
  const key = `${settings.auto} ${settings.scale}`;
  if (samples.length === 0) return last.current?.key === key ? last.current.range : validRange([0, 1], settings.scale, []);
  const next = validRange(autoRange(samples, settings.auto), settings.scale, samples);
  const range = steadyRange(last.current?.key === key ? last.current.range : null, next);
  last.current = { key, range };
  return range;
}
