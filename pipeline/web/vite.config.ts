import react from '@vitejs/plugin-react';
import { loadEnv } from 'vite';
import { defineConfig } from 'vitest/config';

/** Where `npm run dev` finds the interface: `npm run mock`, or a Fluxline that runs here. */
const api = loadEnv('', '.', 'FLUXLINE_')['FLUXLINE_URL'] ?? 'http://127.0.0.1:8088';

export default defineConfig({
  plugins: [react()],
  // The page is embedded in a binary and served from whatever path it is given: nothing in it is absolute.
  base: './',
  build: {
    target: 'es2022',
    // Inlined data: URLs would need a laxer content security policy than 'self'.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1500,
    rolldownOptions: {
      output: {
        // What changes seldom keeps its name, so a new version of the page is a small download.
        // What only the view of files needs is loaded with it.
        codeSplitting: { groups: [{ name: 'viewer', test: /node_modules(?!.*(@h5web\/app|react-resizable-panels|zustand|react-error-boundary|ndarray-ops|react-icons|d3-format))/ }] },
      },
    },
  },
  server: { host: '127.0.0.1', proxy: { '/api': { target: api, ws: true } } },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
});
