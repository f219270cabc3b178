/** NumPy's `.npy` format, versions 1 to 3: little-endian, C-ordered, plain numbers. */

export interface NpyArray {
  shape: number[];
  /** NumPy's name without byte order, e.g. `u2` */
  dtype: string;
  data: NumberArray;
}

export type NumberArray =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Float32Array
  | Float64Array;

const KINDS: Record<string, new (bytes: ArrayBuffer, offset?: number, length?: number) => NumberArray> = {
  b1: Uint8Array,
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i1: Int8Array,
  i2: Int16Array,
  i4: Int32Array,
  f4: Float32Array,
  f8: Float64Array,
};

export function parseNpy(bytes: ArrayBuffer): NpyArray {
  const view = new DataView(bytes);
  if (bytes.byteLength < 10 || view.getUint32(0) !== 0x934e554d || view.getUint16(4) !== 0x5059) {
    throw new Error('not a .npy file');
  }
  const long = view.getUint8(6) >= 2;
  const headerLength = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = (long ? 12 : 10) + headerLength;
  if (start > bytes.byteLength) throw new Error('.npy file ends within its header');
  const header = new TextDecoder('latin1').decode(new Uint8Array(bytes, start - headerLength, headerLength));

  const descr = /'descr':\s*'([<>|=])?([a-z]\d+)'/.exec(header);
  const order = /'fortran_order':\s*(True|False)/.exec(header);
  const dims = /'shape':\s*\(([^)]*)\)/.exec(header);
  if (!descr || !order || !dims) throw new Error(`.npy header not understood: ${header.trim()}`);
  const dtype = descr[2] ?? '';
  if (descr[1] === '>' && !dtype.endsWith('1')) throw new Error('.npy file is big-endian');
  if (order[1] === 'True') throw new Error('.npy file is in Fortran order');
  const Kind = KINDS[dtype];
  if (!Kind) throw new Error(`.npy file holds ${dtype}, expected plain numbers`);

  const shape = (dims[1] ?? '')
    .split(',')
    .map((text) => text.trim())
    .filter(Boolean)
    .map(Number);
  const length = shape.reduce((product, n) => product * n, 1);
  const size = Number(dtype.slice(1));
  if (bytes.byteLength < start + length * size) {
    throw new Error(`.npy file is short: ${bytes.byteLength - start} bytes of ${length * size}`);
  }
  // A view where alignment allows it, which it does for every writer that pads its header as NumPy asks.
  const data = start % size === 0 ? new Kind(bytes, start, length) : new Kind(bytes.slice(start, start + length * size));
  return { shape, dtype, data };
}

/** A `.npy` file, version 1.0, of a two-dimensional array of 32-bit unsigned integers. */
export function encodeNpy(values: Uint32Array, rows: number, columns: number): Uint8Array<ArrayBuffer> {
  const text = `{'descr': '<u4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const start = 64 * Math.ceil((10 + text.length + 1) / 64);
  const file = new Uint8Array(start + 4 * values.length);
  file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, (start - 10) & 255, (start - 10) >> 8]);
  file.set(new TextEncoder().encode(`${text.padEnd(start - 11)}\n`), 10);
  const view = new DataView(file.buffer, start);
  values.forEach((value, index) => view.setUint32(4 * index, value, true));
  return file;
}
