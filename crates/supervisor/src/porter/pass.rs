//! Passing on what goes through a porter: requests of HTTP/1.1 on the way in, bytes on the way out.
//! Each connection of a client has one of its own to the process, so that neither is kept waiting by
//! others, and the end of one is the end of the other.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};

use super::ACCEPT_PAUSE;

/// How long a connection may take to be made.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);

type Sender = hyper::client::conn::http1::SendRequest<Incoming>;

/// Passes requests on until either end closes, or until the answer that is open is finished once
/// `draining` is told.
pub(super) async fn requests(
    client: TcpStream,
    inner: TcpStream,
    mut draining: watch::Receiver<bool>,
) {
    let shaken = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(inner));
    let Ok((sender, upstream)) = shaken.await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let sender = Arc::new(Mutex::new(sender));
    let service = service_fn(move |request| ask(Arc::clone(&sender), request));
    let served = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .preserve_header_case(true)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(client), service);
    tokio::pin!(served);
    let mut upstream = tokio::spawn(upstream);
    let mut is_last = *draining.borrow();
    if is_last {
        served.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            _ = served.as_mut() => return,
            _ = draining.changed(), if !is_last => {}
            // What it said last is still on its way to the client.
            _ = &mut upstream, if !is_last => {}
        }
        is_last = true;
        served.as_mut().graceful_shutdown();
    }
}

async fn ask(
    sender: Arc<Mutex<Sender>>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Incoming>, hyper::Error> {
    let mut sender = sender.lock().await;
    sender.ready().await?;
    sender.send_request(request).await
}

/// Passes bytes on, both ways, for each connection that is opened inside.
pub(super) async fn out(listener: TcpListener, at: Arc<str>, open: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&open).acquire_owned().await else {
            return;
        };
        let Ok((mut inner, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let at = Arc::clone(&at);
        tokio::spawn(async move {
            let outer = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(&*at)).await;
            if let Ok(Ok(mut outer)) = outer {
                let _ = (inner.set_nodelay(true), outer.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            }
            drop(permit);
        });
    }
}
