/** A file of a closed run in h5web. It is loaded when somebody opens one: the live page does without. */

import { App, createBasicFetcher, H5GroveProvider, type ExportURL, type Fetcher } from '@h5web/app';
import '@h5web/app/styles.css';
import { useCallback } from 'react';
import { apiUrl, runPath } from '../api/client';
import { authorization } from '../api/session';

/** The token goes into a header, as everywhere. */
const fetcher: Fetcher = (url, params, options) => createBasicFetcher({ cache: 'no-store', headers: authorization() })(url, params, options);

export interface HdfFileProps {
  run: string;
  file: string;
}

export default function HdfFile({ run, file }: HdfFileProps) {
  const url = apiUrl(runPath(run, '/h5'));
  // What is exported passes through the page, since an address is no place for a token.
  const exportUrl = useCallback(
    (format: string, dataset: { path: string }, selection?: string, builtIn?: () => BlobPart): ExportURL => {
      if (builtIn) return async () => new Blob([builtIn()]);
      const params = { file, path: dataset.path, format, ...(selection ? { selection } : {}) };
      return async () => new Blob([await fetcher(`${url}/data`, params)]);
    },
    [url, file],
  );
  return (
    <H5GroveProvider key={`${run}/${file}`} url={url} filepath={file} fetcher={fetcher} getExportURL={exportUrl}>
      <App disableDarkMode />
    </H5GroveProvider>
  );
}
