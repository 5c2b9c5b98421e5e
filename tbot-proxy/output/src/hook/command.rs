//! Commands: no shell, a bounded time, bounded output.

use std::{env, pin::pin, process::Stdio, time::Duration};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    task::spawn_blocking,
    time::timeout,
};

use super::HookError;

/// How many bytes of its output are told.
const TOLD: u64 = 1_000;

/// How long is waited, after its end, for what it printed last: what left its process group
/// may keep the pipes open.
const MOMENT: Duration = Duration::from_secs(1);

pub(super) async fn run(
    arguments: &[String],
    limit: Duration,
    output: &str,
) -> Result<(), HookError> {
    let (program, rest) = arguments
        .split_first()
        .ok_or_else(|| HookError::new("command: it is empty".to_owned()))?;
    let failed = |why: String| HookError::new(format!("command `{program}`: {why}"));
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
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .ok_or_else(|| failed("it has no number".to_owned()))?;
    let group = EndsWith(pid);
    // Not reaped by this.
    let mut exit = spawn_blocking(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
    });
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (vec![], vec![]);
    let in_time = {
        let mut reading = pin!(async {
            tokio::join!(beginning(out, &mut said), beginning(err, &mut complained))
        });
        let ended = async {
            tokio::select! {
                biased;
                _ = &mut exit => false,
                _ = &mut reading => {
                    _ = (&mut exit).await;
                    true
                }
            }
        };
        let ended = timeout(limit, ended).await;
        // Before it is reaped: a zombie holds the number of its group.
        drop(group);
        if ended == Ok(false) {
            _ = timeout(MOMENT, reading).await;
        }
        ended.is_ok()
    };
    if !in_time {
        return Err(failed(format!(
            "it was not done within {limit:?} and has been ended"
        )));
    }
    match timeout(MOMENT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let told = if complained.is_empty() {
                said
            } else {
                complained
            };
            Err(HookError {
                printed: String::from_utf8_lossy(&told).trim().to_owned(),
                ..failed(status.to_string())
            })
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("its status cannot be had".to_owned())),
    }
}

/// Ends a process group when dropped, which is to be before its leader, our child, is
/// reaped: from then on the number may be another's.
struct EndsWith(Pid);

impl Drop for EndsWith {
    fn drop(&mut self) {
        _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// The beginning of what it prints, into `told`. All of it is read, so that it is never held up.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>, told: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else {
        return;
    };
    _ = (&mut pipe).take(TOLD).read_to_end(told).await;
    _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}
