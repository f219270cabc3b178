/** A run that is no longer in memory: what is known of it, and its frames from the files. */

import { useEffect, useState } from 'react';
import { useFrame } from '../api/hooks';
import { usePoll } from '../api/poll';
import { getJson, runPath } from '../api/client';
import type { FrameCounts, RunLine } from '../api/types';
import { count, moment } from '../lib/format';
import { titleOf } from '../techniques';
import { FrameFacts } from './LiveFrame';
import { Picture } from './Picture';
import { PictureControls } from './PictureControls';
import { useRange, useViewSettings } from './viewSettings';

interface RunDetail {
  frames: Partial<FrameCounts> | null;
  record: { folder?: string; files?: (string | { path?: string; name?: string })[] } | null;
}

export function StoredRun({ id, line, connected, onBack }: { id: string; line: RunLine | null; connected: boolean; onBack: () => void }) {
  const [number, setNumber] = useState(0);
  const [detail, setDetail] = useState<RunDetail | null>(null);
  useEffect(() => {
    setNumber(0);
    setDetail(null);
  }, [id]);
  usePoll(connected && !detail ? `run ${id}` : null, 2_000, async (signal) => setDetail(await getJson<RunDetail>(runPath(id), signal)));

  const [settings, change] = useViewSettings(line?.technique ?? 'generic', {});
  const { frame, problem } = useFrame({ run: id, which: String(number), mask: null, fullResolution: settings.fullResolution, enabled: connected });
  const range = useRange(settings, frame ? [frame.picture] : []);
  const last = Math.max(0, (line?.frames_expected ?? 1) - 1);
  const go = (next: number) => setNumber(Math.min(last, Math.max(0, Math.round(next) || 0)));
  const counts = detail?.frames ?? {};
  const files = (detail?.record?.files ?? []).map((file) => (typeof file === 'string' ? file : (file.path ?? file.name ?? '')));

  return (
    <div className="layout-stored">
      <section className="panel frame-panel">
        <header className="panel-head">
          <h2>Stored frame</h2>
          <FrameFacts frame={frame} paused={false} />
        </header>
        <PictureControls settings={settings} onChange={change} range={range} detector />
        <Picture
          picture={frame?.picture ?? null}
          placeholder={problem ?? 'Reading the frame'}
          mask={null}
          saturation={frame?.info.saturation ?? null}
          range={range}
          settings={settings}
          unit="counts"
          label="Stored frame"
          axes
        />
        <footer className="panel-foot steps">
          <button type="button" className="toggle" aria-label="Previous frame" onClick={() => go(number - 1)}>
            ◀
          </button>
          <input type="range" aria-label="Frame" min={0} max={last} value={number} onChange={(event) => go(Number(event.target.value))} />
          <button type="button" className="toggle" aria-label="Next frame" onClick={() => go(number + 1)}>
            ▶
          </button>
          <input className="bound" aria-label="Frame number" inputMode="numeric" value={number} onChange={(event) => go(Number(event.target.value))} />
        </footer>
      </section>
      <section className="panel facts-panel">
        <header className="panel-head">
          <h2>{line?.sample || id}</h2>
          <button type="button" className="toggle" onClick={onBack}>
            Back to the live run
          </button>
        </header>
        <dl>
          <dt>Run</dt>
          <dd className="mono">{id}</dd>
          <dt>Technique</dt>
          <dd>{line ? titleOf(line.technique) : '–'}</dd>
          <dt>Proposal</dt>
          <dd>{line?.proposal || '–'}</dd>
          <dt>Started</dt>
          <dd>{line ? moment(line.started) : '–'}</dd>
          <dt>State</dt>
          <dd>{line?.state.replaceAll('_', ' ') ?? '–'}</dd>
          {(['expected', 'complete', 'partial', 'lost', 'corrupt', 'duplicate', 'late'] as const).map((name) => (
            <FrameFact key={name} name={name} value={counts[name]} />
          ))}
          {detail?.record?.folder && (
            <>
              <dt>Folder</dt>
              <dd className="mono">{detail.record.folder}</dd>
            </>
          )}
          {files.length > 0 && (
            <>
              <dt>Files</dt>
              <dd className="mono">{files.slice(0, 12).map((file) => <div key={file}>{file.split('/').at(-1)}</div>)}</dd>
            </>
          )}
        </dl>
      </section>
    </div>
  );
}

function FrameFact({ name, value }: { name: string; value: number | undefined }) {
  return (
    <>
      <dt>Frames {name}</dt>
      <dd className={value && (name === 'lost' || name === 'corrupt') ? 'red-text' : ''}>{count(value)}</dd>
    </>
  );
}
