//! The table of a verification: what was checked, how it ended, how long it took.

use std::time::{Duration, Instant};

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Fail,
    /// Not made, since one that it needs failed.
    Skip,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) check: &'static str,
    pub(super) status: Status,
    /// What was seen, or what is wrong.
    pub(super) detail: String,
    pub(super) ms: f64,
}

/// Checks in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Verification {
    pub(super) checks: Vec<Check>,
}

impl Verification {
    /// Makes a check and notes its end; `None` when it failed.
    pub(super) fn check<T>(
        &mut self,
        check: &'static str,
        make: impl FnOnce() -> Result<(T, String), String>,
    ) -> Option<T> {
        let begin = Instant::now();
        let made = make();
        let elapsed = begin.elapsed();
        match made {
            Ok((value, detail)) => {
                self.note(check, Status::Pass, detail, elapsed);
                Some(value)
            }
            Err(detail) => {
                self.note(check, Status::Fail, detail, elapsed);
                None
            }
        }
    }

    /// Notes a check that was made together with others.
    pub(super) fn note(
        &mut self,
        check: &'static str,
        status: Status,
        detail: impl Into<String>,
        time: Duration,
    ) {
        self.checks.push(Check { check, status, detail: detail.into(), ms: time.as_secs_f64() * 1e3 });
    }

    /// Notes what could not be made.
    pub(super) fn skip(&mut self, checks: &[&'static str], why: &str) {
        for check in checks {
            self.note(check, Status::Skip, why, Duration::ZERO);
        }
    }

    /// Whether nothing failed.
    pub(super) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Fail)
    }

    /// As rows for people.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |check: &Check| {
            let status = match check.status {
                Status::Pass => "pass",
                Status::Fail => "FAIL",
                Status::Skip => "skip",
            };
            vec![
                check.check.to_owned(),
                status.to_owned(),
                format!("{:.1} ms", check.ms),
                check.detail.clone(),
            ]
        };
        self.checks.iter().map(row).collect()
    }
}
