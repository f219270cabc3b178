/** What a technique's panel gets, and what it may ask of a status. */

import type { ComponentType } from 'react';
import type { Status } from '../api/types';
import type { Theme } from '../lib/theme';

export interface PanelProps {
  /** id of the run in memory */
  run: string;
  status: Status;
  /** whether the server answers: nothing is asked for while it does not */
  connected: boolean;
  theme: Theme;
}

export interface Technique {
  /** as in the run's `technique` */
  name: string;
  title: string;
  Panel: ComponentType<PanelProps>;
}

/** Whether there is a frame to look at. */
export function anyFrame(status: Status): boolean {
  return status.frames.complete + status.frames.partial > 0;
}

/** Whether results of the run may still come. */
export function running(status: Status): boolean {
  return status.state === 'armed' || status.state === 'recording' || status.state === 'finishing';
}
