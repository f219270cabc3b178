//! `fluxline doctor`: what streams and packets need of the network.

use super::Failure;
use super::doctor::Finding;
use crate::config::{Config, SourceConfig};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What a socket's buffer should be able to hold, bytes: DECTRIS streams, and packets that no one sends again.
const RECEIVE_BYTES_STREAM: usize = 8 << 20;
/// Packets that a core should be able to keep before a socket takes them.
const BACKLOG_PACKETS: usize = 10_000;
/// Bytes before the pixels of a packet: IP, UDP and the detector's header.
const HEADERS_BYTES: usize = 20 + 8 + 48;
/// MTU of jumbo frames.
const MTU_GOOD: usize = 9000;

/// What the kernel allows, and what the sources of a configuration find there.
pub(super) fn network(config: Option<&Path>) -> Result<Vec<Finding>, Failure> {
    let config = config.map(Config::load).transpose()?;
    let sources = || {
        config
            .iter()
            .flat_map(|config| &config.source)
            .map(|entry| &entry.source)
    };
    let wanted = |source: &SourceConfig| match source {
        SourceConfig::Udp(udp) => udp.udp.receive_buffer_bytes,
        _ => 0,
    };
    let wanted = sources().map(wanted).max().unwrap_or(0).max(RECEIVE_BYTES_STREAM);
    let mut findings = vec![
        limit("rmem_max", "bytes for a socket", wanted),
        limit("netdev_max_backlog", "packets for a core", BACKLOG_PACKETS),
    ];
    for source in sources() {
        match source {
            SourceConfig::Udp(udp) => {
                let payload = driver::udp::Layout::new(&udp.udp).map_or(0, |layout| layout.payload_bytes);
                let addresses = udp.udp.socket_addresses().unwrap_or_default();
                findings.extend(
                    addresses
                        .iter()
                        .flat_map(|one| interface(one.ip(), HEADERS_BYTES + payload)),
                );
            }
            SourceConfig::Dectris(dectris) => {
                // The interface is the one that a packet to the detector would leave by.
                let detectors = dectris
                    .dectris
                    .addresses
                    .iter()
                    .filter_map(|one| one.strip_prefix("tcp://")?.parse().ok());
                findings.extend(detectors.filter_map(way_to).flat_map(|own| interface(own, MTU_GOOD)));
            }
            _ => {}
        }
    }
    Ok(findings)
}

/// A limit of the kernel against what is wanted.
fn limit(name: &str, of: &str, wanted: usize) -> Finding {
    let path = format!("/proc/sys/net/core/{name}");
    let Some(found) = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
    else {
        return Finding::good("network", format!("net.core.{name} cannot be read here"));
    };
    let text = format!("net.core.{name} is {found} {of}");
    if found >= wanted {
        return Finding::good("network", text);
    }
    Finding::warning(
        "network",
        text,
        format!("detectors need {wanted}: sysctl -w net.core.{name}={wanted}"),
    )
}

/// Our address on the way to another one. Nothing is sent.
fn way_to(detector: SocketAddr) -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(detector).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The interface that owns an address: is its MTU large enough, how long are its rings.
fn interface(address: IpAddr, packet_bytes: usize) -> Vec<Finding> {
    let Some(name) = driver::net::interface_of(address) else {
        let advice = "source.addresses names addresses of this machine: ip addr add ADDRESS/24 dev INTERFACE";
        return vec![Finding::warning(
            "network",
            format!("no interface has the address {address}"),
            advice,
        )];
    };
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).unwrap_or_default();
    let mtu: usize = mtu.trim().parse().unwrap_or(0);
    let text = format!("{name} ({address}) has an MTU of {mtu}");
    let mtu = if mtu >= packet_bytes {
        Finding::good("network", text)
    } else {
        let advice =
            format!("packets have {packet_bytes} bytes: ip link set {name} mtu {MTU_GOOD}, on every switch too");
        Finding::warning("network", text, advice)
    };
    let rings =
        format!("rings of {name} are not read: make them long with ethtool -G {name} rx 4096, or what -g shows");
    vec![mtu, Finding::good("network", rings)]
}
