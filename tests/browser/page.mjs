// The page in a real browser on a running demo: node page.mjs URL PICTURES
// Both techniques come round by themselves; every wait is bounded.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [url, pictures] = process.argv.slice(2);
mkdirSync(pictures, { recursive: true });
const profile = mkdtempSync(join(tmpdir(), 'fluxline-browser-'));
let passed = 0;
let failed = 0;

async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n        ${String(error.message ?? error).split('\n')[0]}`);
  }
}

function expect(condition, text) {
  if (!condition) throw new Error(text);
}

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.FLUXLINE_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1600, height: 900 },
  args: ['--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--no-sandbox', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(60000);
const errors = [];
const foreign = [];
// 'Not there yet' is an answer, and browsers log every one that is not 2xx.
page.on('console', (message) =>
  message.type() === 'error' && !message.text().startsWith('Failed to load resource') && errors.push(message.text()));
page.on('pageerror', (error) => errors.push(String(error)));
page.on('request', (request) => {
  const address = request.url();
  if (!address.startsWith(url) && !address.startsWith('data:') && !address.startsWith('blob:')) foreign.push(address);
});

const technique = (name) => page.waitForSelector(`[data-testid=main][data-technique=${name}]`, { timeout: 60000 });
const value = (testid, attribute) => page.getAttribute(`[data-testid=${testid}]`, attribute);

const drawn = () => page.locator('.picture').first().screenshot({ timeout: 60000 });

await page.goto(url, { waitUntil: 'domcontentloaded' });
await check('the badge says what the appliance does', async () => {
  await page.waitForSelector('[data-testid=state-badge][data-state=recording]');
});
await check('diffraction: the frame counter grows', async () => {
  await technique('diffraction');
  const before = Number(await value('frames-complete', 'data-value'));
  await page.waitForFunction(
    (low) => Number(document.querySelector('[data-testid=frames-complete]').dataset.value) > low, before);
});
await check('diffraction: frame and curve are drawn', async () => {
  await page.waitForSelector('.picture canvas');
  await page.waitForSelector('.uplot canvas');
});
await check('diffraction: scalars are plotted against frame number', async () => {
  await page.waitForFunction(() => /\d/.test(document.querySelector('.trend-value')?.textContent ?? ''));
});
await page.waitForTimeout(2500);
await page.screenshot({ path: join(pictures, 'diffraction.png'), timeout: 60000 }).catch(() => {});
await check('a frame that is paused is drawn anew by colour map, scale and mask', async () => {
  await page.click('button.pause');
  await page.waitForTimeout(1000); // what was under way arrives
  for (const [name, change] of [
    ['colour map', () => page.selectOption('select[aria-label="Colour map"]', 'Turbo')],
    ['log scale', () => page.click('[role=radio]:has-text("Log")')],
    ['mask', () => page.click('label:has-text("Mask") input[type=checkbox]')],
  ]) {
    const before = await drawn();
    await change();
    const until = Date.now() + 20000;
    while ((await drawn()).equals(before)) {
      expect(Date.now() < until, `${name}: the picture stayed as it was`);
      await page.waitForTimeout(300);
    }
  }
});
await check('tomography: slices appear and say on how many projections they rest', async () => {
  await technique('tomography');
  await page.waitForFunction(
    () => ['xy', 'xz', 'yz'].every((name) =>
      Number(document.querySelector(`[data-testid=slice-${name}]`)?.dataset.projections ?? 0) > 100));
});
await page.screenshot({ path: join(pictures, 'tomography.png'), timeout: 60000 }).catch(() => {});
await check('no error on the console', async () => expect(errors.length === 0, errors[0]));
await check('no request to any other host', async () => expect(foreign.length === 0, foreign[0]));

await context.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
