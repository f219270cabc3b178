/**
 * The page in a real browser, on a Fluxline (or its mock) that records runs.
 *
 *     node page.mjs URL [--out DIR] [--techniques diffraction,tomography] [--wait-s 120] [--stop]
 *
 * Waits for a recording run of each technique named, in whatever order they come, and looks at what a person would
 * see. `--stop` also stops the last run with the page's button. Screenshots go to DIR. The browser is Debian's Chromium,
 * or the one named by FLUXLINE_CHROMIUM. The last line says how many checks passed and failed; the exit status is 0, 1, or 2
 * where the command was wrong.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'screenshots' },
    techniques: { type: 'string', default: 'diffraction,tomography' },
    'wait-s': { type: 'string', default: '120' },
    stop: { type: 'boolean', default: false },
  },
});
const address = positionals[0];
if (!address || !/^https?:\/\//.test(address)) {
  console.error('usage: node page.mjs URL [--out DIR] [--techniques diffraction,tomography] [--wait-s 120] [--stop]');
  process.exit(2);
}
const waitMs = Number(options['wait-s']) * 1000;
const origin = new URL(address).host;
mkdirSync(options.out, { recursive: true });

let passed = 0;
let failed = 0;

async function check(what, test) {
  const begun = Date.now();
  try {
    const found = await test();
    passed += 1;
    console.log(`ok      ${what}${typeof found === 'string' ? ` (${found})` : ''} [${Date.now() - begun} ms]`);
    return true;
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${what}\n        ${String(error.message ?? error).split('\n')[0]}`);
    return false;
  }
}

function expect(condition, message) {
  if (!condition) throw new Error(message);
}

/** Looks until `look` finds what is wanted; `message` gets the last thing seen. */
async function eventually(look, wanted, message, timeoutMs = 15_000) {
  const end = Date.now() + timeoutMs;
  let seen;
  for (;;) {
    seen = await look();
    if (wanted(seen)) return seen;
    if (Date.now() > end) throw new Error(message(seen));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const profile = mkdtempSync(join(tmpdir(), 'fluxline-browser-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.FLUXLINE_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1920, height: 1080 },
  colorScheme: 'dark',
  args: [
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
    '--no-sandbox',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const page = context.pages()[0] ?? (await context.newPage());

/** While the server is taken away on purpose the browser may complain. */
let quiet = true;
const complaints = [];
const strangers = new Set();
const onRequest = (url) => {
  const { protocol, host } = new URL(url);
  if (!['data:', 'blob:'].includes(protocol) && host !== origin) strangers.add(url);
};
context.on('request', (request) => onRequest(request.url()));
page.on('websocket', (socket) => onRequest(socket.url()));
page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
page.on('console', (message) => {
  // 425 says "not there yet", which is no error; the browser reports it like one.
  const early = message.text().includes('status of 425');
  if (message.type() === 'error' && quiet && !early) complaints.push(`${message.text()} ${message.location().url}`);
});
await page.addInitScript(() => {
  globalThis.layoutShift = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) globalThis.layoutShift += entry.value;
  }).observe({ type: 'layout-shift', buffered: true });
});

const id = (name) => page.locator(`[data-testid="${name}"]`);
const attribute = (name, key) => id(name).first().getAttribute(key).catch(() => null);
const technique = () => attribute('main', 'data-technique');
const state = () => attribute('state-badge', 'data-state');
const frames = async () => Number(await attribute('frames-complete', 'data-value'));
const shot = (name) => page.screenshot({ path: join(options.out, `${name}.png`) });

/**
 * What a canvas shows: how many colours, a number that changes with every pixel, and how many pixels are like `near`.
 */
function look(selector, near = null) {
  return page.evaluate(
    ([selector_, near_]) => {
      const source = document.querySelector(selector_);
      if (!source || source.width === 0) return { colours: 0, hash: 0, near: 0, grey: 0, pixels: 0 };
      const copy = document.createElement('canvas');
      copy.width = source.width;
      copy.height = source.height;
      const brush = copy.getContext('2d', { willReadFrequently: true });
      brush.drawImage(source, 0, 0);
      const { data } = brush.getImageData(0, 0, copy.width, copy.height);
      const colours = new Set();
      let [hash, near, grey, pixels] = [0, 0, 0, 0];
      for (let i = 0; i < data.length; i += 4) {
        const [r, g, b, a] = [data[i], data[i + 1], data[i + 2], data[i + 3]];
        if (a < 128) continue;
        pixels += 1;
        colours.add((r << 16) | (g << 8) | b);
        hash = (Math.imul(hash, 31) + ((r << 16) | (g << 8) | b)) | 0;
        if (Math.abs(r - g) < 4 && Math.abs(g - b) < 4) grey += 1;
        if (near_ && Math.abs(r - near_[0]) < 6 && Math.abs(g - near_[1]) < 6 && Math.abs(b - near_[2]) < 6) near += 1;
      }
      return { colours: colours.size, hash, near, grey, pixels };
    },
    [selector, near],
  );
}

/** Waits until a canvas has stopped changing, so that the next change is our doing. */
async function settled(selector) {
  let last = await look(selector);
  for (let same = 0; same < 2; ) {
    await page.waitForTimeout(250);
    const next = await look(selector);
    same = next.hash === last.hash ? same + 1 : 0;
    last = next;
  }
  return last;
}

const PICTURE = '[data-testid="live-frame"] canvas';
const CURVE = '[data-testid="curve"] canvas';
const shownFrame = async () => Number((await attribute('live-frame', 'data-frame')) || -1);

async function recording(remaining) {
  await eventually(
    async () => [await state(), await technique()],
    ([now, name]) => now === 'recording' && remaining.includes(name),
    ([now, name]) => `waited ${waitMs / 1000} s for a recording run of ${remaining.join(' or ')}: the badge says "${now}", the run is "${name}"`,
    waitMs,
  );
  return technique();
}

async function liveChecks(name) {
  await check(`${name}: frame counter grows`, async () => {
    const before = await frames();
    const after = await eventually(frames, (n) => n > before, (n) => `stayed at ${n}`);
    return `${before} to ${after}`;
  });
  await check(`${name}: rate, latency, store and device are told`, async () => {
    for (const part of ['rate', 'latency', 'store']) {
      await eventually(() => id(part).innerText(), (text) => /\d/.test(text), (text) => `${part} says "${text.replaceAll('\n', ' ')}"`);
    }
    expect((await page.locator('.device .stat-text').innerText()).length > 1, 'no device');
  });
  await check(`${name}: run list has the run, recording`, async () => {
    const runId = await id('run-id').innerText();
    expect(runId.length > 3, `run id is "${runId}"`);
    await eventually(
      () => page.locator('[data-testid="run-list"] [aria-current="true"]').getAttribute('data-state').catch(() => null),
      (text) => text === 'recording',
      (text) => `the list says "${text}"`,
    );
    return runId;
  });
  await check(`${name}: picture is not empty`, async () => {
    const seen = await eventually(() => look(PICTURE), (s) => s.colours > 20, (s) => `${s.colours} colours in ${s.pixels} pixels`);
    return `${seen.colours} colours`;
  });
  await check(`${name}: picture changes`, async () => {
    const before = await look(PICTURE);
    await eventually(() => look(PICTURE), (s) => s.hash !== before.hash, () => 'the same pixels for 15 s');
  });
  await check(`${name}: frame shown follows the run`, async () => {
    const before = await shownFrame();
    const after = await eventually(shownFrame, (n) => n > before, (n) => `still frame ${n}`);
    return `${before} to ${after}`;
  });
  await check(`${name}: trend is drawn`, async () => {
    const seen = await eventually(() => look('[data-testid="trend-sum"] canvas'), (s) => s.colours > 8, (s) => `${s.colours} colours`);
    return `${seen.colours} colours`;
  });
  await check(`${name}: nothing jumps while numbers change`, async () => {
    await page.mouse.move(5, 5);
    const before = await page.evaluate(() => globalThis.layoutShift);
    await page.waitForTimeout(3000);
    const shift = (await page.evaluate(() => globalThis.layoutShift)) - before;
    expect(shift < 0.001, `layout shift ${shift}`);
  });
}

async function diffractionChecks() {
  await check('diffraction: curve is drawn', async () => {
    const accent = await page.evaluate(() => {
      const probe = document.createElement('i');
      probe.style.color = 'var(--accent)';
      document.body.append(probe);
      const colour = getComputedStyle(probe).color.match(/\d+/g).map(Number);
      probe.remove();
      return colour;
    });
    const seen = await eventually(() => look(CURVE, accent), (s) => s.near > 300, (s) => `${s.near} pixels in the colour of the curve`);
    return `${seen.near} pixels`;
  });
  await check('diffraction: logarithmic intensity changes the curve', async () => {
    const button = page.getByRole('button', { name: 'Log I' });
    const before = await button.getAttribute('aria-pressed');
    await button.click();
    await eventually(() => button.getAttribute('aria-pressed'), (now) => now !== before, () => 'the button does nothing');
    await page.waitForTimeout(600);
    await shot('diffraction-log-curve');
    expect((await look(CURVE)).colours > 8, 'the logarithmic curve is empty');
    await button.click();
  });
}

/** On a paused frame every change of the picture is the control's. */
async function controlChecks(name) {
  const pause = page.getByRole('button', { name: /Pause|Resume/ });
  await check(`${name}: pause holds the frame`, async () => {
    await pause.click();
    await settled(PICTURE);
    const held = await shownFrame();
    await page.waitForTimeout(1200);
    expect((await shownFrame()) === held, `went on to ${await shownFrame()}`);
    return `frame ${held}`;
  });
  const changes = async (what, act) => {
    await check(`${name}: ${what}`, async () => {
      const before = await settled(PICTURE);
      await act();
      await eventually(() => look(PICTURE), (s) => s.hash !== before.hash, () => 'the picture stayed the same', 5000);
      await settled(PICTURE);
    });
  };
  const radio = (label) => page.getByTestId('live-frame').getByRole('radio', { name: label });
  const control = (label) => page.getByTestId('live-frame').getByLabel(label, { exact: true });
  await changes('logarithmic scale changes the picture', () => radio('Log').click());
  await shot(`${name}-log`);
  await changes('linear scale changes the picture', () => radio('Lin').click());
  await changes('square root scale changes the picture', () => radio('Sqrt').click());
  await changes('colour map changes the picture', () => control('Colour map').selectOption('Turbo'));
  await shot(`${name}-turbo`);
  await changes('upper end of the colours by hand changes the picture', async () => {
    const upper = control('Upper end of the colours');
    await upper.fill(String(Number(await upper.inputValue()) * 3));
    await upper.press('Enter');
  });
  await check(`${name}: range by hand is told`, async () => {
    const choice = await control('Range').inputValue();
    expect(choice === 'manual', `the choice is "${choice}"`);
  });
  await changes('automatic range changes it back', () => control('Range').selectOption('99'));
  if (/^(?!0 %).*masked/.test((await page.locator('[data-testid="live-frame"] .panel-foot').innerText()).match(/[^\n]*masked/)?.[0] ?? '0 %')) {
    const hex = await control('Colour of mask pixels').inputValue();
    const colour = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
    let masked = 0;
    await check(`${name}: masked pixels have their colour`, async () => {
      masked = (await look(PICTURE, colour)).near;
      expect(masked > 100, `${masked} pixels in ${hex}`);
      return `${masked} pixels in ${hex}`;
    });
    await changes('mask off shows what lies under it', () => control('Mask').uncheck());
    await check(`${name}: with the mask off its colour is gone`, async () => {
      const { near } = await look(PICTURE, colour);
      expect(near < masked / 20, `${near} of ${masked} pixels left`);
    });
    await changes('mask on hides it again', () => control('Mask').check());
  } else console.log(`skip    ${name}: this run has no masked pixel`);
  await check(`${name}: read-out says x, y and value`, async () => {
    const box = await page.locator(PICTURE).boundingBox();
    await page.mouse.move(box.x + box.width * 0.4, box.y + box.height * 0.3);
    await page.mouse.move(box.x + box.width * 0.41, box.y + box.height * 0.31);
    const text = await eventually(
      () => page.locator('.read-out').first().innerText({ timeout: 500 }).catch(() => ''),
      (seen) => /x\s*\d+/.test(seen) && /y\s*\d+/.test(seen) && /(counts|masked)/.test(seen),
      (seen) => `it says "${seen}"`,
    );
    await shot(`${name}-read-out`);
    await page.mouse.move(5, 5);
    return text.replaceAll(/\s+/g, ' ');
  });
  await control('Colour map').selectOption(name === 'diffraction' ? 'Inferno' : 'Greys');
  await radio(name === 'diffraction' ? 'Sqrt' : 'Lin').click();
  await check(`${name}: resume goes on`, async () => {
    const held = await shownFrame();
    await pause.click();
    // A new run may have begun meanwhile, whose numbers begin at 0.
    await eventually(shownFrame, (n) => n !== held && n >= 0, (n) => `still frame ${n}`);
  });
}

async function tomographyChecks() {
  const projections = async (slice) => Number((await attribute(`slice-${slice}`, 'data-projections')) ?? 0);
  for (const slice of ['xy', 'xz', 'yz']) {
    await check(`tomography: slice ${slice} appears and sharpens`, async () => {
      const before = await eventually(() => projections(slice), (n) => n > 0, () => 'no projection yet', 30_000);
      const after = await eventually(() => projections(slice), (n) => n > before, (n) => `stays at ${n}`, 30_000);
      const seen = await eventually(() => look(`[data-testid="slice-${slice}"] canvas`), (s) => s.colours > 20, (s) => `${s.colours} colours`);
      const text = await page.locator(`[data-testid="slice-${slice}"] figcaption`).innerText();
      expect(/of\D*\d+ projections/.test(text.replaceAll('\u202f', '')), `it says "${text}"`);
      return `${before} to ${after} projections, ${seen.colours} colours`;
    });
  }
}

async function lightChecks(name) {
  await check(`${name}: light colours`, async () => {
    await page.emulateMedia({ colorScheme: 'light' });
    await eventually(
      () => page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)),
      ([r]) => r > 200,
      (seen) => `the background is ${seen}`,
    );
    await page.waitForTimeout(700);
    await shot(`${name}-light`);
    await page.emulateMedia({ colorScheme: 'dark' });
  });
}

