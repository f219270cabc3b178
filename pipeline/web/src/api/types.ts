/**
 * What the interface says, as in `/api/v1/openapi.json`. Only what the page reads is listed.
 */

export type ApplianceState = 'idle' | 'armed' | 'recording' | 'finishing' | 'error';

export interface StatusRun {
  id: string;
  technique: string;
  proposal: string;
  sample: string;
  started: string;
  frames_expected: number;
}

export interface FrameCounts {
  expected: number;
  complete: number;
  partial: number;
  lost: number;
  duplicate: number;
  late: number;
  corrupt: number;
}

export interface Occupancy {
  used: number;
  capacity: number;
}

export interface Status {
  state: ApplianceState;
  message: string | null;
  version: string;
  /** the run in memory: the current one, or the last */
  run: StatusRun | null;
  frames: FrameCounts;
  analysis: { done: number; shed: number; failed: number; pending: number };
  storage: { synced: number; vetoed: number; failed: number; pending: number };
  rate: { frames_per_s: number; bytes_per_s: number };
  latency_us: { p50: number; p99: number; p999: number; max: number };
  ring: { slots: number; used: number; page_kind: string; locked: boolean };
  queues: { analysis: Occupancy; storage: Occupancy };
  device: { name: string; memory: 'zero_copy' | 'copy' };
  cores: { mode: 'shared' | 'dedicated' };
  store: { path: string; free_bytes: number };
  warnings: string[];
}

export interface RunLine {
  id: string;
  technique: string;
  sample: string;
  proposal: string;
  state: string;
  started: string;
  frames_complete: number;
  frames_expected: number;
}

export interface RunList {
  runs: RunLine[];
  total: number;
}

export interface FrameInfo {
  frame_number: number;
  /** rows, columns */
  shape: [number, number];
  dtype: string;
  kind: string;
  angle_deg: number | null;
  saturation: number | null;
  partial: boolean;
}

export interface Profile {
  name: string;
  frame_number: number | null;
  axis: { name: string; unit: string; values: number[] };
  /** null where a bin has no pixel */
  values: (number | null)[];
  errors: (number | null)[] | null;
  frames_used: number;
}

export interface SliceInfo {
  name: string;
  shape: [number, number];
  unit: string;
  frames_used: number;
  frames_expected: number;
  version: number;
}

export interface SliceList {
  slices: SliceInfo[];
}

export interface ResultMessage {
  sequence: number;
  frame_number: number;
  kind: string;
  partial: boolean;
  age_us: number;
  /** null where a scalar has no value for this frame */
  scalars: Record<string, number | null>;
  curves?: Record<string, (number | null)[]>;
}

export interface RunEvent {
  sequence: number;
  event: 'armed' | 'first_frame' | 'progress' | 'file_closed' | 'degraded' | 'decision' | 'end';
  time: string;
  data: Record<string, unknown>;
}

/** Who asks, and what they may do. */
export interface Session {
  /** whether no tokens are in use */
  open: boolean;
  name: string;
  role: 'viewer' | 'operator' | 'admin';
}

export interface ErrorBody {
  error: string;
  message: string;
  allowed_states: string[];
}
