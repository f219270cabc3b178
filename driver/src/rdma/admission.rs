//! Who may connect. A pure judgement of a request against what is allowed and who is there already.

use super::VERSION;
use super::wire::{DESCRIPTION_BYTES_MAX, Hello, MAGIC};

/// Why a sender is refused. The numbers go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[repr(u16)]
pub enum Reason {
    /// not a request of this protocol, or of another version
    Version = 1,
    /// the token is not the receiver's
    Token = 2,
    /// frames are larger than the slots
    FrameTooLarge = 3,
    /// more slots asked for than one connection gets
    TooManyCredits = 4,
    /// as many senders as allowed are there
    TooManySenders = 5,
    /// more connections than one sender may have
    TooManyParts = 6,
    /// the sender believes to be in another run
    StaleEpoch = 7,
    /// the description is missing, too long, not readable, or not that of the run
    Description = 8,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 8] = [
        Reason::Version,
        Reason::Token,
        Reason::FrameTooLarge,
        Reason::TooManyCredits,
        Reason::TooManySenders,
        Reason::TooManyParts,
        Reason::StaleEpoch,
        Reason::Description,
    ];

    /// The reason with this number.
    pub fn from_code(code: u16) -> Option<Reason> {
        Self::ALL.into_iter().find(|reason| *reason as u16 == code)
    }

    /// In words, for the sender's operator; `limit` is what the refusal carried.
    pub fn words(self, limit: u64) -> String {
        match self {
            Reason::Version => format!("the receiver speaks version {limit} of the protocol"),
            Reason::Token => "the token is not the receiver's".into(),
            Reason::FrameTooLarge => format!("the receiver takes frames of up to {limit} bytes"),
            Reason::TooManyCredits => format!("the receiver grants up to {limit} slots at once"),
            Reason::TooManySenders => format!("the receiver takes {limit} senders at once, and they are there"),
            Reason::TooManyParts => format!("the receiver takes {limit} connections of a sender"),
            Reason::StaleEpoch => format!("the receiver is in epoch {limit}"),
            Reason::Description => "the description is not readable, or not that of the run".into(),
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Version => "version",
            Reason::Token => "token",
            Reason::FrameTooLarge => "frame_too_large",
            Reason::TooManyCredits => "too_many_credits",
            Reason::TooManySenders => "too_many_senders",
            Reason::TooManyParts => "too_many_parts",
            Reason::StaleEpoch => "stale_epoch",
            Reason::Description => "description",
        }
    }
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// digest of the token; zeros where none is asked for
    pub token: [u8; 16],
    /// largest payload
    pub payload_bytes: u64,
    /// most slots of a connection
    pub credits: u32,
    /// most senders
    pub senders: usize,
    /// most connections of a sender
    pub parts: u16,
    /// the run
    pub epoch: u32,
}

/// Takes a request or says why not, with the limit that was passed. `present` names the sender of every connection that is
/// there. A connection that is there already is replaced: its sender would not ask again if it still stood. The token comes before everything that would tell a
/// stranger something.
pub fn judge(hello: &Hello, limits: &Limits, present: &[u64]) -> Result<(), (Reason, u64)> {
    if hello.magic != MAGIC || hello.version.get() != VERSION {
        return Err((Reason::Version, u64::from(VERSION)));
    }
    if !equal(&hello.token, &limits.token) {
        return Err((Reason::Token, 0));
    }
    if hello.epoch.get() != 0 && hello.epoch.get() != limits.epoch {
        return Err((Reason::StaleEpoch, u64::from(limits.epoch)));
    }
    if hello.payload_bytes_max.get() > limits.payload_bytes {
        return Err((Reason::FrameTooLarge, limits.payload_bytes));
    }
    if hello.credits.get() > limits.credits {
        return Err((Reason::TooManyCredits, u64::from(limits.credits)));
    }
    let (part, parts) = (hello.part.get(), hello.parts.get());
    let this = hello.sender.get();
    if parts == 0 || parts > limits.parts || part >= parts {
        return Err((Reason::TooManyParts, u64::from(limits.parts)));
    }
    let description = hello.description_bytes.get() as usize;
    if description > DESCRIPTION_BYTES_MAX || (part == 0) != (description > 0) {
        return Err((Reason::Description, DESCRIPTION_BYTES_MAX as u64));
    }
    // A sender counts once, however many connections it has.
    let others = present
        .iter()
        .enumerate()
        .filter(|(index, one)| **one != this && !present[..*index].contains(one))
        .count();
    if others >= limits.senders {
        return Err((Reason::TooManySenders, limits.senders as u64));
    }
    Ok(())
}

/// Compares in a time that does not depend on where the difference is.
fn equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromBytes, FromZeros};

    fn hello(change: impl Fn(&mut Hello)) -> Hello {
        let mut hello = Hello::new_zeroed();
        hello.magic = MAGIC;
        hello.version.set(VERSION);
        hello.token = [7; 16];
        hello.payload_bytes_max.set(1000);
        hello.sender.set(1);
        hello.parts.set(1);
        hello.description_bytes.set(10);
        change(&mut hello);
        hello
    }

    const LIMITS: Limits = Limits {
        token: [7; 16],
        payload_bytes: 1000,
        credits: 64,
        senders: 2,
        parts: 2,
        epoch: 5,
    };

    #[test]
    fn each_limit_has_its_reason() {
        let reason = |change: &dyn Fn(&mut Hello)| judge(&hello(change), &LIMITS, &[]).err().map(|(reason, _)| reason);
        assert_eq!(reason(&|_| {}), None);
        assert_eq!(reason(&|h| h.magic[0] = 0), Some(Reason::Version));
        assert_eq!(reason(&|h| h.version.set(2)), Some(Reason::Version));
        assert_eq!(reason(&|h| h.token[15] = 0), Some(Reason::Token));
        assert_eq!(reason(&|h| h.payload_bytes_max.set(1001)), Some(Reason::FrameTooLarge));
        assert_eq!(reason(&|h| h.credits.set(65)), Some(Reason::TooManyCredits));
        assert_eq!(reason(&|h| h.parts.set(3)), Some(Reason::TooManyParts));
        assert_eq!(reason(&|h| h.parts.set(0)), Some(Reason::TooManyParts));
        assert_eq!(reason(&|h| h.epoch.set(4)), Some(Reason::StaleEpoch));
        assert_eq!(reason(&|h| h.epoch.set(5)), None);
        assert_eq!(reason(&|h| h.description_bytes.set(0)), Some(Reason::Description));
    }

    #[test]
    fn senders_are_counted_once() {
        let second = hello(|h| {
            h.parts.set(2);
            h.part.set(1);
            h.description_bytes.set(0);
        });
        assert_eq!(judge(&second, &LIMITS, &[1, 2, 2]), Ok(()));
        let third = hello(|h| h.sender.set(3));
        let there = [1, 2, 2];
        assert_eq!(judge(&third, &LIMITS, &there), Err((Reason::TooManySenders, 2)));
    }

    proptest! {
        #[test]
        fn no_bytes_get_in_without_the_token(bytes in any::<[u8; 56]>()) {
            let hello = Hello::read_from_bytes(&bytes).unwrap();
            prop_assert!(judge(&hello, &LIMITS, &[]).is_err() || hello.token == LIMITS.token);
        }
    }
}
