/** Tomography: the newest projection, and the slices that all of them sharpen. */

import { useResults } from '../api/hooks';
import { LiveFrame } from '../view/LiveFrame';
import { Slices } from '../view/Slices';
import { Trends } from '../view/Trends';
import { anyFrame, running, type PanelProps, type Technique } from './technique';

function Panel({ run, status, connected, theme }: PanelProps) {
  const results = useResults(run, connected && running(status));
  return (
    <div className="layout-tomography">
      <div className="stack">
        <LiveFrame
          run={run}
          title="Live projection"
          kind="tomography"
          defaults={{ colourMap: 'Greys', auto: '99.5' }}
          available={connected && anyFrame(status)}
        />
        <Trends results={results} theme={theme} preferred={['sum']} />
      </div>
      <Slices run={run} available={connected && status.analysis.done > 0} />
    </div>
  );
}

export const technique: Technique = { name: 'tomography', title: 'Tomography', Panel };
