/** The controls above a picture. */

import { getLinearGradient, INTERPOLATORS, type ColorMap } from '@h5web/lib';
import { useEffect, useState, type ReactNode } from 'react';
import type { AutoRange, Range, Scale } from '../lib/picture';
import { COLOUR_MAPS, type ViewSettings } from './viewSettings';

const SCALES: [Scale, string][] = [
  ['linear', 'Lin'],
  ['sqrt', 'Sqrt'],
  ['log', 'Log'],
];

const RANGES: [AutoRange, string][] = [
  ['100', 'Min–max'],
  ['99.9', 'Auto 99.9 %'],
  ['99.5', 'Auto 99.5 %'],
  ['99', 'Auto 99 %'],
  ['95', 'Auto 95 %'],
  ['manual', 'Manual'],
];

export interface PictureControlsProps {
  settings: ViewSettings;
  onChange: (change: Partial<ViewSettings>) => void;
  range: Range;
  /** detector frames have a mask, saturation and a full resolution; slices have not */
  detector: boolean;
  /** at the right end */
  children?: ReactNode;
}

export function PictureControls({ settings, onChange, range, detector, children }: PictureControlsProps) {
  const invert = (place: number) => INTERPOLATORS[settings.colourMap](settings.invert ? 1 - place : place);
  const bound = (which: 'min' | 'max', value: number) => {
    const other = { min: range[0], max: range[1], [which]: value };
    onChange({ auto: 'manual', ...other });
  };
  return (
    <div className="controls">
      <label className="field" title="Colour map">
        <span className="gradient" style={{ backgroundImage: getLinearGradient(invert, 'right') }} />
        <select
          aria-label="Colour map"
          value={settings.colourMap}
          onChange={(event) => onChange({ colourMap: event.target.value as ColorMap })}
        >
          {COLOUR_MAPS.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <button type="button" className="toggle" aria-pressed={settings.invert} title="Turn the colour map round" onClick={() => onChange({ invert: !settings.invert })}>
        ⇄
      </button>
      <span className="segments" role="radiogroup" aria-label="Scale">
        {SCALES.map(([scale, name]) => (
          <button key={scale} type="button" role="radio" aria-checked={settings.scale === scale} onClick={() => onChange({ scale })}>
            {name}
          </button>
        ))}
      </span>
      <span className="group">
        <select
          aria-label="Range"
          title="Share of the pixels that the colours cover"
          value={settings.auto}
          onChange={(event) => {
            const auto = event.target.value as AutoRange;
            onChange(auto === 'manual' ? { auto, min: range[0], max: range[1] } : { auto });
          }}
        >
          {RANGES.map(([auto, name]) => (
            <option key={auto} value={auto}>
              {name}
            </option>
          ))}
        </select>
        <Bound label="Lower end of the colours" value={range[0]} onCommit={(value) => bound('min', value)} />
        <span className="dim">to</span>
        <Bound label="Upper end of the colours" value={range[1]} onCommit={(value) => bound('max', value)} />
      </span>
      {detector && (
        <>
          <Flag
            name="Mask"
            title="Colour masked pixels"
            checked={settings.showMask}
            colour={settings.maskedColour}
            onCheck={(showMask) => onChange({ showMask })}
            onColour={(maskedColour) => onChange({ maskedColour })}
          />
          <Flag
            name="Saturated"
            title="Colour saturated pixels"
            checked={settings.showSaturated}
            colour={settings.saturatedColour}
            onCheck={(showSaturated) => onChange({ showSaturated })}
            onColour={(saturatedColour) => onChange({ saturatedColour })}
          />
          <button
            type="button"
            className="toggle"
            aria-pressed={settings.fullResolution}
            title="Every pixel of the detector, instead of the brightest of each block"
            onClick={() => onChange({ fullResolution: !settings.fullResolution })}
          >
            Full res
          </button>
        </>
      )}
      {children}
    </div>
  );
}

function Flag(props: { name: string; title: string; checked: boolean; colour: string; onCheck: (on: boolean) => void; onColour: (hex: string) => void }) {
  return (
    <span className="flag" title={props.title}>
      <label>
        <input type="checkbox" checked={props.checked} onChange={(event) => props.onCheck(event.target.checked)} />
        {props.name}
      </label>
      <input
        type="color"
        aria-label={`Colour of ${props.name.toLowerCase()} pixels`}
        value={props.colour}
        onChange={(event) => props.onColour(event.target.value)}
      />
    </span>
  );
}

/** A number that is taken over with Enter or on leaving, and follows the automatic one meanwhile. */
function Bound({ label, value, onCommit }: { label: string; value: number; onCommit: (value: number) => void }) {
  const text = String(Number(value.toPrecision(4)));
  const [draft, setDraft] = useState<string | null>(null);
  useEffect(() => setDraft(null), [text]);
  const commit = () => {
    const next = Number(draft);
    if (draft !== null && draft.trim() !== '' && draft !== text && Number.isFinite(next)) onCommit(next);
    setDraft(null);
  };
  return (
    <input
      className="bound"
      aria-label={label}
      title={label}
      inputMode="decimal"
      value={draft ?? text}
      onChange={(event) => setDraft(event.target.value)}
      onBlur={commit}
      onKeyDown={(event) => {
        if (event.key === 'Enter') commit();
        if (event.key === 'Escape') setDraft(null);
      }}
    />
  );
}
