//! Cases of bytes and of what must come of them at a node.

use super::{Gateway, Upstream, ok, raw};

pub(crate) const ROUTES: &str = "
threads: 1
probe: {interval: 20ms}
limits: {head_timeout: 500ms}
routes:
- {methods: [GET, POST, OPTIONS], path: /x, deadline: 5s}
- {methods: [POST], path: /streamed, deadline: 5s, body_bytes_max: 1MiB}
";

/// Fields that the gateway adds to every request; other tests look at them.
const ADDED: [&str; 7] = [
    "forwarded: ",
    "x-forwarded-for: ",
    "x-forwarded-proto: ",
    "x-forwarded-host: ",
    "via: ",
    "x-request-id: ",
    "bingo-timeout-ms: ",
];

/// What a second, smuggled request would be.
pub(crate) const SMUGGLED: &str = "GET /x?smuggled HTTP/1.1\r\nhost: b\r\n\r\n";

/// How a case must end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ends {
    /// 400, and the connection closes; no node sees anything.
    Refused,
    /// A node sees this head (less what the gateway adds; lines joined by `|`) and this body, and the
    /// connection goes on or closes.
    As(&'static str, &'static str),
    /// The same, and the connection closes, whatever the client wanted.
    AsThenCloses(&'static str, &'static str),
}
pub(crate) use Ends::{As, AsThenCloses, Refused};

/// What the case is about, and the bytes: a line end in the table is CR LF on the wire.
pub(crate) type Case = (&'static str, &'static str, Ends);

/// 404 at the gateway: the head is empty.
pub(crate) const NO_ROUTE: Ends = As("", "");

/// Sends each case with a second request behind it and looks at what came of both.
pub(crate) async fn holds(cases: &[Case]) {
    for (about, request, ends) in cases {
        let node = Upstream::start(|_| ok("fine")).await;
        let gateway = Gateway::start(&[&node], ROUTES);
        let request = request.replace("\r\n", "\n").replace('\n', "\r\n");
        let answer = raw(gateway.address, format!("{request}{SMUGGLED}")).await;
        // A reset is how an answer can be lost to a client that goes on sending: never a 200.
        let answer = answer.unwrap_or_default();
        let seen = node.seen();
        let (first, then) = match ends {
            Refused => {
                assert!(
                    answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
                    "{about}: {answer}"
                );
                assert_eq!(answer.matches("HTTP/1.").count(), 1, "{about}: {answer}");
                assert!(seen.is_empty(), "{about}: {seen:?}");
                continue;
            }
            As(head, body) => ((head, body), true),
            AsThenCloses(head, body) => ((head, body), false),
        };
        let mut seen = seen.iter();
        if !first.0.is_empty() {
            let one = seen.next().unwrap_or_else(|| panic!("{about}: {answer}"));
            assert_eq!(canonical(&one.head), *first.0, "{about}");
            assert_eq!(one.body, first.1.as_bytes(), "{about}");
            assert!(one.trailers.is_empty(), "{about}");
        }
        let second: Vec<_> = seen.map(|one| one.target.as_str()).collect();
        let expected: &[&str] = if then { &["/x?smuggled"] } else { &[] };
        assert_eq!(second, expected, "{about}: {answer}");
    }
}

/// The head less what the gateway adds, its lines joined by `|`.
fn canonical(head: &str) -> String {
    let lines = head.trim_end().split("\r\n");
    let own = lines.filter(|line| !ADDED.iter().any(|added| line.starts_with(added)));
    own.collect::<Vec<_>>().join("|")
}
