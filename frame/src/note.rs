//! Numbers that come with a frame: a motor's position, a monitor's counts. They lie behind the header, in its page.

use zerocopy::little_endian::F64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest name, bytes.
pub const NOTE_NAME_BYTES: usize = 48;
/// Most notes of a frame.
pub const NOTES_MAX: usize = 32;
/// Where they begin in the header's page.
pub const NOTES_OFFSET: usize = 256;

/// Where they end.
pub const NOTES_END: usize = NOTES_OFFSET + NOTES_MAX * size_of::<Note>();

const _: () = assert!(NOTES_END <= crate::header::HEADER_PAGE_BYTES);
const _: () = assert!(size_of::<Note>() == 56);

/// A name and its value.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Note {
    name: [u8; NOTE_NAME_BYTES],
    value: F64,
}

impl Note {
    /// A finite value under a name that is cut to what a name may be: letters, digits and `_`, 48 at most. `None` where
    /// nothing of the name is left, or the value is no number.
    pub fn new(name: &str, value: f64) -> Option<Note> {
        if name.is_empty() || !value.is_finite() {
            return None;
        }
        let mut bytes = [0; NOTE_NAME_BYTES];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = if from.is_ascii_alphanumeric() { from } else { b'_' };
        }
        if bytes[0].is_ascii_digit() {
            bytes[0] = b'_';
        }
        Some(Note {
            name: bytes,
            value: F64::new(value),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(NOTE_NAME_BYTES);
        std::str::from_utf8(&self.name[..end]).unwrap_or_default()
    }

    /// Its value.
    pub fn value(&self) -> f64 {
        self.value.get()
    }
}

/// Whether `name` may name a value: a letter or `_` first, then letters, digits and `_`, 48 at most.
pub fn valid_name(name: &str) -> bool {
    let first = name.bytes().next();
    name.len() <= NOTE_NAME_BYTES
        && first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_a_name_may_be() {
        let name = |text: &str| Note::new(text, 1.0).map(|note| note.name().to_string());
        assert_eq!(name("sam x").as_deref(), Some("sam_x"));
        assert_eq!(name("2theta").as_deref(), Some("_theta"));
        assert_eq!(name("µ").as_deref(), Some("__"));
        assert_eq!(name(&"a".repeat(60)).map(|name| name.len()), Some(48));
        assert!(name("").is_none() && Note::new("a", f64::NAN).is_none());
        for name in ["sam_x", "_2theta", "I0"] {
            assert!(valid_name(name), "{name}");
        }
        for name in ["", "2theta", "sam x", &"a".repeat(49)] {
            assert!(!valid_name(name), "{name}");
        }
    }
}
