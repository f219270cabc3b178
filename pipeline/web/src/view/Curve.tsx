/** The azimuthal curve: the newest frame's and the mean of the run, or those of the last frames as a waterfall. */

import { useMemo, useRef } from 'react';
import type uPlot from 'uplot';
import type { Results } from '../api/hooks';
import type { Profile } from '../api/types';
import { count, number } from '../lib/format';
import type { AxisUnit } from '../lib/geometry';
import { useStored } from '../lib/settings';
import type { Theme } from '../lib/theme';
import { axisIn, rising } from './curveAxis';
import { axis, Plot, tick } from './Plot';
import { UnitChoice } from './UnitChoice';
import { Waterfall } from './Waterfall';

export interface CurveProps {
  latest: Profile | null;
  mean: Profile | null;
  /** with the curves of the last frames */
  results: Results;
  /** Å; null where nobody told */
  wavelengthA: number | null;
  theme: Theme;
}

interface Choices {
  log: boolean;
  latest: boolean;
  mean: boolean;
  waterfall: boolean;
  unit: AxisUnit | null;
}

export function Curve({ latest, mean, results, wavelengthA, theme }: CurveProps) {
  const [choices, setChoices] = useStored<Choices>('curve', { log: false, latest: true, mean: true, waterfall: false, unit: null });
  const readOut = useRef<HTMLSpanElement>(null);
  const own = (latest ?? mean)?.axis;
  const shown = useMemo(() => axisIn(own, choices.unit, wavelengthA), [own, choices.unit, wavelengthA]);
  const { name, unit } = shown;
  const label = unit ? `${name} (${unit})` : name;

  const data = useMemo<uPlot.AlignedData>(() => {
    const column = (profile: Profile | null, on: boolean) => {
      if (!profile || !on || profile.values.length !== shown.values.length) return shown.values.map(() => null);
      // A logarithm has no place for what is not positive.
      return profile.values.map((value) => (value === null || !Number.isFinite(value) || (choices.log && value <= 0) ? null : value));
    };
    return rising(shown.values, [column(mean, choices.mean), column(latest, choices.latest)]);
  }, [shown, latest, mean, choices]);

  const drawn = data.slice(1).some((column) => (column as (number | null)[]).some((value) => value !== null));
  const log = choices.log && drawn;

  return (
    <section className="panel curve-panel">
      <header className="panel-head">
        <h2>
          I({name}) <span className="dim">{own ? '' : 'waiting for the first curve'}</span>
        </h2>
        <span className="panel-read-out" ref={readOut} data-testid="curve-read-out" />
        {!choices.waterfall && (
          <>
            <label className="flag key-first">
              <input type="checkbox" checked={choices.latest} onChange={(event) => setChoices({ latest: event.target.checked })} />
              <i /> latest <span className="steady-few">{latest ? count(latest.frame_number) : ''}</span>
            </label>
            <label className="flag key-second">
              <input type="checkbox" checked={choices.mean} onChange={(event) => setChoices({ mean: event.target.checked })} />
              <i /> mean of <span className="steady-few">{mean ? count(mean.frames_used) : ''}</span>
            </label>
          </>
        )}
        <UnitChoice axis={shown} onChoose={(next) => setChoices({ unit: next })} />
        <button type="button" className="toggle" aria-pressed={choices.log} onClick={() => setChoices({ log: !choices.log })}>
          Log I
        </button>
        <button
          type="button"
          className="toggle"
          aria-pressed={choices.waterfall}
          title="The curves of the last frames, one line each"
          onClick={() => setChoices({ waterfall: !choices.waterfall })}
        >
          Waterfall
        </button>
      </header>
      {choices.waterfall ? (
        <Waterfall curves={results.curves} version={results.version} axis={shown.values} axisLabel={label} log={choices.log} />
      ) : (
        <Plot
          look={`${log} ${label}`}
          theme={theme}
          data={data}
          label="Intensity against scattering angle"
          testid="curve"
          options={(colours) => ({
            legend: { show: false },
            cursor: { points: { size: 6 }, drag: { x: true, y: false } },
            scales: {
              x: { time: false },
              y: log ? { distr: 3, range: (_, low, high) => [low * 0.8, high * 1.3] } : { range: (_, low, high) => [Math.min(0, low), (high || 1) * 1.05] },
            },
            axes: [axis(colours, { label }), axis(colours, { size: 58, values: (_, splits) => splits.map(tick) })],
            series: [
              {},
              { stroke: colours.second, width: 1.5, points: { show: false } },
              { stroke: colours.first, width: 1.5, points: { show: false } },
            ],
            hooks: {
              setCursor: [
                (plot) => {
                  if (!readOut.current) return;
                  const index = plot.cursor.idx;
                  const at = index === null || index === undefined ? undefined : plot.data[0][index];
                  const y = (series: number) => number(plot.data[series]?.[index ?? 0] ?? Number.NaN);
                  readOut.current.textContent = at === undefined ? '' : `${name} ${number(at)} ${unit}   latest ${y(2)}   mean ${y(1)}`;
                },
              ],
            },
          })}
        />
      )}
    </section>
  );
}
