/** Diffraction: the newest frame, its azimuthal curve beside the mean of the run, and scalars against frame number. */

import { useProfile, useResults } from '../api/hooks';
import { Curve } from '../view/Curve';
import { LiveFrame } from '../view/LiveFrame';
import { Trends } from '../view/Trends';
import { anyFrame, running, type PanelProps, type Technique } from './technique';

function Panel({ run, status, connected, theme }: PanelProps) {
  const analysed = status.analysis.done;
  const curves = connected && analysed > 0;
  const results = useResults(run, connected && running(status));
  const latest = useProfile(run, 'latest', curves, analysed);
  const mean = useProfile(run, 'sum', curves, analysed);
  return (
    <div className="layout-diffraction">
      <LiveFrame
        run={run}
        title="Live frame"
        kind="diffraction"
        defaults={{ colourMap: 'Inferno', scale: 'sqrt', auto: '99.5' }}
        available={connected && anyFrame(status)}
      />
      <div className="stack">
        <Curve latest={latest} mean={mean} theme={theme} />
        <Trends results={results} theme={theme} preferred={['sum', 'max']} />
      </div>
    </div>
  );
}

export const technique: Technique = { name: 'diffraction', title: 'Diffraction', Panel };
