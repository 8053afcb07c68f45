//! Open files: each TAP queue is one, and 10,000 representors are more than most defaults allow.

use crate::nic::Refused;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Makes sure that this process may have `needed` files open, raising its soft limit and, where
/// privilege allows, the hard one.
///
/// # Errors
/// [`Refused::Missing`] with the limit found and how to raise it.
pub fn raise_nofile_limit(needed: u64) -> Result<(), Refused> {
    let refused = |why: String| Refused::Missing {
        what: format!("{needed} open files"),
        why,
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|e| refused(format!("cannot read the limit: {e}")))?;
    if soft >= needed {
        return Ok(());
    }
    if hard >= needed && setrlimit(Resource::RLIMIT_NOFILE, needed, hard).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, needed).map_err(|e| {
        let ceiling = std::fs::read_to_string("/proc/sys/fs/nr_open");
        let ceiling = ceiling.as_deref().map_or("unknown", str::trim);
        refused(format!(
            "the hard limit is {hard} ({e}; the system's ceiling fs.nr_open is {ceiling}): raise it \
             with LimitNOFILE={needed} in the unit or `ulimit -Hn {needed}` before starting"
        ))
    })
}

/// As many open files as may be had, up to `wanted`; how many that is.
pub fn nofile_limit(wanted: u64) -> u64 {
    if raise_nofile_limit(wanted).is_ok() {
        return wanted;
    }
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_the_soft_limit_and_names_the_hard_one() {
        // nextest runs each test in its own process; under `cargo test` the limit only grows.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_nofile_limit(soft).unwrap();
        let lower = hard.min(512);
        setrlimit(Resource::RLIMIT_NOFILE, lower, hard).unwrap();
        raise_nofile_limit(hard).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        let err = raise_nofile_limit(u64::MAX - 1).unwrap_err().to_string();
        assert!(err.contains(&format!("hard limit is {hard}")), "{err}");
    }
}
