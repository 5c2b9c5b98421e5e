//! Mode `rr`: request and response on connections that stay.

use tokio::io::AsyncReadExt;

use crate::{
    OpError, OpErrorKind,
    run::{Worker, within},
    stream::Stream,
};

/// Bytes of one request and of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Request, at least 1.
    pub request: usize,
    /// Response. `None`: an echo of the request, compared byte by byte.
    pub response: Option<usize>,
}

/// Does requests until the run is over; a connection that fails is replaced by the next one.
pub async fn work(worker: Worker, stream: Option<Stream>, sizes: Sizes) {
    let mut exchange = Exchange::new(sizes);
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
                Some(stream) => exchange.run(stream).await,
                None => Ok(()),
            }
        };
        let result = within(worker.window.op_timeout, operation).await;
        match &result {
            Ok(()) => worker.window.carry(exchange.bytes()),
            Err(_) => connection = None,
        }
        worker.ended(started, result).await;
    }
    if let Some(stream) = connection {
        let _ = tokio::time::timeout(worker.window.op_timeout, stream.finish()).await;
    }
}

#[derive(Debug)]
struct Exchange {
    request: Vec<u8>,
    response: Vec<u8>,
    echo: bool,
    number: u64,
}

impl Exchange {
    fn new(sizes: Sizes) -> Self {
        Self {
            request: vec![b'.'; sizes.request],
            response: vec![0; sizes.response.unwrap_or(sizes.request)],
            echo: sizes.response.is_none(),
            number: 0,
        }
    }

    fn bytes(&self) -> u64 {
        (self.request.len() + self.response.len()) as u64
    }

    async fn run(&mut self, stream: &mut Stream) -> Result<(), OpError> {
        self.number += 1;
        for (byte, number) in self
            .request
            .iter_mut()
            .zip(self.number.to_be_bytes().iter().rev())
        {
            *byte = *number;
        }
        stream
            .send(&self.request)
            .await
            .map_err(|e| OpError::from_io(&e))?;
        stream
            .read_exact(&mut self.response)
            .await
            .map_err(|e| OpError::from_io(&e))?;
        if self.echo && self.request != self.response {
            return Err(OpError::new(
                OpErrorKind::Corrupt,
                format_args!("the echo of request {} differs from it", self.number),
            ));
        }
        Ok(())
    }
}
