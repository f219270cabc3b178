//! Limits on pixel values, moved to values that the pixel type can hold.

use crate::host_memory::Arg;
use frame::PixelType;

const fn smallest(pixel_type: PixelType) -> f64 {
    match pixel_type {
        PixelType::U8 | PixelType::U16 | PixelType::U32 => 0.0,
        PixelType::I16 => i16::MIN as f64,
        PixelType::I32 => i32::MIN as f64,
        PixelType::F32 => f64::NEG_INFINITY,
    }
}

/// The smallest pixel value that is at least `limit`; `None` where no pixel can be.
pub(crate) fn at_least(pixel_type: PixelType, limit: f64) -> Option<f64> {
    let value = match pixel_type {
        PixelType::F32 if f64::from(limit as f32) < limit => f64::from((limit as f32).next_up()),
        PixelType::F32 => f64::from(limit as f32),
        _ => limit.ceil().max(smallest(pixel_type)),
    };
    (value <= pixel_type.max_value()).then_some(value)
}

/// The largest pixel value that is at most `limit`; `None` where no pixel can be.
pub(crate) fn at_most(pixel_type: PixelType, limit: f64) -> Option<f64> {
    let value = match pixel_type {
        PixelType::F32 if f64::from(limit as f32) > limit => f64::from((limit as f32).next_down()),
        PixelType::F32 => f64::from(limit as f32),
        _ => limit.floor().min(pixel_type.max_value()),
    };
    (value >= smallest(pixel_type)).then_some(value)
}

/// The type in which a kernel takes limits.
pub(crate) const fn opencl_name(pixel_type: PixelType) -> &'static str {
    match pixel_type {
        PixelType::U8 | PixelType::U16 | PixelType::U32 => "uint",
        PixelType::I16 | PixelType::I32 => "int",
        PixelType::F32 => "float",
    }
}

/// The type that comparing two vectors of pixels gives, without its width.
pub(crate) const fn mask_name(pixel_type: PixelType) -> &'static str {
    match pixel_type.bytes() {
        1 => "char",
        2 => "short",
        _ => "int",
    }
}

/// A limit as a kernel takes it; zero where there is none.
pub(crate) fn argument(pixel_type: PixelType, value: Option<f64>) -> Arg<'static> {
    let value = value.unwrap_or(0.0);
    match pixel_type {
        PixelType::U8 | PixelType::U16 | PixelType::U32 => Arg::U32(value as u32),
        PixelType::I16 | PixelType::I32 => Arg::I32(value as i32),
        PixelType::F32 => Arg::F32(value as f32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_move_to_values_that_pixels_can_hold() {
        assert_eq!(at_least(PixelType::U16, 69.5), Some(70.0));
        assert_eq!(at_least(PixelType::U16, 65535.5), None);
        assert_eq!(at_least(PixelType::U8, -4.0), Some(0.0));
        assert_eq!(at_most(PixelType::U8, -1.0), None);
        assert_eq!(at_most(PixelType::I16, 1e9), Some(32767.0));
        assert_eq!(at_least(PixelType::F32, 0.1), Some(f64::from(0.1f32)));
        assert_eq!(at_most(PixelType::F32, 0.1), Some(f64::from(0.1f32.next_down())));
        assert_eq!(at_least(PixelType::F32, 16777217.0), Some(16777218.0));
    }
}
