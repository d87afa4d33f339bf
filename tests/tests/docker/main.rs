//! What only the Docker driver has: images, volumes, containers that outlive Bay. Run with `--profile docker`.

#[cfg(test)]
mod images;
#[cfg(test)]
mod life;
#[cfg(test)]
mod pull;
