/** Quantiles of the histograms that the appliance's metrics hold. */

export interface Histogram {
  count: number;
  /** upper bound in seconds and how many lie at or below it, rising */
  buckets: [bound: number, count: number][];
}

const LINE = /^(\w+)_bucket\{(?:[^}]*,)?le="([^"]+)"[^}]*\}\s+(\S+)/;

/** Histograms by name, labels but `le` added up. */
export function parseHistograms(text: string): Map<string, Histogram> {
  const sums = new Map<string, Map<number, number>>();
  for (const line of text.split('\n')) {
    const found = LINE.exec(line);
    if (!found) continue;
    const [, name = '', le = '', value = ''] = found;
    const bound = le === '+Inf' ? Infinity : Number(le);
    const buckets = sums.get(name) ?? new Map<number, number>();
    buckets.set(bound, (buckets.get(bound) ?? 0) + Number(value));
    sums.set(name, buckets);
  }
  return new Map(
    [...sums].map(([name, buckets]) => {
      const rising = [...buckets].sort(([a], [b]) => a - b);
      return [name, { count: rising.at(-1)?.[1] ?? 0, buckets: rising }];
    }),
  );
}

/** As Prometheus' `histogram_quantile`: straight within a bucket; NaN where nothing was measured. */
export function quantile({ count, buckets }: Histogram, share: number): number {
  if (count === 0) return Number.NaN;
  const rank = share * count;
  let below: [number, number] = [0, 0];
  for (const [bound, upTo] of buckets) {
    if (upTo >= rank) {
      if (!Number.isFinite(bound)) return below[0];
      const within = upTo - below[1];
      return within > 0 ? below[0] + ((bound - below[0]) * (rank - below[1])) / within : bound;
    }
    below = [bound, upTo];
  }
  return below[0];
}
