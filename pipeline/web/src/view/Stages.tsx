/** How long the stages take, how full what lies between them is, and how long the store has room. */

import { useState } from 'react';
import { getText } from '../api/client';
import { usePoll } from '../api/poll';
import type { Status } from '../api/types';
import { bytes, bytesPerSecond, count, latency } from '../lib/format';
import { parseHistograms, quantile, type Histogram } from '../lib/quantiles';

const STAGES: [metric: string, name: string][] = [
  ['fluxline_result_latency_seconds', 'Arrival to result'],
  ['fluxline_batch_seconds', 'A batch through its recipe'],
  ['fluxline_decision_latency_seconds', 'Arrival to decision'],
  ['fluxline_write_seconds', 'A frame to its file'],
  ['fluxline_sync_seconds', 'A sync of the files'],
];

const INTERVAL_MS = 2_000;

export function Stages({ status }: { status: Status | null }) {
  const [histograms, setHistograms] = useState<Map<string, Histogram> | null>(null);
  usePoll('stages', INTERVAL_MS, async (signal) => {
    const next = parseHistograms(await getText('/metrics', signal));
    if (!signal.aborted) setHistograms(next);
  });
  const at = (metric: string, share: number) => {
    const histogram = histograms?.get(metric);
    return histogram ? latency(1e6 * quantile(histogram, share)).join(' ') : '–';
  };
  return (
    <div className="drawer stages" data-testid="stages">
      <table>
        <thead>
          <tr>
            <th>since the appliance started</th>
            <th>p50</th>
            <th>p99</th>
            <th>number</th>
          </tr>
        </thead>
        <tbody>
          {STAGES.map(([metric, name]) => (
            <tr key={metric} data-testid={`stage-${metric}`}>
              <td>{name}</td>
              <td>{at(metric, 0.5)}</td>
              <td>{at(metric, 0.99)}</td>
              <td>{count(histograms?.get(metric)?.count)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <dl>
        <dt>Ring</dt>
        <dd>
          {count(status?.ring.used)} of {count(status?.ring.slots)} slots hold a frame
        </dd>
        <dt>Waiting</dt>
        <dd>
          {count(status?.queues.analysis.used)} for analysis, {count(status?.queues.storage.used)} for storage
        </dd>
        <dt>Store</dt>
        <dd data-testid="forecast">{status ? forecast(status) : '–'}</dd>
      </dl>
    </div>
  );
}

/** 1.2 TB free; at 12 MB/s full in 28 h */
export function forecast({ store }: Status): string {
  const free = `${bytes(store.free_bytes).join(' ')} free`;
  const told = store.keep?.forecast;
  if (!told || told.hours_left === null) return free;
  return `${free}; at ${bytesPerSecond(told.bytes_per_s).join(' ')} full in ${hours(told.hours_left)}`;
}

/** 45 min, 28 h, 12 d */
export function hours(value: number): string {
  if (value < 1.5) return `${Math.round(60 * value)} min`;
  return value < 96 ? `${Math.round(value)} h` : `${Math.round(value / 24)} d`;
}
