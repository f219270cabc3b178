//! OpenCL devices: what there is, which one to use, and how its memory relates to the host's.

use crate::host_memory::{Buffer, HostPages, Queue, platforms};
use crate::program::Program;
use crate::status::failed;
use crate::tuning::Tuning;
use frame::HostRegion;
use ocl::core::{self, Context, DeviceId, DeviceInfoResult, DeviceType, MemFlags, OclPrm, PlatformId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) const PROBE_SOURCE: &str = include_str!("probe.cl");

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// the host's own processor
    Cpu,
    /// graphics processor
    Gpu,
    /// FPGA or another dedicated accelerator
    Accelerator,
    /// anything else
    Other,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceInfo {
    /// name of its OpenCL platform
    pub platform: String,
    /// its name
    pub name: String,
    /// its vendor
    pub vendor: String,
    /// version of its driver
    pub driver: String,
    /// what it is
    pub kind: DeviceKind,
    /// compute units, for a CPU its threads
    pub compute_units: u32,
    /// memory in bytes
    pub global_bytes: u64,
    /// largest single buffer in bytes
    pub max_alloc_bytes: u64,
    /// whether it reads host memory in place
    pub shares_host_memory: bool,
}

/// How frames reach a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryMode {
    /// zero copy where the device shares the host's memory, else copies
    #[default]
    Auto,
    /// the device reads the ring itself; an error where it cannot
    ZeroCopy,
    /// one copy per frame into device memory
    Copy,
}

/// Which device to use and how.
#[derive(Clone, Debug)]
pub struct AcceleratorConfig {
    /// `auto` (a GPU, else an accelerator, else the CPU), `cpu`, `gpu`, or part of a platform or device name
    pub device: String,
    /// how frames reach it
    pub memory: MemoryMode,
    /// where built programs are kept for the next start; `None`: nowhere
    pub cache_dir: Option<PathBuf>,
    /// where prebuilt programs `NAME.xclbin`, `NAME.aocx` or `NAME.poclbin` lie
    pub binary_dir: Option<PathBuf>,
}

impl Default for AcceleratorConfig {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            memory: MemoryMode::Auto,
            cache_dir: None,
            binary_dir: None,
        }
    }
}

/// Why an accelerator cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// no driver at all
    #[error(
        "no OpenCL device was found: no driver is installed. For the CPU install one with \
         `apt install pocl-opencl-icd`; for a GPU or FPGA install its vendor's OpenCL driver (`clinfo -l` lists what is there)"
    )]
    NoDevice,
    /// drivers, but not the device that the configuration names
    #[error(
        "no OpenCL device matches `{wanted}` (`auto`, `cpu`, `gpu` or part of a name); found: {found}. \
         For the CPU install `pocl-opencl-icd`"
    )]
    NoMatch {
        /// what the configuration says
        wanted: String,
        /// names of the devices found
        found: String,
    },
    /// an OpenCL call failed
    #[error("OpenCL's {call} failed: {status}")]
    Call {
        /// its name
        call: &'static str,
        /// what it answered
        status: String,
    },
    /// the device does not end what it was given
    #[error("the device has not ended its work within {waited_ms} ms; it is not waited for any more")]
    Hung {
        /// how long it was waited for
        waited_ms: u64,
    },
    /// a program does not build
    #[error("the OpenCL program `{name}` does not build for {device}: {log}")]
    Build {
        /// name of the program
        name: String,
        /// name of the device
        device: String,
        /// the compiler's log
        log: String,
    },
    /// a prebuilt program cannot be loaded
    #[error("the prebuilt program {} does not load on {device}: {reason}; remove it or rebuild it for this device", path.display())]
    Binary {
        /// the file
        path: PathBuf,
        /// name of the device
        device: String,
        /// why
        reason: String,
    },
    /// a program lacks a kernel
    #[error("the program has no kernel `{name}`: {reason}")]
    Kernel {
        /// name of the kernel
        name: String,
        /// what OpenCL says
        reason: String,
    },
    /// zero copy was demanded of a device that cannot
    #[error("memory = \"zero_copy\" is impossible on {device}: {reason}; use \"auto\" or \"copy\"")]
    ZeroCopy {
        /// name of the device
        device: String,
        /// why
        reason: String,
    },
    /// the host is short of memory
    #[error("the host could not allocate {bytes} bytes of page-aligned memory")]
    HostMemory {
        /// bytes asked for
        bytes: usize,
    },
    /// a buffer is larger than the device allows
    #[error("a buffer of {needed} bytes is needed, {device} allows at most {limit} at once")]
    BufferTooLarge {
        /// bytes needed
        needed: u64,
        /// bytes allowed
        limit: u64,
        /// name of the device
        device: String,
    },
    /// an access outside its buffer or region
    #[error("{count} values from {offset} on are outside the {what} of {len}")]
    OutOfRange {
        /// what was accessed
        what: &'static str,
        /// first value
        offset: usize,
        /// number of values
        count: usize,
        /// values there are
        len: usize,
    },
    /// a frame that does not start where a device may read it
    #[error("the frame at byte {offset} of the ring is not aligned to {alignment} bytes")]
    Unaligned {
        /// its offset in the region
        offset: usize,
        /// bytes it must be a multiple of
        alignment: usize,
    },
    /// a batch is full
    #[error("the batch holds {limit} frames already, its limit")]
    BatchFull {
        /// frames per batch
        limit: usize,
    },
    /// transfer and mapping belong to different queues
    #[error("a transfer out of pinned memory was started on another queue than the one that mapped it")]
    ForeignQueue,
    /// an operation was given what it was not made for
    #[error("{what} is {found}, the operation was prepared for {expected}")]
    Mismatch {
        /// which input or output
        what: &'static str,
        /// its size
        found: String,
        /// the size prepared for
        expected: String,
    },
    /// a configuration value outside its range
    #[error("{name} is {value}; allowed: {allowed}")]
    Value {
        /// name of the value
        name: &'static str,
        /// the value
        value: String,
        /// its range
        allowed: &'static str,
    },
}

