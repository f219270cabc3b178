import { describe, expect, it } from 'vitest';
import { parseHistograms, quantile } from './quantiles';

const TEXT = `# TYPE work histogram
work_bucket{le="0.001"} 50
work_bucket{le="0.01"} 90
work_bucket{le="+Inf"} 100
work_sum 1.5
work_count 100
part_bucket{stage="a",le="1"} 1
part_bucket{stage="b",le="1"} 2
part_bucket{stage="b",le="+Inf"} 3
`;

describe('histograms', () => {
  it('have the quantiles that Prometheus would give', () => {
    const work = parseHistograms(TEXT).get('work')!;
    expect(work.count).toBe(100);
    expect(quantile(work, 0.5)).toBeCloseTo(0.001, 12);
    expect(quantile(work, 0.7)).toBeCloseTo(0.001 + 0.009 / 2, 12);
    expect(quantile(work, 0.99)).toBe(0.01);
    expect(quantile({ count: 0, buckets: [] }, 0.5)).toBeNaN();
  });

  it('are added up over labels', () => expect(parseHistograms(TEXT).get('part')!.buckets[0]).toEqual([1, 3]));
});
