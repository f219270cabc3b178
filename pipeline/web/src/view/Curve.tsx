/** The azimuthal curve: the newest frame's and the mean of the run. */

import { useMemo, useRef } from 'react';
import type uPlot from 'uplot';
import type { Profile } from '../api/types';
import { count, number, symbol, unit } from '../lib/format';
import { useStored } from '../lib/settings';
import type { Theme } from '../lib/theme';
import { axis, Plot, tick } from './Plot';

export interface CurveProps {
  latest: Profile | null;
  mean: Profile | null;
  theme: Theme;
}

export function Curve({ latest, mean, theme }: CurveProps) {
  const [choices, setChoices] = useStored('curve', { log: false, latest: true, mean: true });
  const readOut = useRef<HTMLSpanElement>(null);
  const axisOf = (latest ?? mean)?.axis;
  const name = symbol(axisOf?.name ?? 'q');
  const axisUnit = unit(axisOf?.unit ?? '');

  const data = useMemo<uPlot.AlignedData>(() => {
    const x = axisOf?.values ?? [];
    const column = (profile: Profile | null, shown: boolean) => {
      if (!profile || !shown || profile.values.length !== x.length) return x.map(() => null);
      // A logarithm has no place for what is not positive.
      return profile.values.map((value) => (value === null || !Number.isFinite(value) || (choices.log && value <= 0) ? null : value));
    };
    return [x, column(mean, choices.mean), column(latest, choices.latest)];
  }, [axisOf, latest, mean, choices]);

  const drawn = data.slice(1).some((column) => (column as (number | null)[]).some((value) => value !== null));
  const log = choices.log && drawn;

  return (
    <section className="panel curve-panel">
      <header className="panel-head">
        <h2>
          I({name}) <span className="dim">{drawn ? '' : 'waiting for the first curve'}</span>
        </h2>
        <span className="panel-read-out" ref={readOut} />
        <label className="flag key-first">
          <input type="checkbox" checked={choices.latest} onChange={(event) => setChoices({ latest: event.target.checked })} />
          <i /> latest <span className="steady-number">{latest ? count(latest.frame_number) : ''}</span>
        </label>
        <label className="flag key-second">
          <input type="checkbox" checked={choices.mean} onChange={(event) => setChoices({ mean: event.target.checked })} />
          <i /> mean of <span className="steady-number">{mean ? count(mean.frames_used) : ''}</span>
        </label>
        <button type="button" className="toggle" aria-pressed={choices.log} onClick={() => setChoices({ log: !choices.log })}>
          Log I
        </button>
      </header>
      <Plot
        look={`${log} ${name} ${axisUnit}`}
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
          axes: [
            axis(colours, { label: axisUnit ? `${name} (${axisUnit})` : name }),
            axis(colours, { size: 58, values: (_, splits) => splits.map(tick) }),
          ],
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
                readOut.current.textContent = at === undefined ? '' : `${name} ${number(at)} ${axisUnit}   latest ${y(2)}   mean ${y(1)}`;
              },
            ],
          },
        })}
      />
    </section>
  );
}
