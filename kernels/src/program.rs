//! Programs: prebuilt, from the cache, or built from source, all by the same call.

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::Kernel;
use crate::status::failed;
use ocl::core::{self, ProgramBuildInfo, ProgramInfo, ProgramInfoResult};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Endings of prebuilt programs: AMD and Intel FPGAs, PoCL.
const BINARY_ENDINGS: [&str; 3] = ["xclbin", "aocx", "poclbin"];

/// Where a program came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// a file that the operator put into `binary_dir`
    Prebuilt,
    /// the cache of an earlier start
    Cache,
    /// its source
    Source,
}

/// A program built for one device.
pub(crate) struct Program {
    raw: core::Program,
    origin: Origin,
}

impl Program {
    /// See [`Accelerator::program`].
    pub(crate) fn load(
        accelerator: &Accelerator,
        name: &str,
        source: &str,
        options: &str,
    ) -> Result<Self, AcceleratorError> {
        if let Some(path) = prebuilt(accelerator, name) {
            let refused = |reason: String| AcceleratorError::Binary {
                path: path.clone(),
                device: accelerator.info().name.clone(),
                reason,
            };
            let bytes = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
            let raw = from_binary(accelerator, &bytes, options).map_err(|error| refused(error.to_string()))?;
            return Ok(Self {
                raw,
                origin: Origin::Prebuilt,
            });
        }
        let cached = cache_path(accelerator, name, source, options);
        if let Some(path) = &cached
            && let Ok(bytes) = std::fs::read(path)
        {
            // A cache file may be cut short or belong to a driver that changed without telling: build anew then.
            if let Ok(raw) = from_binary(accelerator, &bytes, options) {
                return Ok(Self {
                    raw,
                    origin: Origin::Cache,
                });
            }
        }
        let raw = from_source(accelerator, name, source, options)?;
        if let Some(path) = &cached {
            store(&raw, path);
        }
        Ok(Self {
            raw,
            origin: Origin::Source,
        })
    }

    /// One of the program's kernels, with arguments of its own.
    pub(crate) fn kernel(&self, name: &str) -> Result<Kernel, AcceleratorError> {
        Kernel::new(&self.raw, name)
    }

    /// Where the program came from.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

fn prebuilt(accelerator: &Accelerator, name: &str) -> Option<PathBuf> {
    let folder = accelerator.config().binary_dir.as_ref()?;
    BINARY_ENDINGS
        .iter()
        .map(|ending| folder.join(format!("{name}.{ending}")))
        .find(|path| path.is_file())
}

fn from_binary(accelerator: &Accelerator, bytes: &[u8], options: &str) -> Result<core::Program, AcceleratorError> {
    let devices = [accelerator.device()];
    let program = core::create_program_with_binary(accelerator.context(), &devices, &[bytes])
        .map_err(failed("clCreateProgramWithBinary"))?;
    build(accelerator, &program, "binary", options)?;
    Ok(program)
}

fn from_source(
    accelerator: &Accelerator,
    name: &str,
    source: &str,
    options: &str,
) -> Result<core::Program, AcceleratorError> {
    let text = c_string(name, source)?;
    let program = core::create_program_with_source(accelerator.context(), &[text])
        .map_err(failed("clCreateProgramWithSource"))?;
    build(accelerator, &program, name, options)?;
    Ok(program)
}

fn c_string(name: &str, text: &str) -> Result<CString, AcceleratorError> {
    CString::new(text).map_err(|error| AcceleratorError::Build {
        name: name.into(),
        device: String::new(),
        log: format!("a NUL byte in its text: {error}"),
    })
}

fn build(
    accelerator: &Accelerator,
    program: &core::Program,
    name: &str,
    options: &str,
) -> Result<(), AcceleratorError> {
    let device = accelerator.device();
    core::build_program(program, Some(&[device]), &c_string(name, options)?, None, None).map_err(|_| {
        let log = core::get_program_build_info(program, device, ProgramBuildInfo::BuildLog);
        AcceleratorError::Build {
            name: name.into(),
            device: accelerator.info().name.clone(),
            log: log.map_or_else(
                |_| "the driver gave no log".into(),
                |log| log.to_string().trim().to_owned(),
            ),
        }
    })
}

/// Model of the processor: PoCL's binaries hold its machine code.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .to_owned()
    };
    format!("{}\n{}\n{}", std::env::consts::ARCH, of("model name"), of("flags"))
}

/// Hash of texts in their order, in hexadecimal.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn cache_path(accelerator: &Accelerator, name: &str, source: &str, options: &str) -> Option<PathBuf> {
    let folder = accelerator.config().cache_dir.as_ref()?;
    let info = accelerator.info();
    let processor = processor();
    let key = hash([
        source,
        options,
        &info.platform,
        accelerator.platform_version(),
        &info.name,
        &info.driver,
        &processor,
    ]);
    Some(folder.join(format!("{name}-{key}.bin")))
}

/// Keeps a built program for the next start; where that fails the next start builds again, nothing worse.
fn store(program: &core::Program, path: &Path) {
    let Ok(ProgramInfoResult::Binaries(binaries)) = core::get_program_info(program, ProgramInfo::Binaries) else {
        return;
    };
    let Some(binary) = binaries.first().filter(|binary| !binary.is_empty()) else {
        return;
    };
    keep(binary, path);
}

/// Puts a file into the cache, whole or not at all.
pub(crate) fn keep(bytes: &[u8], path: &Path) {
    let Some(folder) = path.parent() else { return };
    let partial = path.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&partial, bytes))
        .and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
}
