import { describe, expect, it } from 'vitest';
import { ranges, strip } from './ledger';

const entry = (frame_number: number, state: 'lost' | 'partial') => ({ frame_number, state });

describe('a ledger', () => {
  const found = ranges([entry(7, 'lost'), entry(3, 'lost'), entry(4, 'lost'), entry(5, 'partial')]);

  it('puts neighbours together', () => {
    expect(found).toEqual([
      { first: 3, last: 4, state: 'lost' },
      { first: 5, last: 5, state: 'partial' },
      { first: 7, last: 7, state: 'lost' },
    ]);
  });

  it('shows the worst of each part, and single frames of a long run', () => {
    expect(strip(found, 8, 4)).toEqual(['complete', 'lost', 'lost', 'lost']);
    expect(strip(found, 8, 8)).toEqual(['complete', 'complete', 'complete', 'lost', 'lost', 'partial', 'complete', 'lost']);
    expect(strip([{ first: 999_999, last: 999_999, state: 'lost' }], 1_000_000, 10).at(-1)).toBe('lost');
  });
});
