/** The last frames that this page has shown of a run, to step back through while it is paused. */

import { useRef } from 'react';
import type { ShownFrame } from '../api/hooks';

/** Together they hold at most so many pixels, and never fewer than two frames. */
const PIXELS_MAX = 24 << 20;
const FRAMES_MAX = 24;

/** Oldest first. The same array all through a run; `key` names run and kind of frames. */
export function useSeen(key: string, frame: ShownFrame | null): ShownFrame[] {
  const seen = useRef<{ key: string; frames: ShownFrame[] }>({ key, frames: [] });
  if (seen.current.key !== key) seen.current = { key, frames: [] };
  const { frames } = seen.current;
  const newest = frames.at(-1);
  if (frame && frame !== newest) {
    // Shown anew, with a mask or at another resolution, it takes its own place.
    if (newest?.info.frame_number === frame.info.frame_number) frames.pop();
    frames.push(frame);
    let pixels = frames.reduce((sum, one) => sum + one.picture.values.length, 0);
    while (frames.length > 2 && (frames.length > FRAMES_MAX || pixels > PIXELS_MAX)) {
      pixels -= frames.shift()!.picture.values.length;
    }
  }
  return frames;
}
