//! The installation's processes as Prometheus' file-based service discovery reads them: one entry per
//! metrics endpoint. A file and not a fixed list, because nodes are scaled live and get whatever ports
//! are free.

use serde::Serialize;
use supervisor::{ProcessState, ProcessStatus};

/// One endpoint. `__role` chooses the scrape's job and is dropped by Prometheus then.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    targets: [String; 1],
    labels: Labels,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Labels {
    #[serde(rename = "__role")]
    role: String,
    /// The process' name, which stays when its port does not.
    process: String,
}

/// What is to be scraped now. A process that does not run is left in: that it does not answer is what
/// Prometheus shall see. One that an operator stopped is left out.
pub fn of(processes: &[ProcessStatus]) -> Vec<Target> {
    let wanted = processes.iter().filter(|process| {
        process.state != ProcessState::Stopped || !process.is_stopped_by_operator()
    });
    let targets = wanted.filter_map(|process| {
        let url = process.metrics.as_deref()?;
        let address = url.strip_prefix("http://")?.strip_suffix("/metrics")?;
        Some(Target {
            targets: [address.to_owned()],
            labels: Labels {
                role: process.role.clone(),
                process: process.name.clone(),
            },
        })
    });
    targets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, role: &str, metrics: Option<&str>) -> ProcessStatus {
        ProcessStatus {
            name: name.to_owned(),
            role: role.to_owned(),
            metrics: metrics.map(str::to_owned),
            ..ProcessStatus::default()
        }
    }

    #[test]
    fn each_process_with_metrics_is_a_target_and_no_other() {
        let mut stopped = process("node-2", "node", Some("http://127.0.0.1:20002/metrics"));
        stopped.state = ProcessState::Stopped;
        stopped.reason = Some("stopped by operator".to_owned());
        let processes = [
            process("node-1", "node", Some("http://127.0.0.1:20001/metrics")),
            process("postgres", "postgres", None),
            stopped,
        ];
        let text = serde_json::to_string(&of(&processes)).unwrap();
        assert_eq!(
            text,
            "[{\"targets\":[\"127.0.0.1:20001\"],\
             \"labels\":{\"__role\":\"node\",\"process\":\"node-1\"}}]"
        );
    }
}
