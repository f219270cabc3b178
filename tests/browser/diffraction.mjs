// Diffraction on the page, on live simulated runs and on stored ones: node diffraction.mjs PICTURES BINARY FOLDER
import { readFileSync } from 'node:fs';
import { Appliance, DIFFRACTION } from './appliance.mjs';
import { check, conclude, expect, open } from './harness.mjs';

const [pictures, binary, folder] = process.argv.slice(2);
const appliance = await Appliance.start(binary, folder, 'lysozyme', DIFFRACTION);
const { page, close, picture } = await open(pictures, [appliance.url], { width: 1920, height: 1080, colours: 'dark' });
const address = (hash) => `${appliance.url}/#${hash}`;
const data = (testid, key) => page.getAttribute(`[data-testid=${testid}]`, `data-${key}`);
/** Waits until a function of the page's document, and of one value, is true. */
const becomes = (test, value) => page.waitForFunction(test, value);

/** The read-out under the pointer, at a share of the picture's width and height. */
async function readOut(x, y) {
  const box = await page.locator('.picture canvas').first().boundingBox();
  await page.mouse.move(box.x + x * box.width - 3, box.y + y * box.height);
  await page.mouse.move(box.x + x * box.width, box.y + y * box.height);
  await page.waitForSelector('.read-out');
  return page.locator('.read-out').innerText();
}

const numberAfter = (text, name) => Number(new RegExp(`${name}\\s+([\\d.]+)`).exec(text)?.[1] ?? Number.NaN);

/** Ends the run that records, by the page. */
async function stop(run) {
  await page.click('[data-testid=stop]');
  await page.click('[data-testid=stop-confirm]');
  await appliance.ended(run);
}

await appliance.arm({ name: 'first' });
await page.goto(appliance.url, { waitUntil: 'domcontentloaded' });

