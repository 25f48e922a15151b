//! Plays the HTTP/2 cases and floods against a running server and prints a verdict for each; exit
//! code 1 when one failed. By hand and from `.ci/suites.d/20-http2`; an example and no subcommand,
//! because only those who work on bingo need it.
//!
//! `cargo run -p acceptance --example http2 -- --address 127.0.0.1:8443 --authority localhost
//! --tls-ca .bingo/tls/ca.pem [--cases] [--floods] [--only PART] [--get PATH] [--large PATH]
//! [--post PATH] [--all] [--json]`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use acceptance::http2::{Choice, Outcome, Target, Tls, Verdict, run};

struct Asked {
    target: Target,
    choice: Choice,
    /// Print what passed, too.
    all: bool,
    json: bool,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: {why}\nhelp: see the head of examples/http2.rs"
            );
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let verdicts = runtime.block_on(run(&asked.target, &asked.choice));
    let printed = print(&asked, &verdicts);
    let failed = verdicts.is_empty() || count(&verdicts, Outcome::Failed) > 0;
    if failed || printed.is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let placeholder = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut target = Target::new(placeholder, "localhost", None);
    let mut choice = Choice::default();
    let (mut all, mut json) = (false, false);
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{flag} wants a value"))
        };
        match flag.as_str() {
            "--address" => {
                let text = value()?;
                let address = text.parse();
                target.address = address.map_err(|error| format!("--address {text}: {error}"))?;
            }
            "--authority" => target.authority = value()?,
            "--tls-ca" => target.tls = Some(Tls::trusting(Path::new(&value()?))?),
            "--get" => target.get_path = value()?,
            "--large" => target.large_path = value()?,
            "--post" => target.post_path = value()?,
            "--only" => choice.only = Some(value()?),
            "--cases" => choice.cases = true,
            "--floods" => choice.floods = true,
            "--all" => all = true,
            "--json" => json = true,
            _ => return Err(format!("{flag} is not known")),
        }
    }
    if target.address == placeholder {
        return Err("--address is missing".to_owned());
    }
    if !choice.cases && !choice.floods {
        (choice.cases, choice.floods) = (true, true);
    }
    Ok(Asked {
        target,
        choice,
        all,
        json,
    })
}

fn print(asked: &Asked, verdicts: &[Verdict]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if asked.json {
        return writeln!(out, "{}", serde_json::json!(verdicts));
    }
    for verdict in verdicts {
        let word = match verdict.outcome {
            Outcome::Passed if !asked.all => continue,
            Outcome::Passed => "passed ",
            Outcome::Differs => "differs",
            Outcome::Failed => "FAILED ",
        };
        writeln!(
            out,
            "{word} {} ({})\n        {}",
            verdict.id, verdict.says, verdict.reason
        )?;
    }
    let [passed, differ, failed] = [Outcome::Passed, Outcome::Differs, Outcome::Failed]
        .map(|outcome| count(verdicts, outcome));
    writeln!(
        out,
        "{} cases: {passed} passed, {differ} differ, {failed} failed",
        verdicts.len()
    )
}

fn count(verdicts: &[Verdict], outcome: Outcome) -> usize {
    verdicts
        .iter()
        .filter(|verdict| verdict.outcome == outcome)
        .count()
}
