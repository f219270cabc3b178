/** The controls of a mask that is drawn, and how it becomes the mask of the runs to come. */

import { useState } from 'react';
import { getArray, runPath, upload } from '../api/client';
import { encodeNpy } from '../api/npy';
import { count } from '../lib/format';
import { draw, isMeant, type MaskShape } from '../lib/maskShapes';
import { MaskTool } from './MaskTool';

export interface MaskEditing {
  kind: MaskShape['kind'];
  radius: number;
  erase: boolean;
  shapes: MaskShape[];
  on: boolean;
}

const NOTHING: MaskEditing = { kind: 'rectangle', radius: 5, erase: false, shapes: [], on: false };

export function useMaskEditing(): [MaskEditing, (change: Partial<MaskEditing>) => void] {
  const [editing, setEditing] = useState(NOTHING);
  return [editing, (change) => setEditing((last) => ({ ...last, ...change }))];
}

export function MaskDrawing({ editing, onChange }: { editing: MaskEditing; onChange: (change: Partial<MaskEditing>) => void }) {
  const { kind, radius, erase, shapes } = editing;
  return <MaskTool kind={kind} radius={radius} erase={erase} shapes={shapes} onShape={(shape) => isMeant(shape) && onChange({ shapes: [...shapes, shape] })} />;
}

const KINDS: [MaskShape['kind'], string, string][] = [
  ['rectangle', '▭', 'Rectangle: drag'],
  ['polygon', '⬠', 'Polygon: click the corners, double-click the last'],
  ['brush', '✎', 'Brush: drag'],
];

export interface MaskEditorProps {
  run: string;
  editing: MaskEditing;
  onChange: (change: Partial<MaskEditing>) => void;
  operates: boolean;
}

export function MaskEditor({ run, editing, onChange, operates }: MaskEditorProps) {
  const [said, setSaid] = useState<{ text: string; bad: boolean } | null>(null);
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    try {
      const { array } = await getArray(runPath(run, '/mask.npy'));
      const [rows = 0, columns = 0] = array.shape;
      const before = array.data instanceof Uint32Array ? array.data : Uint32Array.from(array.data);
      const after = draw(editing.shapes, before, rows, columns);
      const changed = after.reduce((sum, bits, index) => sum + (bits === before[index] ? 0 : 1), 0);
      const record = await upload<{ version: string }>(`/calibrations/mask?comment=${encodeURIComponent(`drawn on run ${run}`)}`, encodeNpy(after, rows, columns));
      setSaid({ text: `Kept as ${record.version}: ${count(changed)} pixels changed; it holds from the next run on`, bad: false });
      onChange({ shapes: [] });
    } catch (error) {
      setSaid({ text: (error as Error).message, bad: true });
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="controls mask-editor" data-testid="mask-editor">
      <span className="segments" role="radiogroup" aria-label="Shape">
        {KINDS.map(([kind, sign, title]) => (
          <button key={kind} type="button" role="radio" aria-checked={editing.kind === kind} aria-label={kind} title={title} onClick={() => onChange({ kind })}>
            {sign}
          </button>
        ))}
      </span>
      <label className="field">
        Radius
        <input
          className="bound narrow"
          type="number"
          min={0.5}
          max={200}
          step={0.5}
          aria-label="Radius of the brush, pixels"
          value={editing.radius}
          disabled={editing.kind !== 'brush'}
          onChange={(event) => onChange({ radius: Math.min(200, Math.max(0.5, Number(event.target.value) || 0.5)) })}
        />
        px
      </label>
      <button type="button" className="toggle" aria-pressed={editing.erase} title="Take pixels out that somebody masked before" onClick={() => onChange({ erase: !editing.erase })}>
        Unmask
      </button>
      <button type="button" disabled={editing.shapes.length === 0} onClick={() => onChange({ shapes: editing.shapes.slice(0, -1) })}>
        Undo
      </button>
      <button
        type="button"
        data-testid="save-mask"
        disabled={!operates || busy || editing.shapes.length === 0}
        title={operates ? 'Keep it in the store; runs that are armed from now on take it' : 'Log in as operator to keep a mask'}
        onClick={() => void save()}
      >
        Keep mask
      </button>
      <button type="button" onClick={() => onChange({ on: false, shapes: [] })}>
        Close
      </button>
      <span className={said?.bad ? 'red-text' : 'dim'} data-testid="mask-said" title={said?.text}>
        {said?.text ?? `${editing.shapes.length} ${editing.shapes.length === 1 ? 'shape' : 'shapes'}`}
      </span>
    </div>
  );
}
