use super::*;
use crate::feedback::hub::ResultMessage;
use std::collections::BTreeMap;
use std::sync::Arc;

const MS: u64 = 1_000_000;

fn names() -> Names {
    Names {
        scalars: vec![("max".into(), "counts".into()), ("hit".into(), String::new())],
        curve: Some(("intensity".into(), vec![1.0, 1.5, 1.6, 2.0])),
    }
}

fn result(frame: u64, max: f64, hit: f64) -> Arc<ResultMessage> {
    Arc::new(ResultMessage {
        grid: None,
        sequence: frame,
        frame_number: frame,
        kind: frame::FrameKind::Sample,
        partial: false,
        parameters_version: 0,
        angle_deg: None,
        age_us: 1500,
        scalars: BTreeMap::from([("max".into(), max), ("hit".into(), hit)]),
        curves: BTreeMap::from([
            ("intensity".into(), vec![100.0, 100.0, 100.0, 100.0]),
            ("intensity_errors".into(), vec![10.0, 10.0, 10.0, 10.0]),
        ]),
        metadata: BTreeMap::new(),
    })
}

fn rule(when: &str) -> RuleConfig {
    RuleConfig {
        when: when.into(),
        again: None,
        min_interval_s: 0.0,
        action: Action::Tell,
    }
}

/// Frames at which a rule fires when the values of `max` and `hit` come 10 ms after each other.
fn fires(config: &RuleConfig, values: &[(f64, f64)]) -> Vec<(u64, u64)> {
    let mut engine = Engine::new(names());
    let rule = Arc::new(Rule::new("rule", config).unwrap());
    let refused = engine.put(&[rule]);
    assert!(refused.is_empty(), "{refused:?}");
    let mut fired = Vec::new();
    for (frame, (max, hit)) in (0u64..).zip(values) {
        let moment = Moment {
            arrival_ns: frame * 10 * MS,
            now_ns: frame * 10 * MS + 3 * MS,
        };
        for decision in engine.take(&result(frame, *max, *hit), moment).unwrap() {
            assert_eq!((decision.age_us, decision.share), (3000, 1.0));
            fired.push((decision.frame_first, decision.frame_number));
        }
    }
    fired
}

fn maxima(values: &[u32]) -> Vec<(f64, f64)> {
    values.iter().map(|max| (f64::from(*max), 0.0)).collect()
}

#[test]
fn a_rule_fires_once_at_the_exact_frame_and_again_when_it_may() {
    assert_eq!(
        fires(&rule("max_counts > 5"), &maxima(&[1, 6, 7, 1, 9])),
        [(1, 1), (4, 4)]
    );
    assert_eq!(
        fires(&rule("max > 5 for 3 frames"), &maxima(&[6, 6, 1, 6, 6, 6, 6])),
        [(3, 5)]
    );
    assert_eq!(
        fires(&rule("max > 5 for 0.02 s"), &maxima(&[6, 6, 1, 6, 6, 6, 6])),
        [(3, 5)]
    );
    let hysteresis = RuleConfig {
        again: Some("max < 2".into()),
        ..rule("max > 5")
    };
    assert_eq!(fires(&hysteresis, &maxima(&[6, 3, 6, 1, 6])), [(0, 0), (4, 4)]);
    let rarely = RuleConfig {
        min_interval_s: 0.035,
        ..rule("max > 5")
    };
    assert_eq!(fires(&rarely, &maxima(&[6, 1, 6, 1, 6, 1, 6])), [(0, 0), (4, 4)]);
}

#[test]
fn what_is_not_known_yet_decides_nothing() {
    let misses = vec![(0.0, 0.0); 30];
    assert_eq!(fires(&rule("hit_rate(20) < 0.02"), &misses), [(19, 19)]);
    assert_eq!(fires(&rule("metadata(\"I0\") < 1.0"), &misses), []);
    let undecided = vec![(0.0, f64::NAN); 30];
    assert_eq!(fires(&rule("hit_rate(20) < 0.02"), &undecided), []);
    // Nor by any other operator, whatever is done with it first.
    for when in [
        "metadata(\"shutter\") != 1.0",
        "!(metadata(\"shutter\") == 1.0)",
        "1 != metadata(\"shutter\")",
        "metadata(\"shutter\") == 1.0 ? false : true",
        "!(metadata(\"shutter\") > 1.0) || false",
        "double(frame) + metadata(\"shutter\") != 1.0",
        "-metadata(\"shutter\") <= 1e300",
        "(max - max) / (max - max) != 1.0",
        "hit != 1.0",
        "hit != hit",
        "!(hit == 1.0)",
        "(hit > 0.5) == (hit < 0.5)",
        "(hit > 0.5) != (max < 0.5)",
        "largest(\"hit\", 2) < 1.0",
        "int(hit) != 1",
    ] {
        assert_eq!(fires(&rule(when), &undecided), [], "{when}");
    }
    // What is known on the other side may settle it.
    assert_eq!(fires(&rule("metadata(\"x\") != 1.0 || max == 0"), &undecided), [(0, 0)]);
    let once = vec![(1.0, 1.0), (1.0, f64::NAN), (1.0, 0.0), (1.0, 0.0)];
    assert_eq!(fires(&rule("largest(\"hit\", 2) < 1.0"), &once), [(3, 3)]);
    assert_eq!(fires(&rule("frame != 0 && max == frame"), &once), [(1, 1)]);
}

