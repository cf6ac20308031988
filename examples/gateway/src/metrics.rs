//! Counters and times for Prometheus.

use prometheus_client::registry::Registry;

/// All metrics of the gateway.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new() -> Self {
        Self { registry: Registry::with_prefix("toolgate") }
    }

    /// Returns the metrics in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
