//! How a volume fits its memory.

use super::methods::{self, Method, SLAB_SLICES};
use super::{projections, stripes};
use frame::{Shape, StreamDescription};

/// How the volume fits its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) rows_per_pass: usize,
    pub(super) passes: usize,
    pub(super) bytes: usize,
}

/// Projections that may wait for a volume that grows while its scan runs: the fewest, what a device takes at once, and the most.
const PLACES: std::ops::RangeInclusive<usize> = 16..=128;

/// What a device's compiler and runtime take on top, as seen with PoCL: 50 to 70 MiB.
const RUNTIME_BYTES: usize = 72 << 20;

/// What a volume's memory depends on.
pub(super) struct Size<'a> {
    pub(super) stream: &'a StreamDescription,
    pub(super) projections: usize,
    /// projections that the method takes: fewer where those of a half acquisition are stitched
    pub(super) taken: usize,
    /// of a slice
    pub(super) width: usize,
    pub(super) preview: usize,
    pub(super) phase: bool,
    /// moments of darks and flats that are kept
    pub(super) moments: usize,
    pub(super) method: Method,
    pub(super) stripes: bool,
    pub(super) cores: usize,
}

impl Size<'_> {
    /// Plan and threads within so many bytes.
    pub(super) fn plan(&self, memory_bytes: usize) -> Result<(Plan, usize), String> {
        let Shape { rows, columns } = self.stream.shape;
        let (projections, taken, width) = (self.projections, self.taken, self.width);
        let row = projections * columns * 4;
        let slab = SLAB_SLICES * row;
        // A half acquisition's slab is placed on a wide detector, or stitched.
        let wide = if width == columns {
            0
        } else {
            SLAB_SLICES * taken * width * 4
        };
        let stripes = |threads| {
            if self.stripes {
                stripes::bytes(projections, columns, threads)
            } else {
                0
            }
        };
        let fixed = projections::memory_bytes(self.stream, self.phase, self.moments)
            + self.preview.pow(3) * 4
            + RUNTIME_BYTES
            + wide;
        let room = memory_bytes.saturating_sub(fixed + slab + stripes(1));
        let threads = methods::threads(self.method, width, taken, room, self.cores);
        // Stripes are removed before a slab is made: the larger of both.
        let fixed = fixed + methods::bytes(self.method, width, taken, threads).max(stripes(threads));
        if fixed + slab > memory_bytes {
            return Err(format!(
                "{projections} projections of {rows}x{columns} pixels by {} need at least {} MiB",
                self.method.name(),
                (fixed + slab).div_ceil(1 << 20)
            ));
        }
        let slabs = ((memory_bytes - fixed) / slab.max(1)).min(rows.div_ceil(SLAB_SLICES));
        let rows_per_pass = (slabs * SLAB_SLICES).min(rows);
        let plan = Plan {
            rows_per_pass,
            passes: rows.div_ceil(rows_per_pass),
            bytes: fixed + slabs * slab,
        };
        Ok((plan, threads))
    }

    /// Projections that may wait, and bytes in all, of a volume that is summed as a whole while its scan runs; none where it
    /// does not fit so many bytes.
    pub(super) fn growing(&self, memory_bytes: usize) -> Option<(usize, usize)> {
        let Shape { rows, columns } = self.stream.shape;
        let (width, slabs) = (self.width, rows.div_ceil(SLAB_SLICES));
        // Sums, and 16 filtered projections, of every slab; a slab of slices; a projection placed on a wide detector.
        let sums = slabs * SLAB_SLICES * width * width * 4;
        let filtered = slabs * SLAB_SLICES * 16 * (width + 3) * 4;
        let wide = if width == columns { 0 } else { rows * width * 4 };
        let fixed = projections::memory_bytes(self.stream, self.phase, self.moments)
            + self.preview.pow(3) * 4
            + RUNTIME_BYTES
            + methods::bytes(Method::Backprojection, width, self.taken, 1)
            + sums
            + filtered
            + wide;
        let place = rows * columns * 4;
        let places = (memory_bytes.checked_sub(fixed)? / place.max(1)).min(*PLACES.end());
        (places >= *PLACES.start()).then_some((places, fixed + places * place))
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: usize, columns: usize) -> StreamDescription {
        StreamDescription {
            origin: "test".into(),
            shape: Shape::new(rows, columns),
            pixel_type: frame::PixelType::U16,
            compression: frame::Compression::None,
            payload_bytes_max: rows * columns * 2,
            frames_expected: 1,
            darks: 0,
            flats: 0,
            angles_deg: Vec::new(),
            kinds: Vec::new(),
            pausable: true,
            parts: 0,
            saturation_value: None,
            mask: None,
            detector: Default::default(),
            metadata: Default::default(),
        }
    }

    fn plan(
        memory_bytes: usize,
        stream: &StreamDescription,
        projections: usize,
        method: Method,
    ) -> Result<Plan, String> {
        let size = Size {
            stream,
            projections,
            taken: projections,
            width: stream.shape.columns,
            preview: 128,
            phase: false,
            moments: 0,
            method,
            stripes: false,
            cores: 2,
        };
        size.plan(memory_bytes).map(|(plan, _)| plan)
    }

    #[test]
    fn a_large_scan_fits_six_gibibytes() {
        for method in [Method::Backprojection, Method::Gridrec, Method::Sirt, Method::Cgls] {
            let plan = plan(6 << 30, &stream(2048, 2048), 1500, method).unwrap();
            assert!(
                plan.bytes <= 6 << 30 && plan.rows_per_pass.is_multiple_of(16),
                "{plan:?}"
            );
            assert!(plan.passes <= 8, "{method:?} {plan:?}");
        }
    }

    #[test]
    fn a_volume_grows_where_all_of_it_fits() {
        let growing = |mib: usize, rows, columns| {
            let stream = stream(rows, columns);
            let size = Size {
                stream: &stream,
                projections: 180,
                taken: 180,
                width: columns,
                preview: 128,
                phase: false,
                moments: 0,
                method: Method::Backprojection,
                stripes: false,
                cores: 2,
            };
            size.growing(mib << 20)
        };
        let (places, bytes) = growing(2048, 512, 512).unwrap();
        assert!(places == 128 && bytes < 1 << 30, "{places} {bytes}");
        assert!(growing(2048, 1024, 1024).is_none());
        assert!(growing(10240, 1024, 1024).is_some());
    }

    #[test]
    fn a_small_scan_is_read_once_and_none_fits_nothing() {
        let stream = stream(40, 96);
        assert_eq!(plan(128 << 20, &stream, 120, Method::Backprojection).unwrap().passes, 1);
        let refused = plan(64 << 20, &stream, 120, Method::Backprojection).unwrap_err();
        assert!(refused.contains("at least"), "{refused}");
    }
}
