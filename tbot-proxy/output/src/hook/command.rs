//! Commands: no shell, a bounded time, bounded output.

use std::{env, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use super::HookError;

/// How much of its output is told.
const TOLD: u64 = 1_000;

pub(super) async fn run(
    arguments: &[String],
    limit: Duration,
    output: &str,
) -> Result<(), HookError> {
    let (program, rest) = arguments
        .split_first()
        .ok_or_else(|| HookError("command: it is empty".to_owned()))?;
    let failed = |why: String| HookError(format!("command `{program}`: {why}"));
    let mut child = Command::new(program)
        .args(rest)
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .env("TBOT_OUTPUT", output)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it starts is ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("it cannot be started: {error}")))?;
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .map(EndsWith);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let run = async {
        let (status, out, err) = tokio::join!(child.wait(), beginning(out), beginning(err));
        (status, if err.is_empty() { out } else { err })
    };
    let ended = timeout(limit, run).await;
    drop(group);
    match ended {
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), said)) => Err(failed(format!("{status}: {said}"))),
        Ok((Err(error), _)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "it was not done within {limit:?} and has been ended"
        ))),
    }
}

/// Ends a process group when dropped. Our child is its leader and not waited for by
/// anybody else, so that its number is not another's while it runs.
struct EndsWith(Pid);

impl Drop for EndsWith {
    fn drop(&mut self) {
        _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// The beginning of what it prints, on one line. All of it is read, so that it is never held up.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut told = vec![];
    _ = (&mut pipe).take(TOLD).read_to_end(&mut told).await;
    _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&told);
    let line = text.trim().chars();
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}
