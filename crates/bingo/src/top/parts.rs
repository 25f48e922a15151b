//! The parts of the picture, in the order in which somebody on call needs them, as the page has them:
//! what is wrong, traffic, endpoints, nodes, gateways, processes, databases, machines, reserves,
//! quarantine, events. Each as a table and as one line. Pure.

mod cells;
mod fleet;
mod reserves;

use jiff::Zoned;
use ratatui::text::Line;

use super::figures::{latency, per_second, percent, time};
use super::fit::Part;
use super::ink::{Ink, Kind, cut, side_by_side, width_of, wrapped};
use super::picture::{Picture, Problem, Rate, Seen};
use super::table::{self, Cell, Column, Side, column};
use cells::{budget_left, counted, joined, name_of};

/// So far back the graphs reach.
const GRAPH_SECONDS: u64 = 120;
/// So much of the history is asked for: its last seconds come late, when all gateways have told theirs.
pub(super) const HISTORY_SECONDS: u64 = GRAPH_SECONDS + 10;

/// What the parts are made of.
pub(super) struct Maker<'a> {
    pub(super) seen: &'a Seen,
    pub(super) picture: &'a Picture,
    pub(super) now: &'a Zoned,
    pub(super) width: usize,
    pub(super) ink: Ink,
}

impl Maker<'_> {
    pub(super) fn all(&self) -> Vec<Part> {
        vec![
            self.problems(),
            self.traffic(),
            self.endpoints(),
            self.nodes(),
            self.gateways(),
            self.processes(),
            self.databases(),
            self.machines(),
            self.reserves(),
            self.quarantine(),
            self.events(),
        ]
    }

    fn problems(&self) -> Part {
        let problems = &self.picture.problems;
        let lines = problems.iter().map(|problem| self.problem(problem));
        let lines: Vec<Vec<Line<'static>>> = lines.collect();
        let first = lines.first().and_then(|lines| lines.first());
        Part {
            short: first.cloned().unwrap_or_default(),
            least: lines.iter().take(3).map(Vec::len).sum(),
            rows: lines.into_iter().flatten().collect(),
            rank: 0,
        }
    }

    fn problem(&self, problem: &Problem) -> Vec<Line<'static>> {
        let (sign, kind) = match problem.is_bad() {
            true => ("✖ Problem", Kind::Bad),
            false => ("▲ Warning", Kind::Warning),
        };
        let since = match problem.since.as_str() {
            "" => String::new(),
            since => format!("since {}", time(since, self.now)),
        };
        let rest = joined([problem.why.as_str(), &since]);
        let what = cut(&problem.what, self.width.saturating_sub(width_of(sign) + 2));
        let before = width_of(sign) + width_of(&what) + 4;
        let mut rest = wrapped(&rest, before, self.width).into_iter();
        let mut first = Line::from(vec![
            self.ink.span(format!("{sign}  "), kind),
            self.ink.span(format!("{what}  "), Kind::Head),
        ]);
        first
            .spans
            .extend(rest.next().map(|words| self.ink.span(words, Kind::Plain)));
        let more = rest.map(Line::from);
        std::iter::once(first).chain(more).collect()
    }

    fn traffic(&self) -> Part {
        let picture = self.picture;
        let Rate {
            requests,
            refused,
            errors,
            p50,
            p90,
            p99,
            ..
        } = &picture.total;
        let rate = |count: f64| per_second(count, picture.seconds);
        let kind = if *errors > 0.0 {
            Kind::Bad
        } else {
            Kind::Plain
        };
        let span = |text: String, kind| vec![self.ink.span(text, kind)];
        let share = percent(*errors, *requests);
        let parts = vec![
            span(
                format!("Traffic  {} requests/s", rate(*requests)),
                Kind::Head,
            ),
            span(format!("{} errors/s ({share})", rate(*errors)), kind),
            span(format!("p50 {}", latency(*p50)), Kind::Plain),
            span(format!("p90 {}", latency(*p90)), Kind::Plain),
            span(format!("p99 {}", latency(*p99)), Kind::Plain),
            span(format!("{} 4xx/s", rate(*refused)), Kind::Plain),
        ];
        self.one_line(side_by_side(parts, self.width), 1)
    }

    fn endpoints(&self) -> Part {
        const COLUMNS: [Column; 9] = [
            column("Endpoint", Side::Left, 0),
            column("req/s", Side::Right, 0),
            column("err/s", Side::Right, 0),
            column("4xx", Side::Right, 6),
            column("p50", Side::Right, 4),
            column("p90", Side::Right, 2),
            column("p99", Side::Right, 1),
            column("Budget", Side::Right, 3),
            column("Last 2 min", Side::Rest, 5),
        ];
        let endpoints = self.rates();
        let rows: Vec<Vec<Cell>> = endpoints.iter().map(|one| self.endpoint(one)).collect();
        let worst = endpoints.first().filter(|one| one.errors > 0.0);
        let told = worst.map_or("none with errors".to_owned(), |one| {
            let share = percent(one.errors, one.requests);
            format!(
                "most errors on {}: {share}",
                name_of(&one.method, &one.route)
            )
        });
        let short = format!("{}, {told}", endpoints.len());
        self.table("Endpoints", short, &COLUMNS, &rows, 9, 2)
    }

    /// Those with errors first, those that nobody asks for last, else by route.
    fn rates(&self) -> Vec<Rate> {
        let mut rates = self.picture.now.clone();
        for promise in &self.picture.objectives {
            let is_it = |rate: &Rate| rate.method == promise.method && rate.route == promise.route;
            if !rates.iter().any(is_it) {
                let (method, route) = (promise.method.clone(), promise.route.clone());
                rates.push(Rate {
                    method,
                    route,
                    ..Rate::default()
                });
            }
        }
        rates.sort_by(|one, other| {
            let quiet = |rate: &Rate| (rate.requests == 0.0, rate.route == "other");
            let errors = other.errors.total_cmp(&one.errors);
            let names = (&one.route, &one.method).cmp(&(&other.route, &other.method));
            errors.then(quiet(one).cmp(&quiet(other))).then(names)
        });
        rates
    }

    fn endpoint(&self, rate: &Rate) -> Vec<Cell> {
        let Rate { method, route, .. } = rate;
        let by_second = |count: f64| per_second(count, self.picture.seconds);
        let mut objectives = self.picture.objectives.iter();
        let promise = objectives.find(|one| one.method == *method && one.route == *route);
        let history = &self.seen.history;
        vec![
            name_of(method, route).into(),
            by_second(rate.requests).into(),
            counted(by_second(rate.errors), rate.errors > 0.0),
            percent(rate.refused, rate.requests).into(),
            latency(rate.p50).into(),
            latency(rate.p90).into(),
            latency(rate.p99).into(),
            promise.map_or(Cell::from(""), budget_left),
            Cell::Graph(history.requests(method, route, GRAPH_SECONDS)),
        ]
    }

    fn table(
        &self,
        name: &str,
        short: String,
        columns: &[Column],
        rows: &[Vec<Cell>],
        least: usize,
        rank: u8,
    ) -> Part {
        let room = self.width.saturating_sub(width_of(name) + 2);
        Part {
            short: Line::from(vec![
                self.ink.span(format!("{name}  "), Kind::Head),
                self.ink.span(cut(&short, room), Kind::Plain),
            ]),
            rows: table::lines(columns, rows, self.width, self.ink),
            least,
            rank,
        }
    }

    fn one_line(&self, line: Line<'static>, rank: u8) -> Part {
        Part {
            rows: vec![line.clone()],
            short: line,
            least: 1,
            rank,
        }
    }

    fn since(&self, at: &str) -> Cell {
        time(at, self.now).into()
    }
}
