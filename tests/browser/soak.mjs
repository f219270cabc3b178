// The page beside a run of 1 kHz for a long time: node soak.mjs PICTURES BINARY FOLDER SECONDS
// Browser memory must stay flat, and what is shown must never be more than a second old.
import { Appliance } from './appliance.mjs';
import { check, conclude, expect, open } from './harness.mjs';

const [pictures, binary, folder, given] = process.argv.slice(2);
const seconds = Number(given ?? 1800);
const RATE_HZ = 1000;
/** between two looks at how old the page is, and between two at its memory */
const LOOK_MS = 1000;
const MEMORY_MS = 5000;
/** in which caches fill and code is compiled: what is seen meanwhile is not judged */
const WARM_MS = 20000;
/** growth of the heap, after collecting garbage, from the first third of the time to the last: what the page keeps (24 frames, 240 curves) fills up */
const GROWTH_BYTES_MAX = 4e6;

const SOURCE = `scene = "diffraction"
detector = "custom"
rows = 96
columns = 96
frames = ${Math.ceil((seconds + 120) * RATE_HZ)}
rate_hz = ${RATE_HZ}.0
distinct = 8
[recipe.powder]
technique = "diffraction"
operations = ["correct", "statistics", "azimuthal"]
[recipe.powder.azimuthal]
bins = 200
unit = "q_nm^-1"
`;

const appliance = await Appliance.start(binary, folder, 'soak', SOURCE);
const { page, close, picture } = await open(pictures, [appliance.url], { width: 1280, height: 800, colours: 'dark' });
const session = await page.context().newCDPSession(page);
await appliance.arm({ name: 'long' });
await page.goto(appliance.url, { waitUntil: 'domcontentloaded' });
await page.waitForFunction(() => Number(document.querySelector('[data-testid=live-frame]')?.dataset.frame ?? '') > 0);

const shown = () => page.evaluate(() => Number(document.querySelector('[data-testid=live-frame]').dataset.frame));
async function heapBytes() {
  await session.send('HeapProfiler.collectGarbage');
  return (await session.send('Runtime.getHeapUsage')).usedSize;
}

const ages = [];
const heaps = [];
await new Promise((resolve) => setTimeout(resolve, WARM_MS));
const begun = Date.now();
let nextMemory = begun + MEMORY_MS;
while (Date.now() < begun + 1000 * seconds) {
  // The page is asked first: what arrives between the two questions makes it look older, never younger.
  const frame = await shown();
  const { body } = await appliance.get('/status');
  const received = body.frames.complete + body.frames.partial;
  ages.push(Math.max(0, received - 1 - frame) / RATE_HZ);
  if (Date.now() >= nextMemory) {
    heaps.push(await heapBytes());
    nextMemory += MEMORY_MS;
  }
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
}
await picture('soak.png');

const sorted = [...ages].sort((a, b) => a - b);
const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const third = Math.max(1, Math.floor(heaps.length / 3));
const growth = mean(heaps.slice(-third)) - mean(heaps.slice(0, third));
const { body: end } = await appliance.get('/status');
console.log(`page: ${seconds} s at ${RATE_HZ} Hz, ${end.frames.complete} frames, ${end.frames.lost} lost, ${end.rate.frames_per_s.toFixed(0)} Hz at the end`);
console.log(`page: behind by ${at(0.5).toFixed(2)} s (median), ${at(0.99).toFixed(2)} s (p99), ${at(1).toFixed(2)} s (most) in ${ages.length} looks`);
console.log(`page: heap ${(heaps[0] / 1e6).toFixed(1)} MB first, ${(heaps[heaps.length - 1] / 1e6).toFixed(1)} MB last, ${(growth / 1e6).toFixed(1)} MB more from the first third to the last`);
await check('the page is never more than a second behind', async () => expect(at(1) <= 1, `${at(1)} s`));
await check('the memory of the browser is flat', async () => expect(heaps.length >= 3 && growth < GROWTH_BYTES_MAX, `${heaps.map((bytes) => (bytes / 1e6).toFixed(1)).join(', ')} MB`));
await check('no frame was lost beside it', async () => expect(end.frames.lost === 0 && end.state === 'recording', JSON.stringify(end.frames)));
await close();
await appliance.post('/runs/long/abort');
await appliance.stop();
conclude();
