/** One parameter of the run that may be moved while it records: a slider for the eye and a field for the number. */

import { useEffect, useRef, useState } from 'react';
import { send } from '../api/client';
import type { Parameter, ParameterList } from '../api/types';
import { number, unit } from '../lib/format';

export interface ParameterSliderProps {
  parameter: Parameter;
  /** what it is called here */
  name: string;
  /** smallest step of the slider, in the parameter's unit */
  step: number;
  /** steps of the buttons beside it, for what is set finely; none: no buttons */
  nudges?: number[];
  /** why it cannot be changed now; empty if it can */
  locked: string;
  onChanged: (list: ParameterList) => void;
}

/** While the slider is dragged a new value is sent this often at most. */
const SEND_INTERVAL_MS = 250;

export function ParameterSlider({ parameter, name, step, nudges = [], locked, onChanged }: ParameterSliderProps) {
  const [draft, setDraft] = useState<number | null>(null);
  const [text, setText] = useState<string | null>(null);
  const [problem, setProblem] = useState('');
  const wanted = useRef<number | null>(null);
  const busy = useRef(false);
  const value = draft ?? parameter.value;

  // What was sent is what is shown until the appliance says the same; an answer to what was sent before is not that.
  useEffect(() => {
    if (wanted.current === null) setDraft(null);
  }, [parameter.value]);
  useEffect(() => setProblem(''), [locked]);

  const deliver = async () => {
    if (busy.current) return;
    busy.current = true;
    while (wanted.current !== null) {
      const next = wanted.current;
      wanted.current = null;
      try {
        onChanged(await send<ParameterList>('PUT', `/parameters/${encodeURIComponent(parameter.name)}`, { value: next }));
        setProblem('');
      } catch (error) {
        setProblem((error as Error).message);
        setDraft(null);
      }
      await new Promise((resolve) => setTimeout(resolve, SEND_INTERVAL_MS));
    }
    busy.current = false;
  };
  const set = (next: number) => {
    if (!Number.isFinite(next)) return;
    const within = Math.min(parameter.maximum, Math.max(parameter.minimum, parameter.type === 'integer' ? Math.round(next) : next));
    setDraft(within);
    wanted.current = within;
    void deliver();
  };
  const commit = () => {
    if (text !== null && text.trim() !== '') set(Number(text.replace(',', '.').replace('−', '-')));
    setText(null);
  };

  return (
    <div className="parameter" title={problem || locked || parameter.description} data-testid={`parameter-${parameter.name}`} data-value={parameter.value}>
      <span className={problem ? 'red-text' : 'dim'}>{name}</span>
      <input
        type="range"
        aria-label={name}
        min={parameter.minimum}
        max={parameter.maximum}
        step={step}
        value={value}
        disabled={locked !== ''}
        onChange={(event) => set(Number(event.target.value))}
      />
      {nudges.map((by) => (
        <button key={by} type="button" className="nudge" aria-label={`${name} ${by > 0 ? 'plus' : 'minus'} ${Math.abs(by)}`} disabled={locked !== ''} onClick={() => set(value + by)}>
          {by > 0 ? '+' : '−'}
          {Math.abs(by)}
        </button>
      ))}
      <input
        className="bound"
        aria-label={`${name}, number`}
        inputMode="decimal"
        disabled={locked !== ''}
        value={text ?? number(value)}
        onChange={(event) => setText(event.target.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === 'Enter') commit();
          if (event.key === 'Escape') setText(null);
        }}
      />
      <span className="dim parameter-unit">{unit(parameter.unit).replace('pixel', 'px')}</span>
    </div>
  );
}
