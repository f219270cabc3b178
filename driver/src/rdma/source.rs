//! The source that the pipeline sees, in either mode.

use super::RdmaError;
use super::acceptor::{Acceptor, Event, Joined};
use super::config::{Checked, Mode, RdmaConfig};
use super::counters::Counters;
use super::detector::{Detector, Doorkeeper, Waiting};
use super::reliable::Reliable;
use super::verbs::{Device, ProtectionDomain};
use crate::memory::FrameRing;
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::{Compression, PixelType, Shape, StreamDescription};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that senders place in the ring.
pub struct RdmaSource {
    config: Checked,
    counters: Arc<Counters>,
    stream: StreamDescription,
    epoch: u32,
    state: State,
    way: String,
}

enum State {
    Idle,
    Armed(Box<Acceptor>, Vec<Joined>),
    Running(Box<Reliable>),
    FreeArmed(Box<Doorkeeper>, Vec<Waiting>),
    FreeRunning(Box<Detector>),
}

impl RdmaSource {
    /// Checks the configuration and that there is a device; nothing listens before [`FrameSource::arm`].
    pub fn new(config: &RdmaConfig, counters: Arc<Counters>) -> Result<Self, SourceError> {
        let config = config.check()?;
        let device = Device::open(config.config.device.as_deref()).map_err(RdmaError::from)?;
        let domain = ProtectionDomain::new(&device).map_err(RdmaError::from)?;
        Ok(Self {
            way: way(&device.name(), domain.takes_dma_buf()),
            stream: unknown(&config),
            config,
            counters,
            epoch: 0,
            state: State::Idle,
        })
    }

    /// Which memory frames arrive in, and why, for people.
    pub fn way(&self) -> &str {
        &self.way
    }

    fn no_sender(&self, refused: Option<&str>) -> SourceError {
        SourceError::from(RdmaError::NoSender {
            address: self.config.listen.to_string(),
            seconds: self.config.config.connect_timeout_s,
            refused: refused.map_or_else(String::new, |why| format!("; the last one was refused: {why}")),
        })
    }

    fn arm_reliable(&mut self) -> Result<(), SourceError> {
        let mut acceptor = Acceptor::listen(&self.config, self.epoch, self.counters.clone())?;
        let until = Instant::now() + self.config.connect_timeout();
        let mut joined = Vec::new();
        while acceptor.description().is_none() || joined.is_empty() {
            match acceptor.step(Duration::from_millis(20))? {
                Some(Event::Joined(link)) => joined.push(*link),
                Some(Event::Gone(connection)) => {
                    joined.retain(|one: &Joined| one.link.connection != connection);
                    acceptor.forget(connection);
                }
                None => {}
            }
            if Instant::now() > until {
                return Err(self.no_sender(acceptor.refused()));
            }
        }
        if let Some(description) = acceptor.description() {
            self.stream = description.stream();
        }
        self.state = State::Armed(Box::new(acceptor), joined);
        Ok(())
    }

    fn arm_detector(&mut self) -> Result<(), SourceError> {
        let mut doorkeeper = Doorkeeper::listen(&self.config, self.epoch, self.counters.clone())?;
        let until = Instant::now() + self.config.connect_timeout();
        let waiting = loop {
            if let Some(waiting) = doorkeeper.step() {
                break waiting;
            }
            if Instant::now() > until {
                return Err(self.no_sender(doorkeeper.refused()));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(description) = doorkeeper.description() {
            self.stream = description.stream();
            self.stream.pausable = false;
        }
        self.state = State::FreeArmed(Box::new(doorkeeper), vec![waiting]);
        Ok(())
    }
}

/// The sentence of [`RdmaSource::way`] and of `fluxline doctor`.
pub fn way(device: &str, takes_dma_buf: bool) -> String {
    if takes_dma_buf {
        format!(
            "{device}: frames arrive in host memory; the device could write into an accelerator's, which Fluxline does not use yet"
        )
    } else {
        format!("{device}: frames arrive in host memory, because the device cannot register an accelerator's (dma-buf)")
    }
}

/// Before a sender has said anything.
fn unknown(config: &Checked) -> StreamDescription {
    StreamDescription {
        origin: format!("RDMA at {}", config.listen),
        shape: Shape::new(0, 0),
        pixel_type: PixelType::U16,
        compression: Compression::None,
        payload_bytes_max: 0,
        frames_expected: 0,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: false,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: Default::default(),
        metadata: BTreeMap::new(),
    }
}

impl FrameSource for RdmaSource {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    /// Listens, and waits until a sender has said what its frames are.
    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.state = State::Idle; // what stood before ends first
        self.epoch = epoch;
        match self.config.config.mode {
            Mode::Reliable => self.arm_reliable(),
            Mode::Detector => self.arm_detector(),
        }
    }

    fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        let (epoch, counters) = (self.epoch, self.counters.clone());
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Armed(acceptor, joined) => {
                let running = Reliable::start(*acceptor, joined, &self.config, ring, epoch, counters)?;
                State::Running(Box::new(running))
            }
            State::FreeArmed(doorkeeper, waiting) => {
                let running = Detector::start(*doorkeeper, waiting, &self.config, ring, epoch, counters)?;
                State::FreeRunning(Box::new(running))
            }
            other => other,
        };
        Ok(())
    }

    fn next(&mut self, ring: &FrameRing, _when_full: WhenFull) -> Result<Arrival, SourceError> {
        match &mut self.state {
            State::Running(running) => Ok(running.next(ring)?),
            State::FreeRunning(running) => Ok(running.next(ring)?),
            State::Armed(..) | State::FreeArmed(..) => {
                self.prepare(ring)?;
                Ok(Arrival::Idle)
            }
            State::Idle => Ok(Arrival::End),
        }
    }
}
