/** The files of a run and its results, to be saved. */

import { useState } from 'react';
import { download, getJson, runPath } from '../api/client';
import { usePoll } from '../api/poll';
import type { RunDetail, SliceList } from '../api/types';
import { bytes } from '../lib/format';

export interface RunFilesProps {
  id: string;
  detail: RunDetail | null;
  technique: string;
  connected: boolean;
}

interface Item {
  name: string;
  path: string;
  bytes: number | null;
  what: string;
}

export function RunFiles({ id, detail, technique, connected }: RunFilesProps) {
  const [slices, setSlices] = useState<string[] | null>(null);
  const [problem, setProblem] = useState('');
  const tomography = technique === 'tomography';
  usePoll(connected && tomography && slices === null ? `files ${id}` : null, 2_000, async (signal) => {
    const list = await getJson<SliceList>(runPath(id, '/slices'), signal);
    if (!signal.aborted) setSlices(list.slices.map((slice) => slice.name));
  });
  const files: Item[] = (detail?.record.files ?? []).map((file) => ({
    name: file.name,
    path: `/files/${encodeURIComponent(file.name)}`,
    bytes: file.bytes,
    what: file.name.endsWith('_master.h5') ? 'NeXus: what to open; it names the others' : 'frames',
  }));
  const curves: Item[] = tomography
    ? (slices ?? []).flatMap((name) =>
        ['tiff', 'npy'].map((ending) => ({ name: `${id}_${name}.${ending}`, path: `/slices/${encodeURIComponent(name)}.${ending}`, bytes: null, what: `slice ${name}` })),
      )
    : [
        { name: `${id}_mean.csv`, path: '/profiles/sum.csv', bytes: null, what: 'mean curve as a table' },
        { name: `${id}_mask.npy`, path: '/mask.npy', bytes: null, what: 'pixel mask' },
      ];
  const save = (item: Item) => download(runPath(id, item.path), item.name).then(() => setProblem(''), (error: Error) => setProblem(error.message));
  return (
    <section className="panel files-panel" data-testid="files">
      <header className="panel-head">
        <h2>Files</h2>
        <span className={problem ? 'red-text' : 'dim'}>{problem || (files.length === 0 ? 'a run has its files when it is closed' : (detail?.record.folder ?? ''))}</span>
      </header>
      <table>
        <tbody>
          {[...files, ...curves].map((item) => (
            <tr key={item.name}>
              <td>
                <button type="button" className="small" data-file={item.name} onClick={() => void save(item)}>
                  ⤓ Save
                </button>
              </td>
              <td className="mono">{item.name}</td>
              <td className="number">{item.bytes === null ? '' : bytes(item.bytes).join(' ')}</td>
              <td className="dim">{item.what}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
