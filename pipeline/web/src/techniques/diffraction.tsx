/** Diffraction: the newest frame, its azimuthal curve beside the mean of the run, and scalars against frame number. */

import { useMemo } from 'react';
import { useGeometry, useProfile, useResults, useRunDetail } from '../api/hooks';
import { regionsOf } from '../lib/regions';
import { Curve } from '../view/Curve';
import { LiveFrame } from '../view/LiveFrame';
import { RegionTrends } from '../view/RegionTrends';
import { Trends } from '../view/Trends';
import { anyFrame, operationsOf, running, type PanelProps, type Technique } from './technique';

function Panel({ run, status, connected, theme, operates }: PanelProps) {
  const analysed = status.analysis.done;
  const curves = connected && analysed > 0;
  const detail = useRunDetail(run, connected);
  const geometry = useGeometry(detail);
  const operations = operationsOf(detail);
  const regions = useMemo(() => regionsOf(detail?.record.parameters), [detail]);
  const latest = useProfile(run, 'latest', curves, analysed);
  const mean = useProfile(run, 'sum', curves, analysed);
  const results = useResults(run, connected && running(status), latest?.name ?? mean?.name ?? null);
  const hits = operations.includes('hits');
  return (
    <div className="layout-diffraction">
      <LiveFrame
        run={run}
        title="Live frame"
        kind="diffraction"
        defaults={{ colourMap: 'Inferno', scale: 'sqrt', auto: '99.5' }}
        available={connected && anyFrame(status)}
        geometry={geometry}
        spots={operations.includes('spots')}
        hits={hits}
        regions={regions}
        operates={operates}
      />
      <div className={regions.length > 0 ? 'stack with-regions' : 'stack'}>
        <Curve latest={latest} mean={mean} results={results} wavelengthA={geometry?.wavelength_m ? geometry.wavelength_m * 1e10 : null} theme={theme} />
        <Trends results={results} theme={theme} preferred={hits ? ['hit_rate', 'spots'] : ['sum', 'max']} />
        {regions.length > 0 && <RegionTrends regions={regions} results={results} theme={theme} />}
      </div>
    </div>
  );
}

export const technique: Technique = { name: 'diffraction', title: 'Diffraction', Panel };
