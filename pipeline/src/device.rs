//! The device, opened as configured, with the parameters that suit it, and recipes made ready on it.

use crate::config::Config;
use crate::recipes::{Prepared, RecipeError, Setup, Technique};
use kernels::{Accelerator, AcceleratorConfig, AcceleratorError, DeviceKind, Tuned, TuningOrigin};
use std::time::Duration;

/// Where compiled kernels are kept: what is configured, else the user's folder for such things.
fn cache_dir(config: &Config) -> Option<std::path::PathBuf> {
    match &config.accelerator.cache_dir {
        Some(path) if path.as_os_str().is_empty() => None,
        Some(path) => Some(config.resolve(path)),
        None => {
            let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
            let home = || folder("HOME").map(|home| std::path::Path::new(&home).join(".cache"));
            let caches = folder("XDG_CACHE_HOME").map(std::path::PathBuf::from).or_else(home)?;
            Some(caches.join("fluxline"))
        }
    }
}

/// Opens the device; how its parameters were chosen, where `accelerator.tune` is on.
pub(crate) fn open(config: &Config) -> Result<(Accelerator, Option<Tuned>), AcceleratorError> {
    let accelerator = Accelerator::open(&AcceleratorConfig {
        device: config.accelerator.device.clone(),
        memory: config.accelerator.memory,
        cache_dir: cache_dir(config),
        binary_dir: config.accelerator.binary_dir.as_ref().map(|path| config.resolve(path)),
    })?;
    if !config.accelerator.tune {
        return Ok((accelerator, None));
    }
    let (accelerator, tuned) = accelerator.tuned();
    tell(&accelerator, &tuned);
    Ok((accelerator, Some(tuned)))
}

/// Says in the log how a device's parameters were chosen.
fn tell(accelerator: &Accelerator, tuned: &Tuned) {
    for remark in &tuned.remarks {
        tracing::warn!(target: "fluxline", "tuning: {remark}");
    }
    let how = match tuned.origin {
        TuningOrigin::Usual => "as usual for its kind",
        TuningOrigin::Measured => "measured now",
        TuningOrigin::Cached => "as measured at an earlier start",
    };
    tracing::info!(target: "fluxline", "kernels on {}, {how} ({} ms)", describe(accelerator, Some(tuned)), tuned.took_ms);
}

/// A device and the parameters of its kernels, as logs and records write it: with others the last bits of a curve differ.
pub(crate) fn describe(accelerator: &Accelerator, tuned: Option<&Tuned>) -> String {
    let name = &accelerator.info().name;
    if tuned.is_none() {
        return name.clone();
    }
    let t = accelerator.tuning();
    format!(
        "{name} (tile_pixels {}, statistics_tile_pixels {}, histogram_chunks {}, rows_group {})",
        t.tile_pixels, t.statistics_tile_pixels, t.histogram_chunks, t.rows_group
    )
}

/// How long a recipe that is made ready waits for its device, each time.
const ARM_WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Makes a recipe ready on the device, opened anew where it has failed, or else on the host's own processor; says on which.
pub(crate) fn prepare(
    technique: &dyn Technique,
    setup: &Setup<'_>,
    workers: usize,
) -> Result<(Prepared, Accelerator), RecipeError> {
    let on = |accelerator: &Accelerator| {
        let setup = Setup { accelerator, ..*setup };
        kernels::each_within(ARM_WAIT_LIMIT, || technique.prepare(&setup, workers))
    };
    let device = setup.accelerator;
    let first = on(device);
    let refused = match &first {
        Ok(prepared) => prepared.device_refused.clone(),
        Err(error) => error.of_device().then(|| error.to_string()),
    };
    if let Some(reason) = refused {
        if let Ok(device) = device.opened_anew()
            && let Ok(mut prepared) = on(&device)
            && prepared.device_refused.is_none()
        {
            prepared
                .warnings
                .push(format!("the device had failed ({reason}) and was opened anew"));
            return Ok((prepared, device));
        }
        if first.is_err()
            && device.info().kind != DeviceKind::Cpu
            && let Ok(processor) = device.stand_in()
            && let Ok(mut prepared) = on(&processor)
        {
            prepared.device_refused.get_or_insert(reason);
            return Ok((prepared, processor));
        }
    }
    first.map(|prepared| (prepared, device.clone()))
}
