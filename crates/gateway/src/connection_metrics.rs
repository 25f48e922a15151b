//! What is shown of client connections: how many there are, and how their TLS handshakes end. Beside the
//! request metrics, because a client that gets no further than here never sends a request.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    transport: &'static str,
    result: &'static str,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    Done,
    /// The two found nothing in common, or the client went away.
    Failed,
    /// Over `tls_handshake_timeout`.
    TimedOut,
}

/// Counts of connections and handshakes.
#[derive(Debug, Default)]
pub(crate) struct ConnectionMetrics {
    /// Open ones over TCP, with TLS or without.
    pub(crate) tcp: Gauge,
    /// Open ones over QUIC.
    pub(crate) quic: Gauge,
    handshakes: Family<HandshakeLabels, Counter>,
}

impl ConnectionMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "bingo_tcp_connections",
            "Open client connections over TCP, with TLS or without",
            metrics.tcp.clone(),
        );
        registry.register(
            "bingo_quic_connections",
            "Open HTTP/3 connections",
            metrics.quic.clone(),
        );
        registry.register(
            "bingo_tls_handshakes",
            "TLS handshakes of clients, over TCP or QUIC, by how they ended: done, failed or timed_out",
            metrics.handshakes.clone(),
        );
        // From the start, so that the first failure is an increase and not a beginning.
        for transport in [Transport::Tcp, Transport::Quic] {
            for result in [Handshake::Done, Handshake::Failed, Handshake::TimedOut] {
                let labels = HandshakeLabels::of(transport, result);
                drop(metrics.handshakes.get_or_create(&labels));
            }
        }
        metrics
    }

    pub(crate) fn shook_hands(&self, transport: Transport, result: Handshake) {
        let labels = HandshakeLabels::of(transport, result);
        self.handshakes.get_or_create(&labels).inc();
    }
}

impl HandshakeLabels {
    fn of(transport: Transport, result: Handshake) -> Self {
        Self {
            transport: match transport {
                Transport::Tcp => "tcp",
                Transport::Quic => "quic",
            },
            result: match result {
                Handshake::Done => "done",
                Handshake::Failed => "failed",
                Handshake::TimedOut => "timed_out",
            },
        }
    }
}
