//! One connection to one server: what the driver needs to reach it, which of the TLS modes are tried
//! in which order, and how its queries are cancelled. `primary` finds the writable server of a
//! cluster for the commands that prepare the database; the service's own choice is in `choice`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_postgres::config::SslMode as DriverMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Host, PostgresCluster, SslMode};
use crate::error::{Attempt, Error};
use crate::tls;

/// How long one host may take from the first packet to its first answered query.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long one of the addresses of a host name may take; a second one then still has its chance.
const ADDRESS_LIMIT: Duration = Duration::from_millis(900);
/// How long a request to cancel a query may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// After this long without an acknowledgement the kernel gives a connection up.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Knows how to connect to one host of a cluster.
#[derive(Clone)]
pub(crate) struct Dialer {
    cluster: Arc<PostgresCluster>,
    host: Host,
    tls: MakeRustlsConnect,
}

/// A connection. Its own task ends when the client is dropped.
pub(crate) struct Dialled {
    pub(crate) client: Client,
    pub(crate) canceller: Canceller,
}

/// Ends what a connection is doing, by way of another connection.
#[derive(Clone)]
pub(crate) struct Canceller {
    token: CancelToken,
    tls: MakeRustlsConnect,
}

impl Dialer {
    /// One for each host, in the order of the configuration. Errors: no host, a file that TLS needs
    /// or that holds the password cannot be read.
    pub(crate) fn all(cluster: &PostgresCluster) -> Result<Vec<Self>, Error> {
        if cluster.hosts.is_empty() {
            return Err(Error::configuration(
                "postgres_cluster.hosts",
                "it is empty",
                "name at least one host",
            ));
        }
        let tls = tls::connector(cluster)?;
        let cluster = Arc::new(cluster.clone());
        let dialers = cluster.hosts.iter().map(|host| {
            cluster.password(host)?;
            Ok(Self {
                cluster: cluster.clone(),
                host: host.clone(),
                tls: tls.clone(),
            })
        });
        dialers.collect()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn cluster(&self) -> &PostgresCluster {
        &self.cluster
    }

    /// Connects within `CONNECT_LIMIT`. The password is read each time, so that a new one in its file
    /// needs no restart.
    pub(crate) async fn dial(&self, application_name: &str) -> Result<Dialled, Error> {
        let attempted = format!("connect to {}", self.host);
        // Seldom run and large: not part of every future that may come to it.
        let dial = Box::pin(self.dial_in_order(application_name));
        within(CONNECT_LIMIT, &attempted, dial).await?
    }

    /// The outer error is the driver's, for `within`.
    async fn dial_in_order(
        &self,
        application_name: &str,
    ) -> Result<Result<Dialled, Error>, tokio_postgres::Error> {
        let (first, second) = modes(self.cluster.ssl_mode, &self.host);
        let password = match self.cluster.password(&self.host) {
            Ok(password) => password,
            Err(error) => return Ok(Err(error)),
        };
        let mut config = self.config(application_name);
        if let Some(password) = password {
            config.password(password);
        }
        match (self.dial_once(config.ssl_mode(first)).await, second) {
            (Err(error), Some(second)) if may_be_for_encryption(&error) => {
                self.dial_once(config.ssl_mode(second)).await.map(Ok)
            }
            (result, _) => result.map(Ok),
        }
    }

    async fn dial_once(&self, config: &Config) -> Result<Dialled, tokio_postgres::Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            // Its error reaches every user of the client as well; said once, there.
            if let Err(error) = connection.await {
                tracing::debug!(error = %chassis::failure::chain(&error), "connection ended");
            }
        });
        let canceller = Canceller {
            token: client.cancel_token(),
            tls: self.tls.clone(),
        };
        Ok(Dialled { client, canceller })
    }

    /// Everything but the password and the mode.
    fn config(&self, application_name: &str) -> Config {
        let mut config = Config::new();
        if self.host.address.starts_with('/') {
            config.host_path(&self.host.address);
        } else {
            config.host(&self.host.address);
        }
        config
            .port(self.host.port)
            .user(&self.cluster.user)
            .dbname(&self.cluster.db_name)
            .application_name(application_name)
            .connect_timeout(ADDRESS_LIMIT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .tcp_user_timeout(SILENCE_LIMIT);
        config
    }
}

