//! The text of a rule: an expression of the Common Expression Language (CEL) with two additions of the beamline's,
//! `f(q=1.5..1.6)` for a range and `… for 3 frames` or `… for 2 s` at the end.

use super::RuleError;
use cel::{Context, Program, Value};
use std::collections::BTreeSet;

/// How long a condition must hold before its rule fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hold {
    /// so many results one after the other, at least 1
    Frames(u64),
    /// from the arrival of the first frame to that of the last, ns
    Time(u64),
}

/// A condition, compiled.
#[derive(Debug)]
pub struct Condition {
    text: String,
    program: Program,
    /// how long it must hold
    pub hold: Hold,
}

/// Functions that a condition may call: name and how it is called.
pub const FUNCTIONS: [(&str, &str); 6] = [
    ("mean", "mean(\"NAME\", N): mean of a scalar over the last N results"),
    (
        "largest",
        "largest(\"NAME\", N): largest value of a scalar among the last N results",
    ),
    ("hit_rate", "hit_rate(N): share of hits among the last N results"),
    (
        "relative_error",
        "relative_error(q=LOW..HIGH): standard error over intensity of the run's mean curve in this range of its axis",
    ),
    (
        "intensity",
        "intensity(q=LOW..HIGH): mean of this frame's curve in this range of its axis",
    ),
    (
        "metadata",
        "metadata(\"NAME\"): value by frame number, once it has come",
    ),
];

/// Variables that every frame has beside its scalars.
pub const VARIABLES: [(&str, &str); 5] = [
    ("frame", "number of the frame, a whole number"),
    ("results", "number of results so far, a whole number"),
    ("share", "share of the frames up to this one that have a result"),
    ("age_ms", "age of the frame when its result was ready, ms"),
    ("partial", "whether the frame lacked parts"),
];

impl Condition {
    /// Compiles `text`.
    ///
    /// # Errors
    /// [`RuleError::Syntax`] with the column, counted from 1 in characters; [`RuleError::Function`] for an unknown function.
    pub fn new(text: &str) -> Result<Condition, RuleError> {
        let (condition, hold) = split_hold(text)?;
        let plain = plain_ranges(condition);
        let program = Program::compile(&plain).map_err(|errors| {
            let first = errors.errors.first();
            RuleError::Syntax {
                text: text.into(),
                column: first.map_or(1, |error| error.pos.1.max(1) as usize),
                reason: first.map_or_else(|| errors.to_string(), |error| error.msg.clone()),
            }
        })?;
        let references = program.references();
        let known = |name: &str| FUNCTIONS.iter().any(|(function, _)| *function == name) || is_operator(name);
        if let Some(name) = references.functions().into_iter().find(|name| !known(name)) {
            return Err(RuleError::Function {
                column: column_of(text, name),
                text: text.into(),
                name: name.into(),
            });
        }
        Ok(Condition {
            text: text.into(),
            program,
            hold,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the scalars and variables that it needs.
    pub fn variables(&self) -> BTreeSet<String> {
        self.program
            .references()
            .variables()
            .into_iter()
            .map(str::to_string)
            .collect()
    }

    /// Whether it holds. What cannot be known yet, as the hit rate of 200 frames after 20, does not hold.
    pub fn holds(&self, context: &Context<'_, '_>) -> bool {
        self.program.execute(context) == Ok(Value::Bool(true))
    }

    /// Whether it is a question at all: `context` has a number for everything.
    pub fn check(&self, context: &Context<'_, '_>) -> Result<(), RuleError> {
        let wrong = |reason: String| RuleError::Meaning {
            text: self.text.clone(),
            reason,
        };
        match self.program.execute(context) {
            Ok(Value::Bool(_)) => Ok(()),
            Ok(other) => Err(wrong(format!("it is {other:?}, not true or false"))),
            Err(error) => Err(wrong(format!(
                "{error} (write numbers that scalars are reckoned with with a point: 2.0)"
            ))),
        }
    }
}

/// CEL's own operators and functions: these neither loop nor look outside.
fn is_operator(name: &str) -> bool {
    let own = [
        "double",
        "int",
        "abs",
        "min",
        "max",
        "size",
        "@in",
        "@not_strictly_false",
    ];
    name.starts_with('_') || name.ends_with('_') || own.contains(&name)
}

/// Column of a word, counted from 1 in characters.
fn column_of(text: &str, word: &str) -> usize {
    text.find(word).map_or(1, |at| text[..at].chars().count() + 1)
}

/// Takes ` for N frames` or ` for T s` off the end.
fn split_hold(text: &str) -> Result<(&str, Hold), RuleError> {
    let Some((condition, tail)) = text.rsplit_once(" for ") else {
        return Ok((text, Hold::Frames(1)));
    };
    let mut words = tail.split_whitespace();
    let (number, unit, more) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next());
    let wrong = || RuleError::Syntax {
        text: text.into(),
        column: text[..text.len() - tail.len()].chars().count() + 1,
        reason: format!("{tail:?}: write \"for 3 frames\" or \"for 2.5 s\""),
    };
    let hold = match (number.parse::<f64>(), unit, more) {
        (Ok(count), "frame" | "frames", None) if count >= 1.0 && count.fract() == 0.0 && count <= 1e6 => {
            Hold::Frames(count as u64)
        }
        (Ok(seconds), "s", None) if (0.0..=86_400.0).contains(&seconds) => Hold::Time((seconds * 1e9) as u64),
        _ => return Err(wrong()),
    };
    Ok((condition, hold))
}

/// `q=1.5..1.6` becomes `  1.5, 1.6`, character by character, so that columns stay what they are.
fn plain_ranges(text: &str) -> String {
    let mut plain: Vec<char> = text.chars().collect();
    let range = |plain: &[char], at: usize| plain[at] == '.' && plain.get(at + 1) == Some(&'.');
    for at in 0..plain.len().saturating_sub(1) {
        if !range(&plain, at) {
            continue;
        }
        // Back to the name before the lower end.
        let begin = plain[..at]
            .iter()
            .rposition(|c| matches!(c, '(' | ','))
            .map_or(0, |open| open + 1);
        if let Some(equals) = plain[begin..at]
            .iter()
            .position(|c| *c == '=')
            .map(|found| begin + found)
        {
            plain[begin..=equals].fill(' ');
        }
        (plain[at], plain[at + 1]) = (',', ' ');
    }
    plain.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_holds_are_read_and_columns_stay() {
        assert_eq!(
            plain_ranges("relative_error(q=1.5..1.6) < 0.01"),
            "relative_error(  1.5, 1.6) < 0.01"
        );
        assert_eq!(
            split_hold("max > 6 for 3 frames").unwrap(),
            ("max > 6", Hold::Frames(3))
        );
        assert_eq!(
            split_hold("max > 6 for 0.5 s").unwrap(),
            ("max > 6", Hold::Time(500_000_000))
        );
        for (text, column) in [
            ("max > ", 7),
            ("max > 5 && || sum > 1", 12),
            ("max > 5 for ever", 13),
            ("max > 5 for 0 frames", 13),
            ("sum > 1.0 && foo(3) > 1", 14),
        ] {
            let error = Condition::new(text).unwrap_err();
            assert!(
                error.to_string().contains(&format!("column {column}")),
                "{text}: {error}"
            );
        }
    }
}