await check('the read-out has x, y, value, and angle, q and d as the geometry has them', async () => {
  await becomes(() => (document.querySelector('[data-testid=live-frame]')?.dataset.frame ?? '') !== '');
  const { body } = await appliance.get('/runs/first');
  const { beam_center_px: [row, column], origin_m: [, , distance], fast_m: [, pixel], wavelength_m } = body.record.parameters.geometry;
  const text = await readOut(0.7, 0.3);
  const [x, y] = [numberAfter(text, 'x'), numberAfter(text, 'y')];
  // The simulated detector stands upright: its own sum is a right-angled triangle.
  const angle = Math.atan(Math.hypot((x - column) * pixel, (y - row) * pixel) / distance);
  const q = ((4 * Math.PI) / (wavelength_m * 1e9)) * Math.sin(angle / 2);
  expect(Math.abs(numberAfter(text, '2θ') - (angle * 180) / Math.PI) < 0.002, `2θ: ${text}, expected ${(angle * 180) / Math.PI}`);
  expect(Math.abs(numberAfter(text, 'q') - q) < 0.002, `q: ${text}, expected ${q}`);
  expect(Math.abs(numberAfter(text, 'd') - (20 * Math.PI) / q) < 0.01, `d: ${text}`);
  expect(/counts|masked/.test(text), `no value: ${text}`);
});
await check('resolution rings are drawn, labelled in Å, and others when asked for', async () => {
  await page.waitForSelector('[data-testid=ring]', { state: 'attached' });
  expect(/Å/.test(await page.locator('.frame-marks text').first().textContent()), 'no label');
  await page.fill('input[aria-label^="Lattice spacings"]', '4.1, 2.7');
  await page.keyboard.press('Enter');
  await becomes(() => [...document.querySelectorAll('[data-testid=ring]')].map((ring) => ring.dataset.d).join() === '4.1,2.7');
  await page.fill('input[aria-label^="Lattice spacings"]', '');
  await page.keyboard.press('Enter');
  await becomes(() => document.querySelectorAll('[data-testid=ring]').length > 2);
});
await check('the beam is marked where the scattering angle is 0', async () => {
  const [x, y] = [Number(await data('beam-centre', 'x')), Number(await data('beam-centre', 'y'))];
  const box = await page.locator('.picture canvas').first().boundingBox();
  const text = await readOut(x / box.width, y / box.height);
  expect(numberAfter(text, '2θ') < 0.1, text);
});
await check('regions of interest are boxes on the frame, and their sums, means and largest counts are trends', async () => {
  await page.waitForSelector('[data-testid=region-box-corner] rect', { state: 'attached' });
  const canvas = await page.locator('.picture canvas').first().boundingBox();
  const rect = page.locator('[data-testid=region-box-corner] rect');
  const side = async (name) => Number(await rect.getAttribute(name));
  const [x, y, width, height] = [await side('x'), await side('y'), await side('width'), await side('height')];
  expect(Math.abs(width / height - 100 / 60) < 0.02, `${width} x ${height}`);
  // Just within the box is the region's first pixel; x and y are counted as the read-out counts them.
  const within = await readOut((x + 2) / canvas.width, (y + height - 2) / canvas.height);
  const outside = await readOut((x - 4) / canvas.width, (y + height - 2) / canvas.height);
  expect(numberAfter(within, 'x') >= 30 && numberAfter(outside, 'x') < 30, `${within} / ${outside}`);
  const edges = [numberAfter(within, 'y'), numberAfter(await readOut((x + 2) / canvas.width, (y + 2) / canvas.height), 'y')];
  expect(Math.min(...edges) >= 19.5 && Math.min(...edges) < 23 && Math.max(...edges) <= 80 && Math.max(...edges) > 77, `rows: ${edges}`);
  await becomes(() => Number(document.querySelector('[data-testid=region-trends]')?.dataset.frames ?? 0) > 5);
  const shown = () => Number(document.querySelector('[data-testid=region-corner]')?.dataset.value || Number.NaN);
  const sum = await page.evaluate(shown);
  await page.selectOption('select[aria-label="Value of the regions"]', 'mean');
  await becomes(() => Number(document.querySelector('[data-testid=region-corner]')?.dataset.value || Number.NaN) > 0);
  const mean = await page.evaluate(shown);
  // Another frame by now, of the same scene: a mean is a few thousandths of its sum.
  expect(mean > 0 && sum / mean > 1000, `sum ${sum}, mean ${mean}`);
  await picture('regions.png');
  await page.selectOption('select[aria-label="Value of the regions"]', 'counts');
  await page.click('.mark-controls label:has-text("Regions")');
  await becomes(() => document.querySelectorAll('.frame-marks .region').length === 0);
  await page.click('.mark-controls label:has-text("Regions")');
  await becomes(() => document.querySelectorAll('.frame-marks .region').length === 2);
});
await check('spots are drawn on the latest hit, as many as the interface has', async () => {
  await page.click('[role=radio]:has-text("Latest hit")');
  await becomes(() => document.querySelector('[data-testid=live-frame]').dataset.which === 'hit');
  await becomes(() => Number(document.querySelector('[data-testid=spots]')?.dataset.count ?? 0) >= 3);
  await becomes(() => [...document.querySelectorAll('.frame-panel .tag')].some((tag) => tag.textContent === 'hit'));
  await page.keyboard.press('Escape');
  await page.locator('button.pause').click();
  const frame = await data('live-frame', 'frame');
  await becomes(() => Number(document.querySelector('[data-testid=spots]')?.dataset.count ?? 0) >= 3);
  await picture('diffraction.png');
  const { body } = await appliance.get(`/runs/first/spots/${frame}`);
  expect(Number(await data('spots', 'count')) === body.spots.length, `${await data('spots', 'count')} drawn of ${body.spots?.length}`);
  await page.click('[role=radio]:has-text("Latest"):not(:has-text("hit"))');
});
await check('the curve is read in d, and curves pile up in the waterfall', async () => {
  await page.click('button:has-text("Waterfall")');
  await becomes(() => Number(document.querySelector('[data-testid=waterfall]')?.dataset.curves ?? 0) > 5);
  await picture('waterfall.png');
  await page.click('button:has-text("Waterfall")');
  await page.selectOption('select[aria-label="Unit of the axis"]', 'd');
  await page.hover('[data-testid=curve] .u-over');
  await becomes(() => /^d [\d.]+ Å/.test(document.querySelector('[data-testid=curve-read-out]').textContent));
  await page.selectOption('select[aria-label="Unit of the axis"]', '2theta');
  await page.mouse.move(5, 5);
  await page.hover('[data-testid=curve] .u-over');
  await becomes(() => /^2θ [\d.]+ °/.test(document.querySelector('[data-testid=curve-read-out]').textContent));
  await page.selectOption('select[aria-label="Unit of the axis"]', 'q_nm');
});
await check('decisions appear with their evidence, and somebody takes note of one', async () => {
  await becomes(() => Number(document.querySelector('[data-testid=decisions]').dataset.count) >= 2);
  expect(/hit_rate\(20\) = 0\.\d/.test(await page.locator('[data-rule=crystals] .decision-evidence').first().innerText()), 'no evidence');
  await page.locator('[data-rule=crystals] button').first().click();
  await page.waitForSelector('[data-rule=crystals] :text("noted by")');
});
await check('stages have their latencies, the store its room', async () => {
  await page.click('[data-testid=show-stages]');
  await becomes(() => /\d/.test(document.querySelector('[data-testid=stage-fluxline_batch_seconds] td:nth-child(2)')?.textContent ?? ''));
  expect(/free/.test(await page.locator('[data-testid=forecast]').innerText()), 'no forecast');
  await page.click('[data-testid=show-stages]');
});

