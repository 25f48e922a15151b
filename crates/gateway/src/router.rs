//! Which route a request takes: by method and path, the first match in the file wins. A plain scan:
//! with a few dozen routes it costs less than a tree would, and it is the order people read.

use http::{HeaderValue, Method};

use crate::cache::config::Rules;
use crate::config::{Class, Retry};
use crate::hedge::Usual;
use crate::history::objective::Objective;
use crate::valid::ValidRoute;
use std::time::Duration;

/// A route, ready to match.
#[derive(Debug)]
pub(crate) struct Route {
    methods: Vec<Method>,
    /// The path as written: also the label of metrics, hence static.
    pub(crate) path: &'static str,
    /// Its number in the file.
    pub(crate) number: usize,
    /// The part of `path` before the first `{`.
    prefix: &'static str,
    pub(crate) deadline: Duration,
    pub(crate) body_bytes_max: u64,
    pub(crate) retry: Retry,
    pub(crate) class: Class,
    /// How long its answers' heads usually take, where requests are hedged.
    pub(crate) usual: Option<Usual>,
    pub(crate) spool: bool,
    pub(crate) idempotency_key: bool,
    pub(crate) cache: Option<Rules>,
    pub(crate) objective: Option<Objective>,
}

/// What the table says about a method and a path.
#[derive(Debug)]
pub(crate) enum Match<'a> {
    Route(&'a Route),
    /// The path is known, the method is not: the value of `Allow` (RFC 9110 section 10.2.1).
    WrongMethod(HeaderValue),
    None,
}

/// All routes in the file's order.
#[derive(Debug)]
pub(crate) struct Router {
    routes: Vec<Route>,
}

impl Router {
    /// The routes in their order; HEAD comes with GET.
    pub(crate) fn new(routes: &[ValidRoute]) -> Self {
        let routes = routes
            .iter()
            .enumerate()
            .map(|(number, route)| {
                let mut methods = route.methods.clone();
                if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
                    methods.push(Method::HEAD);
                }
                let path = crate::metrics::lasting(&route.path);
                Route {
                    methods,
                    path,
                    number,
                    prefix: path.split('{').next().unwrap_or(path),
                    deadline: route.deadline,
                    body_bytes_max: route.body_bytes_max,
                    retry: route.retry,
                    class: route.class,
                    usual: route.hedge.then(Usual::default),
                    spool: route.spool,
                    idempotency_key: route.idempotency_key,
                    cache: route.cache,
                    objective: route.objective,
                }
            })
            .collect();
        Self { routes }
    }

    /// What is promised, by method and route.
    pub(crate) fn objectives(&self) -> impl Iterator<Item = (&Method, &'static str, Objective)> {
        self.routes.iter().flat_map(|route| {
            let promised = route.objective.into_iter();
            promised.flat_map(move |objective| {
                let methods = route
                    .methods
                    .iter()
                    .filter(|method| **method != Method::HEAD);
                methods.map(move |method| (method, route.path, objective))
            })
        })
    }

    /// The paths of routes with a cache.
    pub(crate) fn cached(&self) -> impl Iterator<Item = &'static str> {
        let cached = self.routes.iter().filter(|route| route.cache.is_some());
        cached.map(|route| route.path)
    }

    /// `path` is the request's path as sent: nothing is decoded or normalised, so the node sees the
    /// very path that was matched.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Match<'_> {
        let mut known = false;
        for route in &self.routes {
            if route.takes(path) {
                if route.methods.contains(method) {
                    return Match::Route(route);
                }
                known = true;
            }
        }
        if known {
            Match::WrongMethod(self.allowed(path))
        } else {
            Match::None
        }
    }

    fn allowed(&self, path: &str) -> HeaderValue {
        let mut names: Vec<&str> = Vec::new();
        for route in self.routes.iter().filter(|route| route.takes(path)) {
            for method in &route.methods {
                if !names.contains(&method.as_str()) {
                    names.push(method.as_str());
                }
            }
        }
        HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static("GET, HEAD"))
    }
}

impl Route {
    fn takes(&self, path: &str) -> bool {
        if self.prefix.len() == self.path.len() {
            return self.path == path;
        }
        let Some(sent) = path.strip_prefix(self.prefix) else {
            return false;
        };
        let mut written = self
            .path
            .strip_prefix(self.prefix)
            .unwrap_or_default()
            .split('/');
        let mut sent = sent.split('/');
        loop {
            match (written.next(), sent.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one.starts_with('{') && !other.is_empty() => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        let config: crate::Config =
            chassis::config::parse("x", include_str!("../../../deploy/gateway.yaml")).unwrap();
        Router::new(&config.validate().unwrap().routes)
    }

    fn found(method: &Method, path: &str) -> String {
        match router().find(method, path) {
            Match::Route(route) => route.path.to_owned(),
            Match::WrongMethod(allow) => format!("405 {}", allow.to_str().unwrap()),
            Match::None => "404".to_owned(),
        }
    }

    #[test]
    fn every_route_of_the_contract_is_in_the_shipped_file() {
        for path in [
            "/",
            "/ping",
            "/ready",
            "/config",
            "/db_dummy",
            "/long_dummy",
            "/api/movie",
            "/api/customer",
            "/api/session",
            "/openapi.json",
            "/docs",
        ] {
            assert_eq!(found(&Method::GET, path), path);
            assert_eq!(found(&Method::HEAD, path), path);
        }
        for path in ["/api/movie/1", "/api/customer/1", "/api/session/x"] {
            let template = format!("{}{{id}}", &path[..path.len() - 1]);
            assert_eq!(found(&Method::GET, path), template);
        }
        assert_eq!(found(&Method::POST, "/operation"), "/operation");
        assert_eq!(found(&Method::POST, "/api/session"), "/api/session");
        assert_eq!(
            found(&Method::DELETE, "/api/session/1"),
            "/api/session/{id}"
        );
    }

    #[test]
    fn what_no_route_names_is_unknown() {
        for path in [
            "/metrics",
            "/api",
            "/api/movie/",
            "/api/movie/1/2",
            "/Ping",
            "//ping",
            "*",
            "",
        ] {
            assert_eq!(found(&Method::GET, path), "404", "{path}");
        }
    }

    #[test]
    fn a_wrong_method_learns_the_right_ones() {
        assert_eq!(found(&Method::PUT, "/api/session"), "405 GET, HEAD, POST");
        assert_eq!(
            found(&Method::POST, "/api/session/1"),
            "405 GET, HEAD, DELETE"
        );
        assert_eq!(found(&Method::GET, "/operation"), "405 POST");
    }
}
