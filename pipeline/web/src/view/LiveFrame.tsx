/** The newest frame of a run with its controls: what every technique begins with. */

import { useRef, useState } from 'react';
import { useFrame, useMask, type ShownFrame } from '../api/hooks';
import { count, number, share } from '../lib/format';
import { Picture } from './Picture';
import { PictureControls } from './PictureControls';
import { useRange, useViewSettings, type ViewSettings } from './viewSettings';

export interface LiveFrameProps {
  run: string;
  title: string;
  /** which choices of the user apply, and what they begin with */
  kind: string;
  defaults: Partial<ViewSettings>;
  /** whether there is a frame to ask for */
  available: boolean;
  describe?: (x: number, y: number) => string[];
}

export function LiveFrame({ run, title, kind, defaults, available, describe }: LiveFrameProps) {
  const [settings, change] = useViewSettings(kind, defaults);
  const [paused, setPaused] = useState(false);
  const mask = useMask(run, available, settings.fullResolution);
  const live = useFrame({ run, which: 'latest', mask, fullResolution: settings.fullResolution, enabled: available && !paused });
  const frame = live.frame;
  const range = useRange(settings, frame ? [frame.picture] : []);

  // A pause is over when its run is.
  const pausedRun = useRef(run);
  if (pausedRun.current !== run) {
    pausedRun.current = run;
    if (paused) setPaused(false);
  }

  return (
    <section className="panel frame-panel" data-testid="live-frame" data-frame={frame?.info.frame_number ?? ''}>
      <header className="panel-head">
        <h2>{title}</h2>
        <FrameFacts frame={frame} paused={paused} />
      </header>
      <PictureControls settings={settings} onChange={change} range={range} detector paused={paused} onPause={setPaused} />
      <Picture
        picture={frame?.picture ?? null}
        placeholder={live.problem ?? 'Waiting for the first frame'}
        mask={mask}
        saturation={frame?.info.saturation ?? null}
        range={range}
        settings={settings}
        unit="counts"
        label={title}
        axes
        describe={describe}
      />
      <footer className="panel-foot">
        {frame && (
          <>
            <span>
              {frame.info.shape[1]} × {frame.info.shape[0]} px
            </span>
            <span>{frame.info.dtype}</span>
            <span>{frame.picture.binning > 1 ? `brightest of ${frame.picture.binning} × ${frame.picture.binning}` : 'every pixel'}</span>
            <span>{mask ? `${share(mask.maskedCount, mask.bits.length)} masked` : 'no mask'}</span>
            <span className={frame.picture.saturatedCount > 0 ? 'warn' : ''}>{count(frame.picture.saturatedCount)} saturated</span>
          </>
        )}
      </footer>
    </section>
  );
}

export function FrameFacts({ frame, paused }: { frame: ShownFrame | null; paused: boolean }) {
  if (!frame) return <span className="facts" />;
  const { info } = frame;
  return (
    <span className="facts">
      {paused && <em className="tag amber">paused</em>}
      {info.partial && <em className="tag amber">partial</em>}
      {info.kind !== 'sample' && <em className="tag">{info.kind}</em>}
      {info.angle_deg !== null && <span className="steady">{number(info.angle_deg, 4)}°</span>}
      <span>
        frame <b className="steady-number">{count(info.frame_number)}</b>
      </span>
    </span>
  );
}
