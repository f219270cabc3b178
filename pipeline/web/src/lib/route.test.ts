import { describe, expect, it } from 'vitest';
import { formatRoute, parseRoute } from './route';

describe('addresses', () => {
  it('are read as they were written', () => {
    for (const route of [
      { run: null, view: null, frame: null },
      { run: 'a-1', view: null, frame: null },
      { run: 'a/b c', view: 'ledger', frame: null },
      { run: 'r', view: 'frames', frame: 12 },
    ] as const) {
      expect(parseRoute(formatRoute(route))).toEqual(route);
    }
  });

  it('that make no sense show the run in memory, or the run alone', () => {
    expect(parseRoute('#/elsewhere')).toEqual({ run: null, view: null, frame: null });
    expect(parseRoute('#/runs/%E0%A4%A')).toEqual({ run: null, view: null, frame: null });
    expect(parseRoute('#/runs/r/nothing?frame=-1')).toEqual({ run: 'r', view: null, frame: null });
  });
});
