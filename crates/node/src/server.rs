//! Accepting connections and ending them in order. `axum::serve` has neither a limit on the time of
//! a request's head nor one on the whole drain, so the loop is ours over hyper's HTTP/1.1.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chassis::{Failure, Shutdown};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::app::App;
use crate::refusal::ClientStream;

/// Pause after a failed accept (no descriptors left): they are freed by connections that end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with its connections. Dropped, it breaks them off.
pub(crate) struct Server {
    app: Arc<App>,
    router: Router,
    listener: Option<tokio::net::TcpListener>,
    connections: JoinSet<()>,
    closing: Shutdown,
}

impl Server {
    /// Takes over a listening socket. Must be called inside a tokio runtime.
    pub(crate) fn new(
        app: Arc<App>,
        router: Router,
        listener: TcpListener,
    ) -> Result<Self, Failure> {
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpListener::from_std(listener))
            .map_err(|error| Failure::run_time("listen", error, "report this"))?;
        Ok(Self {
            app,
            router,
            listener: Some(listener),
            connections: JoinSet::new(),
            closing: Shutdown::new(),
        })
    }

    /// Accepts until `end` resolves; what is open stays open.
    pub(crate) async fn accept_until(&mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                _ = self.connections.join_next(), if !self.connections.is_empty() => {}
                stream = accept(self.listener.as_ref()), if self.has_room() => match stream {
                    Ok(stream) => self.serve(stream),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Closes the listener, lets each connection finish its request, and breaks off what is left
    /// after `limit`. Returns the number of those.
    pub(crate) async fn finish(mut self, limit: Duration) -> usize {
        drop(self.listener.take());
        self.closing.request();
        let all = async { while self.connections.join_next().await.is_some() {} };
        match tokio::time::timeout(limit, all).await {
            Ok(()) => 0,
            Err(_) => {
                self.app.metrics.limit_hit("drain_deadline");
                self.connections.len()
            }
        }
    }

    fn has_room(&self) -> bool {
        self.connections.len() < self.app.config.limits.connections_max as usize
    }

    fn serve(&mut self, stream: TcpStream) {
        // Without it a small answer may wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let limits = &self.app.config.limits;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_header_size(usize::try_from(limits.head_bytes_max).unwrap_or(usize::MAX));
        let service = TowerToHyperService::new(self.router.clone());
        let stream = ClientStream::new(self.app.clone(), stream);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        self.connections
            .spawn(converse(connection, self.closing.clone()));
        if !self.has_room() {
            self.app.metrics.limit_hit("connections_max");
        }
    }
}

type Connection = http1::Connection<TokioIo<ClientStream>, TowerToHyperService<Router>>;

async fn converse(connection: Connection, closing: Shutdown) {
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Mostly clients that went away; their request has a line of its own.
        tracing::debug!(error = %chassis::failure::chain(&error), "connection ended");
    }
}

async fn accept(listener: Option<&tokio::net::TcpListener>) -> std::io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
