//! What a process is born with: sockets, which it may have been handed, certificates, threads, the room
//! of its cache. A reload that would change any of it is refused and says so: a file that is half in
//! use would be worse. Pure.

use chassis::config::{Fault, format_size};

use crate::tls::ValidTls;
use crate::valid::{Valid, ValidListen};

/// The keys that take effect with a restart, and their values as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed(Vec<(&'static str, String)>);

impl Fixed {
    pub(crate) fn of(valid: &Valid) -> Self {
        let listen: Vec<String> = valid.listen.iter().map(listen).collect();
        let admin = valid.admin.map(|address| address.to_string());
        let threads = valid.threads.map(|threads| threads.to_string());
        let tls = valid.tls.as_ref().map(ValidTls::to_string);
        let events = valid.events_file.as_ref();
        let events = events.map(|path| path.display().to_string());
        Self(vec![
            ("listen", listen.join(", ")),
            ("admin.listen", admin.unwrap_or("no address".to_owned())),
            ("admin.events_file", events.unwrap_or("nowhere".to_owned())),
            ("tls", tls.unwrap_or("nothing".to_owned())),
            ("threads", threads.unwrap_or("one per core".to_owned())),
            ("cache.bytes_max", format_size(valid.cache.bytes_max)),
            (
                "limits.h3_streams_max",
                valid.limits.h3_streams_max.to_string(),
            ),
        ])
    }

    /// A fault for each difference that a reload to `new` would make.
    pub(crate) fn differences(&self, new: &Self) -> Vec<Fault> {
        let pairs = self.0.iter().zip(&new.0);
        let changed = pairs.filter(|((_, old), (_, new))| old != new);
        changed
            .map(|((key, old), (_, new))| {
                let remedy = format!("restart the gateway, or put `{old}` back");
                Fault::new(*key, new, "it takes effect with a restart", remedy)
            })
            .collect()
    }
}

fn listen(listen: &ValidListen) -> String {
    let (address, tls, http3) = (listen.address, listen.tls, listen.http3);
    format!("{address} (tls: {tls}, http3: {http3})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/gateway.yaml");

    fn changed(from: &str, to: &str) -> Vec<String> {
        let text = SHIPPED.replacen(from, to, 1);
        assert_ne!(text, SHIPPED, "{from}");
        let fixed = |text| Fixed::of(&Valid::parse(text).unwrap());
        let faults = fixed(SHIPPED).differences(&fixed(&text));
        faults.into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn what_takes_a_restart_is_told_and_nothing_else() {
        for (from, to, key) in [
            ("127.0.0.1:8080", "127.0.0.1:8081", "listen"),
            ("127.0.0.1:9090", "127.0.0.1:9091", "admin.listen"),
            ("bytes_max: 64MiB", "bytes_max: 65MiB", "cache.bytes_max"),
            ("\nexpose_node:", "\nthreads: 3\nexpose_node:", "threads"),
        ] {
            assert_eq!(changed(from, to), [key], "{to}");
        }
        for (from, to) in [
            ("127.0.0.1:8002", "127.0.0.1:8003"),
            ("held_max: 1000", "held_max: 10"),
            ("expose_node: true", "expose_node: false"),
        ] {
            assert_eq!(changed(from, to), [""; 0], "{to}");
        }
    }
}
