/** Scalars against frame number. */

import { useMemo } from 'react';
import type uPlot from 'uplot';
import type { Results } from '../api/hooks';
import { number } from '../lib/format';
import { useStored } from '../lib/settings';
import type { Theme } from '../lib/theme';
import { axis, Plot, tick } from './Plot';

export interface TrendsProps {
  results: Results;
  theme: Theme;
  /** scalars to begin with, by name; others can be chosen */
  preferred: string[];
}

export function Trends({ results, theme, preferred }: TrendsProps) {
  return (
    <div className="trends">
      {preferred.map((name) => (
        <TrendPlot key={name} slot={name} results={results} theme={theme} />
      ))}
    </div>
  );
}

function TrendPlot({ slot, results, theme }: { slot: string; results: Results; theme: Theme }) {
  const { trend, last, version } = results;
  const [choice, setChoice] = useStored(`trend.${slot}`, { name: slot });
  const names = trend.names();
  // A technique without the chosen scalar shows the first that it has.
  const name = names.length === 0 || names.includes(choice.name) ? choice.name : (names[0] ?? choice.name);
  const options = names.length === 0 ? [name] : names;
  const data = useMemo<uPlot.AlignedData>(
    () => [[...trend.frames], trend.frames.length > 0 ? padded(trend.values(name), trend.frames.length) : []],
    // The trend is filled in place; its version tells.
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [trend, version, name],
  );
  return (
    <section className="panel trend-panel">
      <header className="panel-head">
        <select aria-label="Scalar" value={name} onChange={(event) => setChoice({ name: event.target.value })}>
          {options.map((option) => (
            <option key={option} value={option}>
              {option.replaceAll('_', ' ')}
            </option>
          ))}
        </select>
        <span className="dim">per frame</span>
        <b className="trend-value">{number(last?.scalars[name])}</b>
      </header>
      <Plot
        look={name}
        theme={theme}
        data={data}
        label={`${name} against frame number`}
        testid={`trend-${slot}`}
        options={(colours) => ({
          legend: { show: false },
          cursor: { points: { size: 6 }, drag: { x: true, y: false } },
          scales: {
            x: { time: false, range: (_, low, high) => (low === high ? [low, low + 1] : [low, high]) },
            y: { range: (_, low, high) => spread(low, high) },
          },
          axes: [
            axis(colours, { size: 34, values: (_, splits) => splits.map(tick) }),
            axis(colours, { size: 62, values: (_, splits) => splits.map(tick) }),
          ],
          series: [{}, { stroke: colours.first, width: 1.25, points: { show: false } }],
        })}
      />
    </section>
  );
}

function padded(values: (number | null)[], length: number): (number | null)[] {
  return values.length === length ? [...values] : new Array<number | null>(length).fill(null);
}

/** A little air around the values, and some where they are all the same. */
function spread(low: number, high: number): [number, number] {
  const air = high > low ? 0.08 * (high - low) : Math.max(1, Math.abs(high) * 0.1);
  return [low - air, high + air];
}
