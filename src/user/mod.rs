// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end that needs no module and no privilege.

use crate::backend::Backend;
use crate::error::{Error, Result};

/// The user back end of this process.
///
/// # Errors
/// [`Error::Unsupported`] where the kernel lacks what it needs.
pub fn backend() -> Result<&'static dyn Backend> {
    Err(Error::Unsupported)
}
