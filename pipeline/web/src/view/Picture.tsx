/** A picture with axes, colour bar, zoom and read-out. */

import { ColorBar, DefaultInteractions, ResetZoomButton, ScaleType, TooltipMesh, VisCanvas } from '@h5web/lib';
import { useRef, type ReactNode } from 'react';
import { number } from '../lib/format';
import { fits, maskNames, REJECTED_BITS, type Mask, type Picture as PictureData, type Range } from '../lib/picture';
import { FrameMesh } from './FrameMesh';
import type { ViewSettings } from './viewSettings';

const SCALES = { linear: ScaleType.Linear, log: ScaleType.Log, sqrt: ScaleType.Sqrt } as const;

const EMPTY: PictureData = { values: new Float32Array([Number.NaN]), rows: 1, columns: 1, binning: 1, sample: new Float32Array(), saturatedCount: 0 };

export interface PictureProps {
  /** null while there is none: `placeholder` covers the canvas, which stays, so that nothing jumps */
  picture: PictureData | null;
  placeholder: ReactNode;
  mask: Mask | null;
  saturation: number | null;
  range: Range;
  settings: ViewSettings;
  /** unit of the values, for the read-out */
  unit: string;
  /** what it is, for people who do not see it */
  label: string;
  axes: boolean;
  /** lines under the value in the read-out, by detector pixel: a technique's own coordinates */
  describe?: ((x: number, y: number) => string[]) | undefined;
  /** whether dragging moves the picture; a tool that draws takes the pointer else */
  moves?: boolean;
  /** marks and tools within the canvas */
  children?: ReactNode;
}

export function Picture(props: PictureProps) {
  const { picture, placeholder, mask, saturation, range, settings, unit, label, axes, describe, moves = true, children } = props;
  const last = useRef<PictureData>(EMPTY);
  if (picture) last.current = picture;
  const shown = last.current;
  const { rows, columns, binning } = shown;

  const readOut = (x: number, y: number) => {
    const column = Math.floor(x / binning);
    const row = Math.floor(y / binning);
    if (!(column >= 0 && column < columns && row >= 0 && row < rows)) return null;
    const index = row * columns + column;
    const value = shown.values[index]!;
    const bits = fits(mask, rows, columns) ? mask.bits[index]! : 0;
    const masked = (bits & REJECTED_BITS) !== 0;
    return (
      <div className="read-out">
        <span>
          x <b>{pixelSpan(column, binning)}</b>
        </span>
        <span>
          y <b>{pixelSpan(row, binning)}</b>
        </span>
        <span className="read-out-value">
          {masked ? `masked: ${maskNames(bits).join(', ')}` : `${number(value, 5)} ${unit}`}
          {!masked && saturation !== null && value >= saturation && <em> saturated</em>}
        </span>
        {describe?.((column + 0.5) * binning, (row + 0.5) * binning).map((line) => <span key={line}>{line}</span>)}
      </div>
    );
  };

  return (
    <div className="picture" role="img" aria-label={label}>
      <VisCanvas
        aspect="equal"
        showAxes={axes}
        abscissaConfig={{ visDomain: [0, columns * binning], isIndexAxis: true }}
        ordinateConfig={{ visDomain: [0, rows * binning], isIndexAxis: true, flip: true }}
      >
        <DefaultInteractions {...(moves ? {} : { pan: false, selectToZoom: false })} />
        <ResetZoomButton />
        <TooltipMesh guides="both" renderTooltip={readOut} />
        <FrameMesh
          picture={shown}
          range={range}
          scale={settings.scale}
          colourMap={settings.colourMap}
          invert={settings.invert}
          mask={settings.showMask ? mask : null}
          maskedColour={settings.maskedColour}
          saturation={settings.showSaturated ? saturation : null}
          saturatedColour={settings.saturatedColour}
        />
        {children}
      </VisCanvas>
      <ColorBar domain={range} scaleType={SCALES[settings.scale]} colorMap={settings.colourMap} invertColorMap={settings.invert} />
      {!picture && <div className="picture-placeholder">{placeholder}</div>}
    </div>
  );
}

function pixelSpan(index: number, binning: number): string {
  const first = index * binning;
  return binning === 1 ? String(first) : `${first}–${first + binning - 1}`;
}
