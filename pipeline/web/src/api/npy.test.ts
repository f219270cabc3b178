import { describe, expect, it } from 'vitest';
import { parseNpy } from './npy';

function npy(descr: string, shape: string, payload: Uint8Array, options: { version?: number; pad?: number } = {}): ArrayBuffer {
  const { version = 1, pad = 64 } = options;
  const prefix = version === 1 ? 10 : 12;
  let header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape}), }`;
  header = `${header.padEnd(Math.ceil((prefix + header.length + 1) / pad) * pad - prefix - 1)}\n`;
  const bytes = new Uint8Array(prefix + header.length + payload.length);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0]);
  const view = new DataView(bytes.buffer);
  if (version === 1) view.setUint16(8, header.length, true);
  else view.setUint32(8, header.length, true);
  bytes.set(new TextEncoder().encode(header), prefix);
  bytes.set(payload, prefix + header.length);
  return bytes.buffer;
}

const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer as ArrayBuffer);

describe('parseNpy', () => {
  it('reads a little-endian uint16 picture', () => {
    const array = parseNpy(npy('<u2', '2, 3', bytesOf(new Uint16Array([1, 2, 3, 4, 5, 65535]))));
    expect(array.shape).toEqual([2, 3]);
    expect([...array.data]).toEqual([1, 2, 3, 4, 5, 65535]);
  });

  it('reads the trailing comma that Fluxline writes, and one-byte types without byte order', () => {
    const array = parseNpy(npy('|u1', '2, 2,', new Uint8Array([9, 8, 7, 6])));
    expect(array.shape).toEqual([2, 2]);
    expect(array.dtype).toBe('u1');
  });

  it('reads format version 2 and a header that leaves the payload unaligned', () => {
    const values = new Float32Array([1.5, -2, Number.NaN]);
    const array = parseNpy(npy('<f4', '3,', bytesOf(values), { version: 2, pad: 1 }));
    expect([...array.data]).toEqual([1.5, -2, Number.NaN]);
  });

  it('says what is wrong with a file that it cannot read', () => {
    expect(() => parseNpy(new ArrayBuffer(4))).toThrow('not a .npy file');
    expect(() => parseNpy(npy('>u2', '1,', new Uint8Array(2)))).toThrow('big-endian');
    expect(() => parseNpy(npy('<c8', '1,', new Uint8Array(8)))).toThrow('c8');
    expect(() => parseNpy(npy('<u4', '4,', new Uint8Array(8)))).toThrow('short: 8 bytes of 16');
  });
});
