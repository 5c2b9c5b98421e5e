//! The admin socket: a Unix socket whose callers are known by their uid.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};
use tonic::transport::server::Connected;

use super::drained;
use crate::{
    access::Denial,
    audit::{Event, EventName},
    config::Settings,
    service::Issuer,
};

/// Who operates.
#[derive(Debug, Clone)]
pub struct Operator {
    /// User id of the process.
    pub uid: u32,
    /// Process id, if the kernel tells.
    pub pid: Option<i32>,
}

/// A connection of an operator.
#[derive(Debug)]
pub struct AdminConnection {
    stream: UnixStream,
    operator: Operator,
}

impl Connected for AdminConnection {
    type ConnectInfo = Operator;

    fn connect_info(&self) -> Operator {
        self.operator.clone()
    }
}

impl AsyncRead for AdminConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for AdminConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The socket's file: removed when the issuer stops, unless it is another's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Lets these users knock, beside the owner.
    pub fn admit(&self, admitted: &[u32]) -> io::Result<()> {
        std::fs::set_permissions(&self.path, mode(admitted))
    }

    /// Removes the file if it is still the one that was made.
    pub fn remove(&self) -> io::Result<()> {
        let facts = std::fs::symlink_metadata(&self.path)?;
        if (facts.dev(), facts.ino()) != self.identity {
            return Err(io::Error::other("it is another's now"));
        }
        std::fs::remove_file(&self.path)
    }
}

/// Binds the socket. What lies there from a run that was killed is removed; where
/// somebody answers nothing is touched. Its mode is 0600, unless other users are
/// admitted: then everybody may knock, and the uid decides.
pub async fn bind(path: &Path, admitted: &[u32]) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(facts) if facts.file_type().is_socket() => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            // Full queues and missing rights are of a live one too.
            Ok(_) | Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process serves there",
                ));
            }
        },
        Ok(_) => {
            return Err(io::Error::other(
                "something that is no socket is in its place",
            ));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, mode(admitted))?;
    let facts = std::fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (facts.dev(), facts.ino()),
    };
    Ok((listener, file))
}

fn mode(admitted: &[u32]) -> std::fs::Permissions {
    std::fs::Permissions::from_mode(if admitted.is_empty() { 0o600 } else { 0o666 })
}

/// Accepts operators until the issuer has drained; others are turned away.
pub async fn accept(
    listener: UnixListener,
    settings: watch::Receiver<Arc<Settings>>,
    issuer: Arc<Issuer>,
    ready: mpsc::Sender<io::Result<AdminConnection>>,
    mut stopped: watch::Receiver<bool>,
) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drained(&mut stopped) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an operator's connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(credentials) = stream.peer_cred() else {
            continue;
        };
        let operator = Operator {
            uid: credentials.uid(),
            pid: credentials.pid(),
        };
        let admitted = settings.borrow().admin_uids.contains(&operator.uid);
        if operator.uid != 0 && operator.uid != own && !admitted {
            let Operator { uid, pid } = operator;
            tracing::warn!(
                uid,
                pid,
                "a user who may not was refused on the admin socket"
            );
            metrics::counter!("issuer_admin_refused_total").increment(1);
            let issuer = issuer.clone();
            tokio::spawn(async move {
                let event = Event::denial(EventName::AdminConnect, Denial::NotAdmitted.as_str())
                    .with("user", format!("uid:{uid}"));
                if let Err(error) = issuer.record_refusal(&format!("admin {uid}"), event).await {
                    tracing::error!(%error, uid, "a refused user could not be recorded");
                }
            });
            continue;
        }
        if ready
            .send(Ok(AdminConnection { stream, operator }))
            .await
            .is_err()
        {
            return;
        }
    }
}
