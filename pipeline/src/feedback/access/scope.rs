//! Whose runs a token may see. Every other run is, for whoever has it, as if it did not exist.

use super::tokens::TokenError;
use std::sync::Arc;

/// Most proposals and runs that a token may be limited to.
const ENTRIES_MAX: usize = 64;

/// What somebody may see: everything, or what these entries name, `PROPOSAL` or `PROPOSAL/RUN`.
#[derive(Clone, Debug, Default)]
pub struct Scope(Arc<[String]>);

impl Scope {
    /// Of a token's entries; none is everything.
    pub fn of(only: &[String]) -> Scope {
        Scope(only.into())
    }

    /// Whether it ends somewhere.
    pub fn is_limited(&self) -> bool {
        !self.0.is_empty()
    }

    /// Its entries; none is everything.
    pub fn entries(&self) -> &[String] {
        &self.0
    }

    /// Whether it has this run of this proposal.
    pub fn sees(&self, proposal: &str, run: &str) -> bool {
        let has = |entry: &String| match entry.split_once('/') {
            None => entry == proposal,
            Some(both) => both == (proposal, run),
        };
        self.0.is_empty() || self.0.iter().any(has)
    }
}

/// Whether these may be a token's entries.
///
/// # Errors
/// A sentence that names the one that may not.
pub fn check(only: &[String]) -> Result<(), TokenError> {
    if only.len() > ENTRIES_MAX {
        let sentence = format!(
            "a token may be limited to {ENTRIES_MAX} proposals and runs, not {}",
            only.len()
        );
        return Err(TokenError::Request(sentence));
    }
    for entry in only {
        let (proposal, run) = entry
            .split_once('/')
            .map_or((entry.as_str(), None), |(p, r)| (p, Some(r)));
        let names = [("proposal", Some(proposal)), ("run name", run)];
        for (what, name) in names {
            let checked = name.map_or(Ok(()), |name| crate::storage::check_name(what, name));
            checked.map_err(|error| TokenError::Request(format!("only = {entry:?}: {error}")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_proposal_or_one_of_its_runs() {
        let scope = |entries: &[&str]| Scope::of(&entries.iter().map(|entry| entry.to_string()).collect::<Vec<_>>());
        assert!(scope(&[]).sees("mx1", "a") && !scope(&[]).is_limited());
        let two = scope(&["mx1", "mx2/a"]);
        assert!(two.is_limited() && two.sees("mx1", "anything") && two.sees("mx2", "a"));
        for (proposal, run) in [
            ("mx2", "b"),
            ("mx3", "a"),
            ("mx", "1"),
            ("mx1/", "a"),
            ("mx2/a", ""),
            ("", ""),
        ] {
            assert!(!two.sees(proposal, run), "{proposal} {run}");
        }
        let checked = |entry: &str| check(&[entry.to_string()]).is_ok();
        assert!(checked("mx1") && checked("mx1/run.1"));
        for bad in ["", "/", "mx1/", "/run", "a/b/c", "..", "mx1/..", "mx 1"] {
            assert!(!checked(bad), "{bad}");
        }
        assert!(check(&vec!["mx1".to_string(); 65]).is_err());
    }
}
