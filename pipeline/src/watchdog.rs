//! Whether the program makes progress. A state machine that is fed counts and time; whoever feeds it pings the service
//! manager's watchdog as long as it says nothing. So a stage that hangs ends in a restart, and a timer that still runs
//! beside it does not hide it.

use crate::active_run::{ActiveRun, RunState};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Stages that are watched, each with the time that it may stand still while it has something to do. A disk may stall for
/// long and come back; a device compiles its kernels when it first sees a batch.
const STAGES: [(&str, Duration); 5] = [
    ("receiving", Duration::from_secs(30)),
    ("analysis", Duration::from_secs(60)),
    ("storage", Duration::from_secs(120)),
    ("closing", Duration::from_secs(600)),
    ("the control plane", Duration::from_secs(30)),
];

/// What each stage has done so far, in the order of the stages; `None` where it has nothing to do.
pub type Look = [Option<u64>; STAGES.len()];

/// A stage that has something to do and stands still.
#[derive(Debug, PartialEq, Eq)]
pub struct Stuck {
    /// its name
    pub stage: &'static str,
    /// for how long
    pub seconds: u64,
}

/// When each stage was last seen to move.
#[derive(Debug, Default)]
pub struct Watchdog([(Option<u64>, Duration); STAGES.len()]);

impl Watchdog {
    /// One look at every stage; `now` only ever grows.
    pub fn look(&mut self, now: Duration, look: Look) -> Result<(), Stuck> {
        let mut verdict = Ok(());
        for (((stage, patience), seen), done) in STAGES.iter().zip(&mut self.0).zip(look) {
            if done.is_none() || done != seen.0 {
                *seen = (done, now);
            } else if now.saturating_sub(seen.1) > *patience {
                let seconds = now.saturating_sub(seen.1).as_secs();
                verdict = Err(Stuck { stage, seconds });
            }
        }
        verdict
    }
}

/// What there is to see of a run, and of the control plane while there is none: a run goes on without it.
pub fn seen(run: Option<&ActiveRun>, control_beats: u64) -> Look {
    let Some(run) = run.filter(|run| !run.state().ended()) else {
        return [None, None, None, None, Some(control_beats)];
    };
    if run.state() == RunState::Finishing {
        return [None, None, None, Some(0), None];
    }
    let outcomes = run.ledger.outcomes();
    let (to_analyse, to_store) = run.waiting();
    let analysed = outcomes.done + outcomes.shed + outcomes.analysis_failed;
    let stored = outcomes.synced + outcomes.vetoed + outcomes.storage_failed;
    [
        Some(run.turns.load(Relaxed)),
        (to_analyse > 0).then_some(analysed),
        (to_store > 0).then_some(stored),
        None,
        None,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Look = [None; STAGES.len()];

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stage_that_moves_or_has_nothing_to_do_is_well() {
        let mut watchdog = Watchdog::default();
        for second in 0..1000 {
            assert_eq!(
                watchdog.look(at(second), [Some(second / 20), None, None, None, None]),
                Ok(())
            );
        }
        for second in 1000..2000 {
            assert_eq!(watchdog.look(at(second), IDLE), Ok(()));
        }
    }

    #[test]
    fn a_stage_that_stands_still_is_named_until_it_moves() {
        let mut watchdog = Watchdog::default();
        let stands = [Some(7), Some(3), None, None, None];
        assert_eq!(watchdog.look(at(100), stands), Ok(()));
        assert_eq!(watchdog.look(at(130), stands), Ok(()));
        let stuck = watchdog.look(at(131), stands).unwrap_err();
        assert_eq!((stuck.stage, stuck.seconds), ("receiving", 31));
        assert_eq!(watchdog.look(at(132), [Some(8), Some(3), None, None, None]), Ok(()));
        assert_eq!(
            watchdog
                .look(at(161), [Some(9), Some(3), None, None, None])
                .unwrap_err()
                .stage,
            "analysis"
        );
    }

    #[test]
    fn work_that_comes_after_a_rest_gets_the_whole_patience() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.look(at(0), [None, Some(5), None, None, None]), Ok(()));
        assert_eq!(watchdog.look(at(50), IDLE), Ok(()));
        assert_eq!(watchdog.look(at(100), [None, Some(5), None, None, None]), Ok(()));
        assert_eq!(watchdog.look(at(160), [None, Some(5), None, None, None]), Ok(()));
        assert!(watchdog.look(at(161), [None, Some(5), None, None, None]).is_err());
    }
}
