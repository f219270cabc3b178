// An appliance of its own with a simulated detector, and what a test asks of it beside the page.
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const SHARED = '[ring]\nslots = 64\nallow_transparent = true\n[feedback]\nlisten = "127.0.0.1:0"\n[[source]]\nkind = "simulate"\n';

export const DIFFRACTION = `scene = "diffraction"
detector = "custom"
rows = 514
columns = 514
frames = 5000
rate_hz = 12.0
distinct = 12
[source.faults]
drop = 0.04
seed = 7
[recipe.crystals]
technique = "diffraction"
operations = ["correct", "statistics", "spots", "hits", "azimuthal"]
[[recipe.crystals.statistics.regions]]
name = "corner"
row = 20
column = 30
rows = 60
columns = 100
[[recipe.crystals.statistics.regions]]
name = "beam"
row = 240
column = 240
rows = 30
columns = 30
[recipe.crystals.hits]
min_spots = 141
[recipe.crystals.azimuthal]
bins = 400
unit = "q_nm^-1"
[rule.crystals]
when = "hit_rate(20) > 0.01"
[rule.tenth]
when = "frame % 60 == 10"
`;

export const TOMOGRAPHY = `scene = "tomography"
rows = 96
columns = 128
frames = 6000
darks = 5
flats = 5
rate_hz = 40.0
rotation_axis_px = 66.25
range_deg = 360.0
[recipe.ct]
technique = "tomography"
operations = ["correct", "backproject"]
[recipe.ct.backproject]
filter = "hann"
axis = "propose"
oblique = true
rotation_axis_px = 63.5
history_mib = 32
`;

export class Appliance {
  /** Starts `binary` on a store in `folder` with this source, recipe and rules; answers when it listens. */
  static async start(binary, folder, name, text) {
    const place = join(folder, name);
    mkdirSync(place, { recursive: true });
    const config = join(place, 'fluxline.toml');
    writeFileSync(config, `[run]\nproposal = "beamtime"\nsample = "${name}"\n${SHARED}${text}[store]\npath = "${join(place, 'store')}"\n`);
    const child = spawn(binary, ['run', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    // Whatever ends this process, the appliance ends with it.
    process.on('exit', () => child.kill('SIGTERM'));
    process.on('SIGTERM', () => process.exit(1));
    let said = '';
    const url = await new Promise((resolve, reject) => {
      child.stderr.on('data', (piece) => {
        said += piece;
        const found = /listens at (http\S+)/.exec(said);
        if (found) resolve(found[1]);
      });
      child.on('exit', () => reject(new Error(`the appliance ended: ${said}`)));
    });
    return new Appliance(child, url);
  }

  constructor(child, url) {
    this.child = child;
    this.url = url;
  }

  async get(path) {
    const response = await fetch(`${this.url}/api/v1${path}`);
    return { status: response.status, body: await response.json() };
  }

  async post(path, body = {}) {
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  /** Arms a run; it records as soon as it is armed. */
  async arm(body) {
    const { status, body: answer } = await this.post('/runs', body);
    if (status !== 201) throw new Error(`the run was not armed: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Asks until the answer is as wanted, for a minute or two at most. */
  async until(path, wanted) {
    for (let turn = 0; turn < 600; turn += 1) {
      const { body } = await this.get(path);
      if (wanted(body)) return body;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error(`${path} did not become what was waited for`);
  }

  async ended(run) {
    return this.until(`/runs/${run}`, (body) => body.summary !== null && body.summary !== undefined);
  }

  stop() {
    const gone = new Promise((resolve) => this.child.on('exit', resolve));
    this.child.kill('SIGTERM');
    return gone;
  }
}
