import { describe, expect, it } from 'vitest';
import { CurveHistory, evenBins } from './curveHistory';

describe('CurveHistory', () => {
  it('has the newest curve first, forgets the oldest, and begins again with another length', () => {
    const history = new CurveHistory();
    for (let frame = 0; frame < 300; frame += 1) history.push(frame, [frame, null]);
    history.push(12, [0, 0]);
    expect([history.count, history.frames[0], history.frames.at(-1)]).toEqual([240, 299, 60]);
    const picture = history.picture([0, 1]);
    expect([picture[0], picture[2], picture.length]).toEqual([299, 298, 480]);
    expect(picture[1]).toBeNaN();
    history.push(300, [1, 2, 3]);
    expect(history.count).toBe(1);
  });
});

describe('evenBins', () => {
  it('takes the nearest bin, also of an axis that falls', () => {
    expect(evenBins([0, 1, 2, 3], 4)).toEqual({ bins: [0, 1, 2, 3], range: [0, 3] });
    const falling = evenBins([Infinity, 8, 4, 2, 1], 7);
    expect(falling.range).toEqual([1, 8]);
    expect([falling.bins[0], falling.bins.at(-1)]).toEqual([4, 1]);
  });
});
