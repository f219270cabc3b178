//! Which columns stand out: algorithm 4 of Vo et al. 2018.

/// Sorted, most values lie on a line; those beyond its ends by more than `snr` halves of its rise are stripes. Values
/// without any noise tell nothing, so none of them is one.
pub(super) fn stripes(values: &[f64], snr: f64) -> Vec<bool> {
    let count = values.len();
    let mut ordered = values.to_vec();
    ordered.sort_by(f64::total_cmp);
    let drop = count / 4;
    let middle = drop..count - drop - 1;
    let Some((slope, start)) = line(middle.clone().map(|i| (i as f64, ordered[i]))) else {
        return vec![false; count];
    };
    let end = start + slope * (count - 1) as f64;
    let noise = (end - start).abs();
    if noise < 1e-5 {
        return vec![false; count];
    }
    let high = (ordered[count - 1] - end).abs() / noise >= snr;
    let low = (start - ordered[0]).abs() / noise >= snr;
    let (above, below) = (end + noise * snr * 0.5, start - noise * snr * 0.5);
    let is_one = |value: &f64| (high && *value > above) || (low && *value <= below);
    values.iter().map(is_one).collect()
}

/// Slope and value at 0 of the line through points that is nearest to them.
fn line(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<(f64, f64)> {
    let count = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (x, y) = (x / count, y / count);
    let (xy, xx) = points.fold((0.0, 0.0), |(xy, xx), (px, py)| {
        (xy + (px - x) * (py - y), xx + (px - x).powi(2))
    });
    (count >= 2.0 && xx > 0.0).then(|| (xy / xx, y - xy / xx * x))
}

/// Stripes with a column on either side.
pub(super) fn widened(found: &[bool]) -> Vec<bool> {
    let at = |index: Option<usize>| index.and_then(|i| found.get(i)).copied().unwrap_or(false);
    (0..found.len())
        .map(|i| at(i.checked_sub(1)) || at(Some(i)) || at(Some(i + 1)))
        .collect()
}
