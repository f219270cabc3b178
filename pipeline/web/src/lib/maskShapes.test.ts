import { describe, expect, it } from 'vitest';
import { encodeNpy, parseNpy } from '../api/npy';
import { draw, USER_BIT, type MaskShape } from './maskShapes';

const shape = (kind: MaskShape['kind'], points: MaskShape['points'], more: Partial<MaskShape> = {}): MaskShape => ({ kind, points, radius: 0, erase: false, ...more });

function picture(shapes: MaskShape[], bits = new Uint32Array(40)): string[] {
  const drawn = draw(shapes, bits, 5, 8);
  return Array.from({ length: 5 }, (_, row) => [...drawn.subarray(8 * row, 8 * row + 8)].map((value) => (value & USER_BIT ? 'x' : value ? 'o' : '.')).join(''));
}

describe('shapes', () => {
  it('mask the pixels whose centres they cover', () => {
    expect(picture([shape('rectangle', [[6, 3], [1, 1]])])).toEqual(['........', '.xxxxx..', '.xxxxx..', '........', '........']);
    expect(picture([shape('polygon', [[0, 0], [8, 0], [0, 5]])])).toEqual(['xxxxxxx.', 'xxxxxx..', 'xxxx....', 'xx......', 'x.......']);
    expect(picture([shape('brush', [[1.5, 1.5], [5.5, 1.5]], { radius: 1 })])).toEqual(['.xxxxx..', 'xxxxxxx.', '.xxxxx..', '........', '........']);
  });

  it('take out what a user masked, and nothing else', () => {
    const bits = new Uint32Array(40);
    bits[9] = 1;
    const whole = shape('rectangle', [[0, 0], [8, 5]]);
    expect(picture([whole, { ...whole, erase: true }], bits)).toEqual(['........', '.o......', '........', '........', '........']);
  });

  it('reach no pixel outside, and none where too little was drawn', () => {
    expect(picture([shape('rectangle', [[-9, -9], [99, 1]])])[0]).toBe('xxxxxxxx');
    expect(picture([shape('rectangle', [[2, 2], [2.1, 2.1]]), shape('polygon', [[0, 0], [8, 0]])]).join('')).not.toContain('x');
  });
});

describe('a mask as a file', () => {
  it('is read back as it was', () => {
    const bits = Uint32Array.from({ length: 6 }, (_, index) => index * 256);
    const read = parseNpy(encodeNpy(bits, 2, 3).buffer);
    expect([read.shape, read.dtype, [...read.data]]).toEqual([[2, 3], 'u4', [...bits]]);
  });
});
