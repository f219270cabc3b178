//! The same in plain f64.

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Photons {
    /// so many photons, not rounded
    Number(f64),
    /// nothing that can be told
    Error,
    /// more than can be told
    Saturated,
}

/// Photons per ADU for a gain in ADU/keV and an energy in keV; 0 where none can be told.
pub fn factor(gain_adu_per_kev: f64, pedestal: f64, energy_kev: f64) -> f64 {
    let factor = 1.0 / (gain_adu_per_kev * energy_kev);
    // A factor beyond f32 says as little as a division by zero; an ADU has 14 bits.
    let usable = factor.is_finite() && (factor as f32).is_normal() && (0.0..=16383.0).contains(&pedestal);
    if usable { factor } else { 0.0 }
}

/// Photons of one word; pedestals in ADU, gains in ADU/keV, each for G0, G1 and G2.
pub fn photons(word: u16, pedestals: [f64; 3], gains: [f64; 3], energy_kev: f64) -> Photons {
    if factor(gains[0], pedestals[0], energy_kev) == 0.0 || matches!(word, 0xFFFF | 0x4000) {
        return Photons::Error;
    }
    let gain = match word >> 14 {
        0 => 0,
        1 => 1,
        3 => 2,
        _ => return Photons::Error,
    };
    if word == 0xC000 {
        return Photons::Saturated;
    }
    match factor(gains[gain], pedestals[gain], energy_kev) {
        0.0 => Photons::Error,
        factor => Photons::Number((f64::from(word & 0x3FFF) - pedestals[gain]) * factor),
    }
}

/// How far the pedestal of G0 has moved after a word, ADU, where it had moved by `drift` before: by 1 / `window` of the
/// distance, if the word is in G0 and, converted with the pedestal before it, within so many photons of none.
pub fn drift_after(
    word: u16,
    (pedestal, gain): (f64, f64),
    energy_kev: f64,
    drift: f64,
    (window, within_photons): (f64, f64),
) -> f64 {
    let factor = factor(gain, pedestal, energy_kev);
    let apart = f64::from(word) - pedestal - drift;
    let quiet = word >> 14 == 0 && factor != 0.0 && (apart * factor).abs() <= within_photons;
    if quiet { drift + apart / window } else { drift }
}

/// The same in whole photons, halves away from zero, where `lowest` and `highest` are the ends of what can be told.
pub fn whole(photons: Photons, lowest: f64, highest: f64) -> Photons {
    match photons {
        Photons::Number(value) if value.round() > highest => Photons::Saturated,
        Photons::Number(value) if value.round() < lowest => Photons::Error,
        Photons::Number(value) => Photons::Number(value.round()),
        other => other,
    }
}
