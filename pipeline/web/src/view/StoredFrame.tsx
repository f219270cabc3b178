/** One frame of a stored run, by its number. */

import { useEffect, useMemo, useState } from 'react';
import { download, runPath } from '../api/client';
import { useFrame, useMask, useSpots } from '../api/hooks';
import { share } from '../lib/format';
import { describePlace, niceRings, type Geometry } from '../lib/geometry';
import type { Region } from '../lib/regions';
import { FrameMarks } from './FrameMarks';
import { FrameFacts, FrameNotes } from './LiveFrame';
import { MarkControls, parseRings } from './MarkControls';
import { MaskDrawing, MaskEditor, useMaskEditing } from './MaskEditor';
import { Picture } from './Picture';
import { PictureControls } from './PictureControls';
import { useKeys } from './useKeys';
import { useRange, useViewSettings } from './viewSettings';

export interface StoredFrameProps {
  run: string;
  /** whose choices apply */
  kind: string;
  frame: number;
  /** frames of the run */
  frames: number;
  onFrame: (frame: number) => void;
  /** absent of frames that are no diffraction */
  geometry: Geometry | null | undefined;
  spots: boolean;
  /** the recipe's regions of interest */
  regions: Region[];
  connected: boolean;
  operates: boolean;
}

const PLAY_INTERVAL_MS = 300;

export function StoredFrame({ run, kind, frame: wanted, frames, onFrame, geometry, spots, regions, connected, operates }: StoredFrameProps) {
  const [settings, change] = useViewSettings(kind, {});
  const [editing, edit] = useMaskEditing();
  const [playing, setPlaying] = useState(false);
  const mask = useMask(run, connected, settings.fullResolution);
  const { frame, problem } = useFrame({ run, which: String(wanted), mask, fullResolution: settings.fullResolution, enabled: connected });
  const range = useRange(settings, frame ? [frame.picture] : []);
  const there = frame?.info.frame_number === wanted;
  const shape = frame?.info.shape;
  const nice = useMemo(() => (geometry && shape ? niceRings(geometry, shape[1], shape[0]) : []), [geometry, shape?.[0], shape?.[1]]);
  const rings = settings.rings === '' ? nice : parseRings(settings.rings);
  const found = useSpots(run, wanted, connected && spots && settings.showSpots);
  const last = Math.max(0, frames - 1);
  const go = (next: number) => onFrame(Math.min(last, Math.max(0, Math.round(next) || 0)));
  const step = (by: number) => {
    setPlaying(false);
    go(wanted + by);
  };
  useKeys({
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    PageUp: () => step(-10),
    PageDown: () => step(10),
    Home: () => step(-frames),
    End: () => step(frames),
    ' ': () => setPlaying(!playing),
  });

  // The next frame is asked for when this one is there, or will never be.
  const settled = there || problem !== null;
  useEffect(() => {
    if (!playing || !settled) return;
    if (wanted >= last) {
      setPlaying(false);
      return;
    }
    const timer = setTimeout(() => onFrame(wanted + 1), PLAY_INTERVAL_MS);
    return () => clearTimeout(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [playing, settled, wanted, last]);

  return (
    <section className="panel frame-panel" data-testid="stored-frame" data-frame={frame?.info.frame_number ?? ''} data-problem={problem ?? ''}>
      <header className="panel-head">
        <h2>Stored frame</h2>
        {problem && <span className="red-text">{problem}</span>}
        <FrameFacts frame={frame} paused={false} hit={found?.hit ?? null} />
      </header>
      <PictureControls settings={settings} onChange={change} range={range} detector>
        <span className="transport">
          {(['npy', 'tiff', 'png'] as const).map((ending) => (
            <button
              key={ending}
              type="button"
              data-testid={`download-${ending}`}
              title={`Save this frame as .${ending}`}
              onClick={() => void download(runPath(run, `/frames/${wanted}.${ending}`), `${run}_${wanted}.${ending}`)}
            >
              ⤓ {ending}
            </button>
          ))}
          <button type="button" className="toggle" aria-pressed={editing.on} title="Draw a mask" data-testid="edit-mask" onClick={() => edit({ on: !editing.on, shapes: [] })}>
            ✎ Mask
          </button>
        </span>
      </PictureControls>
      {editing.on && <MaskEditor run={run} editing={editing} onChange={edit} operates={operates} />}
      <Picture
        picture={frame?.picture ?? null}
        placeholder={problem ?? 'Reading the frame'}
        mask={mask}
        saturation={frame?.info.saturation ?? null}
        range={range}
        settings={settings}
        unit="counts"
        label="Stored frame"
        axes
        moves={!editing.on}
        describe={geometry ? (x, y) => describePlace(geometry, x, y) : undefined}
      >
        <FrameMarks
          geometry={geometry ?? null}
          rings={settings.showRings ? rings : []}
          centre={settings.showCentre}
          spots={settings.showSpots && there && found ? found.spots : []}
          regions={settings.showRegions ? regions : []}
        />
        {editing.on && <MaskDrawing editing={editing} onChange={edit} />}
      </Picture>
      <footer className="panel-foot">
        {geometry !== undefined && (
          <MarkControls settings={settings} onChange={change} placed={geometry !== null} rings={rings} spots={spots ? (found?.spots.length ?? null) : null} regions={regions.length} />
        )}
        {frame && <FrameNotes frame={frame} masked={mask ? share(mask.maskedCount, mask.bits.length) : null} />}
      </footer>
      <footer className="panel-foot steps">
        <button type="button" className="toggle" aria-label="Previous frame" title="←" disabled={wanted <= 0} onClick={() => step(-1)}>
          ◀
        </button>
        <button type="button" className="toggle" aria-pressed={playing} title="Space" onClick={() => setPlaying(!playing)}>
          {playing ? '❚❚' : 'Play'}
        </button>
        <input type="range" aria-label="Frame" min={0} max={last} value={wanted} onChange={(event) => go(Number(event.target.value))} />
        <button type="button" className="toggle" aria-label="Next frame" title="→" disabled={wanted >= last} onClick={() => step(1)}>
          ▶
        </button>
        <input className="bound" aria-label="Frame number" inputMode="numeric" value={wanted} onChange={(event) => go(Number(event.target.value))} />
      </footer>
    </section>
  );
}
