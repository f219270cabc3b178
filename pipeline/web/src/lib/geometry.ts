/**
 * Where pixels are, and what follows from it: scattering angle, q, d, and rings of one angle.
 *
 * Coordinates on the picture are detector pixels from the outer corner of pixel (0, 0): x along a row, y down. The
 * laboratory's axes are those of the run's record: 1 up, 2 sideways, 3 along the beam.
 */

type Vector = [number, number, number];

/** As `GET /runs/{id}` has it in `record.parameters.geometry`. */
export interface Geometry {
  /** laboratory position of the centre of pixel (0, 0), metres */
  origin_m: Vector;
  /** step to the next row, metres */
  slow_m: Vector;
  /** step to the next column, metres */
  fast_m: Vector;
  /** row and column of the direct beam, from the centre of pixel (0, 0) */
  beam_center_px: [number, number] | null;
  wavelength_m: number | null;
}

/** What a unit of a radial axis may be. */
export type AxisUnit = 'q_nm' | 'q_A' | '2theta' | 'd';

export const AXIS_UNITS: [AxisUnit, string, string][] = [
  ['q_nm', 'q', 'nm⁻¹'],
  ['q_A', 'q', 'Å⁻¹'],
  ['2theta', '2θ', '°'],
  ['d', 'd', 'Å'],
];

const RAD = Math.PI / 180;

function isVector(value: unknown): value is Vector {
  return Array.isArray(value) && value.length === 3 && value.every((part) => typeof part === 'number' && Number.isFinite(part));
}

/** The geometry in a run's parameters, or null where it has none that can be used. */
export function geometryOf(parameters: unknown): Geometry | null {
  const found = (parameters as { geometry?: Geometry } | null)?.geometry;
  if (!found || !isVector(found.origin_m) || !isVector(found.slow_m) || !isVector(found.fast_m)) return null;
  return found;
}

/** Scattering angle of a place on the picture, degrees. */
export function twoTheta(geometry: Geometry, x: number, y: number): number {
  const { origin_m, fast_m, slow_m } = geometry;
  const at = (axis: 0 | 1 | 2) => origin_m[axis] + (x - 0.5) * fast_m[axis] + (y - 0.5) * slow_m[axis];
  return Math.atan2(Math.hypot(at(0), at(1)), at(2)) / RAD;
}

/** Scattering vector, 1/Å. */
export function qOf(twoThetaDeg: number, wavelengthA: number): number {
  return (4 * Math.PI * Math.sin((twoThetaDeg / 2) * RAD)) / wavelengthA;
}

/** Scattering angle of a lattice spacing in Å, degrees; NaN where it scatters nowhere. */
export function twoThetaOfD(d: number, wavelengthA: number): number {
  return (2 * Math.asin(wavelengthA / (2 * d))) / RAD;
}

/** Lines for the read-out. */
export function describePlace(geometry: Geometry, x: number, y: number): string[] {
  const angle = twoTheta(geometry, x, y);
  const lines = [`2θ ${angle.toFixed(3)}°`];
  if (geometry.wavelength_m) {
    const q = qOf(angle, geometry.wavelength_m * 1e10);
    lines.push(`q ${(10 * q).toFixed(3)} nm⁻¹`, `d ${q > 0 ? ((2 * Math.PI) / q).toPrecision(4) : '∞'} Å`);
  }
  return lines;
}

/** Where a ray from the sample meets the detector, or null where it does not. */
function meets({ origin_m: o, fast_m: f, slow_m: s }: Geometry, [a, b, c]: Vector): [number, number] | null {
  // o + x f + y s = t (a, b, c), by Cramer's rule in x, y and t.
  const det = (p: Vector, q: Vector, r: Vector) =>
    p[0] * (q[1] * r[2] - q[2] * r[1]) - p[1] * (q[0] * r[2] - q[2] * r[0]) + p[2] * (q[0] * r[1] - q[1] * r[0]);
  const back: Vector = [-a, -b, -c];
  const minus: Vector = [-o[0], -o[1], -o[2]];
  const whole = det(f, s, back);
  if (Math.abs(whole) < 1e-300) return null;
  if (det(f, s, minus) / whole <= 0) return null;
  return [det(minus, s, back) / whole + 0.5, det(f, minus, back) / whole + 0.5];
}

/** Places of one scattering angle, all round the beam; null where the ray misses the detector's plane. */
export function ring(geometry: Geometry, twoThetaDeg: number, points = 180): ([number, number] | null)[] {
  const [along, across] = [Math.cos(twoThetaDeg * RAD), Math.sin(twoThetaDeg * RAD)];
  return Array.from({ length: points + 1 }, (_, index) => {
    const azimuth = (2 * Math.PI * index) / points;
    return meets(geometry, [across * Math.cos(azimuth), across * Math.sin(azimuth), along]);
  });
}

/** Where the direct beam meets the detector. */
export function beamCentre(geometry: Geometry): [number, number] | null {
  return meets(geometry, [0, 0, 1]);
}

const NICE = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 1.8, 2.2, 2.8, 3.5, 5, 7, 10, 15, 20, 30, 50, 100, 200];
const RINGS = 5;

/** Lattice spacings for rings that spread over a detector of this size, Å. */
export function niceRings(geometry: Geometry, columns: number, rows: number): number[] {
  if (!geometry.wavelength_m) return [];
  const wavelengthA = geometry.wavelength_m * 1e10;
  const centre = beamCentre(geometry);
  const edges = [
    [0, rows / 2],
    [columns, rows / 2],
    [columns / 2, 0],
    [columns / 2, rows],
  ] as const;
  const widest = Math.max(...edges.map(([x, y]) => twoTheta(geometry, x, y)));
  const on = NICE.filter((d) => twoThetaOfD(d, wavelengthA) < widest);
  if (!centre || on.length === 0) return on.slice(0, RINGS);
  // Evenly over the angle: the next ring is at least a step further in.
  const step = widest / (RINGS + 1);
  const chosen: number[] = [];
  let last = widest + step / 2;
  for (const d of on) {
    const angle = twoThetaOfD(d, wavelengthA);
    if (last - angle >= step * 0.8 && angle > step / 3) {
      chosen.push(d);
      last = angle;
    }
  }
  return chosen;
}

/** Which of our units an axis of the interface is in; null for one that is none of them. */
export function unitOf(name: string, unit: string): AxisUnit | null {
  const plain = unit.replace(/[{}\s]/g, '');
  if (name === 'q') return /^(1\/nm|nm\^-1)$/.test(plain) ? 'q_nm' : /^(1\/angstrom|1\/A|A\^-1)$/.test(plain) ? 'q_A' : null;
  if (/^2th/.test(name)) return /^deg/.test(plain) ? '2theta' : null;
  return name === 'd' ? 'd' : null;
}

/** A value of an axis in another unit. `wavelengthA` may be null where neither side is an angle. */
export function convert(value: number, from: AxisUnit, to: AxisUnit, wavelengthA: number | null): number {
  if (from === to) return value;
  const q = {
    q_nm: () => value / 10,
    q_A: () => value,
    '2theta': () => qOf(value, wavelengthA ?? Number.NaN),
    d: () => (2 * Math.PI) / value,
  }[from]();
  return {
    q_nm: () => 10 * q,
    q_A: () => q,
    '2theta': () => (2 * Math.asin((q * (wavelengthA ?? Number.NaN)) / (4 * Math.PI))) / RAD,
    d: () => (2 * Math.PI) / q,
  }[to]();
}
