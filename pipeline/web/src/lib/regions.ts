/** Regions of interest of a recipe: rectangles of the detector, each with a sum, a mean and a largest count in every result. */

export interface Region {
  name: string;
  /** first row and column */
  row: number;
  column: number;
  /** how many of each */
  rows: number;
  columns: number;
}

/** What a region has in every result: the end of the scalar's name, and a word for people. */
export const REGION_VALUES = { counts: 'sum', mean: 'mean', max: 'max' } as const;

export type RegionValue = keyof typeof REGION_VALUES;

/** A colour for each of the eight that there may be, to be told from rings, spots and the beam. */
export const REGION_COLOURS = ['#ffb02e', '#7aa7ff', '#ff7ab8', '#9be15d', '#c792ff', '#ffd93d', '#4fd1c5', '#ff8f6b'];

/** The regions of a run, from its parameters. */
export function regionsOf(parameters: Record<string, unknown> | undefined): Region[] {
  const statistics = parameters?.['statistics'];
  const operations = parameters?.['operations'];
  if (!Array.isArray(operations) || !operations.includes('statistics') || typeof statistics !== 'object' || statistics === null) return [];
  const listed = (statistics as Record<string, unknown>)['regions'];
  return (Array.isArray(listed) ? listed : []).filter(isRegion).slice(0, REGION_COLOURS.length);
}

function isRegion(value: unknown): value is Region {
  if (typeof value !== 'object' || value === null) return false;
  const region = value as Record<string, unknown>;
  const whole = (key: string) => Number.isInteger(region[key]) && (region[key] as number) >= 0;
  return typeof region['name'] === 'string' && ['row', 'column', 'rows', 'columns'].every(whole);
}
