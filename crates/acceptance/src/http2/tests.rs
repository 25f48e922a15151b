//! The cases prove themselves: a decent server (plain hyper, over TCP and TLS) passes all but the
//! ones listed here with what it does instead; a sloppy server, which takes whatever comes and
//! answers 200, fails every case that wants an error; a curt one, which hangs up at the first frame
//! after the greeting, fails every case that wants an answer.

use std::collections::BTreeMap;
use std::convert::Infallible;

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::frame::{Frame, PREFACE, flag, kind};
use super::*;

/// What the engine of hyper (h2 0.4) does against a MUST. Errors under another name are not here:
/// they are told as `differs`.
const HYPER_FAILS: &[&str] = &[
    // Serves requests although no SETTINGS followed the preface.
    "rfc9113-3.4-preface-without-settings",
    // Drops pseudo-headers of trailers in silence.
    "rfc9113-8.1-pseudo-header-in-trailers",
    // Its header values may begin and end with white space; a gateway can refuse them itself.
    "rfc9113-8.2.1-value-begins-with-space",
    "rfc9113-8.2.1-value-ends-with-tab",
];

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let head = request.method() == Method::HEAD;
    let large = request.uri().path() == "/api/customer";
    if request.method() == Method::CONNECT {
        let mut refused = Response::new(BoxBody::new(Full::new(Bytes::new())));
        *refused.status_mut() = hyper::StatusCode::METHOD_NOT_ALLOWED;
        return Ok(refused);
    }
    request.into_body().collect().await?;
    let body = if head {
        String::new()
    } else if large {
        "x".repeat(1 << 20)
    } else {
        "hello ".repeat(20)
    };
    Ok(Response::new(BoxBody::new(Full::new(body.into()))))
}

/// A decent server on a free port.
async fn hyper_server(tls: Option<tokio_rustls::TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server
                    .max_concurrent_streams(100)
                    .max_header_list_size(16 * 1024);
                // Its end is the client's to judge.
                let _ = match tls {
                    None => {
                        server
                            .serve_connection(TokioIo::new(tcp), service_fn(answer))
                            .await
                    }
                    Some(tls) => {
                        let Ok(stream) = tls.accept(tcp).await else {
                            return;
                        };
                        server
                            .serve_connection(TokioIo::new(stream), service_fn(answer))
                            .await
                    }
                };
            });
        }
    });
    address
}

/// What a wrong server does with a frame that comes after the greeting.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Sloppy,
    Curt,
}

async fn wrong_server(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve_wrongly(tcp, manner));
        }
    });
    address
}

