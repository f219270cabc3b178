/** The newest frame or the newest hit of a run with its controls: what every technique begins with. */

import { useMemo, useRef, useState } from 'react';
import { useFrame, useMask, useSpots, type ShownFrame } from '../api/hooks';
import { count, number, share } from '../lib/format';
import { describePlace, niceRings, type Geometry } from '../lib/geometry';
import type { Region } from '../lib/regions';
import { FrameMarks } from './FrameMarks';
import { MaskDrawing, MaskEditor, useMaskEditing } from './MaskEditor';
import { MarkControls, parseRings } from './MarkControls';
import { Picture } from './Picture';
import { PictureControls } from './PictureControls';
import { useKeys } from './useKeys';
import { useSeen } from './useSeen';
import { useRange, useViewSettings, type ViewSettings } from './viewSettings';

export interface LiveFrameProps {
  run: string;
  title: string;
  /** which choices of the user apply, and what they begin with */
  kind: string;
  defaults: Partial<ViewSettings>;
  /** whether there is a frame to ask for */
  available: boolean;
  /** where its pixels are; absent of frames that are no diffraction */
  geometry?: Geometry | null;
  /** whether the recipe looks for spots, and whether it tells hits */
  spots?: boolean;
  hits?: boolean;
  /** the recipe's regions of interest */
  regions?: Region[];
  /** whether whoever looks may change anything */
  operates: boolean;
}

export function LiveFrame({ run, title, kind, defaults, available, geometry, spots = false, hits = false, regions = NO_REGIONS, operates }: LiveFrameProps) {
  const [settings, change] = useViewSettings(kind, defaults);
  const [wanted, setWanted] = useState<'latest' | 'hit'>('latest');
  const which = hits ? wanted : 'latest';
  const [paused, setPaused] = useState(false);
  const [back, setBack] = useState(0);
  const [editing, edit] = useMaskEditing();
  const mask = useMask(run, available, settings.fullResolution);
  const live = useFrame({ run, which, mask, fullResolution: settings.fullResolution, enabled: available && !paused });
  const seen = useSeen(`${run} ${which}`, live.frame);

  // A pause is over when its run is.
  const pausedRun = useRef(run);
  if (pausedRun.current !== run) {
    pausedRun.current = run;
    if (paused) setPaused(false);
    if (back > 0) setBack(0);
  }
  const pause = (on: boolean) => {
    setPaused(on);
    setBack(0);
  };
  const step = (by: number) => {
    setPaused(true);
    setBack((last) => Math.min(Math.max(0, seen.length - 1), Math.max(0, last - by)));
  };
  const show = (next: 'latest' | 'hit') => {
    setWanted(next);
    pause(false);
  };
  useKeys({ ' ': () => pause(!paused), ArrowLeft: () => step(-1), ArrowRight: () => step(1), h: () => hits && show(which === 'hit' ? 'latest' : 'hit') });

  const frame = (paused ? seen[seen.length - 1 - back] : null) ?? live.frame;
  const range = useRange(settings, frame ? [frame.picture] : []);
  const shape = frame?.info.shape;
  const nice = useMemo(() => (geometry && shape ? niceRings(geometry, shape[1], shape[0]) : []), [geometry, shape?.[0], shape?.[1]]);
  const rings = settings.rings === '' ? nice : parseRings(settings.rings);
  const found = useSpots(run, frame?.info.frame_number ?? null, available && spots && settings.showSpots);

  return (
    <section className="panel frame-panel" data-testid="live-frame" data-frame={frame?.info.frame_number ?? ''} data-which={which}>
      <header className="panel-head">
        <h2>{title}</h2>
        <FrameFacts frame={frame} paused={paused} hit={found?.hit ?? null} />
      </header>
      <PictureControls settings={settings} onChange={change} range={range} detector>
        <span className="transport">
          {hits && (
            <span className="segments" role="radiogroup" aria-label="Which frame">
              {(['latest', 'hit'] as const).map((name) => (
                <button key={name} type="button" role="radio" aria-checked={which === name} title="Key: h" onClick={() => show(name)}>
                  {name === 'hit' ? 'Latest hit' : 'Latest'}
                </button>
              ))}
            </span>
          )}
          <button type="button" aria-label="One frame back" title="One of the frames shown before (←)" disabled={seen.length < 2 || back >= seen.length - 1} onClick={() => step(-1)}>
            ◀
          </button>
          <button type="button" className="toggle pause" aria-pressed={paused} title="Space" onClick={() => pause(!paused)}>
            {paused ? '▶ Resume' : '❚❚ Pause'}
          </button>
          <button type="button" aria-label="One frame on" title="One frame on (→)" disabled={!paused || back === 0} onClick={() => step(1)}>
            ▶
          </button>
          <button type="button" className="toggle" aria-pressed={editing.on} title="Draw a mask" data-testid="edit-mask" onClick={() => edit({ on: !editing.on, shapes: [] })}>
            ✎ Mask
          </button>
        </span>
      </PictureControls>
      {editing.on && <MaskEditor run={run} editing={editing} onChange={edit} operates={operates} />}
      <Picture
        picture={frame?.picture ?? null}
        placeholder={live.problem ?? (which === 'hit' ? 'No hit yet' : 'Waiting for the first frame')}
        mask={mask}
        saturation={frame?.info.saturation ?? null}
        range={range}
        settings={settings}
        unit="counts"
        label={title}
        axes
        moves={!editing.on}
        describe={geometry ? (x, y) => describePlace(geometry, x, y) : undefined}
      >
        <FrameMarks
          geometry={geometry ?? null}
          rings={settings.showRings ? rings : NO_RINGS}
          centre={settings.showCentre}
          spots={settings.showSpots && found ? found.spots : NO_SPOTS}
          regions={settings.showRegions ? regions : NO_REGIONS}
        />
        {editing.on && <MaskDrawing editing={editing} onChange={edit} />}
      </Picture>
      <footer className="panel-foot">
        {geometry !== undefined && (
          <MarkControls settings={settings} onChange={change} placed={geometry !== null} rings={rings} spots={spots ? (found?.spots.length ?? null) : null} regions={regions.length} />
        )}
        {frame && <FrameNotes frame={frame} masked={mask ? share(mask.maskedCount, mask.bits.length) : null} />}
      </footer>
    </section>
  );
}