impl Canceller {
    /// Whatever comes of it: at worst the statement runs to its end or to its own limit.
    pub(crate) async fn cancel(self) {
        let cancel = self.token.cancel_query(self.tls);
        let _ = tokio::time::timeout(CANCEL_LIMIT, cancel).await;
    }
}

/// Connects to the host that answers first as a server that is not in recovery; all are asked at
/// once, so that one that hangs delays nobody.
pub(crate) async fn primary(
    cluster: &PostgresCluster,
    application_name: &str,
) -> Result<Dialled, Error> {
    let dialers = Dialer::all(cluster)?;
    let asked = dialers.iter().enumerate().map(|(i, dialer)| async move {
        let host = dialer.host.to_string();
        let answer = match dialer.dial(application_name).await {
            Ok(dialled) => {
                let attempted = format!("ask {host} for its role");
                let asked = within(CONNECT_LIMIT, &attempted, is_in_recovery(&dialled.client));
                match asked.await {
                    Ok(false) => Ok(dialled),
                    Ok(true) => Err((Attempt::in_recovery(host), false)),
                    Err(error) => Err((Attempt::failed(host, &error), error.is_refusal())),
                }
            }
            Err(error) => Err((Attempt::failed(host, &error), error.is_refusal())),
        };
        (i, answer)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut attempts = Vec::new();
    while let Some((i, answer)) = asked.next().await {
        match answer {
            Ok(dialled) => return Ok(dialled),
            Err(answer) => attempts.push((i, answer)),
        }
    }
    attempts.sort_by_key(|(i, _)| *i);
    let are_refusals = attempts.iter().all(|(_, (_, is_refusal))| *is_refusal);
    let attempts = attempts.into_iter().map(|(_, (attempt, _))| attempt);
    let attempts: Vec<Attempt> = attempts.collect();
    if are_refusals {
        return Err(Error::refused_login(&attempts));
    }
    Err(Error::Unreachable { attempts })
}

/// A client of the cluster's writable server, to ask it anything. Errors: `Unreachable` with what each
/// host answered; a configuration that cannot be used.
pub async fn connect(cluster: &PostgresCluster, application_name: &str) -> Result<Client, Error> {
    Ok(primary(cluster, application_name).await?.client)
}

/// Waits for the driver no longer than `limit`: a frozen server says nothing, and the kernel still
/// acknowledges for it. `attempted` is what an error names.
pub(crate) async fn within<T>(
    limit: Duration,
    attempted: &str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|error| Error::query(attempted, error)),
        Err(_) => Err(Error::Deadline {
            attempted: attempted.to_owned(),
            after: limit,
        }),
    }
}

async fn is_in_recovery(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let answers = client.simple_query("SELECT pg_is_in_recovery()").await?;
    Ok(answers
        .iter()
        .any(|answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"))))
}

/// What is tried first, and what then, if the first is refused for its (lack of) encryption. A Unix
/// socket is never encrypted, as in libpq.
fn modes(mode: SslMode, host: &Host) -> (DriverMode, Option<DriverMode>) {
    if host.address.starts_with('/') {
        return (DriverMode::Disable, None);
    }
    match mode {
        SslMode::Disable => (DriverMode::Disable, None),
        SslMode::Allow => (DriverMode::Disable, Some(DriverMode::Require)),
        SslMode::Prefer => (DriverMode::Prefer, Some(DriverMode::Disable)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (DriverMode::Require, None),
    }
}

/// `pg_hba.conf` knows no line for this (lack of) encryption, or the handshake failed.
fn may_be_for_encryption(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => true,
    }
}