await stop('first');
await appliance.arm({ name: 'second', sample: 'insulin' });
await becomes(() => document.querySelector('[data-testid=run-id]').textContent.trim() === 'second');
await check('paused, one steps back through the frames seen and on again', async () => {
  await becomes(() => Number(document.querySelector('[data-testid=live-frame]').dataset.frame) > 3);
  await page.locator('button.pause').click();
  const at = async () => Number(await data('live-frame', 'frame'));
  const newest = await at();
  await page.keyboard.press('ArrowLeft');
  await becomes((frame) => Number(document.querySelector('[data-testid=live-frame]').dataset.frame) < frame, newest);
  const before = await at();
  await page.keyboard.press('ArrowRight');
  await becomes((frame) => Number(document.querySelector('[data-testid=live-frame]').dataset.frame) > frame, before);
  expect((await at()) >= newest, 'not back at the newest');
  await page.locator('button.pause').click();
  await becomes((frame) => Number(document.querySelector('[data-testid=live-frame]').dataset.frame) > frame, newest);
});
await check('a frame that is paused is drawn anew by colour map, scale and mask', async () => {
  await page.locator('button.pause').click();
  const drawn = () => page.locator('.picture').first().screenshot({ timeout: 60000 });
  for (const [name, change] of [
    ['colour map', () => page.selectOption('select[aria-label="Colour map"]', 'Turbo')],
    ['scale', () => page.click('[role=radio]:has-text("Log")')],
    ['range', () => page.selectOption('select[aria-label="Range"]', '95')],
    ['masked pixels', () => page.fill('input[aria-label="Colour of mask pixels"]', '#00ff00')],
  ]) {
    // What was under way when it was paused arrives: then the picture stands still.
    let before = await drawn();
    for (let next = await drawn(); !next.equals(before); next = await drawn()) before = next;
    await change();
    let same = true;
    for (let turn = 0; turn < 100 && same; turn += 1) same = (await drawn()).equals(before);
    expect(!same, `${name}: the picture stayed as it was`);
  }
  await page.selectOption('select[aria-label="Colour map"]', 'Inferno');
  await page.click('[role=radio]:has-text("Sqrt")');
  await page.selectOption('select[aria-label="Range"]', '99.5');
  await page.locator('button.pause').click();
});
await check('runs are found by what they are', async () => {
  await page.fill('input[aria-label="Search runs"]', 'sample:lyso');
  await becomes(() => document.querySelector('[data-testid=run-list]').dataset.query === 'sample:lyso' &&
    document.querySelectorAll('[data-testid=run-list] .run').length === 1);
  await page.fill('input[aria-label="Search runs"]', 'sample:nothing');
  await page.waitForSelector(':text("No run fits")');
  await page.fill('input[aria-label="Search runs"]', '');
  await becomes(() => document.querySelectorAll('[data-testid=run-list] .run').length === 2);
});
await check('an address leads to a frame of a stored run', async () => {
  const { body } = await appliance.get('/runs/first/ledger?state=complete&first=12&limit=1');
  const frame = body.entries[0].frame_number;
  await page.goto(address(`/runs/first/frames?frame=${frame}`));
  await becomes((number) => document.querySelector('[data-testid=stored-frame]')?.dataset.frame === String(number), frame);
  await page.click('[data-testid=stored-frame] h2'); // away from the field of the search
  await page.keyboard.press('ArrowRight');
  await becomes((number) => location.hash.endsWith(`frame=${number + 1}`), frame);
});
await check('the ledger shows which frames were lost', async () => {
  await page.click('[data-testid=tab-ledger]');
  await becomes(() => document.querySelector('[data-testid=ledger]')?.dataset.ready === 'true');
  const lost = (await appliance.get('/runs/first/ledger?state=lost')).body.entries.map((entry) => entry.frame_number);
  expect(lost.length > 0, 'the simulated detector lost nothing');
  const first = await page.locator('[data-testid=ledger-ranges] li[data-state=lost] b').first().innerText();
  expect(Number(first.split('–')[0]) === lost[0], `${first}, not ${lost[0]}`);
  expect((await page.locator('[data-testid=ledger-strip] .lost').count()) > 0, 'the strip shows no loss');
  await picture('ledger.png');
  await page.locator('[data-testid=ledger-ranges] button').first().click();
  await page.waitForSelector('[data-testid=stored-frame]');
});
await check('frames, curves and files are saved', async () => {
  const save = async (selector) => {
    const [file] = await Promise.all([page.waitForEvent('download'), page.click(selector)]);
    return readFileSync(await file.path());
  };
  const { body } = await appliance.get('/runs/first/ledger?state=complete&limit=1');
  await page.goto(address(`/runs/first/frames?frame=${body.entries[0].frame_number}`));
  expect((await save('[data-testid=download-npy]')).subarray(1, 6).toString() === 'NUMPY', 'no .npy');
  expect((await save('[data-testid=download-tiff]')).subarray(0, 2).toString() === 'II', 'no TIFF');
  await page.click('[data-testid=tab-curves]');
  expect(/^q \(1\/nm\),intensity/.test((await save('[data-testid=download-csv]')).toString()), 'no table');
  await page.click('[data-testid=tab-files]');
  expect((await save('[data-file$="_master.h5"]')).subarray(1, 4).toString() === 'HDF', 'no HDF5');
});

