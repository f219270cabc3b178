/** Where slices lie and where the rotation axis is: moved while the run records. */

import { useParameters } from '../api/hooks';
import type { Parameter, RunEvent } from '../api/types';
import { number } from '../lib/format';
import { ParameterSlider } from './ParameterSlider';

export interface SliceControlsProps {
  run: string;
  available: boolean;
  operates: boolean;
  /** whether the run still takes changes */
  open: boolean;
  events: RunEvent[];
}

const NAMES: [parameter: string, name: string, step: number, nudges?: number[]][] = [
  ['backproject.rotation_axis_px', 'axis', 0.25, [-1, -0.25, 0.25, 1]],
  ['backproject.row', 'xy row', 1],
  ['backproject.xz_at_px', 'xz at', 1],
  ['backproject.yz_at_px', 'yz at', 1],
  ['backproject.oblique_tilt_deg', 'tilt', 1],
  ['backproject.oblique_turn_deg', 'turn', 1],
  ['backproject.oblique_offset_px', 'offset', 1],
  ['backproject.window_deg', 'window', 1],
  ['backproject.stripes_px', 'stripes', 1],
];

export function SliceControls({ run, available, operates, open, events }: SliceControlsProps) {
  const { list, take } = useParameters(run, available);
  const locked = !operates ? 'Log in as operator to change it' : !open ? 'The run has ended: reprocess it with another value' : '';
  const found = NAMES.flatMap(([parameter, name, step, nudges]) => {
    const own: Parameter | undefined = list?.parameters.find((one) => one.name === parameter);
    return own ? [{ own, name, step, nudges }] : [];
  });
  return (
    <div className="slice-controls" data-testid="slice-controls">
      {found.map(({ own, name, step, nudges }) => (
        <ParameterSlider key={own.name} parameter={own} name={name} step={step} nudges={nudges ?? []} locked={locked} onChanged={take} />
      ))}
      <AxisEstimate events={events} />
    </div>
  );
}

/** The last axis that was found in the projections, and how sure that is. */
function AxisEstimate({ events }: { events: RunEvent[] }) {
  const data = events.findLast((event) => event.event === 'axis')?.data;
  const confidence = Number(data?.['axis_confidence'] ?? Number.NaN);
  return (
    <div className="parameter axis-estimate" data-testid="axis-estimate" data-confidence={Number.isFinite(confidence) ? confidence : ''}>
      <span className="dim">found</span>
      {data ? (
        <>
          <progress max={1} value={Number.isFinite(confidence) ? confidence : 0} aria-label="Confidence of the axis" />
          <span>
            axis <b>{number(Number(data['axis_px']), 5)}</b> px, confidence <b>{number(confidence, 2)}</b>, from {String(data['projections'])} projections,{' '}
            {data['applied'] ? 'applied' : 'not applied'}
          </span>
        </>
      ) : (
        <span className="dim">no axis found in the projections yet</span>
      )}
    </div>
  );
}
