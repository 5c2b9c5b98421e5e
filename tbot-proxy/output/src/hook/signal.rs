//! Signals by pidfd.
//!
//! The process is pinned first (`pidfd_open`), then looked at, then signalled through the
//! pidfd. If the signal arrives, the process was alive all the while, so what was looked at
//! was its own: a number that was used again meanwhile misleads nobody.
//!
//! A pid file says whom to signal with our rights, so that its owner counts: root, us, or
//! whoever runs the process and could signal it without us.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    time::{ClockId, clock_gettime},
};
use sys::StatFields;

use super::{HookError, Target};

/// Ticks a second in `/proc/PID/stat`: the same on every Linux of today (`USER_HZ`).
const TICKS: u64 = 100;

/// As much of a pid file is read: a number is shorter.
const LONGEST: u64 = 64;

/// Start times are whole ticks, and a file's time is that of the last tick.
const ROUNDING: Duration = Duration::from_millis(30);

pub(super) fn send(target: &Target, signal: Signal) -> Result<(), HookError> {
    match target {
        Target::PidFile(path) => to_pid_of_file(path, signal),
        Target::Name(name) => to_name(name, signal),
    }
}

fn to_pid_of_file(path: &Path, signal: Signal) -> Result<(), HookError> {
    let failed = |why: String| HookError::new(format!("pid file {}: {why}", path.display()));
    let PidFile {
        text,
        written,
        owner,
    } = PidFile::read(path).map_err(|error| failed(error.to_string()))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    let pid = first
        .parse()
        .ok()
        .filter(|pid| *pid > 1)
        .and_then(Pid::from_raw)
        .ok_or_else(|| failed("it does not begin with the number of a process".to_owned()))?;
    let gone = || failed(format!("process {first} is not running"));
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Err(gone()),
        Err(error) => return Err(failed(format!("process {first} cannot be opened: {error}"))),
    };
    let may_name_it =
        owner == 0 || owner == rustix::process::geteuid().as_raw() || Some(owner) == uid_of(pid);
    if !may_name_it {
        return Err(failed(format!(
            "it belongs to uid {owner}, and process {first} does not: only root, the user that runs tbot-proxy and the one that runs the process may say which process is signalled"
        )));
    }
    let started = Stat::of(pid)
        .and_then(|stat| stat.started())
        .ok_or_else(gone)?;
    if started > written + ROUNDING {
        return Err(failed(format!(
            "process {first} was started after the file was written: it is another process, and is not signalled; if the clock was set meanwhile, restart the service that the file is of"
        )));
    }
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(gone()),
        Err(error) => Err(failed(format!(
            "process {first} cannot be signalled: {error}"
        ))),
    }
}

/// What one look at a pid file says.
struct PidFile {
    text: String,
    written: SystemTime,
    owner: u32,
}

impl PidFile {
    /// Neither waits (a FIFO) nor reads without end (`/dev/zero`).
    fn read(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => {
                return Err(io::Error::other(
                    "it is a symbolic link: name what it leads to",
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let mut text = vec![];
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(Self {
            text: String::from_utf8_lossy(&text).into_owned(),
            written: metadata.modified()?,
            owner: metadata.uid(),
        })
    }
}

/// Who runs a process: its real uid, which `kill(2)` goes by.
fn uid_of(pid: Pid) -> Option<u32> {
    let text = fs::read(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let text = String::from_utf8_lossy(&text);
    let uids = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().next()?.parse().ok()
}

fn to_name(name: &str, signal: Signal) -> Result<(), HookError> {
    let failed = |why: String| HookError::new(format!("process `{name}`: {why}"));
    let (mut sent, mut refused) = (0, None);
    let processes = fs::read_dir("/proc").map_err(|error| failed(error.to_string()))?;
    for entry in processes.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let Some(stat) = Stat::of(pid).filter(|stat| stat.has_name(name)) else {
            continue;
        };
        let parent = stat.parent.and_then(Pid::from_raw).and_then(Stat::of);
        if parent.is_some_and(|parent| parent.has_name(name)) {
            continue;
        }
        match pidfd_send_signal(process, signal) {
            Ok(()) => sent += 1,
            Err(Errno::SRCH) => {}
            Err(error) => refused = Some((pid, error)),
        }
    }
    match (sent, refused) {
        (_, Some((pid, error))) => Err(failed(format!(
            "{} cannot be signalled: {error}",
            pid.as_raw_nonzero()
        ))),
        (0, None) => Err(failed("none is running".to_owned())),
        _ => Ok(()),
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    /// Its first 15 bytes.
    name: Vec<u8>,
    parent: Option<i32>,
    /// Since the machine was started.
    start: Duration,
}

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = StatFields::of(bytes)?;
        let ticks: u64 = fields.number(22)?;
        Some(Self {
            name: fields.name().to_owned(),
            parent: fields.number(4),
            start: Duration::from_millis(ticks.saturating_mul(1000 / TICKS)),
        })
    }

    fn has_name(&self, name: &str) -> bool {
        self.name == name.as_bytes().get(..15).unwrap_or(name.as_bytes())
    }

    /// By the wall clock. Not by `/proc/uptime`: a container may be shown its own there
    /// (lxcfs), while its processes count from the start of the machine.
    fn started(&self) -> Option<SystemTime> {
        let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
        started(SystemTime::now(), since_boot, self.start)
    }
}

/// When a process was started that began `start` after the machine did, which was
/// `since_boot` ago at `now`.
fn started(now: SystemTime, since_boot: Duration, start: Duration) -> Option<SystemTime> {
    now.checked_sub(since_boot.saturating_sub(start))
}

#[cfg(test)]
mod tests;
