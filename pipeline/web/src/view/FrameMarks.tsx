/** What is drawn over a frame: resolution rings, the beam's centre, spots, regions of interest. Vectors, so that they stay thin when zoomed. */

import { SvgElement, useCameraState, useVisCanvasContext } from '@h5web/lib';
import { Vector3 } from 'three';
import { beamCentre, ring, twoThetaOfD, type Geometry } from '../lib/geometry';
import type { Spot } from '../api/types';
import { REGION_COLOURS, type Region } from '../lib/regions';

export interface FrameMarksProps {
  geometry: Geometry | null;
  /** lattice spacings, Å */
  rings: number[];
  centre: boolean;
  spots: Spot[];
  regions: Region[];
}

interface Marks {
  rings: { d: number; path: string; label: [number, number] | null }[];
  centre: [number, number] | null;
  spots: [number, number][];
  regions: { name: string; from: [number, number]; to: [number, number] }[];
}

const SPOT_RADIUS = 6;
const CENTRE_ARM = 9;

export function FrameMarks({ geometry, rings, centre, spots, regions }: FrameMarksProps) {
  const { dataToHtml, canvasSize } = useVisCanvasContext();
  const key = rings.join(' ');
  const marks = useCameraState<Marks>(
    (camera) => {
      const place = ([x, y]: [number, number]): [number, number] => {
        const at = dataToHtml(camera, new Vector3(x, y, 0));
        return [Math.round(10 * at.x) / 10, Math.round(10 * at.y) / 10];
      };
      const onCanvas = ([x, y]: [number, number]) => x > 4 && x < canvasSize.width - 60 && y > 16 && y < canvasSize.height - 6;
      const wavelengthA = (geometry?.wavelength_m ?? Number.NaN) * 1e10;
      const drawn = (geometry ? rings : []).map((d) => {
        const places = ring(geometry!, twoThetaOfD(d, wavelengthA)).map((at) => at && place(at));
        const path = places
          .map((at, index) => (at === null ? '' : `${index === 0 || places[index - 1] === null ? 'M' : 'L'}${at[0]} ${at[1]}`))
          .join('');
        return { d, path, label: labelPlace(places, onCanvas) };
      });
      const beam = geometry && centre ? beamCentre(geometry) : null;
      return {
        rings: drawn.filter(({ path }) => path !== '' && !path.includes('NaN')),
        centre: beam ? place(beam) : null,
        // A spot counts from the centre of its pixel, the picture from the corner.
        spots: spots.map(({ row, column }) => place([column + 0.5, row + 0.5])),
        regions: regions.map(({ name, row, column, rows, columns }) => {
          const [first, second] = [place([column, row]), place([column + columns, row + rows])];
          const corner = (pick: (...values: number[]) => number): [number, number] => [pick(first[0], second[0]), pick(first[1], second[1])];
          return { name, from: corner(Math.min), to: corner(Math.max) };
        }),
      };
    },
    [dataToHtml, canvasSize, geometry, key, centre, spots, regions],
    (last, next) => JSON.stringify(last) === JSON.stringify(next),
  );
  return (
    <SvgElement>
      <g className="frame-marks">
        {marks.rings.map(({ d, path, label }) => (
          <g key={d} className="ring" data-testid="ring" data-d={d}>
            <path d={path} />
            {label && (
              <text x={label[0] + 4} y={label[1] - 4}>
                {d} Å
              </text>
            )}
          </g>
        ))}
        {marks.centre && (
          <path
            className="centre"
            data-testid="beam-centre"
            data-x={marks.centre[0]}
            data-y={marks.centre[1]}
            d={`M${marks.centre[0] - CENTRE_ARM} ${marks.centre[1]}h${2 * CENTRE_ARM}m${-CENTRE_ARM} ${-CENTRE_ARM}v${2 * CENTRE_ARM}`}
          />
        )}
        {marks.regions.map(({ name, from, to }, index) => (
          <g key={name} className="region" data-testid={`region-box-${name}`} style={{ stroke: REGION_COLOURS[index] }}>
            <rect x={from[0]} y={from[1]} width={to[0] - from[0]} height={to[1] - from[1]} />
            <text x={from[0] + 3} y={from[1] - 4} style={{ fill: REGION_COLOURS[index] }}>
              {name}
            </text>
          </g>
        ))}
        <g className="spots" data-testid="spots" data-count={marks.spots.length}>
          {marks.spots.map(([x, y], index) => (
            <circle key={index} cx={x} cy={y} r={SPOT_RADIUS} />
          ))}
        </g>
      </g>
    </SvgElement>
  );
}

/** Where a ring's label is seen: up right of the beam, and from there round until it is on the canvas. */
function labelPlace(places: ([number, number] | null)[], onCanvas: (at: [number, number]) => boolean): [number, number] | null {
  const start = Math.floor(places.length / 8);
  for (let step = 0; step < places.length; step += 3) {
    const at = places[(start + step) % places.length];
    if (at && onCanvas(at)) return at;
  }
  return null;
}
