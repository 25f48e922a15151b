//! Traces: with the feature `otel` a span of each request reaches a collector and belongs to the trace
//! of its client; without it the flag is refused.

#[cfg(feature = "otel")]
mod collected {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use acceptance::http::Request;

    use crate::cli::rig::{Folder, Node, SOON};

    const TRACE: [u8; 16] = [
        0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47,
        0x36,
    ];
    const PARENT: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

    /// A collector that takes everything: its address, and what it was sent, head and body apart.
    fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                              content-length: 0\r\n\r\n";
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                // The test may have seen enough.
                let _ = sender.send((head, body));
            }
        });
        (address, receiver)
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_span_of_each_request_reaches_the_collector_within_its_clients_trace() {
        let (collector, sent) = collector();
        let folder = Folder::new("traces");
        let config = folder.write("config.yaml", "student_email: a@b.c\ndrain_delay: 0s\n");
        let node = Node::start(&["--config", &config, "--otlp-endpoint", &collector], &[]);
        let asked = Request::new("GET".parse().unwrap(), &format!("{}/", node.url))
            .header("x-request-id", "traced-one")
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .header("tracestate", "vendor=canary");
        assert_eq!(asked.send().await.unwrap().status, 200);
        let (head, body) = sent.recv_timeout(SOON).unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        for (what, part) in [
            ("trace", TRACE.as_slice()),
            ("parent", PARENT.as_slice()),
            ("state", b"vendor=canary"),
            ("service", b"bingo-node"),
            ("request id", b"traced-one"),
            ("method", b"http.request.method"),
            ("status", b"http.response.status_code"),
        ] {
            assert!(contains(&body, part), "{what}: {body:?}");
        }

        // What the process did last is sent before it ends.
        let last = Request::new("GET".parse().unwrap(), &format!("{}/ping", node.url))
            .header("x-request-id", "last-one");
        last.send().await.unwrap();
        assert_eq!(node.end().0, 0);
        let all: Vec<u8> = sent.try_iter().flat_map(|(_, body)| body).collect();
        assert!(contains(&all, b"last-one"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_away_costs_one_warning_and_no_request() {
        let folder = Folder::new("untraced");
        let config = folder.write("config.yaml", "student_email: a@b.c\ndrain_delay: 0s\n");
        let flags = ["--config", &config, "--otlp-endpoint", "http://127.0.0.1:9"];
        let node = Node::start(&flags, &[]);
        for _ in 0..20 {
            let asked = acceptance::http::get(&format!("{}/", node.url)).await;
            assert_eq!(asked.unwrap().status, 200);
        }
        let (code, stderr) = node.end();
        assert_eq!(code, 0, "{stderr}");
        let warnings = stderr.matches("the collector takes no traces");
        assert_eq!(warnings.count(), 1, "{stderr}");
    }
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_binary_without_traces_says_so_and_how_to_get_one() {
    let folder = crate::cli::rig::Folder::new("no-traces");
    let config = folder.write("config.yaml", "student_email: a@b.c\n");
    let start = ["run_server", "--allow-root", "--config", &config];
    let variable = [("BINGO_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
    let result = crate::cli::rig::bingo_with(&start, &variable);
    assert_eq!(result.code, 64, "{}", result.stderr);
    for part in [
        "this binary was built without OpenTelemetry",
        "--features otel",
        "BINGO_OTLP_ENDPOINT",
    ] {
        assert!(result.stderr.contains(part), "{}", result.stderr);
    }
}
