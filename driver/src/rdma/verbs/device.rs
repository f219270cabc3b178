//! Devices, their ports and addresses, and protection domains.

use super::{VerbsError, check, errno};
use rdma_sys::*;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Names of the machine's RDMA devices. No device and no RDMA in the kernel are both [`VerbsError::NoDevice`].
pub fn device_names() -> Result<Vec<String>, VerbsError> {
    let mut count = 0;
    // SAFETY: the call fills `count` and returns a list of its own or null.
    let list = unsafe { ibv_get_device_list(&raw mut count) };
    if list.is_null() {
        let reason = io::Error::last_os_error();
        return Err(VerbsError::NoDevice {
            reason: match reason.raw_os_error() {
                Some(libc::ENOSYS) => "the kernel has no InfiniBand support".into(),
                _ => reason.to_string(),
            },
        });
    }
    let names: Vec<String> = (0..count as usize)
        .map(|index| {
            // SAFETY: the list has `count` devices, and each has a name that lives as long as the list.
            unsafe { CStr::from_ptr(ibv_get_device_name(*list.add(index))) }
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    // SAFETY: the list came from ibv_get_device_list and nothing points into it any more.
    unsafe { ibv_free_device_list(list) };
    if names.is_empty() {
        return Err(VerbsError::NoDevice {
            reason: "libibverbs finds none".into(),
        });
    }
    Ok(names)
}

/// Every device, opened by the connection manager, so that its connections and ours are on the same handles.
struct Devices {
    list: *mut *mut ibv_context,
    count: usize,
}

// SAFETY: verbs handles may be used from any thread.
unsafe impl Send for Devices {}
// SAFETY: as above.
unsafe impl Sync for Devices {}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: the list came from rdma_get_devices; whoever used a context held this value.
        unsafe { rdma_free_devices(self.list) };
    }
}

/// One device, open. Clones are the same device.
#[derive(Clone)]
pub struct Device {
    devices: Arc<Devices>,
    index: usize,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

/// Largest packet payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u32);

impl Mtu {
    /// The MTU with the code of the verbs (1: 256 bytes … 5: 4096).
    pub fn from_code(code: u32) -> Option<Mtu> {
        (1..=5).contains(&code).then_some(Mtu(code))
    }

    /// The MTU of so many bytes.
    pub fn from_bytes(bytes: u32) -> Option<Mtu> {
        (1..=5).map(Mtu).find(|mtu| mtu.bytes() == bytes)
    }

    /// Code of the verbs.
    pub fn code(self) -> u32 {
        self.0
    }

    /// Bytes.
    pub fn bytes(self) -> u32 {
        128 << self.0
    }
}

/// What a port says.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// whether it carries data
    pub active: bool,
    /// MTU in force
    pub mtu: Mtu,
    /// largest MTU
    pub max_mtu: Mtu,
    /// addresses it has places for
    pub gids: usize,
    /// InfiniBand's local identifier; 0 on Ethernet
    pub lid: u16,
}

/// An address of a port, 16 bytes as an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid(pub [u8; 16]);

impl std::fmt::Display for Gid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::Ipv6Addr::from(self.0).fmt(f)
    }
}

impl Device {
    /// The device of this name, or the first.
    pub fn open(name: Option<&str>) -> Result<Device, VerbsError> {
        let names = device_names()?;
        let mut count = 0;
        // SAFETY: the call fills `count` and returns a list of its own or null.
        let list = unsafe { rdma_get_devices(&raw mut count) };
        if list.is_null() {
            return Err(errno("rdma_get_devices"));
        }
        let devices = Arc::new(Devices {
            list,
            count: count.max(0) as usize,
        });
        let found = (0..devices.count)
            .map(|index| Device {
                devices: devices.clone(),
                index,
            })
            .find(|device| name.is_none_or(|name| device.name() == name));
        found.ok_or_else(|| VerbsError::OtherDevices {
            wanted: name.unwrap_or("that the connection manager can use").into(),
            found: names.join(", "),
        })
    }

