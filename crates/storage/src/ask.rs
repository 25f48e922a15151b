//! One question to the database, from the choice of the server to the answer, and what is done when
//! the server is lost in between.
//!
//! A question is asked a second time, on whichever server will do then, if the first one cannot have
//! had an effect (the server refused it or took it back, PostgreSQL appendix A) or a repeat has none
//! (reads, keyed writes). Not a third time: what breaks two servers is asked no more of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error as DriverError, Row, RowStream};

use crate::Error;
use crate::deadline;
use crate::error::loses_host;
use crate::hosts::{Hosts, Lent, Need};
use crate::pool::{Class, Connection, Lease, Parameters, Query};

/// How often a question is asked once more.
const REPEATS_MAX: usize = 1;

/// Slower than this to its first row is worth a line of the log.
const SLOW: Duration = Duration::from_secs(1);

/// What is asked, of whom.
pub(crate) struct Question<'a, C> {
    /// For errors: "read a movie".
    pub(crate) attempted: &'static str,
    pub(crate) need: Need,
    /// A repeat has no further effect.
    pub(crate) is_repeatable: bool,
    pub(crate) statement: Which<'a, C>,
    pub(crate) parameters: &'a Parameters<'a>,
}

pub(crate) enum Which<'a, C> {
    /// One of the class's own.
    Own(fn(&C) -> &Query),
    /// Prepared by nobody.
    Text(&'a str),
}

/// Rows that are still being read. Dropped before their end, they cancel their query.
pub(crate) struct Reading<C: Class> {
    hosts: Arc<Hosts>,
    attempted: &'static str,
    first: Option<Row>,
    /// `None` once all rows are read.
    rest: Option<(Pin<Box<RowStream>>, Lent<C>)>,
}

/// Why an attempt has no answer.
enum Broken {
    Driver(DriverError),
    /// The server is lost, and another one will do.
    Replaced,
    /// It is lost, and the time is over.
    Lost,
    TooLong(Duration),
}

impl Hosts {
    /// At most one row, and which server gave it. The answer is complete when it is returned.
    pub(crate) async fn one<C: Class>(
        self: &Arc<Self>,
        question: Question<'_, C>,
    ) -> Result<(Option<Row>, usize), Error> {
        let (first, stream, lent) = self.ask(&question, true).await?;
        drop(stream);
        let host = lent.host;
        lent.lease.give_back();
        Ok((first, host))
    }

    /// Rows, as they come. The first one is there when this returns.
    pub(crate) async fn rows<C: Class>(
        self: &Arc<Self>,
        question: Question<'_, C>,
    ) -> Result<Reading<C>, Error> {
        let (first, stream, lent) = self.ask(&question, false).await?;
        let mut reading = Reading {
            hosts: self.clone(),
            attempted: question.attempted,
            rest: Some((stream, lent)),
            first,
        };
        if reading.first.is_none() {
            reading.end();
        }
        Ok(reading)
    }

    async fn ask<C: Class>(
        &self,
        question: &Question<'_, C>,
        to_the_end: bool,
    ) -> Result<(Option<Row>, Pin<Box<RowStream>>, Lent<C>), Error> {
        let deadline = deadline::current();
        let mut need = question.need;
        let mut repeats = 0;
        loop {
            let begun = Instant::now();
            let lent = self.lease::<C>(need, deadline).await;
            let waited = begun.elapsed();
            self.metrics().waited(C::NAME, waited);
            let lent = lent?;
            let connection = lent.lease.connection()?;
            let work = attempt(connection, question, to_the_end);
            let result = self.unbroken(&lent, question, deadline, work).await;
            let took = begun.elapsed().saturating_sub(waited);
            self.metrics().asked(C::NAME, result.is_ok(), took);
            let broken = match result {
                Ok((first, stream)) => {
                    tell_if_slow(question.attempted, waited, begun.elapsed());
                    return Ok((first, stream, lent));
                }
                Err(broken) => broken,
            };
            let may_repeat = match &broken {
                Broken::Driver(error) => {
                    had_no_effect(error)
                        || is_cancelled(error) && took < SLOW
                        || (question.is_repeatable && loses_host(error))
                }
                Broken::Replaced => true,
                Broken::Lost | Broken::TooLong(_) => false,
            };
            let conflicts = matches!(&broken, Broken::Driver(error) if is_conflict(error));
            let on_replica = self.primary() != Some(lent.host);
            let error = self.learn(lent, question.attempted, broken);
            if conflicts && on_replica && need == Need::Reader {
                need = Need::Primary;
            } else if !may_repeat {
                return Err(error);
            }
            if repeats == REPEATS_MAX {
                return Err(error);
            }
            repeats += 1;
        }
    }