impl AcceleratorError {
    /// Checks a length that a caller chose.
    pub(crate) fn expect_len(what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected {
            return Ok(());
        }
        Err(Self::Mismatch {
            what,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }
}

struct Inner {
    context: Context,
    device: DeviceId,
    info: DeviceInfo,
    platform_version: String,
    memory: MemoryMode,
    memory_reason: Option<String>,
    config: AcceleratorConfig,
    setup: Queue,
}

/// One opened device. Cloning shares it.
#[derive(Clone)]
pub struct Accelerator(Arc<Inner>, Tuning);

impl std::fmt::Debug for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accelerator")
            .field("info", &self.0.info)
            .field("memory", &self.0.memory)
            .finish()
    }
}

struct Found {
    platform: PlatformId,
    device: DeviceId,
    info: DeviceInfo,
}

fn text(device: DeviceId, what: core::DeviceInfo) -> String {
    core::get_device_info(device, what)
        .map(|value| value.to_string().trim().to_owned())
        .unwrap_or_default()
}

fn describe(platform: PlatformId, device: DeviceId) -> DeviceInfo {
    let number = |what| match core::get_device_info(device, what) {
        Ok(DeviceInfoResult::MaxComputeUnits(value)) => u64::from(value),
        Ok(DeviceInfoResult::GlobalMemSize(value) | DeviceInfoResult::MaxMemAllocSize(value)) => value,
        Ok(DeviceInfoResult::HostUnifiedMemory(value)) => u64::from(value),
        _ => 0,
    };
    let kind = match core::get_device_info(device, core::DeviceInfo::Type) {
        Ok(DeviceInfoResult::Type(kind)) if kind.contains(DeviceType::CPU) => DeviceKind::Cpu,
        Ok(DeviceInfoResult::Type(kind)) if kind.contains(DeviceType::GPU) => DeviceKind::Gpu,
        Ok(DeviceInfoResult::Type(kind)) if kind.contains(DeviceType::ACCELERATOR) => DeviceKind::Accelerator,
        _ => DeviceKind::Other,
    };
    let platform_name = core::get_platform_info(platform, core::PlatformInfo::Name);
    DeviceInfo {
        platform: platform_name.map(|name| name.to_string()).unwrap_or_default(),
        name: text(device, core::DeviceInfo::Name),
        vendor: text(device, core::DeviceInfo::Vendor),
        driver: text(device, core::DeviceInfo::DriverVersion),
        kind,
        compute_units: number(core::DeviceInfo::MaxComputeUnits) as u32,
        global_bytes: number(core::DeviceInfo::GlobalMemSize),
        max_alloc_bytes: number(core::DeviceInfo::MaxMemAllocSize),
        shares_host_memory: kind == DeviceKind::Cpu || number(core::DeviceInfo::HostUnifiedMemory) != 0,
    }
}

