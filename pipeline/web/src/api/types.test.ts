import { describe, expect, it } from 'vitest';
import openapi from '../../../../openapi.json?raw';
import types from './types.ts?raw';

/** What this page calls by another name than the interface's description, and what that calls several things. */
const NAMES: Record<string, string[]> = {
  Parameter: ['ParameterInfo'],
  LedgerEntry: ['Entry'],
  RunEvent: ['Event'],
  ErrorBody: ['ApiError'],
  Keep: ['KeepStatus'],
  // Its counts are the tracker's, which the description leaves open.
  FrameCounts: [],
  Occupancy: ['StatusQueue'],
};

interface Schema {
  properties?: Record<string, unknown>;
  allOf?: Schema[];
}

describe('what the page reads', () => {
  it('is in the description of the interface', () => {
    const { schemas } = (JSON.parse(openapi) as { components: { schemas: Record<string, Schema> } }).components;
    const interfaces = [...types.matchAll(/export interface (\w+) \{\n([\s\S]*?)\n\}/g)];
    expect(interfaces.length).toBeGreaterThan(20);
    for (const [, name = '', body = ''] of interfaces) {
      for (const described of NAMES[name] ?? [name]) {
        const schema = schemas[described];
        expect(schema, `${name}: there is no ${described}`).toBeDefined();
        const known = [schema!, ...(schema!.allOf ?? [])].flatMap((part) => Object.keys(part.properties ?? {}));
        // Fields of the interface itself stand two spaces in.
        const fields = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, field]) => field);
        for (const field of fields) expect(known, `${name}.${field}`).toContain(field);
      }
    }
  });
});
