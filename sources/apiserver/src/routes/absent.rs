//! What compatible hosts have and this release has not.

use crate::http::{Answer, Reply, Request};

/// Answers in the place of machinery that is not there.
pub fn not_in_this_release(request: &Request) -> Reply {
    let path = request.path.trim_end_matches('/');
    Err(Answer::text(
        501,
        format!("this release does not have {path}"),
    ))
}
