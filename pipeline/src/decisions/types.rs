//! What kind of value each part of a condition has, worked out from its text: a condition that is accepted has a value for
//! every result, or none yet, and takes a time that its length bounds.

use super::call::{Argument, Call, FUNCTIONS, Wanted};
use super::{RuleError, VARIABLES};
use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, SourceInfo, operators};

/// The function that [`Checker`] puts around what is compared for equality: it has no value where a number is none, since
/// nothing is unequal to what is not known.
pub(super) const KNOWN: &str = "known_number";

/// What kind of value a part of a condition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Whole,
    Number,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Truth => "true or false",
            Kind::Whole => "a whole number",
            Kind::Number => "a number",
        }
    }
}

/// What a condition names, and where.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// scalars and variables, with columns
    pub names: Vec<(String, usize)>,
    /// functions called, with columns
    pub calls: Vec<(Call, usize)>,
}

pub(super) struct Checker<'a> {
    text: &'a str,
    /// the text that was parsed: as many characters
    plain: Vec<char>,
    source: &'a SourceInfo,
    named: Named,
}

/// Whether an expression asks for true or false, with names and calls that it has. Comparisons for equality are rewritten,
/// see [`KNOWN`].
///
/// # Errors
/// [`RuleError::Meaning`] or [`RuleError::Function`], with the column.
pub(super) fn check(
    text: &str,
    plain: &str,
    expression: &mut IdedExpr,
    source: &SourceInfo,
) -> Result<Named, RuleError> {
    let mut checker = Checker {
        text,
        plain: plain.chars().collect(),
        source,
        named: Named::default(),
    };
    match checker.kind(expression)? {
        Kind::Truth => Ok(checker.named),
        other => {
            let column = checker.column(expression);
            Err(checker.wrong(
                column,
                format!("it is {}, not true or false: compare it with something", other.words()),
            ))
        }
    }
}