    /// The handle, for calls.
    pub(super) fn context(&self) -> *mut ibv_context {
        // SAFETY: `index` is below the count of the list, which the Arc keeps.
        unsafe { *self.devices.list.add(self.index) }
    }

    /// Name, for example `mlx5_0`.
    pub fn name(&self) -> String {
        // SAFETY: an open context has a device, and a device a name.
        unsafe { CStr::from_ptr(ibv_get_device_name((*self.context()).device)) }
            .to_string_lossy()
            .into_owned()
    }

    /// Largest number of pieces of work that a queue holds, and largest number of completions in a queue.
    pub fn limits(&self) -> Result<(usize, usize), VerbsError> {
        let mut attributes = MaybeUninit::<ibv_device_attr>::zeroed();
        // SAFETY: the context is open and the structure is of the size that the library expects.
        check("ibv_query_device", unsafe {
            ibv_query_device(self.context(), attributes.as_mut_ptr())
        })?;
        // SAFETY: filled by the call above; all of its fields are numbers.
        let attributes = unsafe { attributes.assume_init() };
        Ok((attributes.max_qp_wr.max(0) as usize, attributes.max_cqe.max(0) as usize))
    }

    /// A port, counted from 1.
    pub fn port(&self, number: u8) -> Result<Port, VerbsError> {
        let mut attributes = MaybeUninit::<ibv_port_attr>::zeroed();
        // SAFETY: as in `limits`; the inline function of the header is what C programs call.
        check("ibv_query_port", unsafe {
            ___ibv_query_port(self.context(), number, attributes.as_mut_ptr())
        })?;
        // SAFETY: zeroed and filled; all of its fields are numbers.
        let attributes = unsafe { attributes.assume_init() };
        let mtu = |code| Mtu::from_code(code).unwrap_or(Mtu(3));
        Ok(Port {
            active: attributes.state == ibv_port_state::IBV_PORT_ACTIVE,
            mtu: mtu(attributes.active_mtu),
            max_mtu: mtu(attributes.max_mtu),
            gids: attributes.gid_tbl_len.max(0) as usize,
            lid: attributes.lid,
        })
    }

    /// An address of a port; `None` where its place is empty.
    pub fn gid(&self, port: u8, index: usize) -> Option<Gid> {
        let mut gid = ibv_gid { raw: [0; 16] };
        // SAFETY: the context is open; the call fills 16 bytes.
        let result = unsafe { ibv_query_gid(self.context(), port, index as i32, &raw mut gid) };
        // SAFETY: both variants of the union are 16 plain bytes.
        let raw = unsafe { gid.raw };
        (result == 0 && raw != [0; 16]).then_some(Gid(raw))
    }

    /// The kind of an address, as the kernel writes it: `RoCE v2`, `IB/RoCE v1`.
    pub fn gid_kind(&self, port: u8, index: usize) -> Option<String> {
        // rdma-sys lacks ibv_query_gid_ex; the kernel tells the same here.
        let path = format!(
            "/sys/class/infiniband/{}/ports/{port}/gid_attrs/types/{index}",
            self.name()
        );
        std::fs::read_to_string(path).ok().map(|kind| kind.trim().to_string())
    }
}

/// What memory and queue pairs must share to work together. Clones are the same domain.
#[derive(Clone)]
pub struct ProtectionDomain(Arc<Domain>);

struct Domain {
    pd: *mut ibv_pd,
    device: Device,
}

// SAFETY: verbs handles may be used from any thread.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl ProtectionDomain {
    /// A domain of the device.
    pub fn new(device: &Device) -> Result<Self, VerbsError> {
        // SAFETY: the context is open, and the domain keeps it open.
        let pd = unsafe { ibv_alloc_pd(device.context()) };
        if pd.is_null() {
            return Err(errno("ibv_alloc_pd"));
        }
        Ok(Self(Arc::new(Domain {
            pd,
            device: device.clone(),
        })))
    }

    /// The device it belongs to.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    pub(super) fn raw(&self) -> *mut ibv_pd {
        self.0.pd
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: everything made in the domain held it, so it is empty now.
        unsafe { ibv_dealloc_pd(self.pd) };
    }
}
