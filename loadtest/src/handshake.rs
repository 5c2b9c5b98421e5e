//! Mode `handshake`: each operation is a new connection.
//!
//! Its latency runs to the echo of one byte, for a TLS 1.3 client is done with its handshake
//! before the server has looked at the client's certificate. Closing is not part of the latency,
//! but is waited for before the worker goes on.

use std::time::Duration;

use crate::{
    OpError,
    run::{Started, Worker, within},
    stream::Stream,
};

/// Longest wait for the target's end of a connection.
const CLOSE: Duration = Duration::from_secs(1);

/// Does handshakes until the run is over.
pub async fn work(worker: Worker, probe: bool) {
    while let Some(started) = worker.take().await {
        let operation = connect(&worker, started, probe);
        match within(worker.window.op_timeout, operation).await {
            Ok(stream) => {
                worker.ended(started, Ok(())).await;
                let _ = tokio::time::timeout(CLOSE, stream.finish()).await;
            }
            Err(error) => worker.ended(started, Err(error)).await,
        }
    }
}

async fn connect(worker: &Worker, started: Started, probe: bool) -> Result<Stream, OpError> {
    let mut stream = worker.link.open_unbounded().await?;
    if probe {
        stream.probe().await?;
    }
    worker.shaken(started, &stream)?;
    Ok(stream)
}
