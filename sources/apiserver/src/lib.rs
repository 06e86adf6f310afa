//! The API server: HTTP over a Unix socket.
//!
//! [`table`] lists the routes with what each takes and answers, for the router and
//! for the documentation alike. [`router::route`] turns a request into an answer and
//! needs no socket, which is how the tests call it; the routes themselves are one
//! file per subject under `routes`. [`server`] puts a socket in front, with limits of time and
//! size so that no client can hold up another. [`app::App`] is what all routes
//! share: the settings store behind one lock, and the task that applies changes
//! in the background.
//!
//! Shapes are in `api-types`. What settings mean, how they are stored and what a
//! change leads to is for `settings`, `settings-store` and `settings-agent`.

pub mod app;
pub mod exec;
pub mod http;
pub mod router;
mod routes;
mod schema;
pub mod server;
pub mod table;

pub use app::App;
