/** Shapes drawn on a picture, and the pixel mask that they make. Places are detector pixels from the outer corner of pixel (0, 0). */

export type Point = [x: number, y: number];

export interface MaskShape {
  kind: 'rectangle' | 'polygon' | 'brush';
  /** two corners, the corners, or the way of the brush */
  points: Point[];
  /** of the brush, pixels */
  radius: number;
  /** whether it takes pixels out of the mask that somebody drew before */
  erase: boolean;
}

/** NXmx: masked by a user */
export const USER_BIT = 1 << 8;

/** Whether a shape is large enough to be meant. */
export function isMeant({ kind, points }: MaskShape): boolean {
  if (kind === 'polygon') return points.length >= 3;
  if (kind === 'brush') return points.length >= 1;
  const [a, b] = points;
  return a !== undefined && b !== undefined && Math.abs(a[0] - b[0]) >= 0.5 && Math.abs(a[1] - b[1]) >= 0.5;
}

function covers({ kind, points, radius }: MaskShape, x: number, y: number): boolean {
  if (kind === 'rectangle') {
    const [a, b] = [points[0]!, points[1]!];
    return x > Math.min(a[0], b[0]) && x < Math.max(a[0], b[0]) && y > Math.min(a[1], b[1]) && y < Math.max(a[1], b[1]);
  }
  if (kind === 'polygon') {
    // A line to the right crosses the edge an odd number of times from within.
    let inside = false;
    points.forEach(([x1, y1], index) => {
      const [x0, y0] = points.at(index - 1)!;
      if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
    });
    return inside;
  }
  return points.some(([x1, y1], index) => {
    const [x0, y0] = points[Math.max(0, index - 1)]!;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    const along = length > 0 ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
    return Math.hypot(x - x0 - along * dx, y - y0 - along * dy) <= radius;
  });
}

/** Enters shapes in the order in which they were drawn; a pixel belongs to a shape when its centre does. */
export function draw(shapes: MaskShape[], bits: Uint32Array, rows: number, columns: number): Uint32Array {
  const drawn = bits.slice();
  for (const shape of shapes.filter(isMeant)) {
    const margin = shape.kind === 'brush' ? shape.radius : 0;
    const [xs, ys] = [shape.points.map(([x]) => x), shape.points.map(([, y]) => y)];
    const from = (values: number[]) => Math.max(0, Math.floor(Math.min(...values) - margin));
    const to = (values: number[], end: number) => Math.min(end, Math.ceil(Math.max(...values) + margin));
    for (let row = from(ys); row < to(ys, rows); row += 1) {
      for (let column = from(xs); column < to(xs, columns); column += 1) {
        if (!covers(shape, column + 0.5, row + 0.5)) continue;
        const index = row * columns + column;
        drawn[index] = shape.erase ? drawn[index]! & ~USER_BIT : drawn[index]! | USER_BIT;
      }
    }
  }
  return drawn;
}
