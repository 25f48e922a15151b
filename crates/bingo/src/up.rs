//! `bingo up`: the whole installation on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chassis::config::{format_duration, parse_duration};
use chassis::{Exit, Failure};
use local::{Exec, Layout, Options, up};

use crate::postgres_url::PostgresUrl;
use crate::runtime;

/// Flags that name an installation.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// Folder of the installation; everything lies in it
    #[arg(long, env = "BINGO_DIR", default_value = ".bingo", value_name = "PATH")]
    dir: PathBuf,
}

impl Place {
    /// The folder with its full path: children run in other working folders.
    pub(crate) fn layout(&self) -> Result<Layout, Failure> {
        let path = std::path::absolute(&self.dir).map_err(|error| {
            let attempted = format!("find the folder {}", self.dir.display());
            Failure::configuration(attempted, error, "name another with --dir")
        })?;
        Ok(Layout::new(path))
    }
}

/// Flags that shape an installation; `bingo doctor` takes them too.
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// Address on which the gateways listen; may be repeated [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDR")]
    bind: Vec<IpAddr>,
    /// Port of the service
    #[arg(long, default_value_t = 8080, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: u16,
    /// Port of the service over TLS; 0 turns it off
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    https_port: u16,
    /// Port of metrics and health
    #[arg(long, default_value_t = 9090, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Number of nodes; changed live when it runs already
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Number of gateways
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    gateways: u16,
    /// The service's student_email
    #[arg(long, default_value = "test@example.com", value_name = "ADDR",
          value_parser = email)]
    email: String,
    /// Customers to fill in
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    customers: u32,
    /// Movies to fill in
    #[arg(long, default_value_t = 29_019, value_name = "N")]
    movies: u32,
    /// Sessions to fill in
    #[arg(long, default_value_t = 5_000_000, value_name = "N")]
    sessions: u32,
    /// Seed of the rows that are filled in
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Account of the children when started as root [default: bingo, else postgres, else nobody]
    #[arg(long, value_name = "NAME",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// An existing database: filled or adopted, never stopped or dropped. The flag may hold no
    /// password, the variable may; BINGO_POSTGRES_PASSWORD goes before it [env: BINGO_POSTGRES_URL]
    #[arg(long, value_name = "URL")]
    postgres_url: Option<String>,
    /// Faults that the nodes reproduce, to show that they are survived
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = FAULTS)]
    faults: Vec<String>,
    /// Name of the service, in the certificate and in printed addresses; may be repeated
    /// [default: localhost]
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    domain: Vec<String>,
    /// Announce bingo.local to the local network and put it into the certificate
    #[arg(long)]
    mdns: bool,
    /// Program that the nodes run instead of ours, such as the vendor's: '/opt/bingo/bingo run_server'
    #[arg(long, value_name = "CMD", conflicts_with = "faults")]
    exec: Option<String>,
    /// Age at which nodes are replaced [default: 18m for --exec and --faults lifetime, else never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Folder of PostgreSQL's binaries [default: searched for]
    #[arg(long, env = "BINGO_POSTGRES_BIN", value_name = "PATH")]
    postgres_bin: Option<PathBuf>,
}

/// What contract.md section 5 names; `vendor` is all of them.
const FAULTS: [&str; 5] = ["vendor", "operation", "rps_limit", "slow_start", "lifetime"];

impl Shape {
    /// The existing database that was named.
    fn database(&self) -> Result<Option<PostgresUrl>, Failure> {
        PostgresUrl::given(self.postgres_url.as_deref())
    }

    /// Fails on a database that cannot be meant.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        self.options_with(self.database()?.as_ref())
    }

    fn options_with(&self, database: Option<&PostgresUrl>) -> Result<Options, Failure> {
        let exec = self.exec.as_deref().map(|command| {
            let port = node::port_of(&self.email);
            Exec::new(command, port, node::log_folder_of(&self.email))
        });
        Ok(Options {
            bind: if self.bind.is_empty() {
                loopback()
            } else {
                distinct(&self.bind)
            },
            http_port: self.http_port,
            https_port: self.https_port,
            admin_port: self.admin_port,
            nodes: self.nodes,
            gateways: self.gateways,
            email: self.email.clone(),
            customers: self.customers,
            movies: self.movies,
            sessions: self.sessions,
            seed: self.seed,
            user: self.user.clone(),
            postgres_url: database.map(|url| local::mask_url(&url.text)),
            faults: self.faults.clone(),
            domain: self.domain.clone(),
            mdns: self.mdns,
            postgres_bin: self
                .postgres_bin
                .as_ref()
                .map(|path| path.display().to_string()),
            exec: exec.transpose()?,
            max_age: self.max_age.map(format_duration),
        })
    }
}

