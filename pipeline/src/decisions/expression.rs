//! The text of a rule: an expression of the Common Expression Language (CEL) with two additions of the beamline's,
//! `f(q=1.5..1.6)` for a range and `… for 3 frames` or `… for 2 s` at the end.

use super::RuleError;
use super::call::Call;
use super::types::{self, Named};
use cel::{Context, IdedExpr, Program, Value};

/// Longest condition, characters.
pub const CHARACTERS_MAX: usize = 1000;

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
    expression: IdedExpr,
    named: Named,
    /// how long it must hold
    pub hold: Hold,
}

/// Variables that every frame has beside its scalars.
pub const VARIABLES: [(&str, &str); 5] = [
    ("frame", "number of the frame, a whole number"),
    ("results", "number of results so far, a whole number"),
    ("share", "share of the frames up to this one that have a result"),
    ("age_ms", "age of the frame when its result was ready, ms"),
    ("partial", "whether the frame lacked parts"),
];

impl Condition {
    /// Compiles `text`, and works out that it is a question that is answered with true or false.
    ///
    /// # Errors
    /// [`RuleError::Syntax`], [`RuleError::Meaning`] or [`RuleError::Function`], with the column, counted from 1 in characters.
    pub fn new(text: &str) -> Result<Condition, RuleError> {
        let syntax = |column: usize, reason: String| RuleError::Syntax {
            text: text.chars().take(CHARACTERS_MAX).collect(),
            column,
            reason,
        };
        if text.chars().nth(CHARACTERS_MAX).is_some() {
            let reason = format!("a condition has at most {CHARACTERS_MAX} characters");
            return Err(syntax(CHARACTERS_MAX + 1, reason));
        }
        let (condition, hold) = split_hold(text)?;
        let plain = plain_ranges(condition);
        let program = Program::compile(&plain).map_err(|errors| {
            let first = errors.errors.first();
            let column = first.map_or(1, |error| error.pos.1.max(1) as usize);
            syntax(
                column,
                first.map_or_else(|| errors.to_string(), |error| error.msg.clone()),
            )
        })?;
        let mut expression = program.expression().clone();
        let named = types::check(text, &plain, &mut expression, program.source_info())?;
        Ok(Condition {
            text: text.into(),
            expression,
            named,
            hold,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Scalars and variables that it needs, each with its column.
    pub fn names(&self) -> &[(String, usize)] {
        &self.named.names
    }

    /// Functions that it calls, each with its column.
    pub fn calls(&self) -> &[(Call, usize)] {
        &self.named.calls
    }

    /// Whether it holds. What cannot be known yet, as the hit rate of 200 frames after 20, does not hold, and neither does
    /// anything that rests on it.
    pub fn holds(&self, context: &Context<'_, '_>) -> bool {
        Value::resolve(&self.expression, context) == Ok(Value::Bool(true))
    }
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
            ("hit_rate(200) < 0.02 && rate(3) > 1", 25),
            ("metadata(\"é\") < 1.0 && foo(3) > 1", 24),
            ("max", 1),
            ("frame > 3 && max + 1.0", 14),
            ("max / 2 > 1", 7),
            ("sum > 1.0 && mean(3, \"max\") > 1.0", 19),
            ("sum > 1.0 && mean(\"max\") > 1.0", 14),
            ("hit_rate(frame) > 0.1", 10),
            ("sum > 1.0 && !frame", 15),
            ("sum == true", 1),
            ("sum > 1.0 && [1, 2].all(x, x > 0)", 21),
            ("sum > 1.0 && sum.max > 1.0", 17),
            ("max in [1.0]", 5),
            ("\"a\" == \"a\"", 1),
            ("frame % 2.0 == 1.0", 1),
        ] {
            let error = Condition::new(text).unwrap_err();
            assert!(
                error.to_string().contains(&format!("column {column}")),
                "{text}: {error}"
            );
        }
        let long = format!("max > {}1", " ".repeat(CHARACTERS_MAX));
        let error = Condition::new(&long).unwrap_err().to_string();
        assert!(error.contains("column 1001") && error.len() < 2000, "{error}");
        // As deep as it can get.
        let deep = format!("{}max > 1{}", "(".repeat(490), ")".repeat(490));
        assert!(Condition::new(&deep).is_err());
    }
}