await page.goto(address('/'));
await stop('second');
await check('mean curves of two runs lie over each other', async () => {
  await page.goto(address('/runs/first/curves'));
  await page.locator('.compare-runs label:has-text("insulin") input').check();
  await becomes(() => document.querySelector('[data-testid=compare]').dataset.curves === '2');
  await picture('compare.png');
});
await check('a mask is drawn and kept, and a run is processed again with it and with other parameters', async () => {
  const { body: ledger } = await appliance.get('/runs/first/ledger?state=complete&limit=1');
  await page.goto(address(`/runs/first/frames?frame=${ledger.entries[0].frame_number}`));
  await page.waitForSelector('[data-testid=stored-frame][data-frame]:not([data-frame=""])');
  await page.click('[data-testid=edit-mask]');
  await page.waitForSelector('[data-testid=mask-shapes]', { state: 'attached' }); // the tool is there
  const box = await page.locator('.picture canvas').first().boundingBox();
  const at = (x, y) => [box.x + x * box.width, box.y + y * box.height];
  // What was chosen reaches the canvas with its next picture, which is late on a busy machine: what was drawn before is no
  // shape, and is drawn once more.
  const shapes = async () => Number(await data('mask-shapes', 'count'));
  const draws = async (wanted, pointer) => {
    for (let turn = 0; (await shapes()) < wanted; turn += 1) {
      expect(turn < 8, `${await shapes()} shapes, fewer than ${wanted}`);
      await pointer();
      await page.waitForTimeout(1000);
    }
  };
  await draws(1, async () => {
    await page.mouse.move(...at(0.4, 0.3));
    await page.mouse.down();
    await page.mouse.move(...at(0.45, 0.35), { steps: 4 });
    await page.mouse.move(...at(0.5, 0.4), { steps: 4 });
    await page.mouse.up();
  });
  await page.click('[role=radio][aria-label=polygon]');
  await draws((await shapes()) + 1, async () => {
    for (const corner of [[0.6, 0.6], [0.66, 0.6]]) await page.mouse.click(...at(...corner));
    await page.mouse.dblclick(...at(0.63, 0.68));
  });
  await picture('mask.png');
  await page.click('[data-testid=save-mask]');
  await becomes(() => /it holds from the next run on/.test(document.querySelector('[data-testid=mask-said]').textContent));
  const { body: kept } = await appliance.get('/calibrations?kind=mask');
  expect(kept.total === 1 && kept.calibrations[0].unusable_pixels > 100, JSON.stringify(kept));

  await page.click('[data-testid=tab-reprocess]');
  await page.fill('input[aria-label="azimuthal.bins"]', '150');
  await page.fill('input[aria-label="Name of the new run"]', 'again');
  await page.click('[data-testid=reprocess-start]');
  await appliance.until('/runs/again', (run) => run.summary !== null && run.summary !== undefined);
  const curve = (await appliance.get('/runs/again/profiles/sum')).body;
  expect(curve.values.length === 150, `${curve.values.length} bins`);
  const masked = async (run) => {
    const file = await (await fetch(`${appliance.url}/api/v1/runs/${run}/mask.npy`)).arrayBuffer();
    const start = 10 + new DataView(file).getUint16(8, true);
    return new Uint32Array(file.slice(start)).reduce((sum, bits) => sum + (bits & 0x100 ? 1 : 0), 0);
  };
  const [before, after] = [await masked('first'), await masked('again')];
  expect(after > before + 100, `${before} pixels masked by a user before, ${after} after`);
});

await close();
await appliance.stop();
conclude();
