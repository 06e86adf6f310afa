//! `settings.cloudformation`.

use crate::model::group;
use crate::types::SingleLine;

group! {
    /// The signal to AWS CloudFormation that a resource has come up.
    pub struct Cloudformation {
        /// Whether the host sends it. It does not, so `true` is refused.
        "should-signal" => should_signal: bool, default false;
        /// The stack that the resource belongs to.
        "stack-name" => stack_name: SingleLine, default "";
        /// The resource within the stack.
        "logical-resource-id" => logical_resource_id: SingleLine, default "";
    }
}
