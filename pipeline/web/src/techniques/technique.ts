/** What a technique's panel gets, and what it may ask of a status. */

import type { ComponentType } from 'react';
import type { RunDetail, RunEvent, Status } from '../api/types';
import type { Theme } from '../lib/theme';

export interface PanelProps {
  /** id of the run in memory */
  run: string;
  status: Status;
  /** whether the server answers: nothing is asked for while it does not */
  connected: boolean;
  theme: Theme;
  /** what happened in the run, newest last */
  events: RunEvent[];
  /** whether whoever looks may change the run */
  operates: boolean;
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

/** What the run's recipe does, in order. */
export function operationsOf(detail: RunDetail | null): string[] {
  const listed = detail?.record.parameters?.['operations'];
  return Array.isArray(listed) ? listed.filter((name): name is string => typeof name === 'string') : [];
}