async function connectionChecks() {
  await check('server gone: the badge says so and the page lives', async () => {
    quiet = false;
    await context.setOffline(true);
    await eventually(state, (now) => now === 'not connected', (now) => `the badge says "${now}"`);
    await page.waitForTimeout(1500);
    await shot('not-connected');
    expect((await page.locator('[data-testid="live-frame"]').count()) === 1, 'the picture is gone');
  });
  await check('server back: the page goes on by itself', async () => {
    await context.setOffline(false);
    const now = await eventually(state, (seen) => seen !== 'not connected', (seen) => `the badge says "${seen}"`);
    await page.waitForTimeout(500);
    quiet = true;
    return now;
  });
}

async function stopChecks() {
  await check('stop button ends the run early', async () => {
    await recording(options.techniques.split(','));
    await id('stop').click();
    await shot('stop-asked');
    await id('stop-confirm').click();
    await eventually(state, (now) => now !== 'recording', (now) => `the badge says "${now}"`);
    await eventually(
      () => page.locator('[data-testid="run-list"] [data-state="stopped"]').count(),
      (n) => n > 0,
      () => 'no run in the list is stopped',
    );
  });
}

try {
  await check('page opens', async () => {
    await page.goto(address, { waitUntil: 'load' });
    await eventually(state, (now) => now !== null && now !== 'not connected', (now) => `the badge says "${now}"`);
    return page.title();
  });
  const remaining = options.techniques.split(',');
  let opened = null;
  while (remaining.length > 0) {
    let name;
    if (!(await check('badge reaches recording', async () => (name = await recording(remaining))))) break;
    remaining.splice(remaining.indexOf(name), 1);
    if (opened !== null) {
      await check('the page went from run to run without being loaded again', async () => {
        expect((await page.evaluate(() => performance.timeOrigin)) === opened, 'it was loaded again');
      });
    }
    opened ??= await page.evaluate(() => performance.timeOrigin);
    await liveChecks(name);
    await shot(`${name}-live`);
    if (name === 'diffraction') await diffractionChecks();
    if (name === 'tomography') await tomographyChecks();
    await shot(name);
    await lightChecks(name);
    await controlChecks(name);
    await shot(`${name}-late`);
  }
  await connectionChecks();
  if (options.stop) await stopChecks();
  await check('no errors in the console', async () => {
    expect(complaints.length === 0, `${complaints.length}: ${[...new Set(complaints)].slice(0, 3).join(' | ')}`);
  });
  await check('no request to any other host', async () => {
    expect(strangers.size === 0, [...strangers].slice(0, 3).join(' '));
  });
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
