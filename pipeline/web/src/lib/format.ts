/** Numbers and units as people read them. Widths are steady where numbers change all the time. */

const THIN = '\u202f';
const NONE = '–';

function grouped(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

/** 12 345 678 */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const rounded = Math.round(value);
  return (rounded < 0 ? '−' : '') + grouped(String(Math.abs(rounded)));
}

/** Few significant digits of a value that may be of any size. */
export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return count(value);
  if (value !== 0 && (size >= 1e6 || size < 1e-3)) {
    const [mantissa = '', exponent = ''] = value.toExponential(digits - 1).split('e');
    return `${mantissa.replace('-', '−')}e${exponent.replace('+', '').replace('-', '−')}`;
  }
  return value.toPrecision(digits).replace('-', '−');
}

function scaled(value: number, units: string[], step: number): [string, string] {
  let index = 0;
  let rest = value;
  // 999.5 would print as 1000 of the smaller unit.
  while (rest >= step * 0.9995 && index < units.length - 1) {
    rest /= step;
    index += 1;
  }
  const digits = rest >= 100 || (index === 0 && Number.isInteger(rest)) ? 0 : rest >= 10 ? 1 : 2;
  return [rest.toFixed(digits), units[index] ?? ''];
}

/** Value and unit: ["4.21", "GB/s"] */
export function bytesPerSecond(value: number): [string, string] {
  return Number.isFinite(value) ? scaled(value, ['B/s', 'kB/s', 'MB/s', 'GB/s', 'TB/s'], 1000) : [NONE, 'B/s'];
}

/** Value and unit: ["1.82", "TB"] */
export function bytes(value: number): [string, string] {
  return Number.isFinite(value) ? scaled(value, ['B', 'kB', 'MB', 'GB', 'TB', 'PB'], 1000) : [NONE, 'B'];
}

/** Value and unit: ["498", "Hz"] */
export function rate(value: number): [string, string] {
  return Number.isFinite(value) ? scaled(value, ['Hz', 'kHz', 'MHz'], 1000) : [NONE, 'Hz'];
}

/** Value and unit of a time in microseconds: ["1.82", "ms"]; 0 is no measurement. */
export function latency(us: number): [string, string] {
  if (!Number.isFinite(us) || us <= 0) return [NONE, 'ms'];
  return scaled(us, ['µs', 'ms', 's'], 1000);
}

/** 12.3 % ; small shares do not vanish */
export function share(part: number, whole: number): string {
  if (!(whole > 0)) return NONE;
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.01) return '<0.01 %';
  if (part < whole && percent > 99.9) return '99.9 %';
  return `${percent.toFixed(percent >= 99.95 || percent === 0 ? 0 : percent >= 1 ? 1 : 2)} %`;
}

const SUPERSCRIPTS: Record<string, string> = { '-': '⁻', '0': '⁰', '1': '¹', '2': '²', '3': '³', '4': '⁴' };

/** nm^-1 and 1/nm → nm⁻¹, deg → °, A → Å */
export function unit(text: string): string {
  return text
    .replace(/^1\/(\w+)$/, '$1^-1')
    .replace(/\^\{?(-?\d)\}?/g, (_, power: string) => [...power].map((c) => SUPERSCRIPTS[c] ?? c).join(''))
    .replace(/\bangstrom\b|\bA(?=$|⁻)/g, 'Å')
    .replace(/\bdegrees?\b|\bdeg\b/g, '°');
}

/** 2theta → 2θ; anything else as it is */
export function symbol(name: string): string {
  return name.replace(/theta/i, 'θ').replace(/^chi$/i, 'χ');
}

/** Local time of day, with the date where it is not today. */
export function moment(iso: string, now = new Date()): string {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return NONE;
  const clock = time.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  if (time.toDateString() === now.toDateString()) return clock;
  return `${time.toLocaleDateString('en-GB', { day: '2-digit', month: 'short' })} ${clock.slice(0, 5)}`;
}

/** 4 s, 3 min, 2 h */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return NONE;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
