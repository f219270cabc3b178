/** Draws shapes for a mask on a picture: a rectangle by dragging, a polygon corner by corner, or with a brush. */

import { SvgElement, useCameraState, useCanvasEvent, useVisCanvasContext, type CanvasEvent } from '@h5web/lib';
import { useRef, useState } from 'react';
import { Vector3 } from 'three';
import type { MaskShape, Point } from '../lib/maskShapes';

export interface MaskToolProps {
  kind: MaskShape['kind'];
  radius: number;
  erase: boolean;
  shapes: MaskShape[];
  onShape: (shape: MaskShape) => void;
}

export function MaskTool({ kind, radius, erase, shapes, onShape }: MaskToolProps) {
  // What is being drawn: events come faster than the page is drawn, so the newest is not in a state.
  const open = useRef<MaskShape | null>(null);
  const [, redraw] = useState(0);
  const setOpen = (shape: MaskShape | null) => {
    open.current = shape;
    redraw((n) => n + 1);
  };
  const { dataToHtml } = useVisCanvasContext();
  const point = ({ dataPt }: CanvasEvent<MouseEvent>): Point => [dataPt.x, dataPt.y];
  const finish = (shape: MaskShape | null) => {
    setOpen(null);
    if (shape) onShape(shape);
  };

  useCanvasEvent('pointerdown', (event) => {
    if (event.sourceEvent.button !== 0) return;
    const at = point(event);
    if (kind !== 'polygon') setOpen({ kind, radius, erase, points: kind === 'rectangle' ? [at, at] : [at] });
    else setOpen({ kind, radius, erase, points: [...(open.current?.points ?? []), at] });
  });
  useCanvasEvent('pointermove', (event) => {
    const last = open.current;
    if (kind === 'polygon' || !last) return;
    const at = point(event);
    setOpen({ ...last, points: kind === 'rectangle' ? [last.points[0]!, at] : [...last.points, at] });
  });
  useCanvasEvent('pointerup', () => {
    if (kind !== 'polygon') finish(open.current);
  });
  useCanvasEvent('dblclick', () => {
    // The second click of the two has set a corner that is the last one again.
    const last = open.current;
    if (kind === 'polygon' && last) finish({ ...last, points: last.points.slice(0, -1) });
  });

  const all = open.current ? [...shapes, open.current] : shapes;
  const drawn = useCameraState(
    (camera) => {
      const place = ([x, y]: Point) => {
        const at = dataToHtml(camera, new Vector3(x, y, 0));
        return [Math.round(10 * at.x) / 10, Math.round(10 * at.y) / 10] as const;
      };
      const [zero, one] = [place([0, 0]), place([1, 0])];
      const scale = Math.hypot(one[0] - zero[0], one[1] - zero[1]);
      return all.map((shape) => {
        const places = shape.points.map(place);
        const [a, b] = [places[0]!, places[1] ?? places[0]!];
        const path =
          shape.kind === 'rectangle'
            ? `M${a[0]} ${a[1]}H${b[0]}V${b[1]}H${a[0]}Z`
            : `M${places.map((at) => at.join(' ')).join('L')}${shape.kind === 'polygon' ? 'Z' : 'l0.01 0'}`;
        return { path, erase: shape.erase, width: shape.kind === 'brush' ? 2 * shape.radius * scale : 1 };
      });
    },
    [dataToHtml, all],
    (last, next) => JSON.stringify(last) === JSON.stringify(next),
  );
  return (
    <SvgElement>
      <g className="mask-shapes" data-testid="mask-shapes" data-count={shapes.length}>
        {drawn.map(({ path, erase: erased, width }, index) => (
          <path key={index} d={path} className={`${erased ? 'erase' : ''} ${width > 1 ? 'brush' : ''}`} style={width > 1 ? { strokeWidth: width } : undefined} />
        ))}
      </g>
    </SvgElement>
  );
}
