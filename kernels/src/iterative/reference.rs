//! The projector as a matrix and both iterations, in f64, as they are written.

/// A sparse matrix: for every ray its pixels and weights.
pub struct Rays(Vec<Vec<(usize, f64)>>);

impl Rays {
    /// Joseph's rays through `columns`×`columns` pixels, `[angle][column]`.
    pub fn new(columns: usize, axis_px: f64, angles_deg: &[f64]) -> Self {
        let middle = (columns as f64 - 1.0) / 2.0;
        let mut rays = Vec::new();
        for angle_deg in angles_deg {
            let (sin, cos) = angle_deg.to_radians().sin_cos();
            for column in 0..columns {
                let t = column as f64 - axis_px;
                let mut ray = Vec::new();
                for line in 0..columns {
                    let steep = cos.abs() >= sin.abs();
                    let (across, along) = if steep { (cos, sin) } else { (sin, cos) };
                    let place = (t - (line as f64 - middle) * along) / across + middle;
                    for (point, share) in [
                        (place.floor(), 1.0 - place.fract()),
                        (place.floor() + 1.0, place.fract()),
                    ] {
                        let share = if place < 0.0 {
                            1.0 - (place - point).abs()
                        } else {
                            share
                        };
                        if point >= 0.0 && point < columns as f64 && share > 0.0 {
                            let point = point as usize;
                            let pixel = if steep {
                                line * columns + point
                            } else {
                                point * columns + line
                            };
                            ray.push((pixel, share / across.abs()));
                        }
                    }
                }
                rays.push(ray);
            }
        }
        Self(rays)
    }

    /// Line integrals of an image.
    pub fn project(&self, image: &[f64]) -> Vec<f64> {
        let sum = |ray: &Vec<(usize, f64)>| ray.iter().map(|(pixel, weight)| weight * image[*pixel]).sum();
        self.0.iter().map(sum).collect()
    }

    /// The transpose.
    pub fn spread(&self, rays: &[f64], pixels: usize) -> Vec<f64> {
        let mut image = vec![0.0; pixels];
        for (ray, value) in self.0.iter().zip(rays) {
            ray.iter().for_each(|(pixel, weight)| image[*pixel] += weight * value);
        }
        image
    }

    /// SIRT (Gilbert 1972; in van der Sluis & van der Vorst's form: `x += C A' R (b - A x)`).
    pub fn sirt(&self, measured: &[f64], pixels: usize, iterations: usize) -> Vec<f64> {
        let inverse = |sums: Vec<f64>| {
            sums.into_iter()
                .map(|v| if v > 1e-6 { 1.0 / v } else { 0.0 })
                .collect::<Vec<f64>>()
        };
        let rays = inverse(self.project(&vec![1.0; pixels]));
        let weights = inverse(self.spread(&vec![1.0; measured.len()], pixels));
        let mut image = vec![0.0; pixels];
        for _ in 0..iterations {
            let found = self.project(&image);
            let residual: Vec<f64> = (0..found.len()).map(|i| rays[i] * (measured[i] - found[i])).collect();
            let step = self.spread(&residual, pixels);
            (0..pixels).for_each(|i| image[i] += weights[i] * step[i]);
        }
        image
    }

    /// CGLS (Hestenes & Stiefel 1952, on the normal equations).
    pub fn cgls(&self, measured: &[f64], pixels: usize, iterations: usize) -> Vec<f64> {
        let dot = |a: &[f64]| a.iter().map(|v| v * v).sum::<f64>();
        let (mut image, mut residual) = (vec![0.0; pixels], measured.to_vec());
        let mut direction = self.spread(&residual, pixels);
        let mut gamma = dot(&direction);
        for _ in 0..iterations {
            let seen = self.project(&direction);
            let alpha = gamma / dot(&seen);
            (0..pixels).for_each(|i| image[i] += alpha * direction[i]);
            (0..seen.len()).for_each(|i| residual[i] -= alpha * seen[i]);
            let gradient = self.spread(&residual, pixels);
            let next = dot(&gradient);
            (0..pixels).for_each(|i| direction[i] = gradient[i] + next / gamma * direction[i]);
            gamma = next;
        }
        image
    }
}
