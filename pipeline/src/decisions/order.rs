//! Results in the order of their frames. Several workers finish out of order; a rule must not see that.

use std::collections::BTreeMap;

/// Most results that wait for an earlier one.
const WAITING_MAX: usize = 512;

/// What is known of a frame whose result has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// it may still come
    Coming,
    /// lost, corrupt, left out or failed: it never comes
    Never,
}

/// Puts results in the order of their frames.
#[derive(Debug)]
pub struct InOrder<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> InOrder<T> {
    /// Takes the result of `frame`. One that comes after a later one has been given out is dropped.
    pub fn put(&mut self, frame: u64, result: T) {
        if frame >= self.next {
            self.waiting.insert(frame, result);
        }
    }

    /// The next result in order, `fate` telling of frames whose result is not here.
    pub fn take(&mut self, fate: impl Fn(u64) -> Fate) -> Option<T> {
        loop {
            let (first, _) = self.waiting.first_key_value()?;
            let first = *first;
            if first > self.next && self.waiting.len() < WAITING_MAX && fate(self.next) == Fate::Coming {
                return None;
            }
            if first > self.next && self.waiting.len() < WAITING_MAX {
                self.next += 1;
                continue;
            }
            self.next = first + 1;
            return self.waiting.remove(&first);
        }
    }

    /// The next result, whatever is missing before it: for the end.
    pub fn drain(&mut self) -> Option<T> {
        let (frame, result) = self.waiting.pop_first()?;
        self.next = frame + 1;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_order_of_results_comes_out_in_order_and_whole(
            order in Just((0u64..60).collect::<Vec<_>>()).prop_shuffle(),
            lost in proptest::collection::hash_set(0u64..60, 0..20),
        ) {
            let mut in_order = InOrder::default();
            let mut out = Vec::new();
            for frame in order.iter().filter(|frame| !lost.contains(frame)) {
                in_order.put(*frame, *frame);
                out.extend(std::iter::from_fn(|| {
                    in_order.take(|frame| if lost.contains(&frame) { Fate::Never } else { Fate::Coming })
                }));
            }
            out.extend(std::iter::from_fn(|| in_order.drain()));
            let wanted: Vec<u64> = (0..60).filter(|frame| !lost.contains(frame)).collect();
            prop_assert_eq!(out, wanted);
        }
    }
}
