/**
 * A stand-in for Fluxline to develop the page against: it serves `dist/` and an interface with made-up runs, one
 * technique after the other, for ever. For developers only; it is not part of the product.
 *
 *     npm run build && npm run mock -- [--port 8088] [--techniques diffraction,tomography] [--seconds 20] [--pause 3]
 */

import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';
import { makeDiffraction } from './diffraction.mjs';
import { makeTomography } from './tomography.mjs';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '8088' },
    techniques: { type: 'string', default: 'diffraction,tomography' },
    seconds: { type: 'string', default: '20' },
    pause: { type: 'string', default: '3' },
  },
});
const TICK_MS = 50;
const seconds = Number(options.seconds);
const dist = fileURLToPath(new URL('../dist/', import.meta.url));

const makers = {
  diffraction: () => ({ ...makeDiffraction(), frames: Math.round(seconds * 500) }),
  tomography: () => makeTomography(Math.round(seconds * 15)),
  // A technique that the page has no panel for.
  ptychography: () => ({ ...makeDiffraction(), technique: 'ptychography', frames: Math.round(seconds * 500) }),
};
const simulations = options.techniques.split(',').map((name) => {
  if (!makers[name]) throw new Error(`--techniques: ${name}: one of ${Object.keys(makers).join(', ')}`);
  return makers[name]();
});

/** @type {any[]} newest first */
const runs = [];
const eventListeners = new Set();
const resultListeners = new Set();
let run = null;
let state = 'idle';

function event(name, data) {
  const entry = { sequence: run.events.length, event: name, time: new Date().toISOString(), data };
  run.events.push(entry);
  for (const send of eventListeners) send(entry);
}

function arm(simulation, number) {
  const id = `2026-11-23-${String(number).padStart(4, '0')}`;
  simulation.reset?.();
  run = {
    id,
    simulation,
    sample: simulation.technique === 'tomography' ? 'molar tooth' : `CeO2 pellet ${number}`,
    proposal: 'MX-2417',
    started: new Date().toISOString(),
    state: 'armed',
    position: 0,
    counts: { expected: simulation.frames, complete: 0, partial: 0, lost: 0, duplicate: 0, late: 0, corrupt: 0 },
    done: 0,
    events: [],
  };
  runs.unshift(run);
  state = 'armed';
  event('armed', { frames_expected: simulation.frames });
}

/** One step of the simulated appliance. */
function tick() {
  if (state !== 'recording') return;
  const { simulation, counts } = run;
  if (run.position === 0) event('first_frame', { frame_number: 0 });
  const perTick = Math.max(1, Math.round((simulation.frames / (seconds * 1000)) * TICK_MS));
  const end = Math.min(simulation.frames, run.position + perTick);
  for (let n = run.position; n < end; n += 1) {
    if (simulation.technique === 'diffraction' && n % 3777 === 3000) {
      counts.lost += 1;
      event('degraded', { reason: 'packets lost', frame_number: n });
    } else if (n % 2900 === 2000) counts.partial += 1;
    else counts.complete += 1;
    simulation.take?.(n);
  }
  run.position = end;
  run.done = counts.complete + counts.partial;
  if (end % 500 === 0) event('progress', { complete: counts.complete });
  const message = {
    sequence: end,
    frame_number: end - 1,
    kind: simulation.kind(end - 1),
    partial: false,
    parameters_version: 1,
    angle_deg: simulation.angle(end - 1),
    age_us: 400 + Math.round(200 * Math.random()),
    scalars: simulation.scalars(end - 1),
    curves: {},
  };
  const text = JSON.stringify(message);
  for (const socket of resultListeners) if (socket.runId === run.id) socket.offer(text);
  if (end === simulation.frames) finish('complete');
}

function finish(how) {
  state = 'finishing';
  run.state = 'finishing';
  setTimeout(() => {
    run.state = how;
    event('file_closed', { path: `/data/MX-2417/20261123/${run.id}/${run.id}_data_000001.h5`, frames: run.counts.complete });
    event('end', { state: how });
    state = 'idle';
  }, 800);
}

