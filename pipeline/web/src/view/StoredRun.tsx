/** A run of the store: its frames, curves, slices, ledger and files, and the way to process it again. */

import { useMemo } from 'react';
import { useGeometry, useRunDetail } from '../api/hooks';
import type { RunLine, RunList } from '../api/types';
import { regionsOf } from '../lib/regions';
import { VIEWS, type View } from '../lib/route';
import type { Theme } from '../lib/theme';
import { operationsOf } from '../techniques/technique';
import { CompareCurves } from './CompareCurves';
import { Explore } from './Explore';
import { LedgerView } from './LedgerView';
import { Reprocess } from './Reprocess';
import { RunFacts } from './RunFacts';
import { RunFiles } from './RunFiles';
import { SliceGrid } from './Slices';
import { StoredFrame } from './StoredFrame';

export interface StoredRunProps {
  id: string;
  list: RunList | null;
  /** the run as the list has it; null where the list does not */
  line: RunLine | null;
  view: View;
  frame: number | null;
  go: (view: View, frame: number | null, replace?: boolean) => void;
  /** whether it is the run in memory, which may still record */
  inMemory: boolean;
  connected: boolean;
  operates: boolean;
  theme: Theme;
  /** shows another run; null: the one in memory */
  onShow: (id: string | null) => void;
}

const NAMES: Record<View, string> = { frames: 'Frames', curves: 'Curves', slices: 'Slices', ledger: 'Ledger', files: 'Files', explore: 'Explore', reprocess: 'Reprocess' };

export function StoredRun({ id, list, line, view, frame, go, inMemory, connected, operates, theme, onShow }: StoredRunProps) {
  const detail = useRunDetail(id, connected, inMemory ? (line?.state ?? '') : '');
  const geometry = useGeometry(detail);
  const operations = operationsOf(detail);
  const regions = useMemo(() => regionsOf(detail?.record.parameters), [detail]);
  const technique = detail?.record.technique ?? line?.technique ?? '';
  const frames = detail?.frames.expected ?? line?.frames_expected ?? 0;
  // Frames and curves belong to diffraction and whatever else has them; slices to tomography.
  const views = VIEWS.filter((name) => (name === 'slices' ? technique === 'tomography' : name === 'curves' ? technique !== 'tomography' : true));
  return (
    <div className="layout-run" data-testid="stored-run" data-run={id} data-view={view}>
      <header className="run-tabs">
        <b>{detail?.record.sample || line?.sample || id}</b>
        <span className="segments" role="tablist" aria-label="Views of the run">
          {views.map((name) => (
            <button key={name} type="button" role="tab" aria-selected={view === name} aria-checked={view === name} data-testid={`tab-${name}`} onClick={() => go(name, name === 'frames' ? frame : null)}>
              {NAMES[name]}
            </button>
          ))}
        </span>
        <button type="button" className="toggle" onClick={() => onShow(null)}>
          Back to the live run
        </button>
      </header>
      {view === 'frames' && (
        <div className="layout-stored">
          <StoredFrame
            run={id}
            kind={technique || 'generic'}
            frame={frame ?? 0}
            frames={frames}
            onFrame={(next) => go('frames', next, true)}
            geometry={technique === 'diffraction' ? geometry : undefined}
            spots={operations.includes('spots')}
            regions={regions}
            connected={connected}
            operates={operates}
          />
          <RunFacts id={id} detail={detail} />
        </div>
      )}
      {view === 'curves' && <CompareCurves id={id} list={list} connected={connected} theme={theme} wavelengthA={geometry?.wavelength_m ? 1e10 * geometry.wavelength_m : null} />}
      {view === 'slices' && <SliceGrid run={id} available={connected} />}
      {view === 'ledger' && <LedgerView id={id} frames={frames} connected={connected} onFrame={(next) => go('frames', next)} />}
      {view === 'files' && <RunFiles id={id} detail={detail} technique={technique} connected={connected} />}
      {view === 'explore' && <Explore id={id} detail={detail} />}
      {view === 'reprocess' && <Reprocess id={id} detail={detail} operates={operates} inMemory={inMemory} onDone={onShow} />}
    </div>
  );
}
