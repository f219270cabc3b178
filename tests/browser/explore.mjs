// Files of closed runs in h5web, on the page: node explore.mjs PICTURES BINARY FOLDER
import { Appliance, DIFFRACTION } from './appliance.mjs';
import { check, conclude, expect, open } from './harness.mjs';

const [pictures, binary, folder] = process.argv.slice(2);
const appliance = await Appliance.start(binary, folder, 'explored', DIFFRACTION.replace('rate_hz = 12.0', 'rate_hz = 0.0').replace('frames = 5000', 'frames = 60'));
const { page, close, picture } = await open(pictures, [appliance.url], { width: 1920, height: 1080, colours: 'dark' });
const asked = [];
page.on('request', (request) => asked.push(request.url()));

await appliance.arm({ name: 'seen' });
await appliance.until('/runs/seen', (run) => run.summary !== null && run.summary !== undefined);
await page.goto(`${appliance.url}/#/runs/seen/frames`, { waitUntil: 'domcontentloaded' });

await check('h5web is loaded when a file is opened, not before', async () => {
  await page.waitForSelector('[data-testid=tab-explore]');
  await page.waitForFunction(() => document.querySelector('.picture canvas') !== null);
  expect(!asked.some((url) => url.includes('HdfFile')), asked.find((url) => url.includes('HdfFile')));
  await page.click('[data-testid=tab-explore]');
  await page.waitForFunction(() => document.querySelector('[data-testid=explore]')?.dataset.file === 'seen_master.h5');
  await page.waitForSelector('.explore [role=tree]');
  expect(asked.some((url) => url.includes('HdfFile')), 'it came with the page');
});
await check('groups open, and a dataset shows its values', async () => {
  await page.click('.explore [role=treeitem]:has-text("entry")');
  await page.click('.explore [role=treeitem]:has-text("results")');
  await page.waitForFunction(() => [...document.querySelectorAll('.explore [role=treeitem]')].some((item) => /intensity/.test(item.textContent)));
  const names = await page.locator('.explore [role=treeitem]').allTextContents();
  expect(names.length > 8, names.join());
});
await check('a frame of the stored file is drawn, by a slice of it', async () => {
  // The group is marked as NeXus's, behind its name; the dataset within is not.
  const named = page.locator('.explore [role=treeitem]', { hasText: /^data/ });
  const closed = await named.count();
  await named.first().click();
  await page.waitForFunction((before) => [...document.querySelectorAll('.explore [role=treeitem]')].filter((item) => /^data/.test(item.textContent)).length > before, closed).catch(async () => {
    throw new Error((await page.locator('.explore [role=treeitem]').allTextContents()).join());
  });
  await page.locator('.explore [role=treeitem]', { hasText: /^data$/ }).first().click();
  await page.waitForFunction(() => document.querySelector('.explore canvas') !== null);
  await page.waitForFunction(() => performance.getEntriesByType('resource').some((entry) => /h5\/data\?.*selection=\d+%2C%3A%2C%3A/.test(entry.name)));
  const slices = asked.filter((url) => /h5\/data\?/.test(url) && /path=%2Fentry%2Fdata%2Fdata/.test(url));
  expect(slices.length > 0 && slices.every((url) => /selection=/.test(url)), slices.join(' '));
  await picture('explore.png');
});
await check('another file of the run is opened', async () => {
  await page.selectOption('.explore select', 'seen_data_000001.h5');
  await page.waitForFunction(() => document.querySelector('[data-testid=explore]').dataset.file === 'seen_data_000001.h5');
  await page.waitForFunction(() => performance.getEntriesByType('resource').some((entry) => /h5\/meta\?file=seen_data_000001.h5/.test(entry.name)));
  await page.waitForSelector('.explore [role=treeitem]:has-text("entry")');
});

await close();
await appliance.stop();
conclude();
