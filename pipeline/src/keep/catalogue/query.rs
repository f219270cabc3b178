//! What people type to find a run.
//!
//! Words are looked for at the beginning of words of name, proposal, sample, technique, title, instrument and metadata;
//! all must be there. A term with an operator asks for one field: `sample:lyso` (begins with, whatever the case),
//! `proposal=mx1234`, `frames>=1000`, `start>=2026-11-01`, `bytes<1e9`, `life:verified`, `state:failed`. Any other field
//! is one of the metadata: `detector=EIGER`, `energy_kev>12.4`. A value with spaces stands in double quotes.

use super::super::KeepError;
use rusqlite::types::Value;

/// A query that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    words: Vec<String>,
    terms: Vec<Term>,
    /// proposals and runs of them that alone are looked at; none is all
    only: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    field: String,
    operator: &'static str,
    value: String,
}

const OPERATORS: [&str; 7] = ["!=", "<=", ">=", "=", ":", "<", ">"];
const TEXTS: [&str; 6] = ["id", "proposal", "sample", "technique", "state", "life"];

impl Query {
    /// Understands a query; nothing asks for every run.
    pub fn parse(text: &str) -> Result<Query, KeepError> {
        let mut query = Query::default();
        for term in split(text) {
            let found = OPERATORS
                .iter()
                .filter_map(|operator| term.find(operator).map(|at| (at, *operator)))
                .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())));
            match found {
                Some((at, operator)) if at > 0 => {
                    let (field, value) = (&term[..at], &term[at + operator.len()..]);
                    let term = Term {
                        field: field.to_string(),
                        operator,
                        value: value.to_string(),
                    };
                    term.check()?;
                    query.terms.push(term);
                }
                _ => query.words.extend(words_of(&term)),
            }
        }
        Ok(query)
    }

    /// The same among these alone, `PROPOSAL` or `PROPOSAL/RUN`; none is all.
    pub fn within(mut self, only: &[String]) -> Query {
        self.only = only.to_vec();
        self
    }

    /// Whether it asks for words only, and `text` has them all.
    pub fn fits_words(&self, text: &str) -> bool {
        let there = words_of(text);
        let has = |word: &String| there.iter().any(|other| other.starts_with(word.as_str()));
        self.terms.is_empty() && self.words.iter().all(has)
    }

    /// The table and condition that select the numbers of the runs, and its values.
    pub(super) fn condition(&self) -> (String, Vec<Value>) {
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        if !self.words.is_empty() {
            let all: Vec<String> = self.words.iter().map(|word| format!("\"{word}\"*")).collect();
            values.push(Value::Text(all.join(" ")));
            if self.terms.is_empty() && self.only.is_empty() {
                return ("(SELECT rowid AS number FROM words WHERE words MATCH ?)".into(), values);
            }
            conditions.push("number IN (SELECT rowid FROM words WHERE words MATCH ?)".into());
        }
        for term in &self.terms {
            conditions.push(term.condition(&mut values));
        }
        let one = |entry: &String| match entry.split_once('/') {
            None => {
                values.push(Value::Text(entry.clone()));
                "proposal = ? COLLATE BINARY"
            }
            Some((proposal, run)) => {
                values.extend([Value::Text(proposal.into()), Value::Text(run.into())]);
                "(proposal = ? COLLATE BINARY AND id = ? COLLATE BINARY)"
            }
        };
        let any: Vec<&str> = self.only.iter().map(one).collect();
        if !any.is_empty() {
            conditions.push(format!("({})", any.join(" OR ")));
        }
        match conditions.is_empty() {
            true => ("run".into(), values),
            false => (format!("run WHERE {}", conditions.join(" AND ")), values),
        }
    }
}

impl Term {
    fn check(&self) -> Result<(), KeepError> {
        let wrong = |expected: &str| {
            Err(KeepError::Query {
                term: format!("{}{}{}", self.field, self.operator, self.value),
                expected: expected.into(),
            })
        };
        match self.field.as_str() {
            "start" if day(&self.value).is_none() => wrong("a day as 2026-11-28 or a time as 2026-11-28T12:00:00Z"),
            "frames" | "complete" | "bytes" if self.value.parse::<f64>().is_err() => wrong("a number"),
            _ => Ok(()),
        }
    }