impl Checker<'_> {
    /// Column of an expression's first character, from 1.
    fn column(&self, of: &IdedExpr) -> usize {
        let at = self.offset(of);
        match &of.expr {
            Expr::Call(call) if call.func_name.starts_with('_') => call
                .args
                .iter()
                .map(|part| self.column(part))
                .min()
                .unwrap_or(at + 1)
                .min(at + 1),
            Expr::Call(call) if is_name(&call.func_name) => self.name_before(at),
            // A macro, where its bracket is.
            Expr::Comprehension(_) => self.name_before(at),
            _ => at + 1,
        }
    }

    fn offset(&self, of: &IdedExpr) -> usize {
        let (at, _) = self.source.offset_for(of.id).unwrap_or_default();
        // Told in bytes.
        let before = self.source.source.get(..at as usize);
        before.map_or(0, |before| before.chars().count()).min(self.plain.len())
    }

    /// Column of the name that ends before the bracket at `at`.
    fn name_before(&self, at: usize) -> usize {
        let before = &self.plain[..at];
        let end = before
            .iter()
            .rposition(|c| !c.is_whitespace())
            .map_or(0, |last| last + 1);
        let begin = before[..end].iter().rposition(|c| !(c.is_alphanumeric() || *c == '_'));
        begin.map_or(1, |last| last + 2)
    }

    fn wrong(&self, column: usize, reason: impl Into<String>) -> RuleError {
        RuleError::Meaning {
            text: self.text.into(),
            column,
            reason: reason.into(),
        }
    }

    fn kind(&mut self, expression: &mut IdedExpr) -> Result<Kind, RuleError> {
        let column = self.column(expression);
        match &mut expression.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => Ok(Kind::Truth),
            Expr::Literal(LiteralValue::Int(_)) => Ok(Kind::Whole),
            Expr::Literal(LiteralValue::Double(_)) => Ok(Kind::Number),
            Expr::Literal(_) => Err(self.wrong(column, "expected a number, or a comparison of numbers")),
            Expr::Ident(name) => {
                let kind = match name.as_str() {
                    "frame" | "results" => Kind::Whole,
                    "partial" => Kind::Truth,
                    _ => Kind::Number,
                };
                self.named.names.push((name.clone(), column));
                Ok(kind)
            }
            Expr::Call(call) if call.target.is_none() => self.call(call, column),
            Expr::Comprehension(_) => Err(self.wrong(
                column,
                "a condition does not loop: all, exists, map and filter are left out",
            )),
            _ => Err(self.wrong(
                column,
                "a condition has numbers and comparisons: no lists, no maps, no fields, no methods",
            )),
        }
    }

    fn call(&mut self, call: &mut CallExpr, column: usize) -> Result<Kind, RuleError> {
        use operators::{
            ADD, CONDITIONAL, DIVIDE, EQUALS, GREATER, GREATER_EQUALS, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
            LOGICAL_OR, MODULO, MULTIPLY, NEGATE, NOT_EQUALS, SUBSTRACT,
        };
        let operator = call.func_name.clone();
        match (operator.as_str(), &mut call.args[..]) {
            (LOGICAL_AND | LOGICAL_OR | LOGICAL_NOT, parts) => {
                for part in parts {
                    self.truth(part)?;
                }
                Ok(Kind::Truth)
            }
            (CONDITIONAL, [question, yes, no]) => {
                self.truth(question)?;
                let (first, second) = (self.kind(yes)?, self.kind(no)?);
                match first == second {
                    true => Ok(first),
                    false => {
                        let reason = format!("one of the two is {}, the other {}", first.words(), second.words());
                        Err(self.wrong(self.column(yes), reason))
                    }
                }
            }
            (LESS | LESS_EQUALS | GREATER | GREATER_EQUALS, [left, right]) => {
                self.number(left)?;
                self.number(right)?;
                Ok(Kind::Truth)
            }
            (EQUALS | NOT_EQUALS, [left, right]) => {
                match (self.kind(left)?, self.kind(right)?) {
                    (Kind::Truth, Kind::Truth) | (Kind::Whole, Kind::Whole) => {}
                    (Kind::Truth, other) | (other, Kind::Truth) => {
                        let reason = format!("{} is never equal to true or false", other.words());
                        return Err(self.wrong(column, reason));
                    }
                    (left_kind, right_kind) => {
                        as_known(left, left_kind);
                        as_known(right, right_kind);
                    }
                }
                Ok(Kind::Truth)
            }
            (ADD | SUBSTRACT | MULTIPLY | DIVIDE | MODULO, [left, right]) => {
                let (first, second) = (self.number(left)?, self.number(right)?);
                match (first, second, operator.as_str()) {
                    (Kind::Number, _, MODULO) | (_, Kind::Number, MODULO) => {
                        Err(self.wrong(column, "% is of whole numbers, such as frame"))
                    }
                    _ if first == second => Ok(first),
                    _ => {
                        let reason = "write numbers that scalars are reckoned with with a point: 2.0, or double(frame)";
                        let whole = if first == Kind::Whole { left } else { right };
                        Err(self.wrong(self.column(whole), reason))
                    }
                }
            }
            (NEGATE, [part]) => self.number(part),
            ("double", [part]) => self.number(part).map(|_| Kind::Number),
            ("int", [part]) => self.number(part).map(|_| Kind::Whole),
            (name, arguments) => self.function(name, arguments, column),
        }
    }

    fn truth(&mut self, part: &mut IdedExpr) -> Result<(), RuleError> {
        match self.kind(part)? {
            Kind::Truth => Ok(()),
            other => {
                let reason = format!("it is {}, expected true or false", other.words());
                Err(self.wrong(self.column(part), reason))
            }
        }
    }

    fn number(&mut self, part: &mut IdedExpr) -> Result<Kind, RuleError> {
        match self.kind(part)? {
            Kind::Truth => Err(self.wrong(self.column(part), "it is true or false, expected a number")),
            other => Ok(other),
        }
    }

    /// A function of the beamline's: its arguments are written out, so that what it asks for is known before the first frame.
    fn function(&mut self, name: &str, arguments: &mut [IdedExpr], column: usize) -> Result<Kind, RuleError> {
        let Some((_, usage, wanted)) = FUNCTIONS.iter().find(|(known, _, _)| *known == name) else {
            return Err(RuleError::Function {
                text: self.text.into(),
                column,
                name: name.trim_start_matches('@').into(),
            });
        };
        let usage = format!("expected {usage}");
        if wanted.len() != arguments.len() {
            return Err(self.wrong(column, &*usage));
        }
        let mut given = Vec::new();
        for (argument, wanted) in arguments.iter_mut().zip(*wanted) {
            let (value, literal) = match (literal(argument), wanted) {
                (Some(value @ Argument::Text(_)), Wanted::Text) => (value, None),
                (Some(value @ Argument::Whole(_)), Wanted::Whole) => (value, None),
                (Some(value @ Argument::Number(_)), Wanted::Number) => (value, None),
                (Some(Argument::Whole(whole)), Wanted::Number) => {
                    let number = whole as f64;
                    (Argument::Number(number), Some(LiteralValue::Double(number.into())))
                }
                _ => return Err(self.wrong(self.column(argument), &*usage)),
            };
            if let Some(literal) = literal {
                argument.expr = Expr::Literal(literal);
            }
            given.push(value);
        }
        let call = Call::of(name, &given).ok_or_else(|| self.wrong(column, &*usage))?;
        self.named.calls.push((call, column));
        Ok(Kind::Number)
    }
}

/// A text or number as it was written.
fn literal(expression: &IdedExpr) -> Option<Argument> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(Argument::Text(text.inner().to_string())),
        Expr::Literal(LiteralValue::Int(whole)) => Some(Argument::Whole(*whole.inner())),
        Expr::Literal(LiteralValue::Double(number)) => Some(Argument::Number(*number.inner())),
        Expr::Call(call) if call.func_name == operators::NEGATE => match literal(call.args.first()?)? {
            Argument::Whole(whole) => Some(Argument::Whole(whole.checked_neg()?)),
            Argument::Number(number) => Some(Argument::Number(-number)),
            Argument::Text(_) => None,
        },
        _ => None,
    }
}

/// `part` as a number that has a value, or none.
fn as_known(part: &mut IdedExpr, kind: Kind) {
    let mut inner = std::mem::take(part);
    let id = inner.id;
    let around = |name: &str, inner: IdedExpr| IdedExpr {
        id,
        expr: Expr::Call(CallExpr {
            func_name: name.into(),
            target: None,
            args: vec![inner],
        }),
    };
    if kind == Kind::Whole {
        inner = around("double", inner);
    }
    *part = around(KNOWN, inner);
}

fn is_name(function: &str) -> bool {
    function.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether every frame has this, beside its scalars.
pub(super) fn is_variable(name: &str) -> bool {
    VARIABLES.iter().any(|(variable, _)| *variable == name)
}
