//! Which instruction set the kernels use, found at run time.

/// A set of vector instructions. Higher levels are faster; all give the same results within rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuLevel {
    /// Plain Rust, any processor.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl CpuLevel {
    /// The environment variable that lowers the level: `scalar`, `avx2` or `avx512`.
    pub const VARIABLE: &'static str = "MODULARBASE_CPU_LEVEL";

    /// The best level that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Scalar
    }

    /// The detected level, lowered by [`CpuLevel::VARIABLE`] if that is set to a known name.
    pub fn from_environment() -> Self {
        let wanted = match std::env::var(Self::VARIABLE).as_deref() {
            Ok("scalar") => Self::Scalar,
            Ok("avx2") => Self::Avx2,
            _ => Self::Avx512,
        };
        wanted.min(Self::detect())
    }

    /// This level, or the best that the processor has if that is lower.
    pub(crate) fn available(self) -> Self {
        self.min(Self::detect())
    }
}
