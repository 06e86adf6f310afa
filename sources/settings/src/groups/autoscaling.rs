//! `settings.autoscaling`.

use crate::model::group;

group! {
    /// EC2 Auto Scaling.
    pub struct Autoscaling {
        /// Whether a host in a warm pool waits with kubelet until it is in service. It does
        /// not, so `true` is refused.
        "should-wait" => should_wait: bool, default false;
    }
}
