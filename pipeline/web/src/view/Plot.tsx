/** uPlot in React: made anew when its look changes, fed when its data change. */

import { useEffect, useLayoutEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Theme } from '../lib/theme';

export interface PlotColours {
  text: string;
  grid: string;
  first: string;
  second: string;
}

export interface PlotProps {
  /** what the options depend on; the plot is made anew when it changes */
  look: string;
  theme: Theme;
  options: (colours: PlotColours) => Omit<uPlot.Options, 'width' | 'height'>;
  data: uPlot.AlignedData;
  label: string;
  testid: string;
}

export function Plot({ look, theme, options, data, label, testid }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(data);
  latest.current = data;

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const style = getComputedStyle(element);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const made = new uPlot(
      {
        ...options({ text: colour('--dim'), grid: colour('--line'), first: colour('--accent'), second: colour('--amber') }),
        width: Math.max(10, element.clientWidth),
        height: Math.max(10, element.clientHeight),
      },
      latest.current,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => {
      made.setSize({ width: Math.max(10, element.clientWidth), height: Math.max(10, element.clientHeight) });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
    // `options` belongs to `look`.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [look, theme]);

  useEffect(() => plot.current?.setData(data), [data]);

  return <div ref={box} className="plot" role="img" aria-label={label} data-testid={testid} />;
}

const FONT = '12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

export function axis(colours: PlotColours, extra: uPlot.Axis = {}): uPlot.Axis {
  return {
    stroke: colours.text,
    font: FONT,
    labelFont: FONT,
    labelSize: 18,
    labelGap: 2,
    gap: 4,
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 4 },
    ...extra,
  };
}

/** Short numbers for ticks: 0, 0.5, 1200 → 1.2k */
export function tick(value: number | null | undefined): string {
  if (value === null || value === undefined) return '';
  const size = Math.abs(value);
  if (size === 0) return '0';
  for (const [limit, suffix] of [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e4, 'k'],
  ] as const) {
    const unit = limit === 1e4 ? 1e3 : limit;
    if (size >= limit) return `${Number((value / unit).toPrecision(4))}${suffix}`;
  }
  if (size < 1e-3) return value.toExponential().replace(/(\.\d{2})\d+/, '$1');
  return String(Number(value.toPrecision(5)));
}
