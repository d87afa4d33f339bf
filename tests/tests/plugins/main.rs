//! Plugins that are not Bay's own: hostile ones are contained, others take the defaults' places.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod replace;
