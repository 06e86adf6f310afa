//! What programs of the host need to ask AWS something.
//!
//! [`credentials`] finds who the machine is: the role of the instance. [`signature`] signs
//! in that name, and [`call`] sends a request and reads the answer. What is asked, and what
//! an answer means, is up to the callers. [`region`] has the domains of services. With the feature `fake`, [`fake`] judges requests
//! as AWS would.

pub mod call;
pub mod credentials;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod region;
pub mod signature;