    /// Waits for an attempt as long as that makes sense.
    async fn unbroken<C: Class, T>(
        &self,
        lent: &Lent<C>,
        question: &Question<'_, C>,
        deadline: Instant,
        work: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, Broken> {
        tokio::select! {
            biased;
            result = work => result.map_err(Broken::Driver),
            () = self.replaced(lent.host, question.need), if question.is_repeatable => {
                Err(Broken::Replaced)
            }
            () = self.lost_at(lent.host, deadline) => Err(Broken::Lost),
            () = tokio::time::sleep(C::QUERY_LIMIT) => Err(Broken::TooLong(C::QUERY_LIMIT)),
        }
    }

    /// Ends the loan and tells the others what was learned of the server.
    fn learn<C: Class>(&self, lent: Lent<C>, attempted: &'static str, broken: Broken) -> Error {
        let Lent { lease, host } = lent;
        match broken {
            Broken::Driver(error) => self.learn_from(lease, host, attempted, error),
            Broken::Replaced | Broken::Lost => Error::Silent {
                attempted: attempted.to_owned(),
                host: self.name(host),
            },
            Broken::TooLong(after) => Error::Deadline {
                attempted: attempted.to_owned(),
                after,
            },
        }
    }

    fn learn_from<C: Class>(
        &self,
        lease: Lease<C>,
        host: usize,
        attempted: &'static str,
        error: DriverError,
    ) -> Error {
        let mixes_up_statements = is_lost_statement(&error);
        let is_lost = loses_host(&error);
        let error = Error::query(attempted, error);
        if mixes_up_statements {
            lease.give_up();
            self.prepare_no_more(host);
        } else if is_lost {
            let generation = lease.generation();
            lease.give_up();
            self.lost(host, generation, &error);
        } else {
            lease.give_back();
        }
        error
    }

    fn name(&self, host: usize) -> String {
        let server = self.servers().get(host);
        server.map_or(String::new(), |server| server.dialer.host().to_string())
    }
}

impl<C: Class> Reading<C> {
    /// The next row; `None` after the last one or after an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Row>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some((stream, _)) = &mut self.rest else {
            return Ok(None);
        };
        match stream.try_next().await {
            Ok(Some(row)) => Ok(Some(row)),
            Ok(None) => {
                self.end();
                Ok(None)
            }
            Err(error) => Err(match self.rest.take() {
                Some((_, Lent { lease, host })) => {
                    let attempted = self.attempted;
                    self.hosts.learn_from(lease, host, attempted, error)
                }
                None => Error::query(self.attempted, error),
            }),
        }
    }

    fn end(&mut self) {
        if let Some((_, lent)) = self.rest.take() {
            lent.lease.give_back();
        }
    }
}

/// Says what was slow and why: waiting for a server and a connection, or the statement itself. Its
/// parameters are nobody's business.
fn tell_if_slow(attempted: &str, waited: Duration, duration: Duration) {
    if duration > SLOW {
        let (waited, duration) = (waited.as_secs_f64(), duration.as_secs_f64());
        tracing::info!(cause = attempted, duration, waited, "slow query");
    }
}

/// Sends the question and waits for the first row, or for the end.
async fn attempt<C: Class>(
    connection: &Connection<C>,
    question: &Question<'_, C>,
    to_the_end: bool,
) -> Result<(Option<Row>, Pin<Box<RowStream>>), DriverError> {
    let stream = match question.statement {
        Which::Own(query) => {
            let query = query(&connection.statements);
            connection.send(query, question.parameters).await?
        }
        Which::Text(sql) => connection.send_text(sql, question.parameters).await?,
    };
    let mut stream = Box::pin(stream);
    let first = stream.try_next().await?;
    if to_the_end && first.is_some() {
        while stream.try_next().await?.is_some() {}
    }
    Ok((first, stream))
}

/// The server refused before it did anything.
fn had_no_effect(error: &DriverError) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::READ_ONLY_SQL_TRANSACTION || *code == SqlState::CANNOT_CONNECT_NOW
    }) || is_lost_statement(error)
}

/// A pooler gave our statement to a session that does not know it, or knows another of its name.
fn is_lost_statement(error: &DriverError) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::DUPLICATE_PSTATEMENT
    })
}

/// The server ended the statement, and rolled it back whole. One that had hardly begun was not too slow: a
/// server counts `statement_timeout` by the wall clock, which may jump.
fn is_cancelled(error: &DriverError) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// A replica broke a query off to go on with its replay (PostgreSQL 27.4.2, "Handling Query Conflicts").
fn is_conflict(error: &DriverError) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}
