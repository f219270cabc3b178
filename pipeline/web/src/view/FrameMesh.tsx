/**
 * The pixels of a picture as coloured squares, within `@h5web/lib`'s canvas.
 *
 * h5web's own `HeatmapMesh` has one colour for everything that is not shown, draws counts of 0 with it on a logarithmic
 * scale, and makes a new texture and shader for every array. A live detector needs masked and saturated pixels apart,
 * zeros dark, and memory that stays flat for days: so this mesh keeps one material and refills its textures.
 */

import { useThree } from '@react-three/fiber';
import { INTERPOLATORS, VisMesh, type ColorMap } from '@h5web/lib';
import { useEffect, useLayoutEffect, useMemo } from 'react';
import { DataTexture, DoubleSide, FloatType, NearestFilter, RedFormat, RGBAFormat, ShaderMaterial, UnsignedByteType, Vector3 } from 'three';
import { fits, REJECTED_BITS, rgb, type Mask, type Picture, type Range, type Scale } from '../lib/picture';

const COLOURS = 256;
const SCALE_CODES: Record<Scale, number> = { linear: 0, log: 1, sqrt: 2 };

const VERTEX = `
  varying vec2 at;
  void main() {
    at = uv;
    gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
  }
`;

const FRAGMENT = `
  uniform sampler2D values;
  uniform sampler2D rejected;
  uniform sampler2D colours;
  uniform vec3 maskedColour;
  uniform vec3 saturatedColour;
  uniform float saturation;
  uniform float low;
  uniform float high;
  uniform int scale;
  varying vec2 at;

  float scaled(float value) {
    if (scale == 1) return log(max(value, 1e-30));
    if (scale == 2) return sqrt(max(value, 0.0));
    return value;
  }

  void main() {
    float value = texture2D(values, at).r;
    if (texture2D(rejected, at).r > 0.5 || isnan(value)) {
      gl_FragColor = vec4(maskedColour, 1.0);
    } else if (value >= saturation) {
      gl_FragColor = vec4(saturatedColour, 1.0);
    } else {
      float place = clamp((scaled(value) - scaled(low)) / (scaled(high) - scaled(low)), 0.0, 1.0);
      gl_FragColor = texture2D(colours, vec2(place, 0.5));
    }
  }
`;

export interface FrameMeshProps {
  picture: Picture;
  range: Range;
  scale: Scale;
  colourMap: ColorMap;
  invert: boolean;
  /** null where masked pixels are shown like others */
  mask: Mask | null;
  maskedColour: string;
  /** null where saturated pixels are shown like others */
  saturation: number | null;
  saturatedColour: string;
}

class Surface {
  readonly material: ShaderMaterial;
  private readonly values = texture(RedFormat, FloatType);
  private readonly rejected = texture(RedFormat, UnsignedByteType);
  private readonly colours = texture(RGBAFormat, UnsignedByteType);

  constructor() {
    this.material = new ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      side: DoubleSide,
      uniforms: {
        values: { value: this.values },
        rejected: { value: this.rejected },
        colours: { value: this.colours },
        maskedColour: { value: new Vector3() },
        saturatedColour: { value: new Vector3() },
        saturation: { value: Infinity },
        low: { value: 0 },
        high: { value: 1 },
        scale: { value: 0 },
      },
    });
  }

  set(name: string, value: number): void {
    this.material.uniforms[name]!.value = value;
  }

  setColour(name: string, hex: string): void {
    (this.material.uniforms[name]!.value as Vector3).set(...rgb(hex));
  }

  showValues(picture: Picture): void {
    refill(this.values, picture.values, picture.columns, picture.rows);
  }

  showMask(mask: Mask | null): void {
    if (!mask) return refill(this.rejected, new Uint8Array(1), 1, 1);
    const flags = Uint8Array.from(mask.bits, (bits) => (bits & REJECTED_BITS ? 255 : 0));
    refill(this.rejected, flags, mask.columns, mask.rows);
  }

  showColours(map: ColorMap, invert: boolean): void {
    const interpolate = INTERPOLATORS[map];
    const colours = new Uint8Array(4 * COLOURS);
    for (let i = 0; i < COLOURS; i += 1) {
      const place = i / (COLOURS - 1);
      colours.set([...cssRgb(interpolate(invert ? 1 - place : place)), 255], 4 * i);
    }
    refill(this.colours, colours, COLOURS, 1);
  }

  dispose(): void {
    for (const part of [this.material, this.values, this.rejected, this.colours]) part.dispose();
  }
}

function texture(format: typeof RedFormat | typeof RGBAFormat, type: typeof FloatType | typeof UnsignedByteType): DataTexture {
  const data = type === FloatType ? new Float32Array(1) : new Uint8Array(4);
  const made = new DataTexture(data, 1, 1, format, type);
  made.magFilter = NearestFilter;
  made.minFilter = NearestFilter;
  made.needsUpdate = true;
  return made;
}

function refill(target: DataTexture, data: Float32Array | Uint8Array, width: number, height: number): void {
  const { image } = target;
  // Storage on the graphics card has one size for life.
  if (image.width !== width || image.height !== height) target.dispose();
  target.image = { data, width, height } as typeof image;
  target.needsUpdate = true;
}

/** d3's colours come as "#rrggbb" or "rgb(r, g, b)". */
function cssRgb(text: string): [number, number, number] {
  if (text.startsWith('#')) {
    const [red, green, blue] = rgb(text);
    return [red * 255, green * 255, blue * 255];
  }
  const [red = 0, green = 0, blue = 0] = (text.match(/[\d.]+/g) ?? []).map(Number);
  return [red, green, blue];
}

export function FrameMesh(props: FrameMeshProps) {
  const { picture, range, scale, colourMap, invert, mask, maskedColour, saturation, saturatedColour } = props;
  const invalidate = useThree((state) => state.invalidate);
  const surface = useMemo(() => new Surface(), []);
  useEffect(() => () => surface.dispose(), [surface]);

  const shownMask = fits(mask, picture.rows, picture.columns) ? mask : null;
  useLayoutEffect(() => surface.showValues(picture), [surface, picture]);
  useLayoutEffect(() => surface.showMask(shownMask), [surface, shownMask]);
  useLayoutEffect(() => surface.showColours(colourMap, invert), [surface, colourMap, invert]);
  useLayoutEffect(() => {
    surface.set('low', range[0]);
    surface.set('high', range[1]);
    surface.set('scale', SCALE_CODES[scale]);
    // A uniform of infinity is undefined on some drivers; no single-precision count reaches this.
    surface.set('saturation', saturation ?? 3e38);
    surface.setColour('maskedColour', maskedColour);
    surface.setColour('saturatedColour', saturatedColour);
    invalidate();
  });

  // The first row is at the top, as the detector writes it.
  return (
    <VisMesh scale={[1, -1, 1]}>
      <primitive object={surface.material} attach="material" />
    </VisMesh>
  );
}
