//! Properties of heads and fields over many made-up requests; the fuzz target in `fuzz/` goes on where
//! these end. A failure prints its case.

use proptest::prelude::*;

/// Words from which fields are made: those that mean something, disguised or not.
const NAMES: [&str; 22] = [
    "host",
    "Host",
    "connection",
    "Connection",
    "content-length",
    "content_length",
    "transfer-encoding",
    "transfer_encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "x-forwarded-for",
    "x_forwarded_for",
    "X-Forwarded-Proto",
    "forwarded",
    "x-real-ip",
    "expect",
    "x-a",
    "x-b",
    "via",
];
const VALUES: [&str; 20] = [
    "a",
    "b",
    "a:80",
    "a, b",
    "u@a",
    "[::1]",
    "close",
    "keep-alive, x-a",
    "X-B,te",
    "host",
    "content-length, transfer-encoding",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "identity",
    "trailers",
    "3",
    "100-continue",
    "",
    "\"",
];
const LINES: [&str; 10] = [
    "GET /",
    "GET / 2",
    "POST /x?y 1.0",
    "GET http://a/ 1.1",
    "GET http://a/ 2",
    "GET https://b:1/z",
    "OPTIONS *",
    "CONNECT a:443",
    "GET x",
    "GET ftp://a/",
];

fn made_up() -> impl Strategy<Value = Vec<u8>> {
    let field = (
        prop::sample::select(&NAMES[..]),
        prop_oneof![
            4 => prop::sample::select(&VALUES[..]).prop_map(str::to_owned),
            1 => "[ -~]{0,20}",
        ],
    );
    let fields = prop::collection::vec(field, 0..8);
    (prop::sample::select(&LINES[..]), fields).prop_map(|(line, fields)| {
        let mut request = line.as_bytes().to_vec();
        for (name, value) in fields {
            request.extend(format!("\n{name}: {value}").into_bytes());
        }
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_node_gets_of_a_request_obeys_the_rules(request in made_up()) {
        let held = gateway::fuzzing::request(&request);
        prop_assert!(held.is_ok(), "{:?}: {held:?}", String::from_utf8_lossy(&request));
    }

    #[test]
    fn no_bytes_break_a_rule_or_anything_else(request in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(gateway::fuzzing::request(&request), Ok(()));
    }
}
