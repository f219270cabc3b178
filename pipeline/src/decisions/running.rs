//! What conditions ask for: the newest result, and running values over those before it.

use super::call::Call;
use super::expression::Condition;
use super::types::KNOWN;
use super::{Names, RuleError};
use crate::feedback::hub::ResultMessage;
use crate::frame_metadata::Value;
use cel::{Context, ExecutionError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Most results that a window may hold.
pub const WINDOW_MAX: usize = 10_000;

/// Sums of the run's curve.
#[derive(Debug, Default)]
struct CurveSums {
    intensity: Vec<f64>,
    variance: Vec<f64>,
}

/// The state of a run's results.
#[derive(Debug)]
struct State {
    names: Names,
    /// the last results of every scalar, by its own name
    windows: BTreeMap<String, VecDeque<f64>>,
    sums: CurveSums,
    results: u64,
    newest: Option<Arc<ResultMessage>>,
    /// values asked for since the evaluation began
    asked: BTreeMap<String, f64>,
}

/// The same, shared with the functions of the expressions.
#[derive(Clone, Debug)]
pub struct Running(Arc<Mutex<State>>);

impl Running {
    /// Nothing yet.
    pub fn new(names: Names) -> Self {
        let windows = names.scalars.iter().map(|(name, _)| (name.clone(), VecDeque::new()));
        let length = names.curve.as_ref().map_or(0, |(_, axis)| axis.len());
        Running(Arc::new(Mutex::new(State {
            windows: windows.collect(),
            sums: CurveSums {
                intensity: vec![0.0; length],
                variance: vec![0.0; length],
            },
            results: 0,
            newest: None,
            asked: BTreeMap::new(),
            names,
        })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the next result, in the order of frames.
    pub fn take(&self, result: &Arc<ResultMessage>) {
        self.with(|state| {
            state.results += 1;
            for (name, window) in &mut state.windows {
                if window.len() == WINDOW_MAX {
                    window.pop_front();
                }
                window.push_back(result.scalars.get(name).copied().unwrap_or(f64::NAN));
            }
            if let Some((name, _)) = &state.names.curve {
                let values = result.curves.get(name).into_iter().flatten();
                for (sum, value) in state.sums.intensity.iter_mut().zip(values) {
                    *sum += f64::from(*value);
                }
                let errors = result.curves.get(&format!("{name}_errors")).into_iter().flatten();
                for (sum, error) in state.sums.variance.iter_mut().zip(errors) {
                    *sum += f64::from(*error).powi(2);
                }
            }
            state.newest = Some(result.clone());
        });
    }

    /// Results so far.
    pub fn results(&self) -> u64 {
        self.with(|state| state.results)
    }

    /// Everything that was asked for since the last call, with its value.
    pub fn asked(&self) -> BTreeMap<String, f64> {
        self.with(|state| std::mem::take(&mut state.asked))
    }

    /// Whether `condition` can be asked of these results at all.
    pub fn check(&self, condition: &Condition) -> Result<(), RuleError> {
        self.with(|state| state.names.check(condition))
    }

    /// The functions of conditions. What has no value yet is an error, and so is whatever rests on it, but for the other side
    /// of an `||` or `&&` that settles it.
    fn functions(&self) -> Result<Context<'static, 'static>, RuleError> {
        let mut context = Context::default();
        let ask = move |running: &Running, call: Call| {
            let value = running.with(|state| {
                let value = state.answer(&call);
                state.asked.insert(call.to_string(), value);
                value
            });
            known(value)
        };
        let (a, b, c) = (self.clone(), self.clone(), self.clone());
        let (d, e, f) = (self.clone(), self.clone(), self.clone());
        context
            .add_function("mean", move |name: Arc<String>, n: i64| ask(&a, Call::Mean(name, n)))
            .and_then(|()| {
                context.add_function("largest", move |name: Arc<String>, n: i64| {
                    ask(&b, Call::Largest(name, n))
                })
            })
            .and_then(|()| context.add_function("hit_rate", move |n: i64| ask(&c, Call::HitRate(n))))
            .and_then(|()| {
                context.add_function("relative_error", move |low: f64, high: f64| {
                    ask(&d, Call::RelativeError(low, high))
                })
            })
            .and_then(|()| {
                context.add_function("intensity", move |low: f64, high: f64| {
                    ask(&e, Call::Intensity(low, high))
                })
            })
            .and_then(|()| context.add_function("metadata", move |name: Arc<String>| ask(&f, Call::Metadata(name))))
            .and_then(|()| context.add_function(KNOWN, known))
            .map_err(|error| RuleError::Engine(error.to_string()))?;
        Ok(context)
    }

    /// What conditions are asked in: everything about the newest result, `share` of the frames having one.
    pub fn context(&self, share: f64) -> Result<Context<'static, 'static>, RuleError> {
        let mut context = self.functions()?;
        self.with(|state| {
            let Some(newest) = &state.newest else { return };
            let scalars = state
                .names
                .known_as()
                .filter_map(|(known, name)| Some((known, *newest.scalars.get(name)?)));
            // One without a value, as whether a frame is a hit that was not decided, is not there.
            for (known, value) in scalars.filter(|(_, value)| !value.is_nan()) {
                context.add_variable_from_value(known, value);
            }
            context.add_variable_from_value("frame", newest.frame_number as i64);
            context.add_variable_from_value("results", state.results as i64);
            context.add_variable_from_value("share", share);
            context.add_variable_from_value("age_ms", newest.age_us as f64 / 1e3);
            context.add_variable_from_value("partial", newest.partial);
        });
        Ok(context)
    }

    /// The newest values of the scalars that `condition` names.
    pub fn named_by(&self, condition: &Condition) -> BTreeMap<String, f64> {
        let names: BTreeSet<&str> = condition.names().iter().map(|(name, _)| name.as_str()).collect();
        self.with(|state| {
            let newest = state.newest.as_deref();
            let value = |name: &str| newest.and_then(|newest| newest.scalars.get(name).copied());
            let scalars = state
                .names
                .known_as()
                .filter(|(known, _)| names.contains(known.as_str()));
            scalars
                .filter_map(|(known, name)| Some((known, value(name)?)))
                .collect()
        })
    }
}

/// A value, or that it is not known.
fn known(value: f64) -> Result<f64, ExecutionError> {
    match value.is_nan() {
        true => Err(ExecutionError::function_error(KNOWN, "not known yet")),
        false => Ok(value),
    }
}

impl State {
    /// The value of a call; NaN, which no comparison takes, where it is not known yet.
    fn answer(&self, call: &Call) -> f64 {
        match call {
            Call::Mean(name, n) => self
                .last(name, *n)
                .map_or(f64::NAN, |values| values.sum::<f64>() / *n as f64),
            // Where one is not known, neither is the largest.
            Call::Largest(name, n) => self.last(name, *n).map_or(f64::NAN, |values| {
                values.fold(f64::NEG_INFINITY, |largest, value| {
                    match largest.is_nan() || value.is_nan() {
                        true => f64::NAN,
                        false => largest.max(value),
                    }
                })
            }),
            Call::HitRate(n) => self
                .last("hit", *n)
                .map_or(f64::NAN, |values| values.sum::<f64>() / *n as f64),
            Call::RelativeError(low, high) => {
                let bins: Vec<usize> = self.bins(*low, *high).collect();
                let sum = |values: &[f64]| bins.iter().map(|bin| values[*bin]).sum::<f64>();
                sum(&self.sums.variance).sqrt() / sum(&self.sums.intensity).abs()
            }
            Call::Intensity(low, high) => {
                let Some((name, newest)) = self.names.curve.as_ref().zip(self.newest.as_ref()) else {
                    return f64::NAN;
                };
                let Some(curve) = newest.curves.get(&name.0) else {
                    return f64::NAN;
                };
                let values: Vec<f64> = self.bins(*low, *high).map(|bin| f64::from(curve[bin])).collect();
                values.iter().sum::<f64>() / values.len() as f64
            }
            Call::Metadata(name) => match self
                .newest
                .as_ref()
                .and_then(|newest| newest.metadata.get(name.as_str()))
            {
                Some(Value::Number(number)) => *number,
                Some(Value::Nanoseconds(ns)) => *ns as f64,
                None => f64::NAN,
            },
        }
    }

    /// The last `n` values of a scalar; `None` where there are not as many.
    fn last(&self, name: &str, n: i64) -> Option<impl Iterator<Item = f64>> {
        let window = self.windows.get(name)?;
        let n = usize::try_from(n).ok().filter(|n| *n > 0 && *n <= window.len())?;
        Some(window.range(window.len() - n..).copied())
    }

    /// Bins of the curve whose axis lies in this range.
    fn bins(&self, low: f64, high: f64) -> impl Iterator<Item = usize> {
        let axis = self.names.curve.iter().flat_map(|(_, axis)| axis.iter());
        axis.enumerate()
            .filter(move |(_, at)| (low..=high).contains(*at))
            .map(|(bin, _)| bin)
    }
}
