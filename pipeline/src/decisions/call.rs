//! The functions that a condition may call.

use super::WINDOW_MAX;
use std::sync::Arc;

/// What an argument of a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// a text in quotes
    Text,
    /// a whole number
    Whole,
    /// a number
    Number,
}

/// A function: its name, how it is called, and what it takes.
pub(super) type Function = (&'static str, &'static str, &'static [Wanted]);

/// Functions that a condition may call.
pub(super) const FUNCTIONS: [Function; 6] = [
    (
        "mean",
        "mean(\"NAME\", N): mean of a scalar over the last N results",
        &[Wanted::Text, Wanted::Whole],
    ),
    (
        "largest",
        "largest(\"NAME\", N): largest value of a scalar among the last N results",
        &[Wanted::Text, Wanted::Whole],
    ),
    (
        "hit_rate",
        "hit_rate(N): share of hits among the last N results",
        &[Wanted::Whole],
    ),
    (
        "relative_error",
        "relative_error(q=LOW..HIGH): standard error over intensity of the run's mean curve in this range of its axis",
        &[Wanted::Number, Wanted::Number],
    ),
    (
        "intensity",
        "intensity(q=LOW..HIGH): mean of this frame's curve in this range of its axis",
        &[Wanted::Number, Wanted::Number],
    ),
    (
        "metadata",
        "metadata(\"NAME\"): value by frame number, once it has come",
        &[Wanted::Text],
    ),
];

/// A function called.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `mean("NAME", N)`
    Mean(Arc<String>, i64),
    /// `largest("NAME", N)`
    Largest(Arc<String>, i64),
    /// `hit_rate(N)`
    HitRate(i64),
    /// `relative_error(LOW..HIGH)`
    RelativeError(f64, f64),
    /// `intensity(LOW..HIGH)`
    Intensity(f64, f64),
    /// `metadata("NAME")`
    Metadata(Arc<String>),
}

/// An argument as it was written.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    Text(String),
    Whole(i64),
    Number(f64),
}

impl Call {
    /// A function called with these arguments; `None` where they are not what it takes.
    pub(super) fn of(function: &str, arguments: &[Argument]) -> Option<Call> {
        use Argument::{Number, Text, Whole};
        let text = |text: &String| Arc::new(text.clone());
        Some(match (function, arguments) {
            ("mean", [Text(name), Whole(n)]) => Call::Mean(text(name), *n),
            ("largest", [Text(name), Whole(n)]) => Call::Largest(text(name), *n),
            ("hit_rate", [Whole(n)]) => Call::HitRate(*n),
            ("relative_error", [Number(low), Number(high)]) => Call::RelativeError(*low, *high),
            ("intensity", [Number(low), Number(high)]) => Call::Intensity(*low, *high),
            ("metadata", [Text(name)]) => Call::Metadata(text(name)),
            _ => return None,
        })
    }

    /// Whether results with these scalars, and a curve whose axis has a value in this range or not, can ever give it a value.
    pub(super) fn possible(&self, scalar: impl Fn(&str) -> bool, range: impl Fn(f64, f64) -> bool) -> bool {
        let window = |name: &str, n: i64| scalar(name) && (1..=WINDOW_MAX as i64).contains(&n);
        match self {
            Call::Mean(name, n) | Call::Largest(name, n) => window(name, *n),
            Call::HitRate(n) => window("hit", *n),
            Call::RelativeError(low, high) | Call::Intensity(low, high) => low <= high && range(*low, *high),
            Call::Metadata(_) => true,
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Call::Mean(name, n) => write!(f, "mean({name:?}, {n})"),
            Call::Largest(name, n) => write!(f, "largest({name:?}, {n})"),
            Call::HitRate(n) => write!(f, "hit_rate({n})"),
            Call::RelativeError(low, high) => write!(f, "relative_error({low}..{high})"),
            Call::Intensity(low, high) => write!(f, "intensity({low}..{high})"),
            Call::Metadata(name) => write!(f, "metadata({name:?})"),
        }
    }
}