/// Without addresses that another one covers: `::` takes IPv4 as well, `0.0.0.0` every IPv4 address.
fn distinct(bind: &[IpAddr]) -> Vec<IpAddr> {
    let all = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let all_ipv4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if bind.contains(&all) {
        return vec![all];
    }
    let mut kept: Vec<IpAddr> = Vec::new();
    for address in bind {
        let covered = bind.contains(&all_ipv4) && address.is_ipv4() && *address != all_ipv4;
        if !covered && !kept.contains(address) {
            kept.push(*address);
        }
    }
    kept
}

fn server_name(text: &str) -> Result<String, String> {
    match gateway::is_server_name(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("it is neither a DNS name nor an IP address of a server".to_owned()),
    }
}

fn email(text: &str) -> Result<String, String> {
    match chassis::config::email_fault(text) {
        None => Ok(text.to_owned()),
        Some((fault, help)) => Err(format!("{fault}; {help}")),
    }
}

/// Both loopback addresses, or the IPv4 one where the machine has no IPv6.
fn loopback() -> Vec<IpAddr> {
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if chassis::sockets::listen(six, false).is_ok() {
        addresses.push(six.ip());
    }
    addresses
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    /// Return when everything is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// How long to wait until everything is ready
    #[arg(long, default_value = "300s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
    /// Print the status as JSON when ready, and nothing else
    #[arg(long)]
    json: bool,
    /// Answer every question with yes
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments {
        place,
        shape,
        detach,
        timeout,
        json,
        yes: _,
    } = arguments;
    if shape.sessions > 0 && (shape.customers == 0 || shape.movies == 0) {
        return Err(Failure::new(
            Exit::Usage,
            format!("fill in {} sessions", shape.sessions),
            "each refers to a customer and a movie, and there are to be none",
            "give --customers and --movies above 0, or --sessions 0",
        ));
    }
    let database = shape.database()?;
    let request = up::Request {
        layout: place.layout()?,
        options: shape.options_with(database.as_ref())?,
        existing: database.map(existing).transpose()?,
        node_log: crate::log_file::expected(&shape.email),
        detach,
        timeout,
        json,
        summary: crate::top::can_draw().then_some(crate::top::summary::show),
    };
    runtime::run(async {
        let shutdown = runtime::shutdown_on_signals()?;
        // It blocks: the runtime's other threads take the signals meanwhile.
        tokio::task::block_in_place(|| up::run(&request, &shutdown))
    })
}

/// The nodes' configuration block for an existing database, and its password apart.
fn existing(database: PostgresUrl) -> Result<up::Existing, Failure> {
    let PostgresUrl { text: url, cluster } = database;
    let attempted = format!("use the database {}", local::mask_url(&url));
    let failed = |why: String, help: String| Failure::configuration(attempted.clone(), why, help);
    let password = match cluster.hosts.first() {
        Some(host) => cluster
            .password(host)
            .map_err(|error| failed(chassis::failure::chain(&error), error.remedy()))?,
        None => None,
    };
    let block = serde_json::to_value(&cluster)
        .map_err(|error| failed(error.to_string(), "report this".to_owned()))?;
    Ok(up::Existing {
        cluster: block,
        password,
        url,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_another_one_covers_are_left_out() {
        let addresses = |list: &[&str]| -> Vec<IpAddr> {
            list.iter()
                .map(|address| address.parse().unwrap())
                .collect()
        };
        let cases: [(&[&str], &[&str]); 4] = [
            (&["0.0.0.0", "::"], &["::"]),
            (&["127.0.0.1", "0.0.0.0", "::1"], &["0.0.0.0", "::1"]),
            (&["127.0.0.1", "127.0.0.1"], &["127.0.0.1"]),
            (&["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
        ];
        for (given, kept) in cases {
            assert_eq!(distinct(&addresses(given)), addresses(kept), "{given:?}");
        }
    }
}
