/** Which marks are drawn over a frame. */

import { useEffect, useState } from 'react';
import type { ViewSettings } from './viewSettings';

export interface MarkControlsProps {
  settings: ViewSettings;
  onChange: (change: Partial<ViewSettings>) => void;
  /** whether the run's geometry is known */
  placed: boolean;
  /** spacings drawn, Å */
  rings: number[];
  /** spots of this frame; null where the recipe looks for none or they are not there yet */
  spots: number | null;
  /** how many regions of interest the recipe has */
  regions: number;
}

/** Spacings as somebody writes them: numbers between commas or spaces; empty for those that the page chooses. */
export function parseRings(text: string): number[] {
  const values = text.split(/[\s,;]+/).map(Number);
  return [...new Set(values.filter((value) => value > 0 && Number.isFinite(value)))].slice(0, 12);
}

export function MarkControls({ settings, onChange, placed, rings, spots, regions }: MarkControlsProps) {
  const [draft, setDraft] = useState<string | null>(null);
  useEffect(() => setDraft(null), [settings.rings]);
  const shown = settings.rings || rings.join(', ');
  const commit = () => {
    if (draft !== null && draft !== shown) onChange({ rings: parseRings(draft).join(', ') });
    setDraft(null);
  };
  return (
    <div className="mark-controls">
      <label className="flag" title={placed ? 'Rings of one lattice spacing' : 'The run does not say where the detector is'}>
        <input type="checkbox" checked={settings.showRings} disabled={!placed} onChange={(event) => onChange({ showRings: event.target.checked })} />
        Rings
      </label>
      <input
        className="bound rings"
        aria-label="Lattice spacings of the rings, Å"
        title="Lattice spacings in Å, between commas; empty: chosen to fit"
        disabled={!placed || !settings.showRings}
        value={draft ?? shown}
        onChange={(event) => setDraft(event.target.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === 'Enter') commit();
          if (event.key === 'Escape') setDraft(null);
        }}
      />
      <span className="dim">Å</span>
      <label className="flag">
        <input type="checkbox" checked={settings.showCentre} disabled={!placed} onChange={(event) => onChange({ showCentre: event.target.checked })} />
        Beam
      </label>
      <label className="flag">
        <input type="checkbox" checked={settings.showSpots} onChange={(event) => onChange({ showSpots: event.target.checked })} />
        Spots <span className="steady-few">{spots ?? ''}</span>
      </label>
      {regions > 0 && (
        <label className="flag">
          <input type="checkbox" checked={settings.showRegions} onChange={(event) => onChange({ showRegions: event.target.checked })} />
          Regions
        </label>
      )}
    </div>
  );
}
