//! A three-dimensional head phantom of ellipsoids (Kak & Slaney 1988, table 3.1, with the softer contrasts of Toft
//! 1996) and its exact line integrals. Coordinates: x and y across the rotation axis, z along it, from -1 to 1; a ray
//! at angle θ and distance u from the axis holds the points with `x cos θ + y sin θ = u`.

/// Centre, half axes, turn about z in degrees, and value added inside.
struct Ellipsoid {
    center: [f64; 3],
    axes: [f64; 3],
    phi_deg: f64,
    value: f64,
}

const fn ellipsoid(center: [f64; 3], axes: [f64; 3], phi_deg: f64, value: f64) -> Ellipsoid {
    Ellipsoid {
        center,
        axes,
        phi_deg,
        value,
    }
}

const PHANTOM: [Ellipsoid; 12] = [
    ellipsoid([0.0, 0.0, 0.0], [0.69, 0.92, 0.90], 0.0, 1.0),
    ellipsoid([0.0, -0.0184, 0.0], [0.6624, 0.874, 0.88], 0.0, -0.8),
    ellipsoid([-0.22, 0.0, -0.25], [0.41, 0.16, 0.21], 108.0, -0.2),
    ellipsoid([0.22, 0.0, -0.25], [0.31, 0.11, 0.22], 72.0, -0.2),
    ellipsoid([0.0, 0.35, -0.25], [0.21, 0.25, 0.50], 0.0, 0.1),
    ellipsoid([0.0, 0.1, -0.25], [0.046, 0.046, 0.046], 0.0, 0.1),
    ellipsoid([-0.08, -0.65, -0.25], [0.046, 0.023, 0.02], 0.0, 0.1),
    ellipsoid([0.06, -0.65, -0.25], [0.046, 0.023, 0.02], 90.0, 0.1),
    ellipsoid([0.06, -0.105, 0.625], [0.056, 0.04, 0.1], 90.0, 0.2),
    ellipsoid([0.0, 0.1, 0.625], [0.056, 0.056, 0.1], 0.0, -0.2),
    ellipsoid([0.35, -0.45, 0.0], [0.04, 0.04, 0.6], 0.0, 0.8),
    ellipsoid([-0.4, 0.35, 0.1], [0.03, 0.08, 0.25], 30.0, 0.6),
];

/// Line integrals of one detector row: at height `z` and angle `theta_rad`, for every distance in `u`, added to `out`.
pub(super) fn project(z: f64, theta_rad: f64, u: &[f64], out: &mut [f64]) {
    let (sin, cos) = theta_rad.sin_cos();
    for part in &PHANTOM {
        let height = (z - part.center[2]) / part.axes[2];
        let shrink2 = 1.0 - height * height;
        if shrink2 <= 0.0 {
            continue;
        }
        let (a2, b2) = (part.axes[0].powi(2) * shrink2, part.axes[1].powi(2) * shrink2);
        let (turn_sin, turn_cos) = (theta_rad - part.phi_deg.to_radians()).sin_cos();
        let reach2 = a2 * turn_cos * turn_cos + b2 * turn_sin * turn_sin;
        let factor = part.value * 2.0 * (a2 * b2).sqrt() / reach2;
        let middle = part.center[0] * cos + part.center[1] * sin;
        for (u, out) in u.iter().zip(out.iter_mut()) {
            let t = u - middle;
            *out += factor * (reach2 - t * t).max(0.0).sqrt();
        }
    }
}

/// The phantom's values on an `n`×`n` grid at height `z`, from -1 to 1 along x (fast) and y (slow), row by row.
pub fn phantom_slice(n: usize, z: f64) -> Vec<f64> {
    let place = |i: usize| (2.0 * i as f64 - (n as f64 - 1.0)) / n as f64;
    let mut out = vec![0.0; n * n];
    for (index, out) in out.iter_mut().enumerate() {
        let (x, y) = (place(index % n), place(index / n));
        for part in &PHANTOM {
            let (sin, cos) = part.phi_deg.to_radians().sin_cos();
            let (dx, dy, dz) = (x - part.center[0], y - part.center[1], z - part.center[2]);
            let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
            let inside = (along / part.axes[0]).powi(2) + (across / part.axes[1]).powi(2) + (dz / part.axes[2]).powi(2);
            if inside <= 1.0 {
                *out += part.value;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_integrals_are_sums_over_the_slice() {
        let (n, z) = (800, -0.25);
        let slice = phantom_slice(n, z);
        let step = 2.0 / n as f64;
        let u: Vec<f64> = (0..n).map(|i| (2.0 * i as f64 - (n as f64 - 1.0)) / n as f64).collect();
        let mut at_zero = vec![0.0; n];
        project(z, 0.0, &u, &mut at_zero);
        let mut at_right_angle = vec![0.0; n];
        project(z, std::f64::consts::FRAC_PI_2, &u, &mut at_right_angle);
        for i in (50..n - 50).step_by(7) {
            let along_y: f64 = (0..n).map(|j| slice[j * n + i]).sum::<f64>() * step;
            let along_x: f64 = slice[i * n..(i + 1) * n].iter().sum::<f64>() * step;
            assert!((along_y - at_zero[i]).abs() < 0.02, "x {i}: {along_y} {}", at_zero[i]);
            assert!(
                (along_x - at_right_angle[i]).abs() < 0.02,
                "y {i}: {along_x} {}",
                at_right_angle[i]
            );
        }
    }
}
