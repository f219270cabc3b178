//! Who may write which slot. A state machine: no clock, thread or I/O inside.
//!
//! ```text
//!   away ──granted──▶ with a link ──announced──▶ away (a lease; comes back when its last clone is dropped)
//!                          │
//!                          └──link leaves──▶ held ──its queue pair is destroyed──▶ away
//! ```
//!
//! Invariants: a slot is with one link at most; a slot of a link that left stays held until [`Credits::left`] says that
//! the queue pair is gone; a link never has more slots than its limit.

use super::wire::parts_of_immediate;

/// Links that may be there at once.
pub const LINKS_MAX: usize = 64;

/// Why an announcement is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// it carries the number of another connection
    OtherConnection,
    /// the slot is not the link's
    NotGranted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    connection: u32,
    limit: u32,
    slots: u32,
    leaving: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Credits {
    owners: Box<[Option<u8>]>,
    links: [Option<Link>; LINKS_MAX],
}

impl Credits {
    /// For a ring of so many slots; nothing is granted.
    pub fn new(slots: usize) -> Self {
        Self {
            owners: vec![None; slots].into(),
            links: [None; LINKS_MAX],
        }
    }

    /// A connection stands; `None` where every place is taken.
    pub fn join(&mut self, connection: u32, limit: u32) -> Option<usize> {
        let place = self.links.iter().position(Option::is_none)?;
        self.links[place] = Some(Link {
            connection,
            limit,
            slots: 0,
            leaving: false,
        });
        Some(place)
    }

    /// The link that should get the next free slot: the one with the fewest, where it may have more.
    pub fn next_place(&self) -> Option<usize> {
        let wanting = self.links.iter().enumerate().filter_map(|(place, link)| {
            link.filter(|link| !link.leaving && link.slots < link.limit)
                .map(|link| (link.slots, place))
        });
        wanting.min().map(|(_, place)| place)
    }

    /// A free slot goes to a link.
    pub fn grant(&mut self, place: usize, slot: usize) {
        let link = self.links[place].as_mut().filter(|link| !link.leaving);
        if let (Some(link), None) = (link, self.owners[slot]) {
            link.slots += 1;
            self.owners[slot] = Some(place as u8);
        }
    }

    /// A link says that a slot is written. The slot is away then.
    pub fn announced(&mut self, place: usize, immediate: u32) -> Result<usize, Violation> {
        let (connection, slot) = parts_of_immediate(immediate);
        let link = self.links[place].as_mut().ok_or(Violation::OtherConnection)?;
        if link.connection as u16 != connection {
            return Err(Violation::OtherConnection);
        }
        let owner = self.owners.get_mut(usize::from(slot)).ok_or(Violation::NotGranted)?;
        if *owner != Some(place as u8) {
            return Err(Violation::NotGranted);
        }
        *owner = None;
        link.slots -= 1;
        Ok(usize::from(slot))
    }

    /// A link is to end: it gets nothing more, and what it has stays held.
    pub fn leave(&mut self, place: usize) {
        if let Some(link) = &mut self.links[place] {
            link.leaving = true;
        }
    }

    /// The link's queue pair is destroyed: `free` gets every slot that it had.
    pub fn left(&mut self, place: usize, mut free: impl FnMut(usize)) {
        self.links[place] = None;
        for (slot, owner) in self.owners.iter_mut().enumerate() {
            if *owner == Some(place as u8) {
                *owner = None;
                free(slot);
            }
        }
    }

    /// Slots that links have now.
    pub fn granted(&self) -> u32 {
        self.links.iter().flatten().map(|link| link.slots).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::immediate;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_slot_of_a_broken_link_comes_back_only_when_its_queue_pair_is_gone() {
        let mut credits = Credits::new(4);
        let place = credits.join(1, 2).unwrap();
        credits.grant(place, 3);
        credits.grant(place, 1);
        assert_eq!(credits.next_place(), None, "its limit is 2");
        credits.leave(place);
        assert_eq!(credits.granted(), 2);
        let other = credits.join(2, 4).unwrap();
        assert_ne!(other, place);
        assert_eq!(credits.next_place(), Some(other));
        credits.grant(other, 3);
        assert_eq!(
            credits.announced(other, immediate(2, 3)),
            Err(Violation::NotGranted),
            "still held for the link that left"
        );
        let mut freed = Vec::new();
        credits.left(place, |slot| freed.push(slot));
        assert_eq!(freed, [1, 3]);
        credits.grant(other, 3);
        assert_eq!(
            credits.announced(other, immediate(1, 3)),
            Err(Violation::OtherConnection)
        );
        assert_eq!(credits.announced(other, immediate(2, 3)), Ok(3));
        assert_eq!(credits.announced(other, immediate(2, 3)), Err(Violation::NotGranted));
        assert_eq!(
            credits.announced(other, immediate(2, 60_000)),
            Err(Violation::NotGranted)
        );
    }

    #[derive(Clone, Debug)]
    enum Event {
        Join(u32),
        Grant,
        Announce(usize, u32),
        Leave(usize),
        Left(usize),
        Release,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => (1u32..6).prop_map(Event::Join),
            6 => Just(Event::Grant),
            6 => (0usize..4, 0u32..0x5_0008).prop_map(|(place, immediate)| Event::Announce(place, immediate)),
            1 => (0usize..4).prop_map(Event::Leave),
            1 => (0usize..4).prop_map(Event::Left),
            4 => Just(Event::Release),
        ]
    }

    proptest! {
        // A model of the ring beside the machine: a slot is free, with one link, or leased; never two of these.
        #[test]
        fn a_slot_is_in_one_place_under_any_sequence(events in prop::collection::vec(event(), 0..400)) {
            const SLOTS: usize = 8;
            let mut credits = Credits::new(SLOTS);
            let mut free: Vec<usize> = (0..SLOTS).collect();
            let mut leased: Vec<usize> = Vec::new();
            let mut with: HashMap<usize, usize> = HashMap::new();
            let mut gone: HashMap<usize, bool> = HashMap::new();
            for (connection, event) in events.into_iter().enumerate() {
                match event {
                    Event::Join(limit) => {
                        if gone.len() < 4 && let Some(place) = credits.join(connection as u32 % 5, limit) {
                            prop_assert!(gone.insert(place, false).is_none());
                        }
                    }
                    Event::Grant => {
                        if let Some(place) = credits.next_place() && let Some(slot) = free.pop() {
                            prop_assert_eq!(gone.get(&place), Some(&false));
                            credits.grant(place, slot);
                            with.insert(slot, place);
                        }
                    }
                    Event::Announce(place, immediate) => {
                        if let Ok(slot) = credits.announced(place, immediate) {
                            prop_assert_eq!(with.remove(&slot), Some(place));
                            leased.push(slot);
                        }
                    }
                    Event::Leave(place) => {
                        credits.leave(place);
                        gone.entry(place).and_modify(|left| *left = true);
                    }
                    Event::Left(place) => {
                        if gone.remove(&place).is_some() {
                            credits.left(place, |slot| {
                                assert_eq!(with.remove(&slot), Some(place));
                                free.push(slot);
                            });
                        }
                    }
                    Event::Release => free.extend(leased.pop()),
                }
                prop_assert_eq!(free.len() + leased.len() + with.len(), SLOTS);
                prop_assert_eq!(credits.granted() as usize, with.len());
            }
        }
    }
}
