//! What whoever runs the agent may do with the running process, and nobody else: read and
//! set the level of its log, and see where its time and memory go.
//!
//! It is HTTP over a Unix socket of the agent's user alone (0600), by default in the
//! directory of the bot identity: unlike diagnostics, it changes something, and profiles
//! cost time.

mod level;
mod profile;

use std::{io, path::Path, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use telemetry::LogLevel;
use tokio::net::UnixListener;
use unix_socket::{BindError, SocketFile};

use crate::diagnostics;

use self::level::Level;

/// Longest time of a profile, in seconds.
pub(crate) const PROFILE_MAX: u64 = 300;

/// Longest time of an answer.
const ANSWER: Duration = Duration::from_secs(PROFILE_MAX + 60);

/// Serves until it is dropped; the socket's file goes with it.
#[derive(Debug)]
pub(crate) struct Debug {
    _file: SocketFile,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Debug {
    /// Listens on `socket`. `level` is the log's, now `text`.
    pub(crate) fn start(socket: &Path, level: LogLevel, text: String) -> Result<Self, BindError> {
        let (listener, file) = unix_socket::bind(socket, 0o600)?;
        let failed = |source: io::Error| BindError::Listen {
            path: socket.to_owned(),
            source,
        };
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        tracing::info!(listen = %socket.display(), "debugging listens");
        let log_level = get(level::read).put(level::write);
        let routes = Router::new()
            .route("/log-level", log_level)
            .with_state(Level::new(level, text))
            .route("/profile/cpu", get(profile::cpu))
            .route("/profile/heap", get(profile::heap));
        let task = tokio::spawn(diagnostics::serve(listener, routes, ANSWER));
        Ok(Self {
            _file: file,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        })
    }
}

/// A line for who asked wrongly.
fn refusal(code: StatusCode, why: impl std::fmt::Display) -> Response {
    (code, format!("{why}\n")).into_response()
}
