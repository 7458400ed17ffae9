//! Traces by OTLP over HTTP. The other `OTEL_*` variables are read by the SDK itself.
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{Layer, registry::LookupSpan};

/// Sends what is left when it is dropped.
pub struct Flush(SdkTracerProvider);

impl Drop for Flush {
    fn drop(&mut self) {
        // Nothing is listening for an error any more.
        let _ = self.0.shutdown();
    }
}

/// `None` when no endpoint is configured, or none can be used.
pub fn start<S>(config: &crate::Config) -> Option<(impl Layer<S> + use<S>, Flush)>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let endpoint = config.telemetry.otel_exporter_otlp_endpoint.as_ref()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!(
            "{}/v1/traces",
            endpoint.as_str().trim_end_matches('/')
        ))
        .build();
    let exporter = exporter
        .inspect_err(|error| {
            eprintln!("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used ({error}); nothing is traced")
        })
        .ok()?;
    let resource = Resource::builder().with_attribute(opentelemetry::KeyValue::new(
        "service.version",
        config.core.app_version.clone(),
    ));
    // OTEL_SERVICE_NAME, which the SDK reads, names a fork.
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => resource,
        None => resource.with_service_name("plinth"),
    };
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("plinth"));
    Some((layer, Flush(provider)))
}
