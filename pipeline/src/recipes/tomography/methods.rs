//! The methods that make a volume, slab after slab of 16 slices from sinograms that lie `[angle][column][16 rows]`.

use super::super::RecipeError;
use super::volume::NAME;
use kernels::{
    Accelerator, DeviceKind, Filter, Gridrec, GridrecConfig, Invalid, Iteration, Iterative, IterativeConfig, Queue,
    SlabConfig, SlabReconstructor, Sloped, SlopedConfig, equally_sloped_angles_deg, gridrec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Slices of a slab.
pub(super) const SLAB_SLICES: usize = crate::storage::SLAB_SLICES;
/// Degrees by which an angle may differ from one of equally sloped tomography.
const SLOPED_TOLERANCE_DEG: f64 = 0.01;

/// How the volume is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Method {
    /// filtered back-projection, as the live slices
    Backprojection,
    /// by the Fourier transform: the faster, the more projections
    Gridrec,
    /// simultaneous iterations: slow, smooth
    Sirt,
    /// conjugate gradients: fast, noise comes back
    Cgls,
    /// equally sloped tomography: lowest dose, angles planned for it
    Sloped,
    /// back-projection, or gridrec where there are so many projections that it is faster
    Auto,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Backprojection => "backprojection",
            Method::Gridrec => "gridrec",
            Method::Sirt => "sirt",
            Method::Cgls => "cgls",
            Method::Sloped => "sloped",
            Method::Auto => "auto",
        }
    }

    /// Whether it takes projections one by one, as those of a half acquisition are; others want them stitched.
    pub(super) fn linear(self) -> bool {
        matches!(self, Method::Backprojection | Method::Gridrec | Method::Auto)
    }

    /// The method that `auto` is: the same for the same scan and device, so that the same bits come out.
    /// `from` is the number of projections that somebody has given for gridrec.
    pub(super) fn chosen(
        self,
        accelerator: &Accelerator,
        width: usize,
        projections: usize,
        from: Option<usize>,
    ) -> Method {
        let faster = match from {
            Some(from) => projections >= from,
            None => accelerator.info().kind == DeviceKind::Cpu && gridrec::is_faster(width, projections),
        };
        match self {
            Method::Auto if faster => Method::Gridrec,
            Method::Auto => Method::Backprojection,
            method => method,
        }
    }

    /// Iterations unless somebody says how many.
    pub(super) fn iterations(self) -> usize {
        if self == Method::Cgls { 10 } else { 100 }
    }
}

/// What a volume's slabs have in common.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// not `auto`
    pub(super) method: Method,
    /// columns of a projection, as wide as slices
    pub(super) width: usize,
    pub(super) axis_px: f64,
    pub(super) angles_deg: Vec<f64>,
    pub(super) weights: Vec<f32>,
    pub(super) filter: Filter,
    pub(super) iterations: usize,
    pub(super) nonnegative: bool,
    pub(super) flat: f64,
    pub(super) support_px: f64,
    /// of equally sloped tomography: for every planned line the projection that is on it
    pub(super) lines: Vec<Option<usize>>,
    pub(super) threads: usize,
}

impl Job {
    fn gridrec(&self) -> GridrecConfig {
        GridrecConfig {
            columns: self.width,
            rotation_axis_px: self.axis_px,
            angles_deg: self.angles_deg.clone(),
            weights: self.weights.clone(),
            filter: self.filter,
            threads: self.threads,
        }
    }

    fn iterative(&self) -> IterativeConfig {
        IterativeConfig {
            columns: self.width,
            rotation_axis_px: self.axis_px,
            angles_deg: self.angles_deg.clone(),
            iteration: match self.method {
                Method::Sirt => Iteration::Sirt {
                    nonnegative: self.nonnegative,
                },
                _ => Iteration::Cgls,
            },
            iterations: self.iterations,
        }
    }

    fn sloped(&self) -> SlopedConfig {
        let lost = self.lines.iter().enumerate().filter(|(_, came)| came.is_none());
        SlopedConfig {
            columns: self.width,
            rotation_axis_px: self.axis_px,
            angles: self.lines.len(),
            lost: lost.map(|(line, _)| line).collect(),
            iterations: self.iterations,
            flat: self.flat,
            nonnegative: self.nonnegative,
            support_px: self.support_px,
        }
    }
}

