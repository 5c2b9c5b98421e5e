//! The connection log: one JSON line a connection, appended to a file.
//!
//! The data path never waits for the disk. Records go through a bounded queue to
//! a thread of their own; what finds the queue full is counted
//! (`tbot_connection_records_dropped_total`) and dropped. The proxy's own log line
//! of the connection is not affected.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
};

use proxy::{ConnectionRecord, RecordSink};

use crate::metrics::RECORDS_DROPPED;

/// Records in the queue; about 0.5 KiB each.
const QUEUE: usize = 16_384;

/// Takes the records of every proxy.
#[derive(Debug)]
pub(crate) struct Records {
    /// `None`: no log is configured.
    queue: Option<SyncSender<Message>>,
}

enum Message {
    Record(Box<ConnectionRecord>),
    /// The file was moved away (`SIGHUP`): open it anew.
    Reopen,
    /// Write what is there and end.
    End,
}

impl Records {
    /// Opens the log, if there is to be one, and starts its writer.
    pub(crate) fn open(path: Option<&Path>) -> Result<(Self, Option<Writer>), RecordsError> {
        let Some(path) = path else {
            return Ok((Self { queue: None }, None));
        };
        let failed = |error| RecordsError {
            path: path.to_owned(),
            error,
        };
        let file = open(path).map_err(failed)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = LogWriter {
            path: path.to_owned(),
            file: BufWriter::new(file),
            failing: false,
        };
        let thread = thread::Builder::new()
            .name("connection-log".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(failed)?;
        let writer = Writer {
            queue: sender.clone(),
            thread,
        };
        let queue = Some(sender);
        Ok((Self { queue }, Some(writer)))
    }

    /// Opens the file anew: a log rotation may have moved it.
    pub(crate) fn reopen(&self) {
        if let Some(queue) = &self.queue {
            _ = queue.try_send(Message::Reopen);
        }
    }
}

impl RecordSink for Records {
    fn record(&self, record: &ConnectionRecord) {
        let Some(queue) = &self.queue else { return };
        let message = Message::Record(Box::new(record.clone()));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(message)
        {
            metrics::counter!(RECORDS_DROPPED).increment(1);
        }
    }
}

/// The running writer.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Writes what is in the queue and ends. Blocks.
    pub(crate) fn finish(self) {
        if self.queue.send(Message::End).is_ok() {
            _ = self.thread.join();
        }
    }
}

struct LogWriter {
    path: PathBuf,
    file: BufWriter<File>,
    failing: bool,
}

impl LogWriter {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            let mut next = Some(first);
            // Flushed when the queue is empty: whole lines, and few writes under load.
            while let Some(message) = next {
                let written = match message {
                    Message::Record(record) => self.write(&record),
                    Message::Reopen => self.reopen(),
                    Message::End => {
                        let flushed = self.file.flush();
                        self.note(flushed);
                        return;
                    }
                };
                self.note(written);
                next = queue.try_recv().ok();
            }
            let flushed = self.file.flush();
            self.note(flushed);
        }
    }

    fn write(&mut self, record: &ConnectionRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file = BufWriter::new(open(&self.path)?);
        Ok(())
    }

    /// Says once that the log fails, and once that it works again.
    fn note(&mut self, written: io::Result<()>) {
        match written {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(path = %self.path.display(), %error, "connection log not written");
            }
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(path = %self.path.display(), "connection log is written again");
            }
            _ => {}
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("connection_log: cannot append to {}: {error}; name a file in a directory that exists", path.display())]
pub struct RecordsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}
