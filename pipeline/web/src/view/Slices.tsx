/** Reconstructed slices as they sharpen, each saying how many projections it rests on. */

import type { ReactNode } from 'react';
import { useSlices, type ShownSlice } from '../api/hooks';
import type { RunEvent } from '../api/types';
import { count, unit } from '../lib/format';
import { Picture } from './Picture';
import { PictureControls } from './PictureControls';
import { SliceControls } from './SliceControls';
import { useRange, useViewSettings } from './viewSettings';

/** The three that a run has unless its recipe says otherwise; they hold their places until the first projection. */
const EXPECTED = ['xy', 'xz', 'yz'];

export interface SlicesProps {
  run: string;
  available: boolean;
  /** whether the run still takes changes */
  open: boolean;
  operates: boolean;
  events: RunEvent[];
}

export function Slices({ run, available, open, operates, events }: SlicesProps) {
  return (
    <SliceGrid run={run} available={available}>
      <SliceControls run={run} available={available} open={open} operates={operates} events={events} />
    </SliceGrid>
  );
}

/** The slices of a run beside each other, in one range of colours; `children` above them. */
export function SliceGrid({ run, available, children }: { run: string; available: boolean; children?: ReactNode }) {
  const slices = useSlices(run, available);
  const [settings, change] = useViewSettings('slices', { colourMap: 'Greys', auto: '99' });
  const range = useRange(settings, slices.map((slice) => slice.picture));
  const names = slices.length > 0 ? slices.map((slice) => slice.info.name) : EXPECTED;
  const sliceUnit = slices[0]?.info.unit ?? '';
  return (
    <section className="panel slices-panel">
      <header className="panel-head">
        <h2>Slices</h2>
        <span className="dim">{sliceUnit ? `attenuation, ${unit(sliceUnit)}` : ''}</span>
      </header>
      <PictureControls settings={settings} onChange={change} range={range} detector={false} />
      {children}
      <div className={`slices of-${Math.min(4, names.length)}`}>
        {names.map((name) => {
          const slice = slices.find((candidate) => candidate.info.name === name) ?? null;
          return (
            <figure key={name} className="slice" data-testid={`slice-${name}`} data-projections={slice?.info.frames_used ?? 0}>
              <SliceHead name={name} slice={slice} />
              <Picture
                picture={slice?.picture ?? null}
                placeholder="Waiting for the first projection"
                mask={null}
                saturation={null}
                range={range}
                settings={settings}
                unit={unit(sliceUnit)}
                label={`Slice ${name}`}
                axes={false}
              />
            </figure>
          );
        })}
      </div>
    </section>
  );
}

function SliceHead({ name, slice }: { name: string; slice: ShownSlice | null }) {
  const used = slice?.info.frames_used ?? 0;
  const expected = slice?.info.frames_expected ?? 0;
  return (
    <figcaption>
      <b>{name}</b>
      <progress max={Math.max(1, expected)} value={used} aria-label={`Projections in slice ${name}`} />
      <span className="steady-text">{slice ? `${count(used)} of ${count(expected)} projections` : ''}</span>
    </figcaption>
  );
}
