//! Configuration files rendered from settings.
