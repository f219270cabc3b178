//! How many connections there are, and whose. When there is no room, the oldest that nobody has shown a token on makes room:
//! slow or silent connections, however many, keep nobody out.

use super::access::throttle::client_of;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Files that runs, the store and the device may need beside the connections.
const OTHER_FILES: u64 = 4096;

/// Lets this process have as many files open as so many connections and the runs need, as far as the system lets it: a
/// shell's 1024 would be taken by clients, and a run could open none. Answers how many it may have, where that is too few.
pub fn make_room_for_files(connections: usize) -> Option<u64> {
    let needed = connections as u64 + OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return None;
    }
    let most = limit.maximum.map_or(needed, |most| most.min(needed));
    limit.current = Some(most);
    let raised = setrlimit(Resource::Nofile, limit);
    let has = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (raised.is_err() || has < needed).then_some(has)
}

struct Entry {
    client: IpAddr,
    trusted: Arc<AtomicBool>,
    leave: Arc<Notify>,
}

#[derive(Default)]
struct All {
    next: u64,
    /// by age
    entries: BTreeMap<u64, Entry>,
    of_client: HashMap<IpAddr, usize>,
}

impl All {
    fn forget(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else {
            return;
        };
        if let Some(count) = self.of_client.get_mut(&entry.client) {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&entry.client);
            }
        }
    }

    /// Asks the oldest connection that is not trusted to leave, of one client or of all.
    fn make_room(&mut self, client: Option<IpAddr>) -> Option<()> {
        let strange =
            |entry: &Entry| !entry.trusted.load(Relaxed) && client.is_none_or(|client| client == entry.client);
        let (number, entry) = self.entries.iter().find(|(_, entry)| strange(entry))?;
        entry.leave.notify_one();
        let number = *number;
        self.forget(number);
        Some(())
    }
}

/// The connections there are.
pub struct Connections {
    most: usize,
    most_of_client: usize,
    all: Mutex<All>,
}

/// The place of one connection, given back when it is dropped.
pub struct Place {
    number: u64,
    trusted: Arc<AtomicBool>,
    leave: Arc<Notify>,
    owner: Arc<Connections>,
}

impl Connections {
    /// Room for so many, and so many of one client.
    pub fn new(most: usize, most_of_client: usize) -> Arc<Connections> {
        Arc::new(Connections {
            most,
            most_of_client,
            all: Mutex::default(),
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none where all are taken by connections that are trusted.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut all = self.all();
        if all
            .of_client
            .get(&client)
            .is_some_and(|count| *count >= self.most_of_client)
        {
            all.make_room(Some(client))?;
        }
        if all.entries.len() >= self.most {
            all.make_room(None)?;
        }
        let number = all.next;
        all.next += 1;
        let (trusted, leave): (Arc<AtomicBool>, Arc<Notify>) = Default::default();
        let entry = Entry {
            client,
            trusted: trusted.clone(),
            leave: leave.clone(),
        };
        all.entries.insert(number, entry);
        *all.of_client.entry(client).or_default() += 1;
        Some(Place {
            number,
            trusted,
            leave,
            owner: self.clone(),
        })
    }
}

impl Place {
    /// Somebody who may has asked over it: it need not make room.
    pub fn trust(&self) {
        self.trusted.store(true, Relaxed);
    }

    /// What says that it has to make room for others.
    pub fn leave(&self) -> Arc<Notify> {
        self.leave.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.owner.all().forget(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(place: &Place) -> bool {
        let mut leave = tokio::task::unconstrained(Box::pin(place.leave.notified()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(std::pin::Pin::new(&mut leave), &mut context).is_ready()
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_nobody_who_is_trusted_does() {
        let connections = Connections::new(4, 3);
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first: Vec<Place> = (0..3).map(|_| connections.admit(one).unwrap()).collect();
        first[0].trust();
        let fourth = connections.admit(one).expect("one stranger of the same client left");
        assert!(!told(&first[0]) && told(&first[1]) && !told(&first[2]));
        let other = connections.admit(two).expect("the fourth of four");
        let another = connections.admit(two).expect("the oldest stranger of all left");
        assert!(told(&first[2]) && !told(&fourth));
        for place in [&fourth, &other, &another] {
            place.trust();
        }
        assert!(connections.admit(two).is_none(), "all are trusted");
        drop(other);
        assert!(connections.admit(two).is_some(), "a place was given back");
        drop((first, fourth, another));
        let all = connections.all();
        assert!(all.entries.is_empty() && all.of_client.is_empty());
    }
}
