//! Which thread runs where.

use crate::config::{CoreMode, CoresConfig};
use core_affinity::CoreId;

/// Cores by role; `None` is unpinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// receiving thread
    pub receive: Option<usize>,
    /// workers
    pub workers: Vec<usize>,
    /// writer
    pub writer: Option<usize>,
    /// whether roles share cores
    pub shared: bool,
}

impl Cores {
    /// The cores of a configuration on a machine with `available` cores. With fewer cores than roles (one
    /// receiver, one worker, one writer, one for the control plane) they are shared and nothing is pinned: a
    /// pinned thread would wait for its core while the other is idle.
    pub fn assign(config: &CoresConfig, available: usize) -> Cores {
        let listed = config.receive.is_some() && config.writer.is_some() && !config.workers.is_empty();
        let dedicated = match config.mode {
            CoreMode::Shared => false,
            CoreMode::Dedicated => true,
            CoreMode::Auto => listed || available >= 4,
        };
        if !dedicated {
            return Cores {
                receive: None,
                workers: Vec::new(),
                writer: None,
                shared: true,
            };
        }
        if listed {
            let workers = config.workers.clone();
            return Cores {
                receive: config.receive,
                workers,
                writer: config.writer,
                shared: false,
            };
        }
        // Core 0 stays with the control plane and the interrupts.
        Cores {
            receive: Some(1),
            workers: vec![2],
            writer: Some(3),
            shared: false,
        }
    }

    /// Number of workers.
    pub fn worker_count(&self) -> usize {
        self.workers.len().max(1)
    }

    /// Core of a worker.
    pub fn worker(&self, index: usize) -> Option<usize> {
        self.workers.get(index).copied()
    }
}

/// Pins this thread. A core that does not exist was refused with the configuration.
pub fn pin(core: Option<usize>) {
    if let Some(id) = core
        && !core_affinity::set_for_current(CoreId { id })
    {
        tracing::warn!("core {id} cannot be taken by this process; the thread runs where the kernel puts it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_shared_and_eight_are_not() {
        let config = CoresConfig::default();
        assert!(Cores::assign(&config, 2).shared);
        assert_eq!(Cores::assign(&config, 8).receive, Some(1));
        let listed = CoresConfig {
            receive: Some(0),
            workers: vec![1, 2],
            writer: Some(0),
            ..CoresConfig::default()
        };
        assert_eq!(Cores::assign(&listed, 4).worker_count(), 2);
    }
}
