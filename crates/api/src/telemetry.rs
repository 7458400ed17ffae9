//! Logs, metrics, Sentry and, behind the feature `otel`, traces.
use crate::{
    App,
    config::{Problem, Secret},
    http::Flow,
};
use lines::Lines;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sentry::integrations::{
    tower::{NewSentryLayer, SentryHttpLayer},
    tracing::{BreadcrumbLayer, SpanLayer},
};
use std::{io::IsTerminal, sync::OnceLock, time::Duration};
use tower::layer::util::Stack;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

mod gauges;
mod lines;
#[cfg(feature = "otel")]
mod otel;
pub mod requests;
mod test_error;

pub use test_error::routes;

/// What is seen from outside.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Watching")]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace` (Python's WARNING and CRITICAL are understood), or tracing directives like `info,db=debug`.
    #[arg(long, default_value = "info", value_parser = level)]
    pub log_level: String,

    /// `pretty` or `json`. Default: pretty on a terminal, else JSON.
    #[arg(long)]
    pub log_format: Option<LogFormat>,

    /// Where failures are reported.
    #[arg(long)]
    pub sentry_dsn: Option<Secret>,

    /// Which part of requests is traced to Sentry, 0 to 1.
    #[arg(long, default_value = "0.1", value_parser = ratio)]
    pub sentry_traces_sample_rate: f32,

    /// Bearer token that `/metrics` asks for. Without it only loopback may read them.
    #[arg(long)]
    pub metrics_token: Option<Secret>,

    /// Where traces go, when built with the feature `otel`.
    #[arg(long)]
    pub otel_exporter_otlp_endpoint: Option<url::Url>,
}

impl Config {
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let dsn = self.sentry_dsn.as_ref().map(Secret::expose);
        if dsn.is_some_and(|dsn| dsn.parse::<sentry::types::Dsn>().is_err()) {
            problems.push(Problem::new(
                "SENTRY_DSN",
                "cannot be read",
                "Copy it from the project's settings, under Client Keys: https://key@host/number.",
            ));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Pretty,
    Json,
}

fn ratio(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "a number from 0 to 1".into())
}

fn level(text: &str) -> Result<String, String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        other => other.to_owned(),
    };
    // A lone word that is no level would be taken for a target, and silence everything else.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |part: &str| part.contains(['=', '[']) || levels.contains(&part.trim());
    if !level.split(',').all(is_level) {
        return Err(format!("one of {}, or target=level", levels.join(", ")));
    }
    EnvFilter::try_new(&level)
        .map(|_| level)
        .map_err(|e| e.to_string())
}

/// What has to live as long as the process.
pub struct Guard {
    _sentry: Option<sentry::ClientInitGuard>,
    #[cfg(feature = "otel")]
    _traces: Option<otel::Flush>,
    lines: Lines,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.lines.flush_all();
    }
}

/// Starts logging and reporting, once in a process.
pub fn start(config: &crate::Config) -> Guard {
    gauges::begin();
    let telemetry = &config.telemetry;
    let sentry = telemetry
        .sentry_dsn
        .as_ref()
        .and_then(|dsn| start_sentry(config, dsn));
    let filter = filter(&telemetry.log_level);
    let format = telemetry
        .log_format
        .unwrap_or(if std::io::stderr().is_terminal() {
            LogFormat::Pretty
        } else {
            LogFormat::Json
        });
    let out = Lines::to(std::io::stderr());
    let writer = out.clone();
    let lines = match format {
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_target(false)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    #[cfg(feature = "otel")]
    let (traces, flush) = otel::start(config).unzip();
    #[cfg(feature = "otel")]
    let registry = registry.with(traces);
    // Without anyone to report to they would make a transaction of every request all the same.
    let reported = sentry
        .as_ref()
        .map(|_| BreadcrumbLayer::new().and_then(SpanLayer::new()));
    // A second start, in tests, finds the first in place.
    let _ = registry.with(reported).try_init();
    recorder();
    Guard {
        _sentry: sentry,
        #[cfg(feature = "otel")]
        _traces: flush,
        lines: out,
    }
}

/// What is logged at a level: of some libraries never more than their warnings.
pub fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(level)
        .add_directive(directive("hyper=warn"))
        .add_directive(directive("h2=warn"))
        .add_directive(directive("rustls=warn"))
        // It writes down whole conversations: codes, addresses, the mail server's password.
        .add_directive(directive("lettre=warn"))
}

fn directive(text: &'static str) -> tracing_subscriber::filter::Directive {
    text.parse().unwrap_or_default()
}

fn start_sentry(config: &crate::Config, dsn: &Secret) -> Option<sentry::ClientInitGuard> {
    let dsn: sentry::types::Dsn = dsn.expose().parse().ok()?;
    let environment = if config.is_production() {
        "production"
    } else {
        "development"
    };
    let options = sentry::ClientOptions::new()
        .dsn(&dsn.to_string())
        .release(config.core.app_version.clone())
        .environment(environment)
        .traces_sample_rate(config.telemetry.sentry_traces_sample_rate)
        // Bodies, cookies and addresses stay here.
        .send_default_pii(false);
    Some(sentry::init(options))
}

/// One failure of ours: one log line, one Sentry event, whose id it gives; nil where Sentry is not configured.
pub fn report(error: &anyhow::Error, flow: Flow) -> sentry::types::Uuid {
    tracing::error!(
        error = crate::error::explain(error),
        flow = flow.label(),
        "failed"
    );
    sentry::with_scope(
        |scope| scope.set_tag("flow", flow.label()),
        || sentry::integrations::anyhow::capture_anyhow(error),
    )
}

/// Gives each request a scope and a transaction of its own, where Sentry is configured.
pub fn sentry_layers(
    config: &crate::Config,
) -> Option<Stack<SentryHttpLayer, NewSentryLayer<axum::extract::Request>>> {
    let layers = || {
        Stack::new(
            SentryHttpLayer::new().enable_transaction(),
            NewSentryLayer::new_from_top(),
        )
    };
    config.telemetry.sentry_dsn.as_ref().map(|_| layers())
}

/// Buckets in seconds.
const REQUEST_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const LLM_BUCKETS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];

/// The process' metrics.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Prefix("llm_".into()), &LLM_BUCKETS)
            .and_then(|builder| builder.set_buckets(&REQUEST_BUCKETS));
        let recorder = builder.unwrap_or_default().build_recorder();
        let handle = recorder.handle();
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

/// Prometheus' text format, as of now.
pub async fn render(app: &App) -> String {
    let recorder = recorder();
    gauges::measure(app).await;
    recorder.run_upkeep();
    recorder.render()
}

/// What has to be done every few seconds for as long as the process lives.
pub async fn upkeep(app: App) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    while !app.draining.is_cancelled() {
        every.tick().await;
        recorder().run_upkeep();
        app.limits.shed();
    }
}
