//! One connection to a writable server of the cluster, for the commands that prepare the database.
//! Pools and the choice between servers are elsewhere; both take `host_config` from here.
//!
//! TLS is not here yet: `require` and the two `verify` words are refused by name instead of being
//! silently weakened; `allow` and `prefer` go without it, as libpq would where the server has none.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::config::{Host, PostgresCluster, SslMode};
use crate::error::{Attempt, Error};

/// How long one host may take from the first packet to its first answered query.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// After this long without an acknowledgement the kernel gives a connection up.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Connects to the first host, in the order of the configuration, that answers and is not in recovery.
/// The connection's own task ends when the client is dropped.
pub async fn connect(cluster: &PostgresCluster, application_name: &str) -> Result<Client, Error> {
    let mut attempts = Vec::new();
    for host in &cluster.hosts {
        let mut config = host_config(cluster, host)?;
        config.application_name(application_name);
        let answer = match tokio::time::timeout(CONNECT_LIMIT, writable(&config)).await {
            Ok(Ok(Some(client))) => return Ok(client),
            Ok(Ok(None)) => "is in recovery, so it takes no writes".to_owned(),
            Ok(Err(error)) => chassis::failure::chain(&error),
            Err(_) => format!(
                "no answer within {}",
                chassis::config::format_duration(CONNECT_LIMIT)
            ),
        };
        attempts.push(Attempt {
            host: host.to_string(),
            answer,
        });
    }
    match attempts.is_empty() {
        true => Err(Error::configuration(
            "postgres_cluster.hosts",
            "it is empty",
            "name at least one host",
        )),
        false => Err(Error::Unreachable { attempts }),
    }
}

/// What the driver needs to reach one host, the password included. Errors: a password file that
/// cannot be read, a TLS mode that we do not have.
pub fn host_config(cluster: &PostgresCluster, host: &Host) -> Result<Config, Error> {
    if matches!(
        cluster.ssl_mode,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull
    ) {
        return Err(Error::configuration(
            "postgres_cluster.ssl_mode",
            "connections with TLS are not supported yet",
            "write disable, allow or prefer",
        ));
    }
    let mut config = Config::new();
    if host.address.starts_with('/') {
        config.host_path(&host.address);
    } else {
        config.host(&host.address);
    }
    config
        .port(host.port)
        .user(&cluster.user)
        .dbname(&cluster.db_name)
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .connect_timeout(CONNECT_LIMIT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(SILENCE_LIMIT);
    if let Some(password) = cluster.password(host)? {
        config.password(password);
    }
    Ok(config)
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

/// `None`: the server answers and is in recovery.
async fn writable(config: &Config) -> Result<Option<Client>, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // Its error reaches every user of the client as well; said once, there.
        if let Err(error) = connection.await {
            tracing::debug!(error = %chassis::failure::chain(&error), "connection ended");
        }
    });
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
    let in_recovery: bool = row.try_get(0)?;
    Ok((!in_recovery).then_some(client))
}
