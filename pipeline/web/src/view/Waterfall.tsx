/** The curves of the last frames as a picture: one line per frame, the newest on top. */

import { ColorBar, DefaultInteractions, ResetZoomButton, ScaleType, TooltipMesh, VisCanvas } from '@h5web/lib';
import { useMemo } from 'react';
import type { CurveHistory } from '../lib/curveHistory';
import { evenBins } from '../lib/curveHistory';
import { count, number } from '../lib/format';
import { makePicture } from '../lib/picture';
import { FrameMesh } from './FrameMesh';
import { useRange, useViewSettings } from './viewSettings';

export interface WaterfallProps {
  curves: CurveHistory;
  /** counts changes of `curves`, which is filled in place */
  version: number;
  /** of the bins, in the unit that is shown; may be uneven */
  axis: number[];
  /** what the axis is, for example `q (nm⁻¹)` */
  axisLabel: string;
  log: boolean;
}

const COLUMNS_MAX = 1000;

export function Waterfall({ curves, version, axis, axisLabel, log }: WaterfallProps) {
  const [settings] = useViewSettings('waterfall', { colourMap: 'Viridis', auto: '99' });
  const { bins, range: reach } = useMemo(() => evenBins(axis, Math.min(COLUMNS_MAX, Math.max(1, axis.length))), [axis]);
  const picture = useMemo(
    () =>
      curves.count > 0 && bins.length > 1
        ? makePicture({ shape: [curves.count, bins.length], dtype: '<f4', data: curves.picture(bins) }, 1, null, null)
        : null,
    // The history is filled in place; its version tells.
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [curves, version, bins],
  );
  const shown = { ...settings, scale: log ? ('log' as const) : ('linear' as const) };
  const range = useRange(shown, picture ? [picture] : []);
  const [left, right] = reach[0] < reach[1] ? reach : [0, 1];

  const readOut = (x: number, y: number) => {
    if (!picture) return null;
    const column = Math.floor(((x - left) / (right - left)) * picture.columns);
    const row = Math.floor(y);
    const frame = curves.frames[row];
    if (frame === undefined || !(column >= 0 && column < picture.columns)) return null;
    return (
      <div className="read-out">
        <span>
          frame <b>{count(frame)}</b>
        </span>
        <span>
          {axisLabel} <b>{number(x)}</b>
        </span>
        <span className="read-out-value">{number(picture.values[row * picture.columns + column])}</span>
      </div>
    );
  };

  return (
    <div className="picture waterfall" role="img" aria-label="Curves of the last frames" data-testid="waterfall" data-curves={picture?.rows ?? 0}>
      <VisCanvas
        aspect="auto"
        abscissaConfig={{ visDomain: [left, right], label: axisLabel }}
        ordinateConfig={{ visDomain: [0, Math.max(1, picture?.rows ?? 1)], isIndexAxis: true, flip: true, label: 'frames ago' }}
      >
        <DefaultInteractions />
        <ResetZoomButton />
        <TooltipMesh guides="both" renderTooltip={readOut} />
        {picture && (
          <FrameMesh
            picture={picture}
            range={range}
            scale={shown.scale}
            colourMap={shown.colourMap}
            invert={shown.invert}
            mask={null}
            maskedColour="#00000000"
            saturation={null}
            saturatedColour="#000000"
          />
        )}
      </VisCanvas>
      <ColorBar domain={range} scaleType={log ? ScaleType.Log : ScaleType.Linear} colorMap={shown.colourMap} invertColorMap={shown.invert} />
      {!picture && <div className="picture-placeholder">Waiting for curves</div>}
    </div>
  );
}
