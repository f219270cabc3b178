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
  store: { path: string; free_bytes: number; keep: Keep | null };
  warnings: string[];
}

/** How long the store has room, as the keeper foresees it. */
export interface Keep {
  used_bytes: number;
  capacity_bytes: number;
  percent: number;
  /** ok, or how far the watermarks have been passed */
  level: string;
  forecast: { bytes_per_s: number; hours_left: number | null; hours_left_after_deleting: number | null };
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

export interface ProfileAxis {
  name: string;
  unit: string;
  values: number[];
}

export interface Profile {
  name: string;
  frame_number: number | null;
  axis: ProfileAxis;
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
  event: 'armed' | 'first_frame' | 'progress' | 'file_closed' | 'degraded' | 'decision' | 'axis' | 'parameter' | 'device_back' | 'end';
  time: string;
  data: Record<string, unknown>;
}

export interface Decision {
  sequence: number;
  rule: string;
  action: 'tell' | 'stop' | 'abort';
  when: string;
  frame_first: number;
  frame_number: number;
  time: string;
  evidence: Record<string, number | null>;
  age_us: number;
  share: number;
  acknowledged: { by: string; time: string } | null;
}

export interface DecisionList {
  decisions: Decision[];
  not_kept: number;
}

export interface Parameter {
  name: string;
  type: 'number' | 'integer';
  unit: string;
  minimum: number;
  maximum: number;
  value: number;
  states: string[];
  description: string;
}

export interface ParameterList {
  run: string | null;
  version: number;
  parameters: Parameter[];
}

/** A run: in memory, or from its record. Of a stored run the record is its whole `run.json`. */
export interface RunDetail {
  id: string;
  state: string;
  store_state: string;
  frames: Partial<FrameCounts>;
  record: {
    technique?: string;
    proposal?: string;
    sample?: string;
    start_time?: string;
    folder?: string;
    parameters?: Record<string, unknown>;
    metadata?: Record<string, string>;
    files?: { name: string; bytes: number }[];
  };
  /** how it ended; null until then */
  summary: { files?: string[] } | null;
  warnings: string[];
}

export interface Spot {
  row: number;
  column: number;
  intensity: number;
  pixels: number;
}

export interface SpotList {
  frame_number: number;
  hit: boolean | null;
  found: number | null;
  spots: Spot[];
}

export type FrameState = 'expected' | 'complete' | 'partial' | 'corrupt' | 'lost';

export interface LedgerEntry {
  frame_number: number;
  state: FrameState;
  analysis: string;
  storage: string;
  parts_missing: number;
}

export interface LedgerPage {
  frames: Partial<FrameCounts>;
  entries: LedgerEntry[];
  next: number | null;
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
