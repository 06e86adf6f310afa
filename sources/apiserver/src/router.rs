//! Which request goes to which route: [`crate::table`] says.

use crate::app::App;
use crate::http::{Answer, Request};
use crate::table::ROUTES;

/// Answers a request.
pub async fn route(app: &App, request: &Request) -> Answer {
    let path = match request.path.as_str() {
        "/" => "/",
        path => path.strip_suffix('/').unwrap_or(path),
    };
    let method = request.method.as_str();
    let mut at_path = ROUTES.iter().filter(|route| route.path == path);
    let is_known = at_path.clone().next().is_some();
    match at_path.find(|route| route.method == method) {
        Some(route) => (route.handle)(app, request)
            .await
            .unwrap_or_else(|refusal| refusal),
        None if is_known => Answer::text(405, format!("{path} does not take {method}")),
        None => Answer::text(404, format!("no such path: {path}")),
    }
}
