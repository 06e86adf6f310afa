//! What travels over the API socket.
