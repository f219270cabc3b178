//! Ctrl-C and SIGTERM: the first asks the program to end in order, a second Ctrl-C ends it at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

static ENDED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that either signal sets.
pub(crate) fn ended() -> Arc<AtomicBool> {
    ENDED.get_or_init(Arc::default).clone()
}

/// Takes the signals. Called before anything else: the compiler of an OpenCL driver takes them too, and gives them on to
/// whom it found there.
pub(super) fn take() -> std::io::Result<()> {
    flag::register_conditional_shutdown(SIGINT, 130, ended())?;
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, ended())?;
    }
    Ok(())
}
