/** Any technique: the newest frame and two scalars. */

import { useResults } from '../api/hooks';
import { LiveFrame } from '../view/LiveFrame';
import { Trends } from '../view/Trends';
import { anyFrame, running, type PanelProps, type Technique } from './technique';

function Panel({ run, status, connected, theme, operates }: PanelProps) {
  const results = useResults(run, connected && running(status));
  return (
    <div className="layout-generic">
      <LiveFrame run={run} title="Live frame" kind="generic" defaults={{}} operates={operates} available={connected && anyFrame(status)} />
      <Trends results={results} theme={theme} preferred={['sum', 'max']} />
    </div>
  );
}

export const technique: Technique = { name: '*', title: 'Frames', Panel };
