//! Work shared between host threads.

/// Hands `items` out to as many threads as there are `states`, in runs of neighbours; with one state the caller's own
/// thread does all of it. Which thread took an item makes no difference to a result.
pub(crate) fn share<S: Send, I: Send>(states: &mut [S], items: &mut [I], work: impl Fn(&mut S, usize, &mut I) + Sync) {
    let run = items.len().div_ceil(states.len().max(1)).max(1);
    if let [state] = states {
        return items
            .iter_mut()
            .enumerate()
            .for_each(|(index, item)| work(state, index, item));
    }
    let work = &work;
    std::thread::scope(|scope| {
        for (number, (state, items)) in states.iter_mut().zip(items.chunks_mut(run)).enumerate() {
            scope.spawn(move || {
                for (index, item) in items.iter_mut().enumerate() {
                    work(state, number * run + index, item);
                }
            });
        }
    });
}
