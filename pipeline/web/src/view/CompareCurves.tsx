/** The mean curves of several runs over each other. */

import { useMemo, useState } from 'react';
import type uPlot from 'uplot';
import { download, getJson, runPath } from '../api/client';
import { usePoll } from '../api/poll';
import type { Profile, RunList } from '../api/types';
import { moment, number } from '../lib/format';
import type { AxisUnit } from '../lib/geometry';
import { onAxis } from '../lib/interpolate';
import { useStored } from '../lib/settings';
import type { Theme } from '../lib/theme';
import { axisIn, rising } from './curveAxis';
import { axis, Plot, tick } from './Plot';
import { UnitChoice } from './UnitChoice';

export interface CompareCurvesProps {
  id: string;
  list: RunList | null;
  connected: boolean;
  theme: Theme;
  wavelengthA: number | null;
}

const RUNS_MAX = 6;
const COLOURS = ['#4cc2ff', '#ffb454', '#37c978', '#ff6161', '#b48cff', '#e8d44d'];
const COLOURS_LIGHT = ['#0b6fc4', '#a85a00', '#15843f', '#c92a2a', '#6b3fc4', '#8a7a00'];
const RETRY_MS = 2_000;

interface Choices {
  log: boolean;
  even: boolean;
  unit: AxisUnit | null;
}

export function CompareCurves({ id, list, connected, theme, wavelengthA }: CompareCurvesProps) {
  const [others, setOthers] = useState<string[]>([]);
  const [profiles, setProfiles] = useState<Record<string, Profile | string>>({});
  const [choices, setChoices] = useStored<Choices>('compare', { log: false, even: false, unit: null });
  const runs = [id, ...others];
  const wanted = runs.find((run) => profiles[run] === undefined) ?? null;
  usePoll(connected && wanted !== null ? `compare ${wanted}` : null, RETRY_MS, async (signal) => {
    if (wanted === null) return;
    const found = await getJson<Profile>(runPath(wanted, '/profiles/sum'), signal).catch((error: Error) => error.message);
    if (!signal.aborted) setProfiles((last) => ({ ...last, [wanted]: found }));
  });
  const first = profiles[id];
  const own = typeof first === 'object' ? first.axis : undefined;
  const shown = useMemo(() => axisIn(own, choices.unit, wavelengthA), [own, choices.unit, wavelengthA]);
  const label = shown.unit ? `${shown.name} (${shown.unit})` : shown.name;
  const data = useMemo<uPlot.AlignedData>(() => {
    const columns = runs.map((run) => {
      const profile = profiles[run];
      if (!own || typeof profile !== 'object') return shown.values.map(() => null);
      const values = onAxis(profile.axis.values, profile.values, own.values);
      const top = choices.even ? Math.max(...values.map((value) => value ?? 0)) || 1 : 1;
      return values.map((value) => (value === null || (choices.log && value <= 0) ? null : value / top));
    });
    return rising(shown.values, columns);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [runs.join(' '), profiles, shown, choices]);
  const colours = theme === 'light' ? COLOURS_LIGHT : COLOURS;
  const drawn = data.slice(1).some((column) => (column as (number | null)[]).some((value) => value !== null));
  const log = choices.log && drawn;
  const candidates = (list?.runs ?? []).filter((run) => run.id === id || run.technique !== 'tomography');

  return (
    <div className="layout-compare">
      <section className="panel curve-panel" data-testid="compare" data-curves={runs.filter((run) => typeof profiles[run] === 'object').length}>
        <header className="panel-head">
          <h2>
            Mean curves <span className="dim">{typeof first === 'string' ? first : ''}</span>
          </h2>
          <UnitChoice axis={shown} onChoose={(unit) => setChoices({ unit })} />
          <button type="button" className="toggle" aria-pressed={choices.even} title="Every curve divided by its largest value" onClick={() => setChoices({ even: !choices.even })}>
            Same height
          </button>
          <button type="button" className="toggle" aria-pressed={choices.log} onClick={() => setChoices({ log: !choices.log })}>
            Log I
          </button>
          <button type="button" data-testid="download-csv" title="Save the run's mean curve as a table" onClick={() => void download(runPath(id, '/profiles/sum.csv'), `${id}_mean.csv`)}>
            ⤓ csv
          </button>
        </header>
        <Plot
          look={`${log} ${label} ${runs.length}`}
          theme={theme}
          data={data}
          label="Mean curves of runs"
          testid="compare-curves"
          options={(palette) => ({
            legend: { show: false },
            cursor: { points: { size: 6 }, drag: { x: true, y: false } },
            scales: { x: { time: false }, y: log ? { distr: 3, range: (_, low, high) => [low * 0.8, high * 1.3] } : {} },
            axes: [axis(palette, { label }), axis(palette, { size: 58, values: (_, splits) => splits.map(tick) })],
            series: [{}, ...runs.map((_, index) => ({ stroke: colours[index] ?? palette.text, width: 1.5, points: { show: false } }))],
          })}
        />
      </section>
      <section className="panel compare-runs">
        <header className="panel-head">
          <h2>Runs</h2>
          <span className="dim">up to {RUNS_MAX}</span>
        </header>
        <ol>
          {candidates.map((run) => {
            const index = runs.indexOf(run.id);
            const profile = profiles[run.id];
            return (
              <li key={run.id}>
                <label className="flag" title={typeof profile === 'string' ? profile : run.id}>
                  <input
                    type="checkbox"
                    checked={index >= 0}
                    disabled={run.id === id || (index < 0 && runs.length >= RUNS_MAX)}
                    onChange={(event) => setOthers((last) => (event.target.checked ? [...last, run.id] : last.filter((other) => other !== run.id)))}
                  />
                  <i style={{ background: index >= 0 ? colours[index] : 'transparent' }} />
                  <span className="compare-name">{run.sample || run.id}</span>
                  <time className="dim">{moment(run.started)}</time>
                  {typeof profile === 'object' && <span className="dim">{number(profile.frames_used)} frames</span>}
                  {typeof profile === 'string' && <span className="amber-text">no curve</span>}
                </label>
              </li>
            );
          })}
        </ol>
      </section>
    </div>
  );
}
