//! A sink whose calls wait for a disk or a pipe, on a thread of its own: one that
//! hangs holds up nobody, not even the end of the process.

use std::{sync::Arc, thread};

use tokio::sync::{mpsc, oneshot};

use super::{Held, page::Page};

/// What runs on the thread.
pub(super) trait BlockingSink: Send + 'static {
    /// See [`super::Sink::held`].
    fn held(&mut self) -> Result<Held, String>;
    /// See [`super::Sink::deliver`].
    fn deliver(&mut self, page: &Page) -> Result<(), String>;
    /// See [`super::Sink::sync`].
    fn sync(&mut self) -> Result<(), String>;
}

enum Call {
    Held(oneshot::Sender<Result<Held, String>>),
    Deliver(Arc<Page>, oneshot::Sender<Result<(), String>>),
    Sync(oneshot::Sender<Result<(), String>>),
}

/// The way to that thread.
pub(super) struct Blocking {
    calls: mpsc::Sender<Call>,
}

impl Blocking {
    pub(super) fn start(mut sink: impl BlockingSink) -> Self {
        let (calls, mut called) = mpsc::channel(1);
        // It ends when nobody can call it any more.
        let serve = move || {
            while let Some(call) = called.blocking_recv() {
                // Who called may have stopped waiting.
                match call {
                    Call::Held(answer) => drop(answer.send(sink.held())),
                    Call::Deliver(page, answer) => drop(answer.send(sink.deliver(&page))),
                    Call::Sync(answer) => drop(answer.send(sink.sync())),
                }
            }
        };
        let thread = thread::Builder::new().name("audit sink".to_owned());
        if let Err(error) = thread.spawn(serve) {
            tracing::error!(%error, "an audit sink has no thread");
        }
        Self { calls }
    }

    pub(super) async fn held(&mut self) -> Result<Held, String> {
        self.call(Call::Held).await
    }

    pub(super) async fn deliver(&mut self, page: Arc<Page>) -> Result<(), String> {
        self.call(|answer| Call::Deliver(page, answer)).await
    }

    pub(super) async fn sync(&mut self) -> Result<(), String> {
        self.call(Call::Sync).await
    }

    async fn call<T>(
        &mut self,
        call: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Call,
    ) -> Result<T, String> {
        let gone = || "its thread has ended: restart the issuer".to_owned();
        let (answer, answered) = oneshot::channel();
        self.calls.send(call(answer)).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}