async function life() {
  for (let number = 1; ; number += 1) {
    arm(simulations[(number - 1) % simulations.length], number);
    await pause(1200);
    state = 'recording';
    run.state = 'recording';
    while (state !== 'idle') await pause(100);
    await pause(Number(options.pause) * 1000);
    if (runs.length > 40) runs.pop();
  }
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function status() {
  const busy = state === 'recording';
  const simulation = run?.simulation;
  const rate = busy ? simulation.frames / seconds : 0;
  const wobble = (base, part) => base * (1 + part * (Math.random() - 0.5));
  const outcome = { failed: 0, pending: 0 };
  return {
    state,
    message: null,
    version: '0.1.0-mock',
    run: run && { id: run.id, technique: simulation.technique, proposal: run.proposal, sample: run.sample, started: run.started, frames_expected: simulation.frames },
    frames: run?.counts ?? { expected: 0, complete: 0, partial: 0, lost: 0, duplicate: 0, late: 0, corrupt: 0 },
    analysis: { ...outcome, done: run?.done ?? 0, shed: 0 },
    storage: { ...outcome, synced: run?.done ?? 0, vetoed: 0 },
    rate: { frames_per_s: wobble(rate, 0.02), bytes_per_s: run ? wobble(rate * simulation.shape[0] * simulation.shape[1] * (simulation.descr === '<u4' ? 4 : 2), 0.02) : 0 },
    latency_us: run?.done ? { p50: Math.round(wobble(430, 0.05)), p99: Math.round(wobble(1900, 0.1)), p999: 3120, max: 6400 } : { p50: 0, p99: 0, p999: 0, max: 0 },
    ring: { slots: 64, used: busy ? Math.round(wobble(9, 0.8)) : 0, page_kind: 'transparent', locked: false },
    queues: { analysis: { used: busy ? Math.round(wobble(5, 1.5)) : 0, capacity: 128 }, storage: { used: busy ? Math.round(wobble(14, 1)) : 0, capacity: 128 } },
    device: { name: 'cpu-skylake-avx512-AMD EPYC 9B45', memory: 'zero_copy' },
    cores: { mode: 'shared' },
    store: { path: '/srv/fluxline/store', free_bytes: 1.62e12 },
    warnings: ['the frame ring lies in transparent huge pages: reserve 2 MiB pages for steady latency (fluxline doctor says how)'],
  };
}

function npy(descr, shape, array) {
  let header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.map((n) => `${n},`).join(' ')}), }`;
  header = `${header.padEnd(Math.ceil((11 + header.length) / 64) * 64 - 11)}\n`;
  const head = Buffer.alloc(10 + header.length);
  head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  head.writeUInt16LE(header.length, 8);
  head.write(header, 10, 'latin1');
  return Buffer.concat([head, Buffer.from(array.buffer, array.byteOffset, array.byteLength)]);
}

/** The brightest of each block, or all bits of it. */
function reduced(array, [rows, columns], pixelsMax, join_) {
  let factor = 1;
  while (Math.ceil(rows / factor) * Math.ceil(columns / factor) > pixelsMax) factor += 1;
  if (factor === 1) return { array, shape: [rows, columns], factor };
  const shape = [Math.ceil(rows / factor), Math.ceil(columns / factor)];
  const out = new array.constructor(shape[0] * shape[1]);
  for (let y = 0; y < rows; y += 1)
    for (let x = 0; x < columns; x += 1) {
      const i = Math.floor(y / factor) * shape[1] + Math.floor(x / factor);
      out[i] = join_(out[i], array[y * columns + x]);
    }
  return { array: out, shape, factor };
}

function api(path, query, request, response) {
  const json = (body, code = 200) => {
    response.writeHead(code, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    response.end(JSON.stringify(body));
  };
  const error = (code, name, message) => json({ error: name, message, allowed_states: [] }, code);
  const array = (descr, shape, data, frame, factor) => {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'cache-control': 'no-store', 'x-fluxline-frame': frame, 'x-fluxline-binning': factor });
    response.end(npy(descr, shape, data));
  };
  const pixelsMax = Number(query.get('max_pixels') ?? 1 << 26);

  if (path === '/status') return json(status());
  if (path === '/session') return json({ open: true, name: 'open', role: 'operator' });
  if (path === '/runs') {
    const lines = runs.map((r) => ({
      id: r.id, technique: r.simulation.technique, sample: r.sample, proposal: r.proposal, state: r.state,
      started: r.started, frames_complete: r.counts.complete, frames_expected: r.counts.expected,
    }));
    return json({ runs: lines, total: lines.length });
  }
  const match = /^\/runs\/([^/]+)(\/.*)?$/.exec(path);
  const asked = runs.find((candidate) => candidate.id === match?.[1]);
  if (!asked) return error(404, 'not_found', `there is no ${path}`);
  const rest = match[2] ?? '';
  const { simulation } = asked;
  const inMemory = asked === run;

  if (rest === '') return json({ id: asked.id, state: asked.state, datasets: [], frames: asked.counts, outcomes: null, record: { folder: `/srv/fluxline/store/${asked.proposal}/20261123/${asked.id}`, files: [`${asked.id}_master.h5`, `${asked.id}_data_000001.h5`] }, summary: null, warnings: [] });
  if (rest === '/stop' && request.method === 'POST') {
    if (!inMemory || state !== 'recording') return error(409, 'ended', `run ${asked.id} is ${asked.state}`);
    finish('stopped');
    return json({ id: asked.id, state: 'finishing' });
  }
  const frame = /^\/frames\/(\w+)\.(json|npy)$/.exec(rest);
  if (frame) {
    const latest = frame[1] === 'latest';
    if (latest && asked.done === 0) return error(425, 'not_yet', 'no frame has arrived yet');
    if (latest && !inMemory) return error(404, 'not_found', `run ${asked.id} is not in memory`);
    const n = latest ? asked.position - 1 : Number(frame[1]);
    if (frame[2] === 'json') {
      return json({ frame_number: n, shape: simulation.shape, dtype: simulation.dtype, kind: simulation.kind(n), angle_deg: simulation.angle(n), saturation: simulation.saturation, partial: false });
    }
    const small = reduced(simulation.frame(n), simulation.shape, pixelsMax, Math.max);
    return array(simulation.descr, small.shape, small.array, n, small.factor);
  }
  if (!inMemory) return error(404, 'not_found', `run ${asked.id} is not in memory`);
  if (rest === '/mask.npy') {
    const small = reduced(simulation.mask, simulation.shape, pixelsMax, (a, b) => a | b);
    return array('<u4', small.shape, small.array, 0, small.factor);
  }
  const profile = /^\/profiles\/(latest|sum)$/.exec(rest);
  if (profile) {
    if (!simulation.profile) return error(404, 'not_found', 'this recipe makes no curves');
    if (asked.done === 0) return error(425, 'not_yet', 'no frame has been analysed yet');
    const number = profile[1] === 'latest' ? asked.position - 1 : null;
    return json({ name: 'intensity', frame_number: number, errors: null, frames_used: number === null ? asked.done : 1, ...simulation.profile(number) });
  }
  if (rest === '/slices') return json({ slices: simulation.slices?.() ?? [] });
  const slice = /^\/slices\/(\w+)\.npy$/.exec(rest);
  if (slice && simulation.slice?.(slice[1])) {
    const info = simulation.slices().find(({ name }) => name === slice[1]);
    return array('<f4', info.shape, simulation.slice(slice[1]), info.frames_used, 1);
  }
  if (rest === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const send = (entry) => {
      response.write(`id: ${entry.sequence}\nevent: ${entry.event}\ndata: ${JSON.stringify(entry)}\n\n`);
      if (entry.event === 'end') response.end();
    };
    eventListeners.add(send);
    response.on('close', () => eventListeners.delete(send));
    return asked.events.forEach(send);
  }
  return error(404, 'not_found', `there is no ${path}`);
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname.startsWith('/api/v1')) return api(url.pathname.slice(7), url.searchParams, request, response);
  const file = join(dist, normalize(url.pathname === '/' ? '/index.html' : url.pathname));
  if (!existsSync(file)) {
    response.writeHead(404);
    return response.end('no such file; has `npm run build` been run?\n');
  }
  response.writeHead(200, {
    'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
    // The strictest policy that the page lives with, so that it goes on living with it.
    'content-security-policy': "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
  });
  createReadStream(file).pipe(response);
});

const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, stream, head) => {
  const match = /^\/api\/v1\/runs\/([^/]+)\/results/.exec(request.url);
  if (!match || match[1] !== run?.id) return stream.end('HTTP/1.1 404 Not Found\r\n\r\n');
  sockets.handleUpgrade(request, stream, head, (socket) => {
    let last = 0;
    const listener = {
      runId: match[1],
      offer(text) {
        if (performance.now() - last < 95) return;
        last = performance.now();
        socket.send(text);
      },
    };
    resultListeners.add(listener);
    socket.on('close', () => resultListeners.delete(listener));
  });
});

server.listen(Number(options.port), '127.0.0.1', () => {
  console.log(`mock of Fluxline: http://127.0.0.1:${options.port}/`);
  setInterval(tick, TICK_MS);
  void life();
});
