/** Sum, mean or largest count of every region of interest against frame number, in the colours of their boxes. */

import { useMemo } from 'react';
import type uPlot from 'uplot';
import type { Results } from '../api/hooks';
import { number } from '../lib/format';
import { REGION_COLOURS, REGION_VALUES, type Region, type RegionValue } from '../lib/regions';
import { useStored } from '../lib/settings';
import type { Theme } from '../lib/theme';
import { axis, Plot, tick } from './Plot';

export interface RegionTrendsProps {
  regions: Region[];
  results: Results;
  theme: Theme;
}

export function RegionTrends({ regions, results, theme }: RegionTrendsProps) {
  const { trend, last, version } = results;
  const [{ value }, choose] = useStored<{ value: RegionValue }>('trend.regions', { value: 'counts' });
  const names = regions.map((region) => `${region.name}_${value}`);
  const look = names.join(' ');
  const data = useMemo<uPlot.AlignedData>(() => {
    const length = trend.frames.length;
    const column = (name: string) => (trend.values(name).length === length ? [...trend.values(name)] : new Array<number | null>(length).fill(null));
    return [[...trend.frames], ...look.split(' ').map(column)];
    // The trend is filled in place; its version tells.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [trend, version, look]);
  return (
    <section className="panel trend-panel region-trends" data-testid="region-trends" data-frames={trend.frames.length}>
      <header className="panel-head">
        <h2>Regions</h2>
        <select aria-label="Value of the regions" value={value} onChange={(event) => choose({ value: event.target.value as RegionValue })}>
          {Object.entries(REGION_VALUES).map(([key, word]) => (
            <option key={key} value={key}>
              {word}
            </option>
          ))}
        </select>
        <span className="region-keys">
          {regions.map((region, index) => (
            <span key={region.name} className="region-key" data-testid={`region-${region.name}`} data-value={last?.scalars[`${region.name}_${value}`] ?? ''}>
              <i style={{ background: REGION_COLOURS[index] }} />
              {region.name} <b className="steady">{number(last?.scalars[`${region.name}_${value}`])}</b>
            </span>
          ))}
        </span>
      </header>
      <Plot
        look={look}
        theme={theme}
        data={data}
        label={`${REGION_VALUES[value]} of the regions against frame number`}
        testid="region-plot"
        options={(colours) => ({
          legend: { show: false },
          cursor: { points: { size: 6 }, drag: { x: true, y: false } },
          scales: { x: { time: false, range: (_, low, high) => (low === high ? [low, low + 1] : [low, high]) } },
          axes: [
            axis(colours, { size: 34, values: (_, splits) => splits.map(tick) }),
            axis(colours, { size: 62, values: (_, splits) => splits.map(tick) }),
          ],
          series: [{}, ...names.map((_, index) => ({ stroke: REGION_COLOURS[index], width: 1.25, points: { show: false } }))],
        })}
      />
    </section>
  );
}
