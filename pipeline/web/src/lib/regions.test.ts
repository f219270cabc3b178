import { expect, test } from 'vitest';
import { regionsOf } from './regions';

const beam = { name: 'beam', row: 10, column: 20, rows: 5, columns: 6 };

test('regions are those of the recipe, where it has any', () => {
  expect(regionsOf(undefined)).toEqual([]);
  expect(regionsOf({ operations: ['statistics'], statistics: { regions: [] } })).toEqual([]);
  expect(regionsOf({ operations: ['statistics'], statistics: { regions: [beam] } })).toEqual([beam]);
  // Parameters of an operation that is not listed.
  expect(regionsOf({ operations: ['azimuthal'], statistics: { regions: [beam] } })).toEqual([]);
  const wrong = [null, { ...beam, row: -1 }, { ...beam, rows: 'many' }, { ...beam, name: 3 }];
  expect(regionsOf({ operations: ['statistics'], statistics: { regions: [...wrong, beam] } })).toEqual([beam]);
});
