//! How often a client may ask, and how often it may be wrong. No clock of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Wrong tokens of one client within [`WINDOW`] after which it waits.
const WRONG_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// How long it waits; every wrong token meanwhile begins the wait anew.
const WAIT: Duration = Duration::from_secs(60);
/// Most clients that are kept in mind.
const CLIENTS_MAX: usize = 4096;
/// A client that asked nothing for so long is forgotten when there are too many.
const FORGET: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
struct Client {
    last: Instant,
    /// requests that it may make at once
    budget: f64,
    wrong: u32,
    wrong_since: Instant,
    waits_until: Option<Instant>,
}

/// The clients that asked lately.
pub struct Throttle {
    requests_per_s: f64,
    clients: HashMap<IpAddr, Client>,
}

/// One client: an IPv4 address, or the network that one IPv6 host may choose its addresses from.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

impl Throttle {
    /// Every client may ask this often on average, and two seconds' worth at once.
    pub fn new(requests_per_s: f64) -> Self {
        Self {
            requests_per_s,
            clients: HashMap::new(),
        }
    }

    fn client(&mut self, address: IpAddr, now: Instant) -> &mut Client {
        let key = client_of(address);
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&key) {
            self.clients
                .retain(|_, client| now.saturating_duration_since(client.last) < FORGET);
            // Many at once: the older half goes, so that the map stays bounded and a new client costs little on average.
            if self.clients.len() >= CLIENTS_MAX {
                let mut times: Vec<Instant> = self.clients.values().map(|client| client.last).collect();
                let middle = times.len() / 2;
                let (_, middle, _) = times.select_nth_unstable(middle);
                let middle = *middle;
                self.clients.retain(|_, client| client.last > middle);
            }
        }
        let most = 2.0 * self.requests_per_s;
        self.clients.entry(key).or_insert(Client {
            last: now,
            budget: most,
            wrong: 0,
            wrong_since: now,
            waits_until: None,
        })
    }

    /// Takes note of a request; the seconds to wait where there were too many.
    pub fn request(&mut self, address: IpAddr, now: Instant) -> Result<(), u64> {
        let rate = self.requests_per_s;
        let client = self.client(address, now);
        let passed = now.saturating_duration_since(client.last).as_secs_f64();
        client.budget = (client.budget + passed * rate).min(2.0 * rate);
        client.last = now;
        if client.budget < 1.0 {
            return Err(1);
        }
        client.budget -= 1.0;
        Ok(())
    }

    /// Takes note of a wrong token; the seconds to wait where there were too many. Right tokens are never held up: whoever
    /// shares an address with somebody who guesses goes on working.
    pub fn wrong(&mut self, address: IpAddr, now: Instant) -> Result<(), u64> {
        let client = self.client(address, now);
        client.last = now;
        if now.saturating_duration_since(client.wrong_since) > WINDOW {
            client.wrong = 0;
            client.wrong_since = now;
        }
        client.wrong = client.wrong.saturating_add(1);
        let waits = client.waits_until.is_some_and(|end| now < end);
        if waits || client.wrong > WRONG_MAX {
            client.waits_until = Some(now + WAIT);
            return Err(WAIT.as_secs());
        }
        client.waits_until = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_wrong_tokens_a_minute_and_then_a_minute_of_waiting() {
        let mut throttle = Throttle::new(100.0);
        let (start, here): (_, IpAddr) = (Instant::now(), "10.0.0.1".parse().unwrap());
        let after = |ms| start + Duration::from_millis(ms);
        for n in 0..10 {
            assert_eq!(throttle.wrong(here, after(n)), Ok(()), "{n}");
        }
        assert_eq!(throttle.wrong(here, after(100)), Err(60));
        assert_eq!(
            throttle.wrong("10.0.0.2".parse().unwrap(), after(100)),
            Ok(()),
            "another client"
        );
        assert_eq!(throttle.wrong(here, after(50_000)), Err(60), "which begins anew");
        assert_eq!(throttle.wrong(here, after(109_000)), Err(60));
        assert_eq!(throttle.wrong(here, after(170_000)), Ok(()));
    }

    #[test]
    fn a_client_may_ask_at_its_rate_and_many_clients_are_kept_within_bounds() {
        let mut throttle = Throttle::new(10.0);
        let (start, here): (_, IpAddr) = (Instant::now(), "::ffff:10.0.0.1".parse().unwrap());
        let taken = (0..100).filter(|_| throttle.request(here, start).is_ok()).count();
        assert_eq!(taken, 20, "two seconds' worth at once");
        let later = start + Duration::from_secs(1);
        let taken = (0..100)
            .filter(|_| throttle.request("10.0.0.1".parse().unwrap(), later).is_ok())
            .count();
        assert_eq!(taken, 10, "the same client by its other name");
        for n in 0..20_000u32 {
            assert!(throttle.request(IpAddr::from(n.to_be_bytes()), later).is_ok() || n == 0x0a00_0001);
        }
        assert!(throttle.clients.len() <= CLIENTS_MAX);
        let one = client_of("2001:db8::1".parse().unwrap());
        assert_eq!(one, client_of("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(one, client_of("2001:db8:0:1::1".parse().unwrap()));
    }
}
