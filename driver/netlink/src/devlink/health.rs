//! Health reporters.

use super::devlink;
use crate::attr::{numbers, record};

numbers! {
    /// enum devlink_health_reporter_state
    pub enum ReporterState: u8 {
        /// All is well.
        Healthy = 0,
        /// It has found an error.
        Error = 1,
    }
}

record! {
    /// A health reporter.
    pub struct Reporter of devlink {
        /// Its name.
        name: String = HEALTH_REPORTER_NAME;
        /// How it is.
        state: ReporterState as u8 = HEALTH_REPORTER_STATE;
        /// Errors so far.
        errors: u64 = HEALTH_REPORTER_ERR_COUNT;
        /// Recoveries so far.
        recoveries: u64 = HEALTH_REPORTER_RECOVER_COUNT;
        /// Milliseconds between recoveries.
        graceful_period: u64 = HEALTH_REPORTER_GRACEFUL_PERIOD;
        /// 1: it recovers by itself.
        auto_recover: u8 = HEALTH_REPORTER_AUTO_RECOVER;
        /// 1: it takes a dump by itself.
        auto_dump: u8 = HEALTH_REPORTER_AUTO_DUMP;
        /// When the last dump was taken, in jiffies.
        dump_time: u64 = HEALTH_REPORTER_DUMP_TS;
        /// When the last dump was taken, in nanoseconds.
        dump_time_ns: u64 = HEALTH_REPORTER_DUMP_TS_NS;
    }
}