    /// SQL of this term; fields are names that this function knows, values are bound.
    fn condition(&self, values: &mut Vec<Value>) -> String {
        let operator = if self.operator == ":" { "=" } else { self.operator };
        let field = self.field.as_str();
        if TEXTS.contains(&field) {
            return match self.operator {
                ":" => {
                    values.extend(beginning(&self.value));
                    format!("{field} >= ? AND {field} < ?")
                }
                _ => {
                    values.push(Value::Text(self.value.clone()));
                    format!("{field} {operator} ?")
                }
            };
        }
        match field {
            "start" => {
                let (from, to) = day(&self.value).unwrap_or_default();
                match operator {
                    // A day is all of it.
                    "=" => {
                        values.extend([Value::Integer(from), Value::Integer(to)]);
                        "number >= ? AND number < ?".into()
                    }
                    ">" | "<=" => {
                        values.push(Value::Integer(to));
                        format!("number {} ?", if operator == ">" { ">=" } else { "<" })
                    }
                    _ => {
                        values.push(Value::Integer(from));
                        format!("number {operator} ?")
                    }
                }
            }
            "frames" | "complete" | "bytes" => {
                values.push(Value::Real(self.value.parse().unwrap_or_default()));
                format!("{field} {operator} ?")
            }
            key => {
                values.push(Value::Text(key.into()));
                let test = match (self.operator, self.value.parse::<f64>()) {
                    (":", _) => {
                        values.extend(beginning(&self.value));
                        "value >= ? AND value < ?".into()
                    }
                    (_, Ok(number)) => {
                        values.push(Value::Real(number));
                        format!("as_number {operator} ?")
                    }
                    _ => {
                        values.push(Value::Text(self.value.clone()));
                        format!("value {operator} ?")
                    }
                };
                format!("number IN (SELECT number FROM metadata WHERE key = ? AND {test})")
            }
        }
    }
}

/// Letters and digits that stand together, in lower case: what names with `_`, `-` and `.` are made of.
pub(super) fn words_of(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The terms of a query: separated by spaces, except between double quotes.
fn split(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => terms.push(std::mem::take(&mut term)),
            c => term.push(c),
        }
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    terms
}

/// The range of texts that begin like this, which an index finds.
fn beginning(text: &str) -> [Value; 2] {
    [Value::Text(text.into()), Value::Text(format!("{text}\u{10ffff}"))]
}

/// Beginning and end of a day, or a time twice, microseconds of 1970.
fn day(text: &str) -> Option<(i64, i64)> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some((time.as_microsecond(), time.as_microsecond() + 1));
    }
    let date: jiff::civil::Date = text.parse().ok()?;
    let at = |date: jiff::civil::Date| {
        Some(
            date.to_zoned(jiff::tz::TimeZone::UTC)
                .ok()?
                .timestamp()
                .as_microsecond(),
        )
    };
    Some((at(date)?, at(date.tomorrow().ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_terms_are_told_apart() {
        let query = Query::parse("Lyso_42 frames>=1e3 sample:\"a b\" energy_kev<12.5").unwrap();
        assert_eq!(query.words, ["lyso", "42"]);
        let terms: Vec<_> = query
            .terms
            .iter()
            .map(|t| (t.field.as_str(), t.operator, t.value.as_str()))
            .collect();
        assert_eq!(
            terms,
            [
                ("frames", ">=", "1e3"),
                ("sample", ":", "a b"),
                ("energy_kev", "<", "12.5")
            ]
        );
        for bad in ["start>yesterday", "frames:many"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_is_all_of_it() {
        let (from, to) = day("2026-11-28").unwrap();
        assert_eq!(to - from, 86_400_000_000);
        assert_eq!(day("2026-11-28T00:00:00Z").unwrap().0, from);
    }

    proptest! {
        /// Whatever is typed, SQLite is asked something that it understands.
        #[test]
        fn every_query_is_sql(text in "[a-z\"':=<>!%_ *()-]{0,24}") {
            if let Ok(query) = Query::parse(&text) {
                let connection = rusqlite::Connection::open_in_memory().unwrap();
                connection.execute_batch(super::super::TABLES).unwrap();
                let (condition, values) = query.condition();
                let count: i64 = connection
                    .query_row(&format!("SELECT count(*) FROM {condition}"), rusqlite::params_from_iter(values), |r| r.get(0))
                    .unwrap();
                prop_assert_eq!(count, 0);
            }
        }
    }
}
