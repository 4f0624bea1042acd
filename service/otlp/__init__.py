"""Traces to an OpenTelemetry collector, over OTLP/HTTP. Needs the extra `tracing`; nothing here is imported without it
but `environment`."""
