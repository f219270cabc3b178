import { describe, expect, it } from 'vitest';
import { onAxis } from './interpolate';

describe('a curve on another axis', () => {
  it('is straight between its points and nowhere else', () => {
    expect(onAxis([0, 1, 2], [0, 10, null], [-1, 0, 0.25, 1, 1.5, 3])).toEqual([null, 0, 2.5, 10, null, null]);
    expect(onAxis([2, 1, 0], [20, 10, 0], [0.5])).toEqual([5]);
  });

  it('is itself on its own', () => {
    const values = [1, null];
    expect(onAxis([0, 1], values, [0, 1])).toBe(values);
  });
});
