//! `fluxline doctor`: RDMA devices and what they need.

use super::doctor::Finding;
use driver::rdma::verbs::{Device, device_names};
use std::path::{Path, PathBuf};

/// MTU below which small packets cost much of the rate, bytes.
const MTU_GOOD: u32 = 4096;

/// What the machine has. A machine without RDMA needs none, so that is not bad.
pub(super) fn rdma() -> Vec<Finding> {
    let names = match device_names() {
        Ok(names) => names,
        Err(error) => return vec![Finding::warning("RDMA", "no device", error.to_string())],
    };
    names.iter().flat_map(|name| device(name)).collect()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn device(name: &str) -> Vec<Finding> {
    let open = match Device::open(Some(name)) {
        Ok(open) => open,
        Err(error) => {
            let advice = "load rdma_ucm, and let this user open /dev/infiniband";
            return vec![Finding::bad("RDMA", format!("{name}: {error}"), advice)];
        }
    };
    let mut findings = Vec::new();
    let sys = PathBuf::from("/sys/class/infiniband").join(name);
    for number in ports(&sys) {
        findings.push(port(&open, name, number));
        findings.extend(network(&sys, name, number));
    }
    findings.push(node(&sys, name));
    findings
}

fn ports(sys: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(sys.join("ports")).into_iter().flatten().flatten();
    let mut numbers: Vec<u8> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn port(open: &Device, name: &str, number: u8) -> Finding {
    let port = match open.port(number) {
        Ok(port) => port,
        Err(error) => return Finding::bad("RDMA", format!("{name}/{number}: {error}"), "see the kernel's log"),
    };
    let gids: Vec<String> = (0..port.gids.min(256))
        .filter_map(|index| {
            let kind = open.gid_kind(number, index).unwrap_or_default();
            Some(format!("{index}: {} {kind}", open.gid(number, index)?))
        })
        .collect();
    let found = format!(
        "{name}/{number}: {}, MTU {} of {}, addresses {}",
        if port.active { "active" } else { "down" },
        port.mtu.bytes(),
        port.max_mtu.bytes(),
        gids.join(", ")
    );
    if !port.active {
        return Finding::warning("RDMA", found, "plug in the cable, or set the network interface up");
    }
    if gids.is_empty() {
        return Finding::bad("RDMA", found, "give its network interface an IP address");
    }
    if port.mtu.bytes() < MTU_GOOD {
        let advice = "for RDMA packets of 4096 bytes set the interface's MTU to 4200 or more, here and on the switch";
        return Finding::warning("RDMA", found, advice);
    }
    Finding::good("RDMA", found)
}

/// Flow control of the network interface behind a port, as far as the kernel shows it.
fn network(sys: &Path, name: &str, number: u8) -> Option<Finding> {
    let interface = read(sys.join(format!("ports/{number}/gid_attrs/ndevs/0")))?;
    let ecn = PathBuf::from(format!("/sys/class/net/{interface}/ecn/roce_np/enable"));
    if name.starts_with("rxe") || !ecn.exists() {
        let found = format!("{name}/{number} on {interface}: the kernel shows neither PFC nor ECN here");
        let advice =
            "on a switched network use PFC or ECN on the priority of RoCE: check with `mlnx_qos` or the vendor's tool";
        return Some(Finding::warning("RDMA flow", found, advice));
    }
    let enabled: Vec<String> = std::fs::read_dir(&ecn)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| read(entry.path()).as_deref() == Some("1"))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let found = format!(
        "{name}/{number} on {interface}: ECN on priorities {}",
        enabled.join(", ")
    );
    Some(if enabled.is_empty() {
        Finding::warning("RDMA flow", found, "switch ECN on for the priority that carries RoCE")
    } else {
        Finding::good("RDMA flow", found)
    })
}

/// How far the card is from the memory of the ring.
fn node(sys: &Path, name: &str) -> Finding {
    let nodes = std::fs::read_dir("/sys/devices/system/node").map_or(1, |entries| {
        let named = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        let is_node = |name: &String| {
            name.strip_prefix("node")
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        };
        entries.flatten().filter_map(named).filter(is_node).count()
    });
    match read(sys.join("device/numa_node")).and_then(|text| text.parse::<i32>().ok()) {
        Some(node) if node >= 0 && nodes > 1 => {
            let distances = read(format!("/sys/devices/system/node/node{node}/distance")).unwrap_or_default();
            let found = format!("{name} is on node {node} of {nodes}; distances {distances}");
            let advice = format!("set ring.numa_node = {node}, and run receiver and accelerator there");
            Finding::warning("RDMA node", found, advice)
        }
        _ => Finding::good(
            "RDMA node",
            format!("{name}: this machine has {nodes} NUMA node, or the card names none"),
        ),
    }
}