fn devices() -> Vec<Found> {
    // While one thread wakes loader and drivers, another is told that there is no device (seen with PoCL 3.1).
    static FIRST_USE: Mutex<()> = Mutex::new(());
    let _guard = FIRST_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    for platform in platforms() {
        // A platform without a device answers with an error: the same to us as an empty list.
        for device in core::get_device_ids(platform, Some(DeviceType::ALL), None).unwrap_or_default() {
            found.push(Found {
                platform,
                device,
                info: describe(platform, device),
            });
        }
    }
    found
}

/// Index of the device that `wanted` means.
fn choose(infos: &[&DeviceInfo], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim().to_lowercase();
    let first = |kind: DeviceKind| infos.iter().position(|info| info.kind == kind);
    match wanted.as_str() {
        "auto" | "" => first(DeviceKind::Gpu)
            .or_else(|| first(DeviceKind::Accelerator))
            .or_else(|| first(DeviceKind::Cpu))
            .or(if infos.is_empty() { None } else { Some(0) }),
        "cpu" => first(DeviceKind::Cpu),
        "gpu" => first(DeviceKind::Gpu),
        name => infos
            .iter()
            .position(|info| info.name.to_lowercase().contains(name) || info.platform.to_lowercase().contains(name)),
    }
}

impl Accelerator {
    /// Every device of every installed driver; empty where there is none.
    pub fn list() -> Vec<DeviceInfo> {
        devices().into_iter().map(|found| found.info).collect()
    }

    /// Opens the device that `config` names and finds out how frames reach it.
    pub fn open(config: &AcceleratorConfig) -> Result<Accelerator, AcceleratorError> {
        let mut found = devices();
        if found.is_empty() {
            return Err(AcceleratorError::NoDevice);
        }
        let infos: Vec<&DeviceInfo> = found.iter().map(|found| &found.info).collect();
        let Some(index) = choose(&infos, &config.device) else {
            let names: Vec<String> = infos
                .iter()
                .map(|info| format!("{} ({})", info.name, info.platform))
                .collect();
            return Err(AcceleratorError::NoMatch {
                wanted: config.device.clone(),
                found: names.join(", "),
            });
        };
        let Found { platform, device, info } = found.swap_remove(index);
        let properties = core::ContextProperties::new().platform(platform);
        let context =
            core::create_context(Some(&properties), &[device], None, None).map_err(failed("clCreateContext"))?;
        let version = core::get_platform_info(platform, core::PlatformInfo::Version);
        let setup = core::create_command_queue(&context, device, None).map_err(failed("clCreateCommandQueue"))?;
        let mut inner = Inner {
            context,
            device,
            platform_version: version.map(|version| version.to_string()).unwrap_or_default(),
            memory: MemoryMode::Copy,
            memory_reason: None,
            config: config.clone(),
            setup: Queue::new(setup),
            info,
        };
        let tuning = Tuning::usual(inner.info.kind);
        if config.memory == MemoryMode::Copy {
            inner.memory_reason = Some("memory = \"copy\" is configured".into());
            return Ok(Accelerator(Arc::new(inner), tuning));
        }
        // The probe is a program of the accelerator itself: open it as one that copies, then say what was found.
        let trial = Accelerator(Arc::new(inner), tuning);
        let reason = trial.zero_copy_obstacle()?;
        let Ok(mut inner) = Arc::try_unwrap(trial.0) else {
            return Err(AcceleratorError::ForeignQueue);
        };
        match reason {
            None => inner.memory = MemoryMode::ZeroCopy,
            Some(reason) if config.memory == MemoryMode::ZeroCopy => {
                return Err(AcceleratorError::ZeroCopy {
                    device: inner.info.name.clone(),
                    reason,
                });
            }
            Some(reason) => inner.memory_reason = Some(reason),
        }
        Ok(Accelerator(Arc::new(inner), tuning))
    }

    /// This device opened anew, with kernels that cut their work the same way, so that results have the same bits. One that was
    /// lost answers nothing any more to those who opened it before.
    pub fn opened_anew(&self) -> Result<Accelerator, AcceleratorError> {
        let (device, config) = (self.info().name.clone(), self.config().clone());
        Ok(Self::open(&AcceleratorConfig { device, ..config })?.with_tuning(self.tuning()))
    }

    /// The host's own processor, to take this device's place where it fails; opened anew where it is this device.
    pub fn stand_in(&self) -> Result<Accelerator, AcceleratorError> {
        if self.info().kind == DeviceKind::Cpu {
            return self.opened_anew();
        }
        let config = self.config();
        // Prebuilt programs are this device's.
        Self::open(&AcceleratorConfig {
            device: "cpu".into(),
            memory: MemoryMode::Auto,
            cache_dir: config.cache_dir.clone(),
            binary_dir: None,
        })
    }

