//! Components for the tests: hostile ones, and stand-ins for the defaults.
