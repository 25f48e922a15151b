//! Asking a process whether it is well: an HTTP request, a connection, or a command. A new connection
//! for each probe, because accepting one is part of being well. HTTP is written by hand: one fixed
//! request, a status line, two headers and the first bytes of a body need no library.
//!
//! The prober judges nothing: it reports each round, together with how late its own timers were.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::family::Family;
use crate::plan::{Probe, Process, Target};
use crate::policy::{Outcome, Round};
use crate::processes;
use crate::spawn::Spawner;

/// Until the first good answer a process is asked this often, so that it serves as soon as it can.
const STARTING_INTERVAL: Duration = Duration::from_millis(20);
/// The same for commands, each of which is a process.
const STARTING_COMMAND_INTERVAL: Duration = Duration::from_millis(100);
/// As much of an answer is read.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// As much of a body is shown.
const BODY_CHARACTERS_MAX: usize = 200;

/// What a prober needs besides the probe itself.
#[derive(Clone)]
pub(crate) struct Prober {
    pub(crate) process: Process,
    pub(crate) launcher: Vec<std::ffi::OsString>,
    pub(crate) family: Arc<Family>,
}

impl Prober {
    pub(crate) fn new(process: &Process, spawner: &Spawner) -> Self {
        Self {
            process: process.clone(),
            launcher: spawner.launcher.clone(),
            family: Arc::clone(&spawner.family),
        }
    }

    /// Probes until `report` returns false.
    pub(crate) async fn watch(self, probe: Probe, report: impl AsyncFn(Round) -> bool) {
        let starting = match probe.target {
            Target::Command(_) => STARTING_COMMAND_INTERVAL,
            _ => STARTING_INTERVAL,
        };
        let mut interval = starting.min(probe.interval);
        let mut at = Instant::now();
        loop {
            tokio::time::sleep_until(at).await;
            let started = Instant::now();
            let outcome = tokio::time::timeout(probe.timeout, self.ask(&probe.target)).await;
            let late = (started - at).max(started.elapsed().saturating_sub(probe.timeout));
            let outcome = outcome.unwrap_or_else(|_| Outcome::Silent {
                why: format!(
                    "no answer within {}",
                    chassis::config::format_duration(probe.timeout)
                ),
            });
            if outcome == Outcome::Good {
                interval = probe.interval;
            }
            if !report(Round { late, outcome }).await {
                return;
            }
            at = (started + interval).max(Instant::now());
        }
    }

    async fn ask(&self, target: &Target) -> Outcome {
        match target {
            Target::Http {
                address,
                authority,
                path,
                body,
            } => {
                let asked = async {
                    let stream = TcpStream::connect(address).await?;
                    exchange(stream, authority, path, body.as_deref()).await
                };
                match asked.await {
                    Ok(answer) => read_answer(&answer, body.as_deref()),
                    Err(error) => silent(&error),
                }
            }
            Target::Tcp(address) => match TcpStream::connect(address).await {
                Ok(_) => Outcome::Good,
                Err(error) => silent(&error),
            },
            Target::Command(words) => self.ask_command(words).await,
        }
    }

    async fn ask_command(&self, words: &[String]) -> Outcome {
        let mut command = crate::spawn::command(&self.launcher, &self.process, words);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let (mut child, pid) = match self.family.spawn(&mut command) {
            Ok(started) => started,
            Err(error) => return silent(&error),
        };
        // Dropped at the timeout, with all that the command started.
        let mut running = Running {
            family: &self.family,
            pid,
            ended: false,
        };
        let status = child.wait().await;
        running.ended = true;
        match status {
            Ok(status) if status.success() => Outcome::Good,
            Ok(status) => Outcome::Silent {
                why: format!("{}: {status}", words.join(" ")),
            },
            Err(error) => silent(&error),
        }
    }
}

struct Running<'a> {
    family: &'a Family,
    pid: u32,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            processes::kill_group(self.pid);
        }
        self.family.forget(self.pid);
    }
}

