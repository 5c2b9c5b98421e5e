//! Collects what is wrong.

use std::{fmt, time::Duration};

use ::config::{Path, format_duration, one_line};
use policy::ExpressionError;

use super::{FieldMistake, InvalidResource, MAX_DESCRIPTION, told, whole_seconds};

/// The mistakes found so far. A reader that finds one notes it and goes on.
#[derive(Debug, Default)]
pub(super) struct Check {
    mistakes: Vec<FieldMistake>,
}

impl Check {
    pub(super) fn refuse(&mut self, path: &Path, message: impl fmt::Display) {
        self.refuse_inside(path, None, message);
    }

    /// At a line and column of the field's text.
    pub(super) fn refuse_inside(
        &mut self,
        path: &Path,
        inner: Option<(usize, usize)>,
        message: impl fmt::Display,
    ) {
        self.mistakes.push(FieldMistake {
            path: path.clone(),
            inner,
            message: one_line(&message.to_string()),
        });
    }

    pub(super) fn take<T, E: fmt::Display>(
        &mut self,
        path: &Path,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(path, error);
                None
            }
        }
    }

    /// A part of the policy language: its mistake has a place in the text.
    pub(super) fn compiled<T>(
        &mut self,
        path: &Path,
        result: Result<T, ExpressionError>,
    ) -> Option<T> {
        match result {
            Ok(compiled) => Some(compiled),
            Err(error) => {
                let message = told(&error.message, error.suggestion.as_deref());
                self.refuse_inside(path, Some((error.line, error.column)), message);
                None
            }
        }
    }

    pub(super) fn at_most(&mut self, path: &Path, most: usize, found: usize) {
        if found > most {
            self.refuse(path, format!("at most {most} are accepted, not {found}"));
        }
    }

    /// A text for people: bounded, several lines.
    pub(super) fn text(&mut self, path: &Path, text: &str) {
        let control = |character: char| character.is_control() && character != '\n';
        if text.len() > MAX_DESCRIPTION || text.chars().any(control) {
            let message =
                format!("at most {MAX_DESCRIPTION} bytes without control characters are accepted");
            self.refuse(path, message);
        }
    }

    /// Whole seconds, at least one, at most `cap`.
    pub(super) fn life(
        &mut self,
        path: &Path,
        life: Option<&prost_types::Duration>,
        cap: Duration,
    ) -> Option<Duration> {
        let life = life?;
        let whole = whole_seconds(life, cap);
        if whole.is_none() {
            let message = format!(
                "{} s {} ns is not accepted: whole seconds, from 1s to {}",
                life.seconds,
                life.nanos,
                format_duration(cap)
            );
            self.refuse(path, message);
        }
        whole
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    pub(super) fn into_error(self) -> InvalidResource {
        InvalidResource {
            mistakes: self.mistakes,
        }
    }
}
