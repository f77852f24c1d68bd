//! Where the model runs.

use std::fmt;
use std::str::FromStr;

use crate::string_type::{ValueError, as_string, quoted};

/// The device: `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU with this ordinal.
    Cuda(u32),
}

as_string!(DeviceChoice, "The device: `cpu`, `cuda` or `cuda:N`.", "^(cpu|cuda(:[0-9]+)?)$");

impl FromStr for DeviceChoice {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        let ordinal = text.strip_prefix("cuda:").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        match ordinal.and_then(|digits| digits.parse().ok()) {
            Some(ordinal) => Ok(Self::Cuda(ordinal)),
            None => Err(ValueError::new(
                format!("unknown device {}", quoted(text)),
                "write `cpu`, `cuda` or `cuda:N` with N from 0",
            )),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse::<DeviceChoice>().map(|device| device.to_string()), Ok("cuda:3".into()));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