async fn serve_wrongly(mut tcp: TcpStream, manner: Manner) {
    let greeting = Frame::new(kind::SETTINGS, flag::NONE, 0, *b"\0\x03\0\0\0\x0a").encode();
    let mut buffer = Vec::new();
    if tcp.write_all(&greeting).await.is_err() {
        return;
    }
    let mut greeted = 0;
    loop {
        match tcp.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => return,
        }
        if buffer.starts_with(b"PRI") {
            if buffer.len() < PREFACE.len() {
                continue;
            }
            buffer.drain(..PREFACE.len());
        }
        while let Some(frame) = Frame::take(&mut buffer) {
            let mut out = Vec::new();
            let mut send = |kind, flags, payload: &[u8]| {
                out.extend(Frame::new(kind, flags, frame.stream, payload).encode());
            };
            match frame.kind {
                kind::SETTINGS if !frame.has(flag::ACK) => {
                    greeted += 1;
                    send(kind::SETTINGS, flag::ACK, &[]);
                }
                kind::SETTINGS => greeted += 1,
                _ if manner == Manner::Curt && greeted >= 2 => return,
                kind::HEADERS if manner == Manner::Sloppy => {
                    send(kind::HEADERS, flag::END_HEADERS, &[0x88]);
                    send(kind::DATA, flag::END_STREAM, b"hello hello");
                }
                kind::PING => send(kind::PING, flag::ACK, &frame.payload),
                _ => {}
            }
            if tcp.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

fn cases_only() -> Choice {
    Choice {
        only: None,
        cases: true,
        floods: false,
    }
}

/// Every case that failed, with its reason.
fn failed(verdicts: &[Verdict]) -> BTreeMap<&str, &str> {
    let others = verdicts
        .iter()
        .filter(|verdict| verdict.outcome == Outcome::Failed);
    others
        .map(|verdict| (verdict.id, verdict.reason.as_str()))
        .collect()
}

#[test]
fn there_are_more_than_a_hundred_cases_each_named_once_by_its_section() {
    let mut ids: Vec<&str> = cases::all().map(|case| case.id).collect();
    ids.extend(floods::FLOODS.iter().map(|flood| flood.id));
    for id in &ids {
        let named = ["rfc9113-", "rfc7541-", "cve-"]
            .iter()
            .any(|from| id.starts_with(from));
        assert!(named, "{id}");
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id stands twice");
    assert!(cases::all().count() > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decent_server_passes_all_cases_but_those_where_it_is_known_to_differ() {
    let target = Target::new(hyper_server(None).await, "localhost", None);
    let verdicts = run(&target, &cases_only()).await;
    let failed = failed(&verdicts);
    let found: Vec<&str> = failed.keys().copied().collect();
    assert_eq!(found, HYPER_FAILS, "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decent_server_passes_over_tls_what_it_passes_without() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, key.cert.pem()).expect("written");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .expect("versions");
    let private = key.signing_key.serialize_der().try_into().expect("a key");
    let chain = vec![key.cert.der().clone()];
    let config = config
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = config.expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = hyper_server(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await;
    let tls = Tls::trusting(&authority).expect("an authority");
    let target = Target::new(address, "localhost", Some(tls));
    let verdicts = run(&target, &cases_only()).await;
    let failed = failed(&verdicts);
    let found: Vec<&str> = failed.keys().copied().collect();
    assert_eq!(found, HYPER_FAILS, "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_anything_fails_every_case_that_wants_an_error() {
    let mut target = Target::new(wrong_server(Manner::Sloppy).await, "localhost", None);
    target.patience = Duration::from_millis(300);
    let verdicts = run(&target, &cases_only()).await;
    let wanting = |id: &str| {
        let found = cases::all().find(|case| case.id == id);
        found.is_some_and(|case| {
            use must::Must::{EndConnection, EndStream, Refuse};
            matches!(case.must, EndConnection(_) | EndStream(..) | Refuse(_))
        })
    };
    let passed: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| wanting(verdict.id) && verdict.outcome == Outcome::Passed)
        .collect();
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_up_fails_every_case_that_wants_an_answer() {
    let mut target = Target::new(wrong_server(Manner::Curt).await, "localhost", None);
    target.patience = Duration::from_millis(300);
    let verdicts = run(&target, &cases_only()).await;
    let wanting = |id: &str| {
        let found = cases::all().find(|case| case.id == id);
        found.is_some_and(|case| {
            matches!(case.must, must::Must::Answer(..) | must::Must::AnyAnswer(_))
        })
    };
    let passed: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| wanting(verdict.id) && verdict.outcome == Outcome::Passed)
        .collect();
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decent_server_ends_or_bears_every_flood() {
    let target = Target::new(hyper_server(None).await, "localhost", None);
    let choice = Choice {
        only: None,
        cases: false,
        floods: true,
    };
    let verdicts = run(&target, &choice).await;
    let failed = failed(&verdicts);
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn a_server_that_bears_a_rapid_reset_fails_the_flood() {
    let mut target = Target::new(wrong_server(Manner::Sloppy).await, "localhost", None);
    target.patience = Duration::from_millis(300);
    let choice = Choice {
        only: Some("rapid-reset".to_owned()),
        cases: false,
        floods: true,
    };
    let verdicts = run(&target, &choice).await;
    let outcomes: Vec<Outcome> = verdicts.iter().map(|verdict| verdict.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed], "{verdicts:?}");
}
