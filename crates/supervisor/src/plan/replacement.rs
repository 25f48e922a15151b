//! What replacing a process needs: its limits, whether a successor can stand beside it, and the
//! process as it is for one run, with `{port}` filled in.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::{Faults, Process};
use crate::config;
use crate::policy::Kind;
use crate::policy::memory::Limits;

/// Stands for the port of a run.
const PORT: &str = "{port}";

/// The memory that it may take; every fault about memory, age and successors is added.
pub(super) fn check(process: &config::Process, kind: Kind, faults: &mut Faults) -> Option<Limits> {
    let key = |key: &str| format!("processes: {}: {key}", process.name);
    let replaced = [
        ("memory", process.memory.is_some(), kind == Kind::Postgres),
        ("max_age", process.max_age.is_some(), kind != Kind::Service),
        ("start_first", process.start_first, kind != Kind::Service),
        (
            "probes.startup.notify",
            process.probes.startup.notify,
            kind != Kind::Service,
        ),
    ];
    for (name, is_set, is_wrong) in replaced {
        if is_set && is_wrong {
            let why = format!("the role {} knows no such thing", process.role);
            faults.add(&key(name), why, "remove it");
        }
    }
    if process.max_age.is_some_and(|age| age.is_zero()) {
        faults.add(&key("max_age"), "it is zero", "write one like 12h");
    }
    let liveness = process.probes.liveness.as_ref();
    let told_apart = tells(process)
        || liveness.is_none_or(|liveness| {
            let texts = [&liveness.http, &liveness.tcp].into_iter().flatten();
            let words = liveness.command.iter().flatten();
            texts.chain(words).any(|text| text.contains(PORT))
        });
    if process.start_first && !told_apart {
        let why = "the probe of a successor would be answered by the old process";
        let help = "set probes.startup.notify, or probe a {port}";
        faults.add(&key("start_first"), why, help);
    }
    let memory = process.memory?;
    if memory.soft == 0 || memory.hard <= memory.soft {
        let why = "hard must be above soft, by what it grows in 4 s";
        let help = "write like {soft: 256MiB, hard: 512MiB}";
        faults.add(&key("memory"), why, help);
    }
    Some(Limits {
        soft: memory.soft,
        hard: memory.hard,
    })
}

/// Whether somebody tells that it serves: the process itself, or its porter.
pub(super) fn tells(process: &config::Process) -> bool {
    let isolation = process.isolation.as_ref();
    process.probes.startup.notify || isolation.is_some_and(|isolation| isolation.serve.is_some())
}

/// The entry with `{port}` filled in; None where it is nowhere.
pub(super) fn at_port(process: &config::Process, port: u16) -> Option<config::Process> {
    let mut at = process.clone();
    let mut found = false;
    let port = port.to_string();
    let mut fill = |text: &mut String| {
        if text.contains(PORT) {
            found = true;
            *text = text.replace(PORT, &port);
        }
    };
    at.command.iter_mut().for_each(&mut fill);
    at.environment.values_mut().for_each(&mut fill);
    at.listen.iter_mut().for_each(&mut fill);
    at.metrics.iter_mut().for_each(&mut fill);
    if let Some(isolation) = &mut at.isolation
        && let Some(serve) = &mut isolation.serve
    {
        fill(&mut serve.listen);
    }
    if let Some(liveness) = &mut at.probes.liveness {
        liveness.http.iter_mut().for_each(&mut fill);
        liveness.tcp.iter_mut().for_each(&mut fill);
        liveness.command.iter_mut().flatten().for_each(&mut fill);
    }
    found.then_some(at)
}

impl Process {
    /// Whether each run needs a port of its own.
    pub(crate) fn needs_port(&self) -> bool {
        self.needs_port
    }

    /// The process as it is for one run: at its own port, and with its own way to tell that it serves.
    pub(crate) fn for_run(&self, port: Option<u16>, notify: Option<OsString>) -> Self {
        let at_port = port.and_then(|port| at_port(&self.written, port));
        let mut run = at_port
            .and_then(|process| super::check(&process, &mut Faults(Vec::new())))
            .unwrap_or_else(|| self.clone());
        run.environment
            .extend(notify.map(|name| ("NOTIFY_SOCKET".into(), name)));
        run
    }
}

/// Where a variable is given by us, what was written must not stand in its place.
pub(super) fn refuse_own_variables(
    environment: &BTreeMap<String, String>,
    key: &str,
    faults: &mut Faults,
) {
    for name in [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    ] {
        if environment.contains_key(name) {
            let why = format!("{name} is set by the supervisor");
            faults.add(key, why, "remove it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::plan::{Plan, Target};

    fn plan(text: &str) -> Result<Plan, String> {
        let config: Config = chassis::config::parse("example", text).unwrap();
        Plan::new(&config).map_err(|failure| failure.to_string())
    }

    #[test]
    fn each_run_has_a_port_of_its_own_in_all_that_names_it() {
        let text = "
processes:
- name: a
  command: [serve, '--listen', '127.0.0.1:{port}']
  environment: {PORT: '{port}'}
  listen: 127.0.0.1:{port}
  start_first: true
  probes: {liveness: {http: 'http://127.0.0.1:{port}/ping'}}
";
        let plan = plan(text).unwrap();
        let process = &plan.processes[0];
        assert!(process.needs_port());
        let run = process.for_run(Some(2345), Some("@x".into()));
        assert_eq!(run.command[2], "127.0.0.1:2345");
        assert_eq!(run.listen.as_deref(), Some("127.0.0.1:2345"));
        let variable = |name: &str| run.environment.get(&OsString::from(name)).cloned();
        assert_eq!(variable("PORT"), Some("2345".into()));
        assert_eq!(variable("NOTIFY_SOCKET"), Some("@x".into()));
        let Some(Target::Http { address, .. }) = run.probe.map(|probe| probe.target) else {
            panic!("no HTTP probe");
        };
        assert_eq!(address.port(), 2345);
    }

    #[test]
    fn what_cannot_be_replaced_that_way_is_named() {
        let text = "
processes:
- {name: a, command: [x], start_first: true, probes: {liveness: {tcp: '127.0.0.1:1'}}}
- {name: b, command: [x], memory: {soft: 2MiB, hard: 2MiB}, max_age: 0s}
- {name: c, role: postgres, command: [x], memory: {soft: 1MiB, hard: 2MiB}, start_first: true}
- {name: d, command: [x], environment: {NOTIFY_SOCKET: x}}
";
        let failure = plan(text).unwrap_err();
        for expected in [
            "a: start_first: the probe of a successor would be answered by the old process",
            "b: memory: hard must be above soft",
            "b: max_age: it is zero",
            "c: memory: the role postgres knows no such thing",
            "c: start_first: the role postgres knows no such thing",
            "d: environment: NOTIFY_SOCKET is set by the supervisor",
        ] {
            assert!(failure.contains(expected), "{expected}\n{failure}");
        }
    }
}
