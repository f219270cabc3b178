/** Warnings, and what happened last. */

import { useState } from 'react';
import type { RunEvent, Status } from '../api/types';
import { moment } from '../lib/format';
import { Stages } from './Stages';

export function Footer({ status, events }: { status: Status | null; events: RunEvent[] }) {
  const [open, setOpen] = useState<'warnings' | 'stages' | 'events' | null>(null);
  const warnings = status?.warnings ?? [];
  const toggle = (which: 'warnings' | 'stages' | 'events') => setOpen(open === which ? null : which);
  const last = events.at(-1);
  return (
    <footer className="bottom">
      {open === 'warnings' && warnings.length > 0 && (
        <ul className="drawer left">
          {warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
        </ul>
      )}
      {open === 'stages' && <Stages status={status} />}
      {open === 'events' && events.length > 0 && (
        <ol className="drawer right">
          {events.map((event) => (
            <li key={event.sequence}>
              <time>{moment(event.time)}</time> <b>{event.event.replaceAll('_', ' ')}</b> {facts(event)}
            </li>
          ))}
        </ol>
      )}
      <button
        type="button"
        className={`strip ${warnings.length > 0 ? 'amber-text' : 'dim'}`}
        aria-expanded={open === 'warnings'}
        onClick={() => toggle('warnings')}
        data-testid="warnings"
      >
        {warnings.length === 0 ? 'No warnings' : `⚠ ${warnings.length > 1 ? `${warnings.length} warnings: ` : ''}${warnings.join(' · ')}`}
      </button>
      <button type="button" className="strip dim middle" aria-expanded={open === 'stages'} onClick={() => toggle('stages')} data-testid="show-stages">
        Stages and store
      </button>
      <button type="button" className="strip dim right" aria-expanded={open === 'events'} onClick={() => toggle('events')} data-testid="last-event">
        {last ? `${moment(last.time)}  ${last.event.replaceAll('_', ' ')}  ${facts(last)}` : ''}
      </button>
    </footer>
  );
}

/** The plain values of an event in a line. */
function facts(event: RunEvent): string {
  const texts = Object.entries(event.data ?? {})
    .filter(([, value]) => typeof value === 'string' || typeof value === 'number')
    .map(([name, value]) => `${name.replaceAll('_', ' ')} ${String(value).split('/').at(-1)}`);
  return texts.slice(0, 4).join(', ');
}
