//! `/log-level`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use config::{format_duration, parse_duration};
use serde::{Deserialize, Serialize};
use telemetry::LogLevel;
use tokio_util::task::AbortOnDropHandle;

use super::refusal;

/// The level, as it was at first and as it is.
#[derive(Debug, Clone)]
pub(super) struct Level {
    log: LogLevel,
    first: Arc<str>,
    now: Arc<Mutex<Now>>,
}

#[derive(Debug)]
struct Now {
    text: String,
    /// Puts the first one back.
    end: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// What is logged.
    level: String,
    /// What was logged when the process began, and is after a restart.
    configured: String,
    /// Whether it goes back to that by itself.
    temporary: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    /// For how long.
    r#for: Option<String>,
}

impl Level {
    pub(super) fn new(log: LogLevel, text: String) -> Self {
        Self {
            log,
            first: text.as_str().into(),
            now: Arc::new(Mutex::new(Now { text, end: None })),
        }
    }

    fn answer(&self) -> Answer {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        Answer {
            level: now.text.clone(),
            configured: self.first.to_string(),
            temporary: now.end.as_ref().is_some_and(|end| !end.is_finished()),
        }
    }

    fn set(&self, level: &str, end: Option<AbortOnDropHandle<()>>) -> Result<(), String> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.log.set(level).map_err(|error| error.to_string())?;
        (now.text, now.end) = (level.to_owned(), end);
        tracing::warn!(level, "the level of the log was changed");
        Ok(())
    }

    /// Ends by itself: after it the level is what it was at first.
    fn back_after(&self, time: Duration) -> AbortOnDropHandle<()> {
        let level = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let mut now = level.now.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = level.log.set(&level.first) {
                tracing::error!(error = error.to_string(), "the level of the log stays");
                return;
            }
            now.text = level.first.to_string();
            tracing::warn!(level = now.text, "the level of the log is as it was");
        }))
    }
}

pub(super) async fn read(State(level): State<Level>) -> Response {
    Json(level.answer()).into_response()
}

pub(super) async fn write(
    State(level): State<Level>,
    Query(wish): Query<Wish>,
    text: String,
) -> Response {
    let time = wish.r#for.as_deref().map(parse_duration).transpose();
    let time = match time {
        Ok(time) => time,
        Err(why) => return refusal(StatusCode::BAD_REQUEST, format_args!("for: {why}")),
    };
    let end = time.map(|time| level.back_after(time));
    match level.set(text.trim(), end) {
        Ok(()) => {
            if let Some(time) = time {
                tracing::info!(for_ = format_duration(time), "for this time");
            }
            Json(level.answer()).into_response()
        }
        Err(why) => refusal(StatusCode::BAD_REQUEST, why),
    }
}
