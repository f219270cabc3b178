import { describe, expect, it } from 'vitest';
import { beamCentre, convert, describePlace, geometryOf, niceRings, ring, twoTheta, twoThetaOfD, unitOf, type Geometry } from './geometry';

/** Positions, angles and scattering vectors by pyFAI (which has angles in single precision): upright, and with all three rotations. */
const BY_PYFAI: { geometry: Geometry; places: [column: number, row: number, twoThetaDeg: number, qPerNm: number][] }[] = [
  {
    geometry: {
      origin_m: [-0.0399625, -0.037962499999999996, 0.2],
      slow_m: [7.499999999999868e-05, 0.0, 0.0],
      fast_m: [0.0, 7.499999999999868e-05, 0.0],
      beam_center_px: null,
      wavelength_m: 1e-10,
    },
    places: [
      [0, 0, 15.4080581180778, 16.84595762646519],
      [1027, 1061, 15.544703029721491, 16.994440966839434],
      [500, 10, 11.09359609729376, 12.146495524477254],
      [13, 700, 11.0492847860431, 12.098129359059696],
    ],
  },
  {
    geometry: {
      origin_m: [0.027126809470879705, -0.009892366010147036, 0.2550691673157536],
      slow_m: [6.770258222816433e-05, 2.862419265713123e-05, -1.490019980965318e-05],
      fast_m: [-3.0639271466886137e-05, 6.788817873299574e-05, -8.79944499926344e-06],
      beam_center_px: null,
      wavelength_m: 1e-10,
    },
    places: [
      [0, 0, 6.458484624904522, 7.0787718490201215],
      [1027, 1061, 26.073873526014122, 28.347112380006386],
      [500, 10, 6.231161285838055, 6.829865980432545],
      [13, 700, 17.038007643267253, 18.61549960850427],
    ],
  },
];

describe('places on the detector', () => {
  it('have the angle and the scattering vector that pyFAI gives them', () => {
    for (const { geometry, places } of BY_PYFAI) {
      for (const [column, row, angle, q] of places) {
        const own = twoTheta(geometry, column + 0.5, row + 0.5);
        expect(own).toBeCloseTo(angle, 5);
        expect(convert(own, '2theta', 'q_nm', 1)).toBeCloseTo(q, 5);
      }
    }
  });

  it('lie on the ring of their angle', () => {
    for (const { geometry } of BY_PYFAI) {
      const places = ring(geometry, 12, 36).filter((place) => place !== null);
      expect(places).toHaveLength(37);
      for (const [x, y] of places) expect(twoTheta(geometry, x, y)).toBeCloseTo(12, 9);
      const [x, y] = beamCentre(geometry)!;
      expect(twoTheta(geometry, x, y)).toBeCloseTo(0, 9);
    }
  });

  it('are told with units, and not at all without a geometry', () => {
    const { geometry } = BY_PYFAI[0]!;
    expect(describePlace(geometry, 0.5, 0.5)).toEqual(['2θ 15.408°', 'q 16.846 nm⁻¹', 'd 3.730 Å']);
    expect(describePlace({ ...geometry, wavelength_m: null }, 0.5, 0.5)).toEqual(['2θ 15.408°']);
    expect(geometryOf({ geometry: null })).toBeNull();
    expect(geometryOf({ geometry: { ...geometry, origin_m: [0, 0] } })).toBeNull();
    expect(geometryOf({ geometry })).toEqual(geometry);
  });
});

describe('rings', () => {
  it('spread over the detector', () => {
    const { geometry } = BY_PYFAI[0]!;
    const rings = niceRings(geometry, 1028, 1062);
    expect(rings.length).toBeGreaterThanOrEqual(3);
    expect(rings.length).toBeLessThanOrEqual(6);
    for (const d of rings) expect(twoThetaOfD(d, 1)).toBeLessThan(12);
    expect(niceRings({ ...geometry, wavelength_m: null }, 1028, 1062)).toEqual([]);
  });
});

describe('axes', () => {
  it('come back from every unit', () => {
    for (const unit of ['q_A', '2theta', 'd'] as const) expect(convert(convert(12.5, 'q_nm', unit, 1), unit, 'q_nm', 1)).toBeCloseTo(12.5, 9);
    expect(convert(10, 'q_nm', 'd', null)).toBeCloseTo(2 * Math.PI, 9);
    expect(convert(10, 'q_nm', '2theta', null)).toBeNaN();
  });

  it('are known by the names that the interface uses', () => {
    expect([unitOf('q', '1/nm'), unitOf('q', '1/angstrom'), unitOf('2theta', 'deg'), unitOf('d', 'angstrom'), unitOf('r', 'mm')]).toEqual([
      'q_nm',
      'q_A',
      '2theta',
      'd',
      null,
    ]);
  });
});