const NO_RINGS: number[] = [];
const NO_SPOTS: never[] = [];
const NO_REGIONS: never[] = [];

/** How the pixels on the screen come from those of the detector. */
export function FrameNotes({ frame, masked }: { frame: ShownFrame; masked: string | null }) {
  const { info, picture } = frame;
  return (
    <>
      <span>
        {info.shape[1]} × {info.shape[0]} {info.dtype}
      </span>
      <span>{picture.binning > 1 ? `brightest of ${picture.binning} × ${picture.binning}` : 'every pixel'}</span>
      <span>{masked ? `${masked} masked` : 'no mask'}</span>
      <span className={picture.saturatedCount > 0 ? 'warn' : ''}>{count(picture.saturatedCount)} saturated</span>
    </>
  );
}

export function FrameFacts({ frame, paused, hit = null }: { frame: ShownFrame | null; paused: boolean; hit?: boolean | null }) {
  if (!frame) return <span className="facts" />;
  const { info } = frame;
  return (
    <span className="facts">
      {paused && <em className="tag amber">paused</em>}
      {info.partial && <em className="tag amber">partial</em>}
      {hit && <em className="tag green">hit</em>}
      {info.kind !== 'sample' && <em className="tag">{info.kind}</em>}
      {info.angle_deg !== null && <span className="steady">{number(info.angle_deg, 4)}°</span>}
      <span>
        frame <b className="steady-number">{count(info.frame_number)}</b>
      </span>
    </span>
  );
}
