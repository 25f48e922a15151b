//! Whether the addresses in `gateway.yaml` fit together: each can be opened beside the others, and no
//! node is this gateway itself. Pure. Left out: host names other than `localhost`, which mean what the
//! resolver says when a node is asked.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, Node};
use crate::faults::Faults;

/// Names stand in metrics, headers and paths of the admin API: in one form, so that nobody has to quote
/// them.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(plain)
}

/// Notes every fault of nodes and of addresses beside each other. What is no address is not told here.
pub(crate) fn check(config: &Config, faults: &mut Faults) {
    let own = own(config);
    for (number, (key, address)) in own.iter().enumerate() {
        let earlier = own.get(..number).unwrap_or_default();
        if let Some((other, _)) = earlier.iter().find(|(_, other)| clash(*other, *address)) {
            let why = format!("{other} takes this port already");
            faults.add(key, address, why, "choose another port for one of them");
        }
    }
    if config.nodes.is_empty() {
        faults.add("nodes", "[]", "there is nobody to ask", "name a node");
    }
    let mut names = HashSet::new();
    for (number, node) in config.nodes.iter().enumerate() {
        let key = format!("nodes[{number}].name");
        if !is_name(&node.name) {
            let why = "metrics and the admin API could not name it plainly";
            faults.add(
                &key,
                &node.name,
                why,
                "use lower-case letters, digits and `-`",
            );
        }
        if !names.insert(&node.name) {
            let why = "another node has this name";
            faults.add(&key, &node.name, why, "give each node its own name");
        }
        check_address(number, node, &own, faults);
    }
}

fn check_address(number: usize, node: &Node, own: &[(String, SocketAddr)], faults: &mut Faults) {
    let key = format!("nodes[{number}].address");
    let good = node.address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !good || node.address.parse::<http::uri::Authority>().is_err() {
        let remedy = "write one, like 127.0.0.1:8001";
        faults.add(&key, &node.address, "it is no HOST:PORT", remedy);
        return;
    }
    let known = meant(&node.address);
    let reached = |at: &SocketAddr| known.iter().any(|node| reaches(*node, *at));
    if let Some((listener, _)) = own.iter().find(|(_, at)| reached(at)) {
        let why = format!("this gateway listens there itself ({listener}): it would ask itself");
        faults.add(&key, &node.address, why, "write the address of the node");
    }
}

/// The addresses that this gateway opens, with their keys. Port 0 is another one each time.
fn own(config: &Config) -> Vec<(String, SocketAddr)> {
    let public = config.listen.iter().enumerate();
    let public = public.map(|(i, one)| (format!("listen[{i}].address"), &one.address));
    let admin = config.admin.iter();
    let admin = admin.map(|admin| ("admin.listen".to_owned(), &admin.listen));
    public
        .chain(admin)
        .filter_map(|(key, text)| Some((key, text.parse::<SocketAddr>().ok()?)))
        .filter(|(_, address)| address.port() != 0)
        .collect()
}

/// What a node's address certainly stands for.
fn meant(address: &str) -> Vec<SocketAddr> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return vec![address];
    }
    let Some(Ok(port)) = address.strip_prefix("localhost:").map(str::parse) else {
        return Vec::new();
    };
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    loopback.map(|ip| SocketAddr::new(ip, port)).to_vec()
}

/// Whether the kernel refuses the second of two listeners.
fn clash(one: SocketAddr, two: SocketAddr) -> bool {
    one.port() == two.port() && (covers(one.ip(), two.ip()) || covers(two.ip(), one.ip()))
}

/// Whether who connects to `node` gets a listener at `listens`. To connect to the unspecified address
/// is to connect to this machine (ip(7)).
fn reaches(node: SocketAddr, listens: SocketAddr) -> bool {
    let ip = match node.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let any = listens.ip().is_unspecified() && ip.is_loopback();
    node.port() == listens.port() && (listens.ip() == ip || any && covers(listens.ip(), ip))
}

/// Whether a listener on the first takes what comes to the second; `[::]` is opened dual stack.
fn covers(listener: IpAddr, ip: IpAddr) -> bool {
    match listener {
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(any) if any.is_unspecified() => true,
        one => one == ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(listen: &[&str], admin: &str, nodes: &[(&str, &str)]) -> Vec<String> {
        let listen: Vec<_> = listen
            .iter()
            .map(|at| format!("{{address: '{at}'}}"))
            .collect();
        let node = |(name, at): &(&str, &str)| format!("{{name: '{name}', address: '{at}'}}");
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let text = format!(
            "listen: [{}]\nadmin: {{listen: '{admin}'}}\nnodes: [{}]\nroutes: []\n",
            listen.join(", "),
            nodes.join(", ")
        );
        let config: Config = chassis::config::from_yaml("gateway.yaml", &text).unwrap();
        let mut faults = Faults::default();
        check(&config, &mut faults);
        faults.0.into_iter().map(|fault| fault.key).collect()
    }

    const GOOD: [(&str, &str); 2] = [("a", "10.0.0.1:80"), ("b-2", "node.example:80")];

    #[test]
    fn addresses_that_cannot_be_opened_together_are_told() {
        let second = |one: &str, two: &str| keys(&[one, two], "127.0.0.1:9", &GOOD);
        for (one, two, clashes) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "[::1]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let expected: &[&str] = if clashes { &["listen[1].address"] } else { &[] };
            assert_eq!(second(one, two), expected, "{one} {two}");
        }
        assert_eq!(keys(&["0.0.0.0:9"], "127.0.0.1:9", &GOOD), ["admin.listen"]);
    }

    #[test]
    fn a_gateway_that_would_ask_itself_is_told() {
        for (listen, node, asks_itself) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::1]:80", "localhost:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "10.0.0.1:80", false),
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:80", "localhost:81", false),
            ("127.0.0.1:80", "node:80", false),
        ] {
            let expected: &[&str] = if asks_itself {
                &["nodes[0].address"]
            } else {
                &[]
            };
            let found = keys(&[listen], "127.0.0.1:9", &[("a", node)]);
            assert_eq!(found, expected, "{listen} {node}");
        }
        let admin = keys(&["127.0.0.1:80"], "127.0.0.1:9", &[("a", "127.0.0.1:9")]);
        assert_eq!(admin, ["nodes[0].address"]);
    }

    #[test]
    fn a_node_has_a_plain_name_of_its_own() {
        for (name, good) in [
            ("node-1", true),
            ("1", true),
            ("Node", false),
            ("node_1", false),
            ("a/b", false),
            ("", false),
            ("ü", false),
        ] {
            let found = keys(&["127.0.0.1:80"], "127.0.0.1:9", &[(name, "10.0.0.1:80")]);
            assert_eq!(found.is_empty(), good, "{name}");
        }
    }
}
