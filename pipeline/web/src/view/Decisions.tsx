/** What the rules have decided in the run, as it happens, each with what it rests on. */

import { useState } from 'react';
import { runPath, send } from '../api/client';
import type { Decision, DecisionList } from '../api/types';
import { count, latency, moment, number, share } from '../lib/format';

export interface DecisionsProps {
  run: string | null;
  list: DecisionList | null;
  /** who takes note of a decision; null for those who may not */
  by: string | null;
}

export function Decisions({ run, list, by }: DecisionsProps) {
  const decisions = list?.decisions ?? [];
  return (
    <section className="decisions" data-testid="decisions" data-count={decisions.length}>
      <header className="panel-head">
        <h2>Decisions</h2>
        <span className="dim">{list ? count(decisions.length + list.not_kept) : ''}</span>
      </header>
      <ol aria-live="polite">
        {decisions.toReversed().map((decision) => (
          <DecisionLine key={decision.sequence} run={run} decision={decision} by={by} />
        ))}
      </ol>
      {decisions.length === 0 && <p className="dim empty">No rule has fired in this run</p>}
    </section>
  );
}

function DecisionLine({ run, decision, by }: { run: string | null; decision: Decision; by: string | null }) {
  const [noted, setNoted] = useState<string | null>(null);
  const [problem, setProblem] = useState('');
  const taken = decision.acknowledged?.by ?? noted;
  const note = async () => {
    if (!run || !by) return;
    try {
      const answer = await send<Decision>('POST', runPath(run, `/decisions/${decision.sequence}/acknowledge`), { by });
      setNoted(answer.acknowledged?.by ?? by);
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  const range = decision.frame_first === decision.frame_number ? count(decision.frame_number) : `${count(decision.frame_first)}–${count(decision.frame_number)}`;
  return (
    <li className="decision" data-rule={decision.rule} title={`${decision.when}\n${moment(decision.time)}, ${latency(decision.age_us).join(' ')} after the frame, on ${share(decision.share, 1)} of the frames`}>
      <span className="decision-top">
        <i className={`dot ${decision.action === 'tell' ? 'blue' : 'red'}`} />
        <b>{decision.rule}</b>
        {decision.action !== 'tell' && <em className="tag red">{decision.action}</em>}
        <span className="dim">frame {range}</span>
      </span>
      <span className="decision-evidence">
        {Object.entries(decision.evidence)
          .map(([name, value]) => `${name} = ${number(value)}`)
          .join(', ')}
      </span>
      {taken ? (
        <span className="dim">noted by {taken}</span>
      ) : (
        by !== null && (
          <button type="button" className="small" title={problem || 'Say that somebody has seen it'} onClick={() => void note()}>
            {problem ? 'Not noted' : 'Take note'}
          </button>
        )
      )}
    </li>
  );
}
