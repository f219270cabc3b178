/** The HDF5 files of a closed run, to be looked into. */

import { lazy, Suspense, useState } from 'react';
import type { RunDetail } from '../api/types';

const HdfFile = lazy(() => import('./HdfFile'));

export interface ExploreProps {
  id: string;
  detail: RunDetail | null;
}

/** The names of a run's files: from its record, or, where the run is still in memory, from its summary. */
function filesOf(detail: RunDetail | null): string[] {
  const listed = detail?.record.files?.map((file) => file.name) ?? detail?.summary?.files ?? [];
  return listed.map((name) => name.slice(name.lastIndexOf('/') + 1)).filter((name) => name.endsWith('.h5'));
}

export function Explore({ id, detail }: ExploreProps) {
  const files = filesOf(detail);
  const [chosen, setChosen] = useState<string | null>(null);
  // The master file is what to open: it names the others.
  const file = chosen ?? files.find((name) => name.endsWith('_master.h5')) ?? files[0] ?? null;
  return (
    <section className="panel explore" data-testid="explore" data-file={file ?? ''}>
      <header className="panel-head">
        <h2>Explore</h2>
        {file === null ? (
          <span className="dim">a run has its files when it is closed</span>
        ) : (
          <select aria-label="File" value={file} onChange={(event) => setChosen(event.target.value)}>
            {files.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        )}
      </header>
      {file !== null && (
        <div className="explore-file">
          <Suspense fallback={<p className="dim">Loading</p>}>
            <HdfFile run={id} file={file} />
          </Suspense>
        </div>
      )}
    </section>
  );
}
