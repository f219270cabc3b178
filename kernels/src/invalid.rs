//! Why an operation on the host cannot do what is asked.

/// A value or a size that does not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// a value that is not allowed
    #[error("{name} is {value}, but must be {allowed}")]
    Value {
        /// name of the parameter
        name: &'static str,
        /// what it is
        value: String,
        /// what it may be
        allowed: &'static str,
    },
    /// a number of values that does not fit
    #[error("{what} is {found}, expected {expected}")]
    Length {
        /// of what
        what: &'static str,
        /// the number there is
        found: usize,
        /// the number there should be
        expected: usize,
    },
}

impl Invalid {
    pub(crate) fn value(name: &'static str, value: impl ToString, allowed: &'static str) -> Self {
        let value = value.to_string();
        Self::Value { name, value, allowed }
    }

    pub(crate) fn unless(
        fits: bool,
        name: &'static str,
        value: impl ToString,
        allowed: &'static str,
    ) -> Result<(), Self> {
        if fits {
            Ok(())
        } else {
            Err(Self::value(name, value, allowed))
        }
    }

    pub(crate) fn expect_len(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected {
            Ok(())
        } else {
            Err(Self::Length { what, found, expected })
        }
    }
}
