//! A backend and its client, ready to be measured.

use std::time::Duration;

/// A backend and its client.
pub trait Rig {
    /// The backend's process, then the client's; they stand still while the machine is calibrated.
    fn processes(&self) -> Vec<u32>;

    /// Measures for `time`: a value for each metric of the case.
    ///
    /// # Errors
    /// It did not work.
    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble>;

    /// After the last window: whether all went well.
    ///
    /// # Errors
    /// Why the windows do not count.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Why there is no figure.
#[derive(Debug)]
pub enum Trouble {
    /// The backend cannot do this: no failure.
    Unsupported(String),
    /// The run could not be made.
    Failed(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
