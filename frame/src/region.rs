//! Host memory that outlives every device buffer made over it.

/// A fixed range of host memory that a device may read while the host writes other parts of it.
///
/// # Safety
/// An implementor promises that `address..address + bytes` stays mapped, readable and writable at the
/// same place for as long as the value lives, and that `address` is page-aligned.
#[allow(unsafe_code)]
pub unsafe trait HostRegion: Send + Sync {
    /// Page-aligned address of the first byte.
    fn address(&self) -> usize;
    /// Length in bytes.
    fn bytes(&self) -> usize;
}
