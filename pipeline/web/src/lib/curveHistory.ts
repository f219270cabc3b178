/** The curves of the last frames, for a waterfall: newest first, in bounded memory. */

const CURVES_MAX = 240;

export class CurveHistory {
  frames: number[] = [];
  private rows: Float32Array[] = [];

  push(frame: number, curve: (number | null)[]): void {
    const newest = this.frames[0];
    if (newest !== undefined && frame <= newest) return;
    if (this.rows[0] && this.rows[0].length !== curve.length) this.clear();
    this.frames.unshift(frame);
    this.rows.unshift(Float32Array.from(curve, (value) => value ?? Number.NaN));
    if (this.rows.length > CURVES_MAX) {
      this.rows.pop();
      this.frames.pop();
    }
  }

  clear(): void {
    this.frames = [];
    this.rows = [];
  }

  get count(): number {
    return this.rows.length;
  }

  /** Row by row, each column being bin `bins[column]` of the curves; NaN where there is no bin or no value. */
  picture(bins: number[]): Float32Array {
    const values = new Float32Array(this.rows.length * bins.length);
    this.rows.forEach((row, index) => {
      bins.forEach((bin, column) => {
        values[index * bins.length + column] = row[bin] ?? Number.NaN;
      });
    });
    return values;
  }
}

/** For a picture with even steps along `axis`, which may be uneven or fall: the nearest bin of each of `columns` columns. */
export function evenBins(axis: number[], columns: number): { bins: number[]; range: [number, number] } {
  const finite = axis.map((value, bin) => ({ value, bin })).filter(({ value }) => Number.isFinite(value));
  finite.sort((a, b) => a.value - b.value);
  const [first, last] = [finite[0]?.value ?? 0, finite.at(-1)?.value ?? 1];
  let at = 0;
  const bins = Array.from({ length: columns }, (_, column) => {
    const wanted = first + ((last - first) * (column + 0.5)) / columns;
    while (at + 1 < finite.length && Math.abs(finite[at + 1]!.value - wanted) < Math.abs(finite[at]!.value - wanted)) at += 1;
    return finite[at]?.bin ?? -1;
  });
  return { bins, range: [first, last] };
}
