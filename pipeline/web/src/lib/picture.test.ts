import { describe, expect, it } from 'vitest';
import { autoRange, makeMask, makePicture, maskNames, percentile, rgb, steadyRange, validRange } from './picture';

const array = (data: Uint16Array | Float32Array | Uint32Array, rows: number) => ({
  shape: [rows, data.length / rows],
  dtype: 'u2',
  data,
});

describe('makePicture', () => {
  it('leaves masked and saturated pixels out of the percentiles and counts saturated ones', () => {
    const mask = makeMask(array(new Uint32Array([0, 1, 0, 0, 2 ** 31, 0]), 2));
    expect(mask.maskedCount).toBe(1);
    const picture = makePicture(array(new Uint16Array([3, 65535, 1, 2, 65535, 5]), 2), 1, mask, 65535);
    expect([...picture.sample]).toEqual([1, 2, 3, 5]);
    expect(picture.saturatedCount).toBe(1);
    expect([picture.rows, picture.columns]).toEqual([2, 3]);
  });

  it('ignores a mask of another shape and values that are no numbers', () => {
    const mask = makeMask(array(new Uint32Array([1, 1]), 1));
    const picture = makePicture(array(new Float32Array([Number.NaN, 1, Infinity, 2]), 2), 1, mask, null);
    expect([...picture.sample]).toEqual([1, 2]);
  });

  it('samples large frames', () => {
    const picture = makePicture(array(new Uint16Array(1 << 20).fill(7), 1 << 10), 1, null, null);
    expect(picture.sample.length).toBeLessThanOrEqual(32_768);
    expect(picture.sample.length).toBeGreaterThan(16_000);
  });

  it('refuses what is no picture', () => {
    expect(() => makePicture({ shape: [0, 5], dtype: 'u2', data: new Uint16Array() }, 1, null, null)).toThrow('(0, 5)');
  });
});

describe('colour range', () => {
  const sample = Float32Array.from({ length: 1001 }, (_, i) => i);

  it('takes percentiles', () => {
    expect(percentile(sample, 0)).toBe(0);
    expect(percentile(sample, 50)).toBe(500);
    expect(percentile(sample, 100)).toBe(1000);
    expect(autoRange([sample], '100')).toEqual([0, 1000]);
    expect(autoRange([sample], '99')).toEqual([5, 995]);
    expect(autoRange([sample, new Float32Array([-50])], '99')).toEqual([-50, 995]);
  });

  it('is never empty', () => {
    expect(autoRange([], '99')).toEqual([0, 1]);
    const [low, high] = autoRange([new Float32Array([4, 4])], '99');
    expect(high).toBeGreaterThan(low);
  });

  it('suits the scale', () => {
    expect(validRange([0, 100], 'log', [new Float32Array([0, 0, 2, 100])])).toEqual([2, 100]);
    expect(validRange([0, 100], 'log', [new Float32Array([0, 1e-9, 100])])[0]).toBeCloseTo(1e-4);
    expect(validRange([-3, -1], 'log', [])).toEqual([0.1, 1]);
    expect(validRange([-3, 9], 'sqrt', [])).toEqual([0, 9]);
    expect(validRange([5, 5], 'linear', [])).toEqual([5, 6]);
  });

  it('stands still while little changes', () => {
    const last: [number, number] = [1, 100];
    expect(steadyRange(last, [1.1, 104])).toBe(last);
    expect(steadyRange(last, [1, 140])).toEqual([1, 140]);
    expect(steadyRange(last, [3, 100])).toEqual([3, 100]);
    expect(steadyRange(null, [0, 1])).toEqual([0, 1]);
  });
});

describe('flags', () => {
  it('names mask bits', () => {
    expect(maskNames(0)).toEqual([]);
    expect(maskNames(1)).toEqual(['gap']);
    expect(maskNames((1 << 1) | (1 << 8))).toEqual(['dead', 'user']);
    expect(maskNames(2 ** 31)).toEqual(['virtual']);
    expect(maskNames(1 << 12)).toEqual(['flagged']);
  });

  it('reads colours', () => {
    expect(rgb('#ff0080')).toEqual([1, 0, 128 / 255]);
    expect(rgb('red')).toEqual([0, 0, 0]);
  });
});
