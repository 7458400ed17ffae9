//! Traces by OTLP over HTTP. The other `OTEL_*` variables are read by the SDK itself.
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use tracing_subscriber::{Layer, registry::LookupSpan};

/// `None` when no endpoint is configured, or none can be used.
pub fn layer<S>(config: &crate::Config) -> Option<impl Layer<S>>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let endpoint = config.telemetry.otel_exporter_otlp_endpoint.as_ref()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}v1/traces", endpoint))
        .build();
    let exporter = exporter
        .inspect_err(|error| {
            eprintln!("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used ({error}); nothing is traced")
        })
        .ok()?;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .build();
    let tracer = provider.tracer("plinth");
    opentelemetry::global::set_tracer_provider(provider);
    Some(tracing_opentelemetry::layer().with_tracer(tracer))
}