#[test]
fn errors_of_the_mean_curve_shrink_with_the_frames() {
    // Two bins of 100 ± 10 a frame: 0.0707 after one, below 0.02 when sqrt(n) > 3.54, so with the 13th.
    let frames = vec![(0.0, 0.0); 20];
    assert_eq!(fires(&rule("relative_error(q=1.5..1.6) < 0.02"), &frames), [(12, 12)]);
    assert_eq!(fires(&rule("intensity(q=1.0..2.0) > 99.0"), &frames), [(0, 0)]);
    assert_eq!(
        fires(
            &rule("mean(\"max\", 3) > 1.9 && largest(\"max\", 2) < 4.0"),
            &maxima(&[0, 3, 3, 1, 5])
        ),
        [(2, 2)]
    );
}

#[test]
fn rules_that_no_result_can_answer_are_refused_with_a_sentence() {
    let refused = |when: &str| match Rule::new("rule", &rule(when)) {
        Ok(rule) => {
            let refused = Engine::new(names()).put(&[Arc::new(rule)]);
            refused.first().map(ToString::to_string).unwrap_or_default()
        }
        Err(error) => error.to_string(),
    };
    assert!(refused("max > 1.0 && spots > 3").contains("column 14: no spots here; there are max, max_counts, hit"));
    assert!(refused("max_counts > 1.0 && max_c > 3.0").contains("column 21: no max_c here"));
    assert!(refused("mean(\"spots\", 10) > 3.0").contains("column 1: mean(\"spots\", 10) never has a value"));
    assert!(refused("max > 1.0 && hit_rate(20000) > 0.1").contains("column 14: hit_rate(20000) never has a value"));
    assert!(refused("relative_error(q=7.0..8.0) < 0.1").contains("never has a value"));
    assert!(refused("intensity(q=1.6..1.5) < 0.1").contains("never has a value"));
    assert!(refused("intensity(q=1..2) < 0.1").is_empty());
    assert!(refused("max").contains("not true or false"));
    assert!(refused("max / 2 > 1").contains("with a point"));
    assert!(refused("max > 1").is_empty());
    // Loops, also under names that are known.
    let six_deep = (0..6).fold("max > 1.0".to_string(), |inner, _| {
        format!("[1, 2, 3].all(frame, {inner})")
    });
    assert!(refused(&six_deep).contains("does not loop"), "{}", refused(&six_deep));
}

#[test]
fn before_a_run_rules_are_held_against_what_recipes_make() {
    let known = Known {
        scalars: names().scalars,
        curve: true,
        regions: false,
    };
    let check = |known: &Known, when: &str| {
        let rule = Rule::new("rule", &rule(when)).unwrap();
        let mut conditions = rule.conditions();
        conditions
            .try_for_each(|condition| known.check(condition))
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(
        check(&known, "max_counts > 5 && frame > 3 && relative_error(q=70..80) < 0.1"),
        None
    );
    assert!(check(&known, "beam_counts > 5").is_some_and(|said| said.contains("column 1: no beam_counts here")));
    assert!(
        check(&known, "max > 1 && mean(\"beam_max\", 3) > 5.0").is_some_and(|said| said.contains("column 12: mean"))
    );
    let open = Known {
        regions: true,
        curve: false,
        ..known
    };
    assert_eq!(check(&open, "beam_counts > 5 && mean(\"beam_max\", 3) > 5.0"), None);
    assert!(check(&open, "spotz > 5").is_some() && check(&open, "_max > 5").is_some());
    assert!(check(&open, "intensity(q=1..2) > 5.0").is_some_and(|said| said.contains("never has a value")));
    let run = Names {
        scalars: vec![("axis".into(), "pixel".into())],
        curve: None,
    };
    assert_eq!(check(&open.and(&run), "axis > 5 && max > 3"), None);
}

#[test]
fn a_changed_rule_begins_anew_and_the_others_stay_where_they_are() {
    let mut engine = Engine::new(names());
    let kept = Arc::new(Rule::new("kept", &rule("max > 5 for 3 frames")).unwrap());
    let changed = |when: &str| Arc::new(Rule::new("changed", &rule(when)).unwrap());
    let mut fired = Vec::new();
    for frame in 0..6u64 {
        if frame == 0 {
            engine.put(&[changed("max > 9"), kept.clone()]);
        }
        if frame == 2 {
            engine.put(&[changed("max > 5"), kept.clone()]);
        }
        let moment = Moment {
            arrival_ns: frame,
            now_ns: frame,
        };
        let decisions = engine.take(&result(frame, 6.0, 0.0), moment).unwrap();
        fired.extend(decisions.into_iter().map(|d| (d.rule, d.frame_first, d.frame_number)));
    }
    assert_eq!(fired, [("changed".to_string(), 2, 2), ("kept".to_string(), 0, 2)]);
}

#[test]
fn the_same_is_decided_in_whatever_order_results_come() {
    let decide = |order: &[u64]| {
        let three = BTreeMap::from([("three".into(), rule("max > 5 for 3 frames"))]);
        let rules = Rules::new(&three, Known::default().and(&names())).unwrap();
        let decisions = Decisions::new(Arc::new(rules), names());
        for frame in order {
            let arrived = (&result(*frame, if *frame == 2 { 1.0 } else { 6.0 }, 0.0), *frame);
            decisions.take(Some(arrived), |_| Fate::Coming, || 0);
        }
        decisions.finish(|| 0);
        let frames: Vec<u64> = decisions
            .list()
            .0
            .iter()
            .map(|decision| decision.frame_number)
            .collect();
        frames
    };
    assert_eq!(decide(&[0, 1, 2, 3, 4, 5, 6]), [5]);
    assert_eq!(decide(&[3, 1, 0, 5, 4, 2, 6]), [5]);
    let decisions = Decisions::new(Arc::new(Rules::default()), names());
    assert!(decisions.acknowledge(0, "bliss").is_none());
}
