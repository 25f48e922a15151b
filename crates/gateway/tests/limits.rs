//! Limits as clients meet them: each is a clear answer or a close, each is counted, and others are
//! served meanwhile.

mod rig;

use std::time::{Duration, Instant};

use rig::h2::{self, Raw};
use rig::{Gateway, Reply, Upstream, answer, eventually, ok, raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_bytes_max: 4KiB, fields_max: 20, head_timeout: 1s, h2_resets_max: 20, h2_control_frames_max: 100}
routes:
- {methods: [GET, POST], path: '/x/{any}', deadline: 9s}
- {methods: [POST], path: /streamed, deadline: 9s, body_bytes_max: 1MiB}
";

async fn node_and_gateway() -> (Upstream, Gateway) {
    let node = Upstream::start(|_| ok("fine")).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    (node, gateway)
}

/// Waits until a limit was hit.
async fn hit(gateway: &Gateway, limit: &str) {
    let series = format!("bingo_limit_hits_total{{limit=\"{limit}\"}}");
    eventually(&format!("{limit} is counted"), async || {
        (gateway.metric(&series).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_that_hyper_refuses_is_a_problem_as_every_other_error() {
    let (node, gateway) = node_and_gateway().await;
    let large = format!(
        "GET /x/1 HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n",
        "b".repeat(5000)
    );
    let many = format!(
        "GET /x/1 HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "a: b\r\n".repeat(20)
    );
    for (request, status, slug) in [
        (large.as_str(), 431, "head-too-large"),
        (&many, 431, "head-too-large"),
        ("GET /x/1 HTTP/1.1\r\nhost : a\r\n\r\n", 400, "bad-request"),
        ("nonsense\r\n\r\n", 400, "bad-request"),
        (
            "POST /x/1 HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
            400,
            "bad-request",
        ),
    ] {
        let answer = raw(gateway.address, request).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        for part in [
            slug,
            "content-type: application/problem+json\r\n",
            "x-request-id: ",
            "connection: close\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.contains(part), "{part} is missing in {answer}");
        }
    }
    hit(&gateway, "head_bytes_max").await;
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn the_limits_of_a_head_hold_over_http_2() {
    let (node, gateway) = node_and_gateway().await;
    let mut client = h2::Client::plain(gateway.address).await;
    let large = "b".repeat(5000);
    let many: Vec<_> = (0..21).map(|_| ("a", "b")).collect();
    for (fields, limit) in [
        (vec![("a", large.as_str())], "head_bytes_max"),
        (many, "fields_max"),
    ] {
        let answer = client.send("GET", "/x/1", &fields, "").await.unwrap();
        assert_eq!(answer.status, 431);
        assert!(answer.text().contains("head-too-large"), "{limit}");
        hit(&gateway, limit).await;
    }
    // Over twice the limit the answer is the library's.
    let huge = "b".repeat(10_000);
    let answer = client.send("GET", "/x/1", &[("a", &huge)], "").await;
    assert_eq!(answer.unwrap().status, 431);
    assert_eq!(client.get("/x/1").await.status, 200);
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_body_below_the_floor_is_given_up_collected_or_streamed() {
    let (node, gateway) = node_and_gateway().await;
    let mut clients = Vec::new();
    for (path, length) in [("/x/1", 9), ("/streamed", 100_000)] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
        stream.write_all(head.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    for mut stream in clients {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("too slowly"), "{answer}");
    }
    assert!(node.seen().is_empty());
    let series = "bingo_limit_hits_total{limit=\"body_rate_min\"}";
    assert_eq!(gateway.metric(series).await, 2.0);
    // The slow client was not laid at the node's door.
    let broken = "bingo_attempts_total{node=\"node-1\",outcome=\"no_answer\"}";
    assert_eq!(gateway.metric(broken).await, 0.0);
}

#[tokio::test]
async fn a_streamed_body_that_takes_too_long_is_the_clients_fault() {
    let node = Upstream::start(|_| ok("fine")).await;
    let routes = ROUTES.replace(
        "path: /streamed, deadline: 9s",
        "path: /streamed, deadline: 400ms",
    );
    let gateway = Gateway::start(&[&node], &routes);
    let head = "POST /streamed HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nabc";
    let answer = raw(gateway.address, head).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let series = "bingo_attempts_total{node=\"node-1\",outcome=\"out_of_time\"}";
    assert_eq!(gateway.metric(series).await, 0.0);
}

#[tokio::test]
async fn a_client_over_its_connections_is_closed_and_another_client_is_served() {
    let node = Upstream::start(|_| ok("fine")).await;
    let routes = ROUTES.replace("limits: {", "limits: {connections_per_client_max: 2, ");
    let gateway = Gateway::start(&[&node], &routes);
    let (mut one, mut two) = (gateway.client().await, gateway.client().await);
    assert_eq!(one.get("/x/1").await.status, 200);
    assert_eq!(two.get("/x/1").await.status, 200);
    // The reset may come before connect(2) has returned.
    if let Ok(mut third) = TcpStream::connect(gateway.address).await {
        let _ = third
            .write_all(b"GET /x/1 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
    hit(&gateway, "connections_per_client_max").await;

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(gateway.address).await.unwrap();
    let request = b"GET /x/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    other.write_all(request).await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(one);
    eventually("a connection less, a new one is served", async || {
        let mut stream = TcpStream::connect(gateway.address).await.ok()?;
        stream.write_all(request).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

/// Sends the same bytes until the gateway closes, while another client is served.
async fn floods(gateway: &Gateway, bytes: &[u8], limit: &str) {
    let mut flood = Raw::connect(gateway.address, &[]).await;
    let mut other = h2::Client::plain(gateway.address).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let (mut read, mut write) = flood.stream.split();
    let sending = async {
        while write.write_all(bytes).await.is_ok() {
            assert!(Instant::now() < deadline, "{limit}: it is never closed");
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let mut room = [0; 4096];
        while read.read(&mut room).await.unwrap_or(0) > 0 {}
    };
    tokio::join!(sending, reading, async {
        for _ in 0..20 {
            assert_eq!(other.get("/x/1").await.status, 200, "{limit}");
        }
    });
    hit(gateway, limit).await;
}

#[tokio::test]
async fn floods_of_frames_without_requests_are_closed() {
    for (kind, flags, stream, payload) in [
        (h2::PING, 0, 0, &[0; 8][..]),
        (h2::SETTINGS, 0, 0, &[]),
        (h2::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        (h2::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        (0xfa, 0, 0, b"unknown"),
    ] {
        let (_node, gateway) = node_and_gateway().await;
        let bytes = h2::frame(kind, flags, stream, payload);
        floods(&gateway, &bytes, "h2_control_frames_max").await;
    }
}

#[tokio::test]
async fn a_flood_of_continuations_and_one_of_empty_data_are_closed() {
    let (_node, gateway) = node_and_gateway().await;
    let block = h2::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/x/1"),
        (":authority", "a"),
    ]);
    let begin = h2::frame(h2::HEADERS, h2::END_STREAM, 1, &block);
    let more = h2::frame(h2::CONTINUATION, 0, 1, &[]);
    let mut flood = Raw::connect(gateway.address, &[]).await;
    flood.send(&[begin, more.repeat(2000)].concat()).await;
    assert_eq!(flood.goaway().await, Some(11), "ENHANCE_YOUR_CALM");
    hit(&gateway, "h2_flood").await;

    let (_node, gateway) = node_and_gateway().await;
    let block = h2::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/x/1"),
        (":authority", "a"),
    ]);
    let begin = h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &block);
    let empty = h2::frame(h2::DATA, 0, 1, &[]);
    let mut flood = Raw::connect(gateway.address, &[]).await;
    flood.send(&[begin, empty.repeat(20_000)].concat()).await;
    assert!(flood.goaway().await.is_none_or(|reason| reason == 11));
    hit(&gateway, "h2_flood").await;
}

/// Requests that are cancelled as soon as they are on a node, one by one: each by itself is what a
/// browser may do.
#[tokio::test]
async fn rapid_reset_is_closed_even_when_it_is_paced() {
    let reply = answer("200 OK", "", "late");
    let node = Upstream::start(move |_| Reply::After(Duration::from_secs(5), reply.clone())).await;
    let gateway = Gateway::start(&[&node], ROUTES);
    let mut flood = Raw::connect(gateway.address, &[]).await;
    for number in 0..200 {
        let stream = 2 * number + 1;
        if !flood.send(&h2::get(stream, "/x/1")).await {
            break;
        }
        eventually("it is on its way or the connection is closed", async || {
            let seen = node.seen().len() > number as usize;
            let series = "bingo_limit_hits_total{limit=\"h2_resets_max\"}";
            (seen || gateway.metric(series).await > 0.0).then_some(())
        })
        .await;
        let cancel = h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        if !flood.send(&cancel).await {
            break;
        }
    }
    hit(&gateway, "h2_resets_max").await;
    assert!(node.seen().len() < 60, "{}", node.seen().len());
}

/// MadeYouReset: errors that make the server reset its own streams, each of which costs a request.
#[tokio::test]
async fn a_client_that_makes_us_reset_streams_is_closed() {
    let (_node, gateway) = node_and_gateway().await;
    let mut flood = Raw::connect(gateway.address, &[]).await;
    let mut bytes = Vec::new();
    for number in 0..60 {
        let stream = 2 * number + 1;
        bytes.extend(h2::get(stream, "/x/1"));
        bytes.extend(h2::frame(
            h2::WINDOW_UPDATE,
            0,
            stream,
            &0x7fff_ffff_u32.to_be_bytes(),
        ));
    }
    flood.send(&bytes).await;
    assert_eq!(flood.goaway().await, Some(11), "ENHANCE_YOUR_CALM");
    hit(&gateway, "h2_flood").await;
}

/// A block of a few bytes that stands for many: one field in the table, referred to again and again.
#[tokio::test]
async fn a_block_that_unfolds_into_megabytes_is_refused() {
    let (node, gateway) = node_and_gateway().await;
    let mut block = h2::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/x/1"),
        (":authority", "a"),
    ]);
    // RFC 7541 section 6.2.1: a literal with indexing; then section 6.1: index 62, the newest.
    block.extend([0x40, 1, b'a', 127, 0x81, 0x1e]);
    block.extend(vec![b'b'; 4000]);
    block.extend(vec![0x80 | 62; 10_000]);
    let mut client = Raw::connect(gateway.address, &[]).await;
    let flags = h2::END_STREAM | h2::END_HEADERS;
    client.send(&h2::frame(h2::HEADERS, flags, 1, &block)).await;
    let mut refused = false;
    while let Some((kind, _, _, payload)) = client.next().await {
        // Static table, RFC 7541 appendix A has no 431: the status stands as a literal.
        refused |= kind == h2::HEADERS && payload.windows(3).any(|part| part == b"431");
        refused |= kind == h2::RST_STREAM || kind == h2::GOAWAY;
        if refused {
            break;
        }
    }
    assert!(refused && node.seen().is_empty());
    assert_eq!(
        h2::Client::plain(gateway.address)
            .await
            .get("/x/1")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_client_of_http_2_that_takes_nothing_is_given_up() {
    // SETTINGS_INITIAL_WINDOW_SIZE (4) of 0.
    const SHUT: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let node = Upstream::start(|seen| match seen.target.as_str() {
        "/x/large" => Reply::Stream(10 * 1024 * 1024),
        _ => ok("fine"),
    })
    .await;
    let routes = ROUTES.replace(
        "head_timeout: 1s",
        "head_timeout: 60s, client_stall_timeout: 300ms",
    );
    let gateway = Gateway::start(&[&node], &routes);
    for path in ["/x/large", "/x/small"] {
        let mut client = Raw::connect(gateway.address, &SHUT).await;
        client.send(&h2::get(1, path)).await;
        let mut reset = false;
        while let Some((kind, _, stream, _)) = client.next().await {
            if kind == h2::RST_STREAM {
                assert_eq!(stream, 1);
                reset = true;
                break;
            }
        }
        assert!(reset, "{path}");
        // Only that stream: with its windows open the connection answers again.
        let open = 65_535_u32.to_be_bytes();
        let settings = [&[0, 4][..], &open].concat();
        client.send(&h2::frame(h2::SETTINGS, 0, 0, &settings)).await;
        client.send(&h2::get(3, "/x/small")).await;
        while client.next().await.unwrap().0 != h2::DATA {}
    }
    hit(&gateway, "client_stall_timeout").await;
    let series = "bingo_attempts_total{node=\"node-1\",outcome=\"cancelled\"}";
    assert_eq!(gateway.metric(series).await, 1.0);
}

#[tokio::test]
async fn an_idle_connection_of_http_2_is_closed_with_goaway() {
    let (_node, gateway) = node_and_gateway().await;
    let mut client = Raw::connect(gateway.address, &[]).await;
    client.send(&h2::get(1, "/x/1")).await;
    assert_eq!(client.goaway().await, Some(0));
    // And one that said its preface and nothing more.
    let mut client = Raw::connect(gateway.address, &[]).await;
    assert_eq!(client.goaway().await, Some(0));
}

#[tokio::test]
async fn slow_heads_on_many_connections_hold_up_nobody() {
    let (_node, gateway) = node_and_gateway().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream
            .write_all(b"GET /x/1 HTTP/1.1\r\nhost")
            .await
            .unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/x/1").await.status, 200);
    }
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("the request's head"), "{answer}");
    }
    hit(&gateway, "head_timeout").await;
}

#[tokio::test]
async fn an_idle_connection_closes_without_a_word_and_is_no_hit_of_a_limit() {
    let (_node, gateway) = node_and_gateway().await;
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    let request = b"GET /x/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    idle.write_all(request).await.unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("408"),
        "{answer}"
    );
    let series = "bingo_limit_hits_total{limit=\"head_timeout\"}";
    assert_eq!(gateway.metric(series).await, 0.0);
}

/// Reads 4 KiB in each period; what was read when it ended, and whether in order.
async fn read_slowly(gateway: &Gateway, period: Duration) -> (usize, bool) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    let request = b"GET /x/large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut turn = tokio::time::interval(period);
    let mut room = [0; 4096];
    let mut read = 0;
    loop {
        turn.tick().await;
        match stream.read(&mut room).await {
            Ok(0) => return (read, true),
            Ok(length) => read += length,
            Err(_) => return (read, false),
        }
    }
}

/// Both take something all the time.
#[tokio::test]
async fn a_client_of_http_1_that_reads_below_the_floor_is_given_up_and_one_above_is_not() {
    const LENGTH: usize = 1024 * 1024;
    let node = Upstream::start(|_| Reply::Stream(LENGTH)).await;
    // The floor is 16 KiB a second.
    let routes = ROUTES.replace("head_timeout: 1s", "client_stall_timeout: 1s");
    let gateway = Gateway::start(&[&node], &routes.replace("deadline: 9s", "deadline: 60s"));
    let (slow, steady) = tokio::join!(
        read_slowly(&gateway, Duration::from_secs(1)),
        read_slowly(&gateway, Duration::from_millis(20))
    );
    assert!(!slow.1 && slow.0 < LENGTH / 2, "{slow:?}");
    assert!(steady.1 && steady.0 > LENGTH, "{steady:?}");
    let series = "bingo_limit_hits_total{limit=\"client_stall_timeout\"}";
    assert_eq!(gateway.metric(series).await, 1.0);
}
