//! Huge pages: explicit ones of 1 GiB or 2 MiB, touched beforehand, locked, and bound to a NUMA node; or ordinary
//! memory that the kernel may back with huge pages, where the caller has said that this will do.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

const GIB: usize = 1 << 30;
const TWO_MIB: usize = 2 << 20;
/// `MPOL_BIND` of `set_mempolicy(2)`, which the `libc` crate does not name everywhere.
const MPOL_BIND: libc::c_ulong = 2;

/// Kind of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// explicit 1 GiB pages
    Huge1GiB,
    /// explicit 2 MiB pages
    Huge2MiB,
    /// ordinary memory, aligned so that the kernel can back it with huge pages
    Transparent,
}

impl PageSize {
    /// Bytes of one page; memory is reserved in multiples of it.
    pub const fn bytes(self) -> usize {
        match self {
            PageSize::Huge1GiB => GIB,
            PageSize::Huge2MiB | PageSize::Transparent => TWO_MIB,
        }
    }

    fn name(self) -> &'static str {
        match self {
            PageSize::Huge1GiB => "1 GiB",
            PageSize::Huge2MiB => "2 MiB",
            PageSize::Transparent => "transparent",
        }
    }
}

/// What memory is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PagesConfig {
    /// bytes; rounded up to whole pages
    pub bytes: usize,
    /// kind of pages
    pub page_size: PageSize,
    /// NUMA node; the kernel chooses where it is not given
    pub numa_node: Option<u32>,
    /// whether it must be locked into memory
    pub lock: bool,
    /// whether ordinary memory will do where explicit pages are short
    pub allow_transparent: bool,
}

/// Why memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// not enough explicit pages
    #[error(
        "{needed} pages of {page} are needed and {free} are free: {missing} are missing. Reserve them with `{how}`, \
         or allow transparent huge pages with ring.allow_transparent = true"
    )]
    PagesMissing {
        /// pages needed
        needed: u64,
        /// pages free now
        free: u64,
        /// pages missing
        missing: u64,
        /// page size in words
        page: &'static str,
        /// command or kernel parameter that reserves them
        how: String,
    },
    /// the kernel refused the mapping
    #[error("the kernel refuses to map {bytes} bytes of {page} pages: {reason}")]
    Map {
        /// bytes
        bytes: usize,
        /// page size in words
        page: &'static str,
        /// the kernel's words
        reason: io::Error,
    },
    /// the memory cannot be locked
    #[error(
        "{bytes} bytes cannot be locked into memory ({reason}): raise the limit with LimitMEMLOCK=infinity in the \
         unit, or `ulimit -l unlimited`"
    )]
    Lock {
        /// bytes
        bytes: usize,
        /// the kernel's words
        reason: io::Error,
    },
    /// the memory cannot be bound to the node
    #[error("memory cannot be bound to NUMA node {node}: {reason}")]
    Node {
        /// node
        node: u32,
        /// the kernel's words
        reason: io::Error,
    },
}

/// A mapping of huge pages, touched and at one place until it is dropped.
#[derive(Debug)]
pub struct HugePages {
    start: NonNull<u8>,
    bytes: usize,
    mapped_bytes: usize,
    mapped_start: NonNull<u8>,
    page_size: PageSize,
    locked: bool,
    numa_node: Option<u32>,
}

// SAFETY: the mapping belongs to the value alone; whoever reaches its bytes follows the rules of this folder.
unsafe impl Send for HugePages {}
// SAFETY: as above; `&HugePages` gives out an address and no bytes.
unsafe impl Sync for HugePages {}

impl HugePages {
    /// Maps, binds, touches and locks.
    pub fn reserve(config: &PagesConfig) -> Result<HugePages, MemoryError> {
        match Self::try_reserve(config, config.page_size) {
            Err(MemoryError::PagesMissing { .. } | MemoryError::Map { .. })
                if config.allow_transparent && config.page_size != PageSize::Transparent =>
            {
                Self::try_reserve(config, PageSize::Transparent)
            }
            outcome => outcome,
        }
    }

