//! `settings.autoscaling`.

use crate::model::group;

group! {
    /// EC2 Auto Scaling.
    pub struct Autoscaling {
        /// Whether a host in a warm pool waits with kubelet until it is in service.
        "should-wait" => should_wait: bool, default false;
    }
}
