//! Which slot boots next, blessing a boot, and the layout of a slot.
