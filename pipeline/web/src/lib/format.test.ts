import { describe, expect, it } from 'vitest';
import { bytes, bytesPerSecond, count, duration, latency, moment, number, rate, share, symbol, unit } from './format';

const plain = (text: string) => text.replace(/\u202f/g, ' ');

describe('format', () => {
  it('groups counts', () => {
    expect(plain(count(0))).toBe('0');
    expect(plain(count(1234567))).toBe('1 234 567');
    expect(plain(count(-1234))).toBe('−1 234');
    expect(count(null)).toBe('–');
    expect(count(Number.NaN)).toBe('–');
  });

  it('keeps few digits of any value', () => {
    expect(plain(number(65535))).toBe('65 535');
    expect(number(0)).toBe('0');
    expect(number(3.14159)).toBe('3.142');
    expect(number(0.000012345)).toBe('1.234e−5');
    expect(number(1.5e9)).toBe('1.500e9');
    expect(number(-0.25)).toBe('−0.2500');
    expect(number(Number.NaN)).toBe('–');
  });

  it('chooses the unit before rounding would overflow it', () => {
    expect(bytesPerSecond(4.21e9)).toEqual(['4.21', 'GB/s']);
    expect(bytesPerSecond(999.7e6)).toEqual(['1.00', 'GB/s']);
    expect(bytes(0)).toEqual(['0', 'B']);
    expect(rate(497.6)).toEqual(['498', 'Hz']);
    expect(rate(12_340)).toEqual(['12.3', 'kHz']);
    expect(latency(420)).toEqual(['420', 'µs']);
    expect(latency(1820)).toEqual(['1.82', 'ms']);
    expect(latency(0)).toEqual(['–', 'ms']);
  });

  it('never rounds a share to all or nothing', () => {
    expect(share(0, 10)).toBe('0 %');
    expect(share(1, 1_000_000)).toBe('<0.01 %');
    expect(share(999_999, 1_000_000)).toBe('99.9 %');
    expect(share(10, 10)).toBe('100 %');
    expect(share(1, 0)).toBe('–');
  });

  it('writes units and symbols of the field', () => {
    expect(unit('nm^-1')).toBe('nm⁻¹');
    expect(unit('A^-1')).toBe('Å⁻¹');
    expect(unit('deg')).toBe('°');
    expect(unit('1/px')).toBe('px⁻¹');
    expect(unit('1/angstrom')).toBe('Å⁻¹');
    expect(symbol('2theta')).toBe('2θ');
    expect(symbol('q')).toBe('q');
  });

  it('tells times', () => {
    const now = new Date(2026, 10, 23, 12, 0, 0);
    expect(moment(new Date(2026, 10, 23, 9, 5, 7).toISOString(), now)).toBe('09:05:07');
    expect(moment(new Date(2026, 10, 22, 9, 5, 7).toISOString(), now)).toBe('22 Nov 09:05');
    expect(moment('nonsense', now)).toBe('–');
    expect(duration(42)).toBe('42 s');
    expect(duration(600)).toBe('10 min');
  });
});
