/** Curves on another axis, straight between their points. */

/** Values of a curve at the places `to`; null outside of it and where a neighbour has no value. Both axes rise or both fall. */
export function onAxis(from: number[], values: (number | null)[], to: number[]): (number | null)[] {
  const same = from.length === to.length && from.every((place, index) => place === to[index]);
  if (same) return values;
  const points = from.map((place, index) => ({ place, value: values[index] ?? null })).sort((a, b) => a.place - b.place);
  return to.map((place) => {
    const above = points.findIndex((point) => point.place >= place);
    const [low, high] = [points[above - 1], points[above]];
    if (!high || high.value === null) return null;
    if (high.place === place) return high.value;
    if (!low || low.value === null) return null;
    return low.value + ((high.value - low.value) * (place - low.place)) / (high.place - low.place);
  });
}
