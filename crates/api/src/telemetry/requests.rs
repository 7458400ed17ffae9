//! One line and one count a request.
use crate::http::Flow;
use axum::response::Response;
use std::time::Instant;
use tracing::Span;

/// A request that is under way.
pub struct Counted {
    method: &'static str,
    route: String,
    flow: Flow,
    since: Instant,
}

pub fn begin(method: &'static str, route: &str, flow: Flow) -> Counted {
    metrics::gauge!("http_requests_in_flight").increment(1);
    Counted {
        method,
        route: route.to_owned(),
        flow,
        since: Instant::now(),
    }
}

impl Counted {
    /// `quiet` requests, health checks, are counted but not logged.
    pub fn end(self, response: &Response, span: &Span, quiet: bool, code: Option<&'static str>) {
        let status = response.status();
        let elapsed = self.since.elapsed();
        let labels = [
            ("method", self.method.to_owned()),
            ("route", self.route.clone()),
            ("status", status.as_u16().to_string()),
            ("flow", self.flow.label().to_owned()),
        ];
        metrics::counter!("http_requests_total", &labels).increment(1);
        metrics::histogram!("http_request_duration_seconds", "method" => self.method, "route" => self.route.clone()).record(elapsed.as_secs_f64());
        if !quiet {
            let _entered = span.enter();
            tracing::info!(
                status = status.as_u16(),
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
        metrics::gauge!("http_requests_in_flight").decrement(1);
    }
}
