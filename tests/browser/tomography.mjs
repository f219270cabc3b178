// Tomography on the page, on a live simulated scan: node tomography.mjs PICTURES BINARY FOLDER
import { Appliance, TOMOGRAPHY } from './appliance.mjs';
import { check, conclude, expect, open } from './harness.mjs';

const [pictures, binary, folder] = process.argv.slice(2);
const appliance = await Appliance.start(binary, folder, 'phantom', TOMOGRAPHY);
const { page, close, picture } = await open(pictures, [appliance.url], { width: 1920, height: 1080 });
const becomes = (test, value) => page.waitForFunction(test, value);
const parameter = async (name) => (await appliance.get('/parameters')).body.parameters.find((one) => one.name === `backproject.${name}`).value;

await appliance.arm({ name: 'scan' });
await page.goto(appliance.url, { waitUntil: 'domcontentloaded' });

await check('three slices and an oblique one sharpen', async () => {
  await becomes(() => ['xy', 'xz', 'yz', 'oblique'].every((name) =>
    Number(document.querySelector(`[data-testid="slice-${name}"]`)?.dataset.projections ?? 0) > 20));
});
await check('a slice is moved by its number', async () => {
  const input = 'input[aria-label="xy row, number"]';
  await page.fill(input, '20');
  await page.press(input, 'Enter');
  for (let turn = 0; (await parameter('row')) !== 20; turn += 1) {
    expect(turn < 600, 'the row was not changed');
    await page.waitForTimeout(100);
  }
  await becomes(() => document.querySelector('[data-testid="parameter-backproject.row"]').dataset.value === '20');
});
await check('the oblique plane is turned with the slider', async () => {
  const before = await parameter('oblique_turn_deg');
  await page.focus('input[type=range][aria-label=turn]');
  // Faster than the answers come: none of them is lost.
  for (let press = 0; press < 5; press += 1) await page.keyboard.press('ArrowRight');
  for (let turn = 0; (await parameter('oblique_turn_deg')) !== before + 5; turn += 1) {
    expect(turn < 600, `turned to ${await parameter('oblique_turn_deg')}`);
    await page.waitForTimeout(100);
  }
});
await check('the axis that is found is told with its confidence', async () => {
  // It comes with half a turn, 75 seconds after the first frame.
  await page.waitForFunction(() => Number(document.querySelector('[data-testid=axis-estimate]')?.dataset.confidence || 0) > 0.5,
    undefined, { timeout: 180000 });
  expect(/axis 66\.\d+ px/.test(await page.locator('[data-testid=axis-estimate]').innerText()), await page.locator('[data-testid=axis-estimate]').innerText());
});
await check('the axis is nudged', async () => {
  const before = await parameter('rotation_axis_px');
  await page.click('button[aria-label="axis plus 1"]');
  for (let turn = 0; (await parameter('rotation_axis_px')) !== before + 1; turn += 1) {
    expect(turn < 600, 'the axis was not changed');
    await page.waitForTimeout(100);
  }
  await page.click('button[aria-label="axis plus 0.25"]');
  await becomes((value) => Number(document.querySelector('[data-testid="parameter-backproject.rotation_axis_px"]').dataset.value) === value, before + 1.25);
});
await picture('tomography.png');
await page.click('[data-testid=stop]');
await page.click('[data-testid=stop-confirm]');
await appliance.ended('scan');
await check('what has ended takes no changes', async () => {
  await becomes(() => document.querySelector('input[aria-label="xy row, number"]').disabled);
});
await check('slices of the stored run are shown and saved', async () => {
  await appliance.arm({ name: 'next' });
  await becomes(() => document.querySelector('[data-testid=run-id]').textContent.trim() === 'next');
  await page.goto(`${appliance.url}/#/runs/scan/slices`);
  await becomes(() => Number(document.querySelector('[data-testid="slice-xy"]')?.dataset.projections ?? 0) > 20);
  await page.click('[data-testid=tab-files]');
  const [file] = await Promise.all([page.waitForEvent('download'), page.click('[data-file="scan_xy.tiff"]')]);
  expect(file.suggestedFilename() === 'scan_xy.tiff', file.suggestedFilename());
});

await close();
await appliance.stop();
conclude();
