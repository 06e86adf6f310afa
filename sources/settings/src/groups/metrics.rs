//! `settings.metrics`.

use crate::model::group;
use crate::types::{Url, text_type};

group! {
    /// The ping by which a host says that it is well. Nothing is sent as it is shipped.
    pub struct Metrics {
        /// Where it goes.
        "metrics-url" => metrics_url: Url, example "\"https://metrics.example.com/\"";
        /// Whether it is sent.
        "send-metrics" => send_metrics: bool, default false;
        /// Services that must run for the host to be well, without `.service`.
        "service-checks" => service_checks: Vec<ServiceName>;
    }
}

text_type! {
    /// Name of a systemd unit without its suffix.
    ServiceName, "the name of a service", example "containerd" pattern "^[A-Za-z0-9:_.@-]{1,200}$",
    |name| {
        let good = |c: u8| c.is_ascii_alphanumeric() || b":_.@-".contains(&c);
        if (1..=200).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('-') {
            Ok(())
        } else {
            Err("not the name of a service: letters, digits, ':', '_', '.', '@' and '-'".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::check;
    use serde_json::json;

    #[test]
    fn services() {
        check::<ServiceName>(
            &[json!("kubelet"), json!("host-containers@admin")],
            &[
                json!(""),
                json!("-x"),
                json!("a b"),
                json!("a/b"),
                json!("a\n"),
            ],
        );
    }
}
