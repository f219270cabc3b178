/** Tomography: the newest projection, and the slices that all of them sharpen. */

import { useResults } from '../api/hooks';
import { LiveFrame } from '../view/LiveFrame';
import { Slices } from '../view/Slices';
import { Trends } from '../view/Trends';
import { anyFrame, running, type PanelProps, type Technique } from './technique';

function Panel({ run, status, connected, theme, events, operates }: PanelProps) {
  const results = useResults(run, connected && running(status));
  const open = status.state === 'armed' || status.state === 'recording';
  return (
    <div className="layout-tomography">
      <div className="stack">
        <LiveFrame
          run={run}
          title="Live projection"
          kind="tomography"
          defaults={{ colourMap: 'Greys', auto: '99.5' }}
          available={connected && anyFrame(status)}
          operates={operates}
        />
        <Trends results={results} theme={theme} preferred={['sum']} />
      </div>
      <Slices run={run} available={connected && status.analysis.done > 0} open={open} operates={operates} events={events} />
    </div>
  );
}

export const technique: Technique = { name: 'tomography', title: 'Tomography', Panel };
