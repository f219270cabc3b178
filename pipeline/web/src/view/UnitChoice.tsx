/** Which unit a radial axis is read in. */

import type { AxisUnit } from '../lib/geometry';
import type { CurveAxis } from './curveAxis';

export function UnitChoice({ axis, onChoose }: { axis: CurveAxis; onChoose: (unit: AxisUnit) => void }) {
  if (axis.choices.length < 2) return null;
  return (
    <select aria-label="Unit of the axis" value={axis.shown ?? ''} onChange={(event) => onChoose(event.target.value as AxisUnit)}>
      {axis.choices.map(([value, name, unit]) => (
        <option key={value} value={value}>
          {name} ({unit})
        </option>
      ))}
    </select>
  );
}