/// Bytes that a method takes beside sinograms: a slab of slices, its 16-bit form, and what it works with.
pub(super) fn bytes(method: Method, width: usize, projections: usize, threads: usize) -> usize {
    let points = width * width * SLAB_SLICES;
    let kept = points * (4 + 2);
    let threads = threads.max(1);
    kept + match method {
        // Sums, twice where the runtime keeps a copy of its own, and filtered projections.
        Method::Backprojection | Method::Auto => points * (4 + 4) + 16 * (width + 3) * SLAB_SLICES * 4,
        Method::Gridrec => {
            let job = GridrecConfig {
                columns: width,
                rotation_axis_px: 0.0,
                angles_deg: Vec::new(),
                weights: Vec::new(),
                filter: Filter::None,
                threads,
            };
            job.bytes_needed()
        }
        Method::Sirt | Method::Cgls => {
            let job = IterativeConfig {
                columns: width,
                rotation_axis_px: 0.0,
                angles_deg: vec![0.0; projections],
                iteration: if method == Method::Cgls {
                    Iteration::Cgls
                } else {
                    Iteration::Sirt { nonnegative: false }
                },
                iterations: 1,
            };
            job.bytes_needed() + points * 4
        }
        // Pictures and lines in double precision, real and complex, each about six times while it iterates.
        Method::Sloped => threads * (6 * 8 * width * width + 8 * 16 * projections * (width + 2)),
    }
}

/// Threads that gridrec and equally sloped tomography may have within `room` bytes.
pub(super) fn threads(method: Method, width: usize, projections: usize, room: usize, cores: usize) -> usize {
    let fits = |threads: &usize| bytes(method, width, projections, *threads) <= room;
    (1..=cores.max(1)).rev().find(fits).unwrap_or(1)
}

/// For every line of equally sloped tomography the projection that is on it.
///
/// # Errors
/// Why these are no such projections.
pub(super) fn lines(angles_deg: &[f64], planned: usize) -> Result<Vec<Option<usize>>, String> {
    if planned < 4 || !planned.is_multiple_of(4) {
        return Err(format!(
            "{planned} projections are planned: equally sloped tomography takes a multiple of 4"
        ));
    }
    let expected = equally_sloped_angles_deg(planned);
    let mut lines = vec![None; planned];
    for (number, angle) in angles_deg.iter().enumerate() {
        let angle_deg = (angle + 45.0 + SLOPED_TOLERANCE_DEG).rem_euclid(360.0) - 45.0 - SLOPED_TOLERANCE_DEG;
        let line = expected
            .iter()
            .position(|on| (on - angle_deg).abs() <= SLOPED_TOLERANCE_DEG);
        match line {
            Some(line) if lines[line].is_none() => lines[line] = Some(number),
            Some(_) => return Err(format!("two projections are at {angle} degrees")),
            None => {
                let nearest = expected
                    .iter()
                    .copied()
                    .min_by(|a, b| (a - angle_deg).abs().total_cmp(&(b - angle_deg).abs()));
                return Err(format!(
                    "a projection is at {angle:.4} degrees, where equally sloped tomography of {planned} projections \
                     has none; the nearest is {:.4}",
                    nearest.unwrap_or(f64::NAN)
                ));
            }
        }
    }
    Ok(lines)
}

/// See the module.
pub(super) enum Reconstructor {
    Backprojection(Box<SlabReconstructor>),
    Gridrec(Box<Gridrec>),
    Iterative(Box<Iterative>),
    Sloped(Vec<Sloped>),
}

impl Reconstructor {
    pub(super) fn new(accelerator: &Accelerator, queue: &Queue, job: &Job) -> Result<Self, RecipeError> {
        Ok(match job.method {
            Method::Backprojection | Method::Auto => {
                let config = SlabConfig {
                    columns: job.width,
                    rotation_axis_px: job.axis_px,
                    angles_deg: job.angles_deg.clone(),
                    weights: job.weights.clone(),
                    filter: job.filter,
                    threads: job.threads,
                    // Asked before.
                    memory_budget_bytes: usize::MAX,
                };
                Self::Backprojection(Box::new(
                    SlabReconstructor::new(accelerator, &config).map_err(RecipeError::device(NAME))?,
                ))
            }
            Method::Gridrec => Self::Gridrec(Box::new(
                Gridrec::new(&job.gridrec()).map_err(RecipeError::frames(NAME))?,
            )),
            Method::Sirt | Method::Cgls => {
                let iterative = Iterative::new(accelerator, queue, &job.iterative());
                Self::Iterative(Box::new(iterative.map_err(RecipeError::device(NAME))?))
            }
            Method::Sloped => {
                let one = || Sloped::new(&job.sloped()).map_err(RecipeError::frames(NAME));
                Self::Sloped((0..job.threads.max(1)).map(|_| one()).collect::<Result<_, _>>()?)
            }
        })
    }