/// Reads until the end of a good answer's head where no text is expected, or of the whole of any other.
pub(crate) async fn exchange(
    mut stream: TcpStream,
    authority: &str,
    path: &str,
    expected: Option<&str>,
) -> std::io::Result<Vec<u8>> {
    let agent = chassis::PROBE_AGENT;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    while answer.len() < ANSWER_BYTES_MAX && !is_whole(&answer, expected) {
        let read = stream.read_buf(&mut answer).await;
        match read {
            Ok(0) => break,
            Ok(_) => {}
            // A status that was read counts, even if the connection then breaks.
            Err(_) if head(&answer).is_some() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The head and what follows it, when the head is complete.
fn head(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end + 4)?;
    Some((std::str::from_utf8(head).ok()?, body))
}

fn is_whole(answer: &[u8], expected: Option<&str>) -> bool {
    let Some((head, body)) = head(answer) else {
        return false;
    };
    let length = header(head, "content-length").and_then(|value| value.parse::<usize>().ok());
    let suffices = is_good(head) && is_expected(head, body, expected);
    suffices || length.is_some_and(|length| body.len() >= length)
}

/// A refusal for want of time holds no text that could be expected.
fn is_expected(head: &str, body: &[u8], expected: Option<&str>) -> bool {
    let holds = |text| String::from_utf8_lossy(body).contains(text);
    status(head) == Some(429) || expected.is_none_or(holds)
}

pub(crate) fn read_answer(answer: &[u8], expected: Option<&str>) -> Outcome {
    let Some((head, body)) = head(answer) else {
        return Outcome::Silent {
            why: "the connection was closed without an HTTP answer".to_owned(),
        };
    };
    if is_good(head) && is_expected(head, body, expected) {
        return Outcome::Good;
    }
    let Some(status) = status(head) else {
        return Outcome::Silent {
            why: "the answer is no HTTP".to_owned(),
        };
    };
    if header(head, "bingo-state") == Some("draining") {
        return Outcome::Draining;
    }
    let body: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(BODY_CHARACTERS_MAX)
        .collect();
    Outcome::Bad {
        status,
        body: body.trim().to_owned(),
    }
}

/// Whoever says that it has too much to do (RFC 6585 section 4) is at work: another one in its place
/// would have as much.
fn is_good(head: &str) -> bool {
    status(head).is_some_and(|status| (200..300).contains(&status) || status == 429)
}

/// RFC 9112 section 4: `HTTP/1.1 200 OK`.
fn status(head: &str) -> Option<u16> {
    let line = head.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.get(..3)?.parse().ok()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn silent(error: &std::io::Error) -> Outcome {
    Outcome::Silent {
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(
            read_answer(b"HTTP/1.1 200 OK\r\n\r\npong", None),
            Outcome::Good
        );
        assert_eq!(
            read_answer(
                b"HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\nI feel bad",
                None
            ),
            Outcome::Bad {
                status: 500,
                body: "I feel bad".to_owned()
            }
        );
        assert_eq!(
            read_answer(
                b"HTTP/1.1 500 Oh\r\nbingo-state: draining\r\n\r\nI feel bad",
                None
            ),
            Outcome::Draining
        );
        for garbage in [
            &b""[..],
            b"hello",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
        ] {
            assert!(
                matches!(read_answer(garbage, None), Outcome::Silent { .. }),
                "{garbage:?}"
            );
        }
    }

    #[test]
    fn one_that_has_too_much_to_do_is_well() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read_answer(answer, None), Outcome::Good);
        assert_eq!(read_answer(answer, Some("pong")), Outcome::Good);
    }

    #[test]
    fn a_good_status_with_another_text_is_bad() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsorry";
        assert_eq!(read_answer(answer, Some("sor")), Outcome::Good);
        assert_eq!(
            read_answer(answer, Some("pong")),
            Outcome::Bad {
                status: 200,
                body: "sorry".to_owned()
            }
        );
        assert!(is_whole(answer, Some("pong")));
        assert!(!is_whole(&answer[..answer.len() - 4], Some("sor")));
        assert!(is_whole(&answer[..answer.len() - 2], Some("sor")));
    }

    #[test]
    fn a_bad_answer_is_read_to_its_end_for_the_reason_it_gives() {
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n", None));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n", None));
        assert!(!is_whole(
            b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nbad",
            None
        ));
        assert!(is_whole(
            b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad",
            None
        ));
    }
}
