/** The radial axis of a curve in the unit that somebody likes to read. */

import type { ProfileAxis } from '../api/types';
import { symbol, unit } from '../lib/format';
import { AXIS_UNITS, convert, unitOf, type AxisUnit } from '../lib/geometry';

export interface CurveAxis {
  /** for example q */
  name: string;
  unit: string;
  values: number[];
  /** the unit that is shown; null where the axis is of a kind that is not converted */
  shown: AxisUnit | null;
  /** units that this axis can be shown in */
  choices: typeof AXIS_UNITS;
}

export function axisIn(axis: ProfileAxis | undefined, wanted: AxisUnit | null, wavelengthA: number | null): CurveAxis {
  if (!axis) return { name: 'q', unit: '', values: [], shown: null, choices: [] };
  const own = unitOf(axis.name, axis.unit);
  const plain = { name: symbol(axis.name), unit: unit(axis.unit), values: axis.values, shown: own, choices: [] };
  if (own === null) return plain;
  // Between angles and the others lies the wavelength.
  const choices = AXIS_UNITS.filter(([to]) => wavelengthA !== null || (to === '2theta') === (own === '2theta'));
  const target = choices.find(([to]) => to === (wanted ?? own)) ?? choices.find(([to]) => to === own);
  if (!target || target[0] === own) return { ...plain, choices };
  return {
    name: target[1],
    unit: target[2],
    values: axis.values.map((value) => convert(value, own, target[0], wavelengthA)),
    shown: target[0],
    choices,
  };
}

/** A curve over an axis that may fall: in the order of rising abscissas, and without those that have none. */
export function rising(x: number[], columns: (number | null)[][]): [number[], ...(number | null)[][]] {
  const order = x.map((_, index) => index).filter((index) => Number.isFinite(x[index]));
  if (order.length > 1 && x[order[0]!]! > x[order.at(-1)!]!) order.reverse();
  return [order.map((index) => x[index]!), ...columns.map((column) => order.map((index) => column[index] ?? null))];
}
