import { describe, expect, it } from 'vitest';
import { Trend } from './trend';

describe('Trend', () => {
  it('keeps columns aligned when scalars come and go', () => {
    const trend = new Trend();
    trend.push(1, { sum: 10 });
    trend.push(5, { sum: 11, max: 3 });
    trend.push(6, { max: Number.NaN });
    expect(trend.frames).toEqual([1, 5, 6]);
    expect(trend.values('sum')).toEqual([10, 11, null]);
    expect(trend.values('max')).toEqual([null, 3, null]);
    expect(trend.values('none')).toEqual([]);
  });

  it('drops what comes late', () => {
    const trend = new Trend();
    trend.push(7, { sum: 1 });
    trend.push(7, { sum: 2 });
    trend.push(3, { sum: 3 });
    expect(trend.frames).toEqual([7]);
  });

  it('stays bounded and still covers the whole run', () => {
    const trend = new Trend();
    for (let frame = 0; frame < 100_000; frame += 1) trend.push(frame, { sum: frame });
    expect(trend.frames.length).toBeLessThan(4096);
    expect(trend.frames.length).toBeGreaterThan(1024);
    expect(trend.frames[0]).toBeLessThan(200);
    expect(trend.frames.at(-1)).toBeGreaterThan(99_800);
    expect(trend.values('sum')).toEqual(trend.frames);
  });
});
