//! What is done after a set has changed, for software that does not look by itself: a
//! signal, or a command.
//!
//! A hook that fails is reported; the set is in force all the same.

use std::{fmt, path::PathBuf, time::Duration};

use tokio::time::timeout;

mod command;
mod signal;

pub use rustix::process::Signal;

/// How long a signal may take: its pid file may be on a file system that does not answer.
const SIGNAL: Duration = Duration::from_secs(10);

/// What is done after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A signal to a process.
    Signal {
        /// To which.
        target: Target,
        /// Which signal.
        signal: Signal,
    },
    /// A command, without a shell. It gets `PATH` and `TBOT_OUTPUT` (the name of the output)
    /// in its environment and nothing of ours beside; what it starts is ended with it.
    Command {
        /// Program and arguments; not empty.
        arguments: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
}

/// Which process is signalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one whose number is in this file, a plain one of root, of us, or of the user that
    /// runs the process. A process that was started after the file was written is another
    /// one (its number was used again), and is not signalled.
    PidFile(PathBuf),
    /// Those of this name (`/proc/PID/comm`) whose parent has another one.
    Name(String),
}

impl Hook {
    /// Does it.
    ///
    /// # Errors
    ///
    /// What was tried, and how it failed.
    pub async fn run(&self, output: &str) -> Result<(), HookError> {
        match self {
            Self::Signal { target, signal } => {
                let (target, signal) = (target.clone(), *signal);
                let send = tokio::task::spawn_blocking(move || signal::send(&target, signal));
                match timeout(SIGNAL, send).await {
                    Ok(sent) => sent.unwrap_or_else(|error| Err(HookError::new(error.to_string()))),
                    Err(_) => Err(HookError::new(format!(
                        "the process to signal was not found within {SIGNAL:?}"
                    ))),
                }
            }
            Self::Command { arguments, timeout } => command::run(arguments, *timeout, output).await,
        }
    }
}

/// Signals that may be sent, by name.
const SIGNALS: [(&str, Signal); 6] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
];

/// A signal by its name, with `SIG` or without.
pub fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let known = SIGNALS.iter().find(|(known, _)| *known == name);
    known.map(|(_, signal)| *signal).ok_or_else(|| {
        let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is not known: {}", names.join(", "))
    })
}

/// Why a hook failed. Shown without what a command printed: that may be secret, and where
/// hooks are reported everybody may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError {
    why: String,
    printed: String,
}

impl HookError {
    fn new(why: String) -> Self {
        Self {
            why,
            printed: String::new(),
        }
    }

    /// The beginning of what the command printed, of at most 1,000 bytes, not escaped: for the
    /// log only. `None` if it printed nothing, or was ended.
    pub fn printed(&self) -> Option<&str> {
        (!self.printed.is_empty()).then_some(self.printed.as_str())
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for HookError {}

#[cfg(test)]
mod tests;
