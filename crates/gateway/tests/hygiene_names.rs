//! What a node gets to see, byte by byte: targets, hosts and fields that two programs could read in two
//! ways are refused (400, and the connection closes) or forwarded in one form.

mod rig;

use rig::cases::{As, Case, NO_ROUTE, Refused, holds};

const TARGETS: &[Case] = &[
    (
        "an absolute target overrules Host",
        "GET http://b/x?q HTTP/1.1\nhost: a\n\n",
        As("GET /x?q HTTP/1.1|host: b", ""),
    ),
    (
        "an absolute target and two Hosts",
        "GET http://b/x HTTP/1.1\nhost: a\nhost: c\n\n",
        Refused,
    ),
    (
        "an absolute target of another scheme",
        "GET ftp://a/x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "user information in the target",
        "GET http://u@a/x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    ("no Host", "GET /x HTTP/1.1\n\n", Refused),
    (
        "two Hosts",
        "GET /x HTTP/1.1\nhost: a\nhost: b\n\n",
        Refused,
    ),
    (
        "two Hosts that agree",
        "GET /x HTTP/1.1\nhost: a\nhost: a\n\n",
        Refused,
    ),
    (
        "a Host with user information",
        "GET /x HTTP/1.1\nhost: u@a\n\n",
        Refused,
    ),
    (
        "a Host with a path",
        "GET /x HTTP/1.1\nhost: a/b\n\n",
        Refused,
    ),
    (
        "a Host of two words",
        "GET /x HTTP/1.1\nhost: a b\n\n",
        Refused,
    ),
    (
        "a list of Hosts",
        "GET /x HTTP/1.1\nhost: a, b\n\n",
        Refused,
    ),
    (
        "CONNECT",
        "CONNECT a:443 HTTP/1.1\nhost: a:443\n\n",
        Refused,
    ),
    (
        "a target that begins with two slashes is another path",
        "GET //x HTTP/1.1\nhost: a\n\n",
        NO_ROUTE,
    ),
    (
        "a target without a slash",
        "GET x HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a star without OPTIONS",
        "GET * HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a tab in the target",
        "GET /x\t HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "bytes above ASCII in the target",
        "GET /x?\u{e9} HTTP/1.1\nhost: a\n\n",
        Refused,
    ),
    (
        "a fragment is dropped",
        "GET /x?q#f HTTP/1.1\nhost: a\n\n",
        As("GET /x?q HTTP/1.1|host: a", ""),
    ),
];

const FIELDS: &[Case] = &[
    (
        "what Connection names",
        "GET /x HTTP/1.1\nhost: a\nconnection: x-a, keep-alive\nx-a: 1\nx-b: 2\n\n",
        As("GET /x HTTP/1.1|host: a|x-b: 2", ""),
    ),
    (
        "Connection cannot name the length away",
        "POST /x HTTP/1.1\nhost: a\nconnection: content-length, host\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "Connection cannot name the gateway's fields away",
        "GET /x HTTP/1.1\nhost: a\nconnection: x-forwarded-for, forwarded\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "fields of the connection",
        "GET /x HTTP/1.1\nhost: a\nkeep-alive: 5\nproxy-connection: close\nproxy-authorization: b\nte: gzip\nupgrade: h2c\nhttp2-settings: AAA\n\n",
        As("GET /x HTTP/1.1|host: a|http2-settings: AAA", ""),
    ),
    (
        "TE is made anew",
        "GET /x HTTP/1.1\nhost: a\nconnection: te\nte: deflate, trailers;q=0.5, trailers\n\n",
        As("GET /x HTTP/1.1|host: a|te: trailers|connection: te", ""),
    ),
    (
        "imitations",
        "GET /x HTTP/1.1\nhost: a\ncontent_length: 5\ntransfer_encoding: chunked\nx_forwarded_for: 1\nX_Forwarded-Proto: 1\napi_key: 2\n\n",
        As("GET /x HTTP/1.1|host: a|api_key: 2", ""),
    ),
    (
        "fields that the gateway vouches for",
        "GET /x HTTP/1.1\nhost: a\nx-real-ip: 1\nx-forwarded-port: 2\nx-forwarded-ssl: on\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "an expectation",
        "POST /x HTTP/1.1\nhost: a\nexpect: 100-continue\ncontent-length: 3\n\nabc",
        As("POST /x HTTP/1.1|host: a|content-length: 3", "abc"),
    ),
    (
        "names in capitals and blanks around values",
        "GET /x HTTP/1.1\nHOST:a\nX-A:  \t b c \t\n\n",
        As("GET /x HTTP/1.1|host: a|x-a: b c", ""),
    ),
    (
        "an empty line before the request",
        "\nGET /x HTTP/1.1\nhost: a\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "Upgrade without Connection",
        "GET /x HTTP/1.1\nhost: a\nupgrade: websocket\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
    (
        "h2c is not passed on",
        "GET /x HTTP/1.1\nhost: a\nconnection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAA\n\n",
        As("GET /x HTTP/1.1|host: a", ""),
    ),
];

#[tokio::test]
async fn a_target_and_a_host_have_one_reading() {
    holds(TARGETS).await;
}

#[tokio::test]
async fn fields_of_a_connection_and_imitations_end_at_the_gateway() {
    holds(FIELDS).await;
}
