//! What the agent asks of the kernel for itself as a process.
//!
//! This is the one crate of the workspace in which `unsafe` may be allowed, function
//! by function and with its reason. None is needed today: every call here has a safe
//! form in `rustix`. The functions act on the whole process, so a `main` calls them
//! once, before it starts threads.

use std::{fmt, io};

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Keeps private keys out of core files and out of reach of other processes of the
/// same user: the process becomes undumpable (`PR_SET_DUMPABLE` 0: no core file, no
/// ptrace, `/proc/PID/mem` closed) and `RLIMIT_CORE` is set to 0, hard limit too.
///
/// # Errors
///
/// The kernel's, with the call that it refused. A seccomp filter is the usual cause.
pub fn harden_process() -> Result<(), SysError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| SysError {
        tried: "prctl(PR_SET_DUMPABLE, 0)",
        source: error.into(),
    })?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| SysError {
        tried: "setrlimit(RLIMIT_CORE, 0)",
        source: error.into(),
    })
}

/// Raises the soft limit of open files to the hard limit and returns what holds now
/// (`u64::MAX`: unlimited). Each relayed connection takes two files.
///
/// # Errors
///
/// The kernel's. The old limit holds then.
pub fn raise_file_limit() -> Result<u64, SysError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised).map_err(|error| SysError {
            tried: "setrlimit(RLIMIT_NOFILE, hard limit)",
            source: error.into(),
        })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A call that the kernel refused.
#[derive(Debug)]
pub struct SysError {
    tried: &'static str,
    source: io::Error,
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was refused: {}", self.tried, self.source)
    }
}

impl std::error::Error for SysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