    /// Makes the first `count` slices of a slab, and all 16 where that is no more work. `go_on` is asked every now and then;
    /// when it says no, the slices are not to be used. Answers what is left unexplained of the projections, as a share,
    /// where the method tells.
    pub(super) fn run(
        &mut self,
        queue: &Queue,
        job: &Job,
        sinograms: &[f32],
        slices: &mut [f32],
        count: usize,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<f64>, RecipeError> {
        match self {
            Self::Backprojection(slabs) => {
                slabs
                    .run_while(queue, sinograms, slices, go_on)
                    .map_err(RecipeError::device(NAME))?;
                Ok(None)
            }
            Self::Gridrec(gridrec) => {
                gridrec
                    .run_while(sinograms, slices, go_on)
                    .map_err(RecipeError::frames(NAME))?;
                Ok(None)
            }
            Self::Iterative(iterative) => {
                let norms = iterative
                    .run(queue, sinograms, slices, |_| go_on())
                    .map_err(RecipeError::device(NAME))?;
                let (first, last) = (norms.first().copied(), norms.last().copied());
                Ok(first
                    .zip(last)
                    .filter(|(first, _)| *first > 0.0)
                    .map(|(first, last)| last / first))
            }
            Self::Sloped(threads) => sloped(threads, job, sinograms, slices, count, go_on),
        }
    }
}

fn sloped(
    threads: &mut [Sloped],
    job: &Job,
    sinograms: &[f32],
    slices: &mut [f32],
    count: usize,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Option<f64>, RecipeError> {
    let (width, each) = (job.width, count.div_ceil(threads.len()));
    let slices = &mut slices[..count * width * width];
    let one = |sloped: &mut Sloped, row: usize, slice: &mut [f32]| -> Result<f64, Invalid> {
        let mut sinogram = vec![0.0; job.lines.len() * width];
        for (line, came) in sinogram.chunks_exact_mut(width).zip(&job.lines) {
            let Some(number) = came else { continue };
            let from = sinograms[number * width * SLAB_SLICES + row..]
                .iter()
                .step_by(SLAB_SLICES);
            line.iter_mut().zip(from).for_each(|(out, value)| *out = *value);
        }
        let errors = sloped.run_while(&sinogram, slice, go_on)?;
        Ok(errors.last().copied().unwrap_or(0.0))
    };
    let errors = std::thread::scope(|scope| {
        let started: Vec<_> = threads
            .iter_mut()
            .zip(slices.chunks_mut(each.max(1) * width * width))
            .enumerate()
            .map(|(thread, (sloped, slices))| {
                scope.spawn(move || {
                    let rows = slices.chunks_exact_mut(width * width).enumerate();
                    rows.take_while(|_| go_on())
                        .map(|(row, slice)| one(sloped, thread * each + row, slice))
                        .collect::<Result<Vec<f64>, Invalid>>()
                })
            })
            .collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(errors) => errors,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>, Invalid>>()
    });
    Ok(errors
        .map_err(RecipeError::frames(NAME))?
        .into_iter()
        .flatten()
        .reduce(f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equally_sloped_projections_are_told_from_others() {
        let planned = equally_sloped_angles_deg(16);
        let mut came: Vec<f64> = planned.iter().copied().filter(|angle| angle.abs() > 1e-9).collect();
        came.reverse();
        came[2] += 360.0;
        let found = lines(&came, 16).unwrap();
        assert_eq!(found.iter().filter(|line| line.is_none()).count(), 1);
        assert_eq!(found[0], Some(came.len() - 1));
        let even: Vec<f64> = (0..16).map(|n| f64::from(n) * 11.25).collect();
        let refused = lines(&even, 16).unwrap_err();
        assert!(
            refused.contains("11.2500 degrees") && refused.contains("nearest is"),
            "{refused}"
        );
        assert!(lines(&came, 15).unwrap_err().contains("multiple of 4"));
        assert!(lines(&[0.0, 0.0], 16).unwrap_err().contains("two projections"));
    }

    #[test]
    fn threads_are_as_many_as_fit() {
        let one = bytes(Method::Gridrec, 512, 100, 1);
        assert_eq!(threads(Method::Gridrec, 512, 100, one, 8), 1);
        assert_eq!(threads(Method::Gridrec, 512, 100, 8 * one, 8), 8);
        assert_eq!(threads(Method::Gridrec, 512, 100, 0, 8), 1);
    }
}
