//! Numbers out of texts and units.

/// The first number after `key` in `text`.
pub(super) fn number_after(text: &str, key: &str) -> Option<f64> {
    let rest = &text[text.find(key)? + key.len()..];
    let rest = rest.trim_start_matches([' ', ':', '\t', '=', '(']);
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)))
        .unwrap_or(rest.len());
    rest[..end].trim_end_matches(['e', 'E']).parse().ok()
}

/// Factor to metres, seconds or degrees of a unit as NeXus files write it; 1 where it is unknown or the base unit.
pub(super) fn to_base(unit: &str) -> f64 {
    match unit.trim() {
        "mm" | "millimetre" | "millimeter" | "ms" => 1e-3,
        "um" | "µm" | "micron" | "us" => 1e-6,
        "nm" | "nanometre" | "nanometer" | "ns" => 1e-9,
        "angstrom" | "Angstrom" | "A" | "Å" | "ANGSTROM" => 1e-10,
        "rad" | "radian" | "radians" => 180.0 / std::f64::consts::PI,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_names() {
        assert_eq!(number_after("# Wavelength 0.98 A", "# Wavelength"), Some(0.98));
        assert_eq!(
            number_after("# Pixel_size 75e-6 m x 75e-6 m", "# Pixel_size"),
            Some(75e-6)
        );
        assert_eq!(number_after("# Beam_xy (1.5, 2)", ","), Some(2.0));
        assert_eq!(number_after("nothing", "else"), None);
    }
}
