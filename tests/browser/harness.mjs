// What every test of the page in a real browser needs: a browser, checks that are counted, and what must not happen.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

let passed = 0;
let failed = 0;

export async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${String(error.message ?? error).split('\n').slice(0, 3).join(' ')}`);
  }
}

export function expect(condition, text) {
  if (!condition) throw new Error(text);
}

/** A page in a browser of its own; `origins` are the only ones that it may ask for anything. */
export async function open(pictures, origins, { colours = 'light', ...viewport } = { width: 1600, height: 900 }) {
  mkdirSync(pictures, { recursive: true });
  const profile = mkdtempSync(join(tmpdir(), 'fluxline-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.FLUXLINE_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    viewport,
    colorScheme: colours,
    acceptDownloads: true,
    args: ['--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--no-sandbox', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(60000);
  const errors = [];
  const foreign = [];
  // 'Not there yet', 'ended' and 'no longer in memory' are answers, and browsers log every one that is not 2xx.
  const answer = /^Failed to load resource|Unexpected response code: 40[149]/;
  page.on('console', (message) => message.type() === 'error' && !answer.test(message.text()) && errors.push(message.text()));
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('request', (request) => {
    const address = request.url();
    const own = origins.some((origin) => address.startsWith(origin));
    if (!own && !address.startsWith('data:') && !address.startsWith('blob:')) foreign.push(address);
  });
  const close = async () => {
    await check('no error on the console', async () => expect(errors.length === 0, errors[0]));
    await check('no request to any other host', async () => expect(foreign.length === 0, foreign[0]));
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  const picture = (name) => page.screenshot({ path: join(pictures, name), timeout: 60000 }).catch(() => {});
  return { page, profile, close, picture };
}

/** Says how many checks passed, and ends the process. */
export function conclude() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
