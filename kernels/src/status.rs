//! What OpenCL answers, as errors of this crate.

use crate::accelerator::AcceleratorError;
use ocl::core;

/// A failed OpenCL call as an error of this crate.
pub(crate) fn failed(call: &'static str) -> impl Fn(core::Error) -> AcceleratorError {
    move |error| {
        let status = error
            .api_status()
            .map_or_else(|| error.to_string(), |status| format!("{status:?}"));
        AcceleratorError::Call { call, status }
    }
}

/// A status that a call of OpenCL's C interface returned.
pub(crate) fn check(call: &'static str, code: i32) -> Result<(), AcceleratorError> {
    match code {
        0 => Ok(()),
        code => Err(AcceleratorError::Call {
            call,
            status: status_name(code),
        }),
    }
}

/// The name of an OpenCL status where it is one that is met here in practice, else its number.
fn status_name(code: i32) -> String {
    let name = match code {
        -4 => "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        -5 => "CL_OUT_OF_RESOURCES",
        -6 => "CL_OUT_OF_HOST_MEMORY",
        -12 => "CL_MAP_FAILURE",
        -30 => "CL_INVALID_VALUE",
        -36 => "CL_INVALID_COMMAND_QUEUE",
        -37 => "CL_INVALID_HOST_PTR",
        -38 => "CL_INVALID_MEM_OBJECT",
        -61 => "CL_INVALID_BUFFER_SIZE",
        other => return format!("OpenCL status {other}"),
    };
    name.into()
}
