// The page in a real browser on a running demo: node page.mjs URL PICTURES BINARY STORE
// Both techniques come round by themselves; every wait is bounded.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { check, conclude, expect, open } from './harness.mjs';

const [url, pictures, binary, store] = process.argv.slice(2);
const { page, profile, close, picture } = await open(pictures, [url]);

const technique = (name) => page.waitForSelector(`[data-testid=main][data-technique=${name}]`, { timeout: 60000 });
const value = (testid, attribute) => page.getAttribute(`[data-testid=${testid}]`, attribute);

await page.goto(url, { waitUntil: 'domcontentloaded' });
await check('the badge says what the appliance does', async () => {
  await page.waitForSelector('[data-testid=state-badge][data-state=recording]');
});
await check('diffraction: the frame counter grows', async () => {
  await technique('diffraction');
  const before = Number(await value('frames-complete', 'data-value'));
  await page.waitForFunction(
    (seen) => Number(document.querySelector('[data-testid=frames-complete]')?.dataset.value ?? seen) !== seen, before);
});
await check('diffraction: frame and curve are drawn', async () => {
  await page.waitForSelector('.picture canvas');
  await page.waitForSelector('.uplot canvas');
});
await check('diffraction: scalars are plotted against frame number', async () => {
  await page.waitForFunction(() => /\d/.test(document.querySelector('.trend-value')?.textContent ?? ''));
});
await page.waitForTimeout(2500);
await picture('demo-diffraction.png');
await check('tomography: slices appear and say on how many projections they rest', async () => {
  await technique('tomography');
  await page.waitForFunction(
    () => ['xy', 'xz', 'yz'].every((name) =>
      Number(document.querySelector(`[data-testid=slice-${name}]`)?.dataset.projections ?? 0) > 100));
});
await picture('demo-tomography.png');
await check('a token is asked for once there is one; with it the page is as before, and a viewer may not stop', async () => {
  const config = join(profile, 'tokens.toml');
  writeFileSync(config, `[[source]]\nkind = "simulate"\nscene = "pattern"\n[store]\npath = "${store}"\n` +
    '[recipe.look]\ntechnique = "diffraction"\noperations = ["statistics"]\n');
  const create = (name, role) =>
    execFileSync(binary, ['token', 'create', name, '--role', role, '--config', config], { stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim();
  const viewer = create('control-room', 'viewer');
  await page.waitForSelector('[data-testid=login]');
  expect((await page.locator('.picture').count()) === 0, 'pictures stay on a page that is logged out');
  await page.fill('#token', 'fluxline_wrong');
  await page.click('[data-testid=login] button');
  await page.waitForFunction(() => /does not hold/.test(document.querySelector('[data-testid=login-problem]')?.textContent ?? ''));
  await page.fill('#token', viewer);
  await page.click('[data-testid=login] button');
  await page.waitForSelector('[data-testid=state-badge][data-state=recording]');
  await page.waitForSelector('.picture canvas');
  await page.waitForFunction(() => /\d/.test(document.querySelector('.trend-value')?.textContent ?? '') || document.querySelector('[data-testid=slice-xy]'));
  expect(await page.isDisabled('[data-testid=stop]'), 'a viewer may stop');
  expect(!page.url().includes(viewer), 'the token is in the address');
  // Looking is all that a viewer may do, wherever the page offers more.
  const run = (await page.textContent('[data-testid=run-id]')).trim();
  await page.goto(`${url}/#/runs/${run}/reprocess`);
  await page.waitForSelector('[data-testid=reprocess]');
  expect(await page.isDisabled('[data-testid=reprocess-start]'), 'a viewer may reprocess');
  await page.click('[data-testid=tab-frames]');
  await page.click('[data-testid=edit-mask]');
  expect(await page.isDisabled('[data-testid=save-mask]'), 'a viewer may keep a mask');
  expect((await page.locator('.decision button').count()) === 0, 'a viewer may take note');
  await page.click('[data-testid=logout]');
  await page.waitForSelector('[data-testid=login]');
});
await close();
conclude();
