//! One line and one count a request.
use crate::http::Flow;
use axum::response::Response;
use metrics::{Counter, Gauge, Histogram};
use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
    time::Instant,
};
use tracing::Span;

static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| {
    super::recorder();
    metrics::gauge!("http_requests_in_flight")
});

/// By route. To find a metric by its labels costs as much as all else that is done around a small
/// request, so that what was found is kept.
static SERIES: LazyLock<RwLock<HashMap<String, Vec<Series>>>> = LazyLock::new(|| {
    super::recorder();
    RwLock::default()
});

/// What is counted of one route, by method and status.
struct Series {
    method: &'static str,
    status: u16,
    flow: Flow,
    total: Counter,
    duration: Histogram,
}

impl Series {
    fn new(method: &'static str, route: &str, status: u16, flow: Flow) -> Self {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
            ("flow", flow.label().to_owned()),
        ];
        Self {
            method,
            status,
            flow,
            total: metrics::counter!("http_requests_total", &labels),
            duration: metrics::histogram!("http_request_duration_seconds", &labels[..2]),
        }
    }

    fn count(&self, elapsed_s: f64) {
        self.total.increment(1);
        self.duration.record(elapsed_s);
    }
}

fn count(method: &'static str, route: &str, status: u16, flow: Flow, elapsed_s: f64) {
    let of = |series: &HashMap<String, Vec<Series>>| {
        let sought = |one: &&Series| (one.method, one.status, one.flow) == (method, status, flow);
        let one = series.get(route)?.iter().find(sought)?;
        one.count(elapsed_s);
        Some(())
    };
    let counted = of(&SERIES.read().unwrap_or_else(PoisonError::into_inner));
    if counted.is_none() {
        let one = Series::new(method, route, status, flow);
        one.count(elapsed_s);
        let mut series = SERIES.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(route.to_owned()).or_default().push(one);
    }
}

/// A request that is under way.
pub struct Counted {
    method: &'static str,
    route: String,
    flow: Flow,
    since: Instant,
}

pub fn begin(method: &'static str, route: String, flow: Flow) -> Counted {
    IN_FLIGHT.increment(1);
    Counted {
        method,
        route,
        flow,
        since: Instant::now(),
    }
}

impl Counted {
    /// `quiet` requests, health checks, are counted but not logged.
    pub fn end(self, response: &Response, span: &Span, quiet: bool, code: Option<&'static str>) {
        let (status, elapsed) = (response.status().as_u16(), self.since.elapsed());
        count(
            self.method,
            &self.route,
            status,
            self.flow,
            elapsed.as_secs_f64(),
        );
        if !quiet {
            let _entered = span.enter();
            tracing::info!(
                status,
                elapsed_ms = elapsed.as_millis() as u64,
                code,
                "answered"
            );
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Also when the client went away and the answer was never made.
        IN_FLIGHT.decrement(1);
    }
}
