/** Scalars against frame number over a whole run, in bounded memory: when it is full every second point goes. */

const POINTS_MAX = 4096;

export class Trend {
  frames: number[] = [];
  private columns = new Map<string, (number | null)[]>();
  private keepEvery = 1;
  private seen = 0;

  names(): string[] {
    return [...this.columns.keys()];
  }

  values(name: string): (number | null)[] {
    return this.columns.get(name) ?? [];
  }

  push(frame: number, scalars: Record<string, number | null>): void {
    const last = this.frames.at(-1);
    // A plot needs rising abscissas; what comes late is seen in the files.
    if (last !== undefined && frame <= last) return;
    this.seen += 1;
    if (this.seen % this.keepEvery !== 0) return;
    this.frames.push(frame);
    for (const [name, value] of Object.entries(scalars)) {
      let column = this.columns.get(name);
      if (!column) {
        column = new Array<number | null>(this.frames.length - 1).fill(null);
        this.columns.set(name, column);
      }
      column.push(value !== null && Number.isFinite(value) ? value : null);
    }
    for (const column of this.columns.values()) if (column.length < this.frames.length) column.push(null);
    if (this.frames.length >= POINTS_MAX) this.thin();
  }

  private thin(): void {
    const odd = (_: unknown, index: number) => index % 2 === 1;
    this.frames = this.frames.filter(odd);
    for (const [name, column] of this.columns) this.columns.set(name, column.filter(odd));
    this.keepEvery *= 2;
  }
}
