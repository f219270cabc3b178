/** What is known of a run, in a list. */

import type { RunDetail } from '../api/types';
import { count, moment } from '../lib/format';
import { titleOf } from '../techniques';

const COUNTS = ['expected', 'complete', 'partial', 'lost', 'corrupt', 'duplicate', 'late'] as const;

export function RunFacts({ id, detail }: { id: string; detail: RunDetail | null }) {
  const record = detail?.record;
  const metadata = Object.entries(record?.metadata ?? {});
  return (
    <section className="panel facts-panel">
      <header className="panel-head">
        <h2>{record?.sample || id}</h2>
      </header>
      <dl>
        <Line name="Run" value={id} mono />
        <Line name="Technique" value={record?.technique ? titleOf(record.technique) : undefined} />
        <Line name="Proposal" value={record?.proposal} />
        <Line name="Started" value={record?.start_time ? moment(record.start_time) : undefined} />
        <Line name="State" value={detail ? `${detail.state}, files ${detail.store_state}`.replaceAll('_', ' ') : undefined} />
        {COUNTS.map((name) => {
          const value = detail?.frames[name];
          return <Line key={name} name={`Frames ${name}`} value={count(value)} bad={Boolean(value) && (name === 'lost' || name === 'corrupt')} />;
        })}
        {metadata.map(([name, value]) => (
          <Line key={name} name={name.replaceAll('_', ' ')} value={value} />
        ))}
        {detail?.warnings.map((warning) => (
          <Line key={warning} name="Warning" value={warning} />
        ))}
        <Line name="Folder" value={record?.folder} mono />
      </dl>
    </section>
  );
}

function Line({ name, value, mono = false, bad = false }: { name: string; value: string | undefined; mono?: boolean; bad?: boolean }) {
  if (value === undefined || value === '') return null;
  return (
    <>
      <dt>{name}</dt>
      <dd className={`${mono ? 'mono' : ''} ${bad ? 'red-text' : ''}`}>{value}</dd>
    </>
  );
}