    /// How kernels cut their work on it.
    pub fn tuning(&self) -> Tuning {
        self.1
    }

    /// The same device, whose kernels cut their work otherwise.
    pub(crate) fn with_tuning(&self, tuning: Tuning) -> Self {
        Self(self.0.clone(), tuning)
    }

    /// What the device says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// How frames reach the device: [`MemoryMode::ZeroCopy`] or [`MemoryMode::Copy`].
    pub fn memory(&self) -> MemoryMode {
        self.0.memory
    }

    /// Why frames are copied, where they are.
    pub fn memory_reason(&self) -> Option<&str> {
        self.0.memory_reason.as_deref()
    }

    /// A new in-order queue: one per worker.
    pub fn queue(&self) -> Result<Queue, AcceleratorError> {
        let raw = core::create_command_queue(&self.0.context, self.0.device, None);
        Ok(Queue::new(raw.map_err(failed("clCreateCommandQueue"))?))
    }

    /// Device memory for `len` values, all bytes zero.
    pub(crate) fn buffer<T: OclPrm>(&self, len: usize) -> Result<Buffer<T>, AcceleratorError> {
        let needed = (len * size_of::<T>()) as u64;
        if needed > self.0.info.max_alloc_bytes {
            let (limit, device) = (self.0.info.max_alloc_bytes, self.0.info.name.clone());
            return Err(AcceleratorError::BufferTooLarge { needed, limit, device });
        }
        let buffer = Buffer::new(&self.0.context, len, MemFlags::new().read_write())?;
        self.0.setup.clear(&buffer)?;
        self.0.setup.finish()?;
        Ok(buffer)
    }

    /// Device memory that holds `data`.
    pub(crate) fn buffer_from<T: OclPrm>(&self, data: &[T]) -> Result<Buffer<T>, AcceleratorError> {
        let buffer = self.buffer(data.len())?;
        self.0.setup.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    /// The program `name`, built from `source` with `options`, or loaded from where it was built before.
    pub(crate) fn program(&self, name: &str, source: &str, options: &str) -> Result<Program, AcceleratorError> {
        Program::load(self, name, source, options)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.0.device
    }

    pub(crate) fn config(&self) -> &AcceleratorConfig {
        &self.0.config
    }

    pub(crate) fn platform_version(&self) -> &str {
        &self.0.platform_version
    }

    /// Why the device cannot read host memory in place; `None` where it was seen to do so.
    fn zero_copy_obstacle(&self) -> Result<Option<String>, AcceleratorError> {
        if !self.0.info.shares_host_memory {
            return Ok(Some("the device has its own memory".into()));
        }
        const BYTES: usize = 16384;
        let pages = Arc::new(HostPages::new(BYTES)?);
        let region: Arc<dyn HostRegion> = pages.clone();
        let buffer = Buffer::over_region(&self.0.context, &region, 0, BYTES)?;
        let queue = &self.0.setup;
        let program = self.program("probe", PROBE_SOURCE, "")?;
        let mut kernel = program.kernel("probe_sum")?;
        let result = self.buffer::<u64>(2)?;
        // Twice, because a device with a hidden copy shows the right bytes the first time.
        for round in 1..=2u8 {
            pages.fill(0, &[round; BYTES])?;
            let mapped = queue.hand_over(&buffer, 0, BYTES)?;
            if mapped != region.address() {
                return Ok(Some(format!(
                    "host memory at {:#x} was mapped at {mapped:#x}",
                    region.address()
                )));
            }
            let arguments = [
                (&buffer).into(),
                crate::host_memory::Arg::U32(BYTES as u32),
                (&result).into(),
            ];
            queue.launch(&mut kernel, &arguments, [1; 3], [1; 3])?;
            let mut seen = [0u64; 2];
            queue.read(&result, 0, &mut seen)?;
            if seen[1] != u64::from(round) * BYTES as u64 {
                return Ok(Some("the device does not see what the host wrote".into()));
            }
            if self.0.info.kind == DeviceKind::Cpu && seen[0] != region.address() as u64 {
                return Ok(Some(format!(
                    "host memory at {:#x} is read at {:#x}",
                    region.address(),
                    seen[0]
                )));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "accelerator_tests.rs"]
mod tests;
