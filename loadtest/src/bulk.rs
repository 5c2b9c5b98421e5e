//! Mode `bulk`: bytes one way, as fast as they go. An operation is one chunk.

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    OpError, OpErrorKind,
    run::{Worker, within},
    stream::Stream,
};

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From us to the target (a `sink` behind it).
    Upload,
    /// From the target (a `source` behind it) to us.
    Download,
}

/// Carries chunks until the run is over; a connection that fails is replaced by the next one.
pub async fn work(worker: Worker, stream: Option<Stream>, direction: Direction, chunk: usize) {
    let mut buffer = vec![b'.'; chunk];
    let mut connection = stream;
    if let Some(stream) = &connection {
        worker.note_negotiated(stream);
    }
    while let Some(started) = worker.take().await {
        let operation = async {
            if connection.is_none() {
                let stream = worker.link.open_unbounded().await?;
                worker.shaken(started, &stream)?;
                connection = Some(stream);
            }
            match connection.as_mut() {
                Some(stream) => carry(stream, direction, &mut buffer).await,
                None => Ok(0),
            }
        };
        let result = within(worker.window.op_timeout, operation).await;
        match &result {
            Ok(bytes) => worker.window.carry(*bytes as u64),
            Err(_) => connection = None,
        }
        worker.ended(started, result.map(drop)).await;
    }
    // Uploads end in order; there is no end to a download, so it is cut.
    if let Some(stream) = connection.filter(|_| direction == Direction::Upload) {
        let _ = tokio::time::timeout(worker.window.op_timeout, stream.finish()).await;
    }
}

async fn carry(
    stream: &mut Stream,
    direction: Direction,
    buffer: &mut [u8],
) -> Result<usize, OpError> {
    let carried = match direction {
        Direction::Upload => stream.write_all(buffer).await.map(|()| buffer.len()),
        Direction::Download => stream.read(buffer).await,
    };
    match carried {
        Ok(0) => Err(OpError::new(
            OpErrorKind::Closed,
            "the target ended the transfer: is a source backend behind it?",
        )),
        Ok(bytes) => Ok(bytes),
        Err(e) => Err(OpError::from_io(&e)),
    }
}
