//! The metrics that gateways and nodes share, under the names of OpenTelemetry's HTTP conventions,
//! and the text that Prometheus reads. Label values are bounded: callers pass route templates, never
//! paths.
//!
//! There are two texts. Prometheus asks for OpenMetrics by name and gets it; whoever asks for nothing
//! (curl, promtool, older collectors) gets the older format 0.0.4, which all of them read.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Content type of the text that `encode` returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bucket bounds in seconds (interfaces.md "Metrics"); 0.4 and 1 are the SLA's own.
const BOUNDS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
];

/// Labels of one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Route template such as `/api/movie/{id}`; `other` for a path that no route names.
    pub http_route: &'static str,
    /// `GET`, `POST`, …; `other` for a method that the contract does not know.
    pub http_request_method: &'static str,
    pub http_response_status_code: u16,
    /// `1.0`, `1.1`, `2`, `3`.
    pub network_protocol_version: &'static str,
}

impl RequestLabels {
    /// Labels of an ordinary request, for reference pages.
    pub fn example() -> Self {
        Self {
            http_route: "/",
            http_request_method: "GET",
            http_response_status_code: 200,
            network_protocol_version: "1.1",
        }
    }
}

/// Makes histograms of durations in seconds, with the bounds that all of them have: shares of one can
/// be held against those of another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BOUNDS)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Registers `bingo_build_info`, which says which program this process runs.
pub fn register_build_info(registry: &mut Registry) {
    let info = Family::<BuildLabels, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION");
    info.get_or_create(&BuildLabels { version }).set(1);
    let help = "Always 1; the label is the version of the program that this process runs";
    registry.register("bingo_build_info", help, info);
}

/// Duration and number of the requests that this process serves; probes are left out by callers.
#[derive(Clone, Debug)]
pub struct HttpServer {
    duration: Family<RequestLabels, Histogram, Durations>,
    /// Requests that are being served now.
    pub active: Gauge,
}

impl HttpServer {
    /// Registers `http_server_request_duration_seconds` and `http_server_active_requests`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(Durations),
            active: <_>::default(),
        };
        registry.register(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its answer's body, in seconds",
            metrics.duration.clone(),
        );
        registry.register(
            "http_server_active_requests",
            "Requests that are being served now",
            metrics.active.clone(),
        );
        metrics
    }

    /// Records one finished request.
    pub fn observe(&self, labels: &RequestLabels, seconds: f64) {
        self.duration.get_or_create(labels).observe(seconds);
    }
}

/// The label value of a request method.
pub fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// What `GET /metrics` answers to whoever asks with this `Accept`: content type and text.
pub fn answer(registry: &Registry, accept: Option<&str>) -> (&'static str, String) {
    in_format(encode(registry), accept)
}

/// The same of a text that `encode` has returned.
pub fn in_format(text: String, accept: Option<&str>) -> (&'static str, String) {
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        return (CONTENT_TYPE, text);
    }
    (TEXT, without_openmetrics(&text))
}

/// The same metrics in Prometheus' text format 0.0.4: there the name of a counter ends in `_total` in
/// its description too, and nothing marks the end.
fn without_openmetrics(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + 1024);
    let mut help = "";
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            // The type that follows says what the name is.
            help = line;
        } else if let Some((name, kind)) = described(line, "# TYPE ") {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, what)) = described(help, "# HELP ") {
                older.push_str(&format!("# HELP {name}{suffix} {what}\n"));
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            older.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with("# ") {
            older.push_str(line);
            older.push('\n');
        }
    }
    older
}

fn described<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(mark)?.split_once(' ')
}

/// The registry's metrics in the text of OpenMetrics 1.0.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::with_capacity(16 * 1024);
    // Writing to a String cannot fail; a metric that cannot be encoded leaves the rest in place.
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        tracing::error!("a metric could not be encoded");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_in_the_bucket_of_its_duration() {
        let mut registry = Registry::default();
        let metrics = HttpServer::register(&mut registry);
        let labels = RequestLabels {
            http_route: "/api/movie/{id}",
            http_request_method: method_label("GET"),
            http_response_status_code: 200,
            network_protocol_version: "1.1",
        };
        metrics.observe(&labels, 0.3);
        let text = encode(&registry);
        assert!(
            text.contains("http_server_request_duration_seconds_count{"),
            "{text}"
        );
        assert!(
            text.contains("le=\"0.4\",http_route=\"/api/movie/{id}\""),
            "{text}"
        );
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it_and_all_others_the_older_text() {
        let mut registry = Registry::default();
        register_build_info(&mut registry);
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("bingo_things", "Things that were", counter);
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let (kind, text) = answer(&registry, Some(accept));
        assert_eq!(kind, CONTENT_TYPE);
        assert!(text.ends_with("# EOF\n"), "{text}");
        for accept in [None, Some("*/*"), Some("text/plain")] {
            let (kind, text) = answer(&registry, accept);
            assert_eq!(kind, TEXT);
            let things = "# HELP bingo_things_total Things that were.\n\
                          # TYPE bingo_things_total counter\nbingo_things_total 0\n";
            assert!(text.ends_with(things), "{text}");
            assert!(text.contains("# TYPE bingo_build_info gauge\n"), "{text}");
            assert!(!text.contains("EOF"), "{text}");
        }
    }

    #[test]
    fn unknown_methods_share_one_label_value() {
        assert_eq!(method_label("BREW"), "other");
    }
}
