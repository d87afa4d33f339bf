//! Random sequences against small models. A failure prints its seed; `BAY_TEST_ROUNDS` makes them longer.

#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod paths;