    fn try_reserve(config: &PagesConfig, page_size: PageSize) -> Result<HugePages, MemoryError> {
        let bytes = config.bytes.max(1).next_multiple_of(page_size.bytes());
        if page_size != PageSize::Transparent {
            check_free(page_size, bytes)?;
        }
        let mut pages = Self::map(bytes, page_size)?;
        if let Some(node) = config.numa_node {
            pages.bind(node)?;
        }
        pages.touch();
        pages.lock(config.lock)?;
        Ok(pages)
    }

    fn map(bytes: usize, page_size: PageSize) -> Result<HugePages, MemoryError> {
        let huge = match page_size {
            PageSize::Huge1GiB => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
            PageSize::Huge2MiB => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            PageSize::Transparent => 0,
        };
        // Explicit pages come aligned; ordinary memory is mapped a page too large and aligned here.
        let mapped_bytes = if page_size == PageSize::Transparent {
            bytes + TWO_MIB
        } else {
            bytes
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
        // SAFETY: a fresh anonymous mapping at a place of the kernel's choice touches nobody's memory.
        let raw = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        let failed = || MemoryError::Map {
            bytes,
            page: page_size.name(),
            reason: io::Error::last_os_error(),
        };
        if raw == libc::MAP_FAILED {
            return Err(failed());
        }
        let mapped_start = NonNull::new(raw.cast::<u8>()).ok_or_else(failed)?;
        let skip = mapped_start.as_ptr().align_offset(page_size.bytes().min(TWO_MIB));
        // SAFETY: `skip` is below the 2 MiB that were mapped beyond `bytes`, and 0 for explicit pages.
        let start = unsafe { mapped_start.add(if page_size == PageSize::Transparent { skip } else { 0 }) };
        if page_size == PageSize::Transparent {
            // SAFETY: the range lies in the mapping made above. Advice: a kernel without it does no harm.
            unsafe { libc::madvise(start.as_ptr().cast::<c_void>(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self {
            start,
            bytes,
            mapped_bytes,
            mapped_start,
            page_size,
            locked: false,
            numa_node: None,
        })
    }

    fn bind(&mut self, node: u32) -> Result<(), MemoryError> {
        let refused = |reason| MemoryError::Node { node, reason };
        if node >= u64::BITS {
            return Err(refused(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let mask: u64 = 1 << node;
        // SAFETY: the range is this value's own mapping; `mask` outlives the call, which reads 64 bits of it.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.bytes,
                MPOL_BIND,
                &raw const mask,
                u64::BITS as libc::c_ulong + 1,
                0 as libc::c_ulong,
            )
        };
        if done != 0 {
            return Err(refused(io::Error::last_os_error()));
        }
        self.numa_node = Some(node);
        Ok(())
    }

    /// Touches every page, so that none is missing when a frame comes.
    fn touch(&mut self) {
        for offset in (0..self.bytes).step_by(4096) {
            // SAFETY: `offset` lies in the mapping, which nobody else knows yet.
            unsafe { self.start.add(offset).write_volatile(0) };
        }
    }

    fn lock(&mut self, must: bool) -> Result<(), MemoryError> {
        // SAFETY: the range is this value's own mapping.
        let done = unsafe { libc::mlock(self.start.as_ptr().cast::<c_void>(), self.bytes) };
        self.locked = done == 0;
        if must && !self.locked {
            return Err(MemoryError::Lock {
                bytes: self.bytes,
                reason: io::Error::last_os_error(),
            });
        }
        Ok(())
    }

    /// Bytes that can be used, a multiple of the page size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What kind of pages it really is.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether it is locked into memory.
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// The NUMA node that it is bound to.
    pub fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    /// First byte; aligned to 2 MiB at least.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // SAFETY: rule 1: nothing points into the mapping any more.
        unsafe { libc::munmap(self.mapped_start.as_ptr().cast::<c_void>(), self.mapped_bytes) };
    }
}

/// Free explicit pages of a size; `None` where the kernel has no such pages.
pub fn free_pages(size: PageSize) -> Option<u64> {
    let kib = match size {
        PageSize::Huge1GiB => GIB / 1024,
        PageSize::Huge2MiB => TWO_MIB / 1024,
        PageSize::Transparent => return None,
    };
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("{folder}/{file}"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    Some(number("free_hugepages")?.saturating_sub(number("resv_hugepages").unwrap_or(0)))
}

fn check_free(size: PageSize, bytes: usize) -> Result<(), MemoryError> {
    let needed = (bytes / size.bytes()) as u64;
    let free = free_pages(size).unwrap_or(0);
    if free >= needed {
        return Ok(());
    }
    let missing = needed - free;
    let total = std::fs::read_to_string("/proc/sys/vm/nr_hugepages")
        .ok()
        .and_then(|n| n.trim().parse::<u64>().ok());
    let how = match size {
        PageSize::Huge1GiB => format!("the kernel parameters hugepagesz=1G hugepages={needed}"),
        _ => format!("sysctl vm.nr_hugepages={}", total.unwrap_or(0) + missing),
    };
    Err(MemoryError::PagesMissing {
        needed,
        free,
        missing,
        page: size.name(),
        how,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bytes: usize, page_size: PageSize) -> PagesConfig {
        PagesConfig {
            bytes,
            page_size,
            numa_node: None,
            lock: false,
            allow_transparent: false,
        }
    }

    #[test]
    fn transparent_memory_is_aligned_and_whole() {
        let pages = HugePages::reserve(&config(3 << 20, PageSize::Transparent)).unwrap();
        assert_eq!(pages.bytes(), 4 << 20);
        assert_eq!(pages.start().as_ptr().align_offset(TWO_MIB), 0);
        assert_eq!(pages.page_size(), PageSize::Transparent);
    }

    #[test]
    fn missing_pages_are_counted_and_the_way_out_is_named() {
        let error = HugePages::reserve(&config(1 << 45, PageSize::Huge2MiB))
            .unwrap_err()
            .to_string();
        assert!(error.contains("16777216 pages of 2 MiB are needed"), "{error}");
        assert!(
            error.contains("are missing. Reserve them with `sysctl vm.nr_hugepages="),
            "{error}"
        );
        let error = HugePages::reserve(&config(1 << 45, PageSize::Huge1GiB))
            .unwrap_err()
            .to_string();
        assert!(error.contains("hugepagesz=1G hugepages=32768"), "{error}");
        let mut allowed = config(1 << 20, PageSize::Huge1GiB);
        allowed.allow_transparent = true;
        if free_pages(PageSize::Huge1GiB).unwrap_or(0) == 0 {
            assert_eq!(HugePages::reserve(&allowed).unwrap().page_size(), PageSize::Transparent);
        }
    }

    #[test]
    fn explicit_pages_where_the_machine_lets_us_reserve_them() {
        let path = "/proc/sys/vm/nr_hugepages";
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let reserved = free_pages(PageSize::Huge2MiB).unwrap_or(0) >= 2
            || std::fs::write(path, format!("{}", before.trim().parse::<u64>().unwrap_or(0) + 4)).is_ok();
        if !reserved || free_pages(PageSize::Huge2MiB).unwrap_or(0) < 2 {
            eprintln!(
                "SKIPPED explicit_pages_where_the_machine_lets_us_reserve_them: no huge pages can be reserved here"
            );
            return;
        }
        let mut wanted = config(4 << 20, PageSize::Huge2MiB);
        wanted.lock = true;
        let pages = HugePages::reserve(&wanted).unwrap();
        assert_eq!((pages.page_size(), pages.locked()), (PageSize::Huge2MiB, true));
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let line = format!("{:x}-", pages.start().as_ptr() as usize);
        let entry = maps.split("VmFlags").find(|entry| entry.contains(&line)).unwrap();
        assert!(entry.contains("KernelPageSize:     2048 kB"), "{entry}");
        drop(pages);
        // Another test may hold some; the machine gives back what is free.
        let _ = std::fs::write(path, before.trim());
    }

    #[test]
    fn a_node_that_does_not_exist_is_refused() {
        let mut wanted = config(1 << 20, PageSize::Transparent);
        wanted.numa_node = Some(63);
        assert!(
            HugePages::reserve(&wanted)
                .unwrap_err()
                .to_string()
                .contains("NUMA node 63")
        );
    }
}
